//! How much a lane sends: what the line carries in a few seconds.
//!
//! A delivery that is under way when a line breaks was sent for nothing, and what is under way fills the queues before a thin line, in which
//! nothing more urgent can pass it. So less is under way while receipts take long, and more while they come at once.

use std::collections::VecDeque;

use millpond_core::{ids::Seq, time::Span};

use crate::{Now, wire::RUN_BYTES_MAX};

/// With so much it begins, too: a good line shows itself by the first receipts.
const BYTES_MIN: usize = 2 << 10;
/// Deliveries on their way at a time, unless they are as small as they can be.
const AHEAD: usize = 8;
const SOON: Span = Span::from_millis(1_000);
const LATE: Span = Span::from_millis(4_000);
/// Deliveries whose times are remembered.
const SENT_MAX: usize = 4096;

#[derive(Debug)]
pub struct Pace {
    window: usize,
    sent: VecDeque<(Seq, Now)>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { window: BYTES_MIN, sent: VecDeque::new() }
    }
}

impl Pace {
    /// Bytes of the next delivery.
    pub fn bytes(&self) -> usize {
        (self.window / AHEAD).clamp(BYTES_MIN, RUN_BYTES_MAX)
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> usize {
        self.window
    }

    /// A delivery that begins at this number has left.
    pub fn sent(&mut self, now: Now, first: Seq) {
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((first, now));
    }

    /// It was confirmed.
    pub fn stored(&mut self, now: Now, first: Seq) {
        let Some(at) = self.sent.iter().position(|(known, _)| *known == first) else { return };
        let Some((_, sent)) = self.sent.remove(at) else { return };
        let took = now.since(sent);
        if took < SOON {
            self.window = (self.window * 2).min(RUN_BYTES_MAX * AHEAD);
        } else if took > LATE {
            self.window = (self.window / 2).max(BYTES_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(pace: &mut Pace, times: u64, took: Span) {
        for n in 0..times {
            pace.sent(Now(0), Seq(n));
            pace.stored(Now(0).after(took), Seq(n));
        }
    }

    #[test]
    fn deliveries_follow_the_line() {
        let mut pace = Pace::default();
        confirm(&mut pace, 15, Span::from_millis(20));
        assert_eq!((pace.bytes(), pace.window()), (RUN_BYTES_MAX, AHEAD * RUN_BYTES_MAX));
        confirm(&mut pace, 20, Span::from_secs(30));
        assert_eq!((pace.bytes(), pace.window()), (BYTES_MIN, BYTES_MIN), "one at a time");
        confirm(&mut pace, 5, Span::from_secs(2));
        assert_eq!(pace.window(), BYTES_MIN, "what takes two seconds is right");
        pace.stored(Now(0), Seq(99));
        assert_eq!(pace.window(), BYTES_MIN, "what was not sent says nothing");
    }
}
