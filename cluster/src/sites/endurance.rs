//! How long the node can go on without its cloud before it gives up what the cloud does not have.

use millpond_actors::settings::RetentionSettings;
use millpond_core::{record::Class, time::Span};
use millpond_env::Mono;
use millpond_store::Usage;

/// How fast the estimate follows what happens: about this long counts.
const MEMORY_S: f64 = 600.0;
/// Beyond this nobody asks how long exactly.
const HOURS_MAX: f64 = 24.0 * 400.0;

/// By class, what comes in a second and how much room there is.
#[derive(Debug, Default)]
pub struct Endurance {
    last: Option<(Mono, [u64; 4])>,
    /// Bytes a second; `None` before the second look.
    rates: [Option<f64>; 4],
}

impl Endurance {
    /// Looks at the journal; `undelivered` is the share of each class that the cloud does not have, from 0 to 1. Returns the hours left.
    pub fn look(&mut self, now: Mono, usage: &Usage, retention: &RetentionSettings, undelivered: [f64; 4]) -> [f64; 4] {
        let came = Class::ALL.map(|class| {
            let class = usage.class(class);
            class.records + class.dropped.iter().map(|dropped| dropped.records).sum::<u64>()
        });
        if let Some((at, before)) = self.last {
            let seconds = now.since(at).as_secs_f64();
            if seconds > 0.0 {
                for class in Class::ALL {
                    let n = class as usize;
                    let held = usage.class(class);
                    let bytes = held.bytes as f64 / held.records.max(1) as f64;
                    let rate = came[n].saturating_sub(before[n]) as f64 * bytes / seconds;
                    let weight = (seconds / MEMORY_S).min(1.0);
                    self.rates[n] = Some(self.rates[n].map_or(rate, |known| known + (rate - known) * weight));
                }
            }
        }
        self.last = Some((now, came));
        Class::ALL.map(|class| {
            let n = class as usize;
            let rule = [&retention.alert, &retention.state, &retention.pane, &retention.raw][n];
            let room = rule.max_bytes as f64 - usage.class(class).bytes as f64 * undelivered[n].clamp(0.0, 1.0);
            hours(room, self.rates[n].unwrap_or(0.0), rule.max_age)
        })
    }
}

fn hours(room: f64, rate: f64, max_age: Span) -> f64 {
    let by_room = if rate > 0.0 { room.max(0.0) / rate / 3600.0 } else { HOURS_MAX };
    by_room.min(max_age.as_secs_f64() / 3600.0).min(HOURS_MAX)
}

#[cfg(test)]
mod tests {
    use millpond_store::ClassUsage;

    use super::*;

    fn raw(records: u64, bytes: u64) -> Usage {
        let mut usage = Usage::default();
        usage.classes[Class::Raw as usize] = ClassUsage { records, bytes, ..ClassUsage::default() };
        usage
    }

    #[test]
    fn the_hours_are_the_room_by_the_rate() {
        let mut retention = RetentionSettings::default();
        retention.raw.max_bytes = 3_600_000_000;
        let mut endurance = Endurance::default();
        let second = |n: u64| Mono(n * 1_000_000_000);
        endurance.look(second(0), &raw(100, 10_000), &retention, [1.0; 4]);
        // 1,000 records of 100 bytes a second.
        let hours = endurance.look(second(600), &raw(600_100, 60_010_000), &retention, [1.0; 4]);
        let raw_hours = hours[Class::Raw as usize];
        assert!((raw_hours - (3_600_000_000.0 - 60_010_000.0) / 100_000.0 / 3600.0).abs() < 0.01, "{raw_hours}");
        // What is delivered already does not stand in the way.
        let free = Endurance::default().look(second(0), &raw(1, 3_600_000_000), &retention, [0.0; 4]);
        assert!(free[Class::Raw as usize] >= 24.0);
    }

    #[test]
    fn nothing_is_kept_longer_than_its_age() {
        let retention = RetentionSettings::default();
        let hours = Endurance::default().look(Mono(0), &raw(0, 0), &retention, [1.0; 4]);
        assert_eq!(hours[Class::Raw as usize], retention.raw.max_age.as_secs_f64() / 3600.0);
    }
}
