//! Fingerprints of what was said, the same in every version and on every machine: they stand in checkpoints.

use super::{LateEvent, PaneMetric};

/// 64-bit FNV-1a over words, with a final mix.
struct Digest(u64);

impl Digest {
    fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn value(&mut self, value: Option<f64>) {
        self.word(u64::from(value.is_some()));
        self.word(value.unwrap_or_default().to_bits());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        text.bytes().for_each(|byte| self.word(u64::from(byte)));
    }

    fn finish(self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    }
}

pub fn digest_of_pane(metrics: &[PaneMetric], open: bool) -> u64 {
    let mut digest = Digest::new();
    digest.word(u64::from(open));
    for metric in metrics {
        digest.text(&metric.name);
        digest.word(metric.count);
        digest.word(metric.skipped);
        let PaneMetric { sum, min, max, mean, stddev, first, last, .. } = *metric;
        [sum, min, max, mean, stddev, first, last].into_iter().for_each(|value| digest.value(value));
        for (q, value) in &metric.quantiles {
            digest.value(Some(*q));
            digest.value(Some(*value));
        }
    }
    digest.finish()
}

pub fn digest_of_late(event: &LateEvent) -> u64 {
    let mut digest = Digest::new();
    digest.text(&event.key);
    digest.text(&event.device);
    digest.word(event.time.0 as u64);
    for (name, value) in &event.metrics {
        digest.text(name);
        digest.value(Some(*value));
    }
    digest.finish()
}
