//! How much a lane sends at a time: what the line carries in about a second.
//!
//! A delivery that is under way when a line breaks was sent for nothing, and nothing more urgent of its lane can pass it. So deliveries become
//! smaller while receipts take long, and larger while they come at once.

use std::collections::VecDeque;

use millpond_core::{ids::Seq, time::Span};

use crate::{Now, wire::RUN_BYTES_MAX};

const BYTES_MIN: usize = 4 << 10;
const BYTES_FIRST: usize = 64 << 10;
/// Deliveries on their way at a time.
const AHEAD: usize = 8;
const SOON: Span = Span::from_millis(1_000);
const LATE: Span = Span::from_millis(4_000);
/// Deliveries whose times are remembered.
const SENT_MAX: usize = 4096;

#[derive(Debug)]
pub struct Pace {
    bytes: usize,
    sent: VecDeque<(Seq, Now)>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { bytes: BYTES_FIRST, sent: VecDeque::new() }
    }
}

impl Pace {
    /// Bytes of the next delivery.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> usize {
        self.bytes * AHEAD
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
            self.bytes = (self.bytes * 2).min(RUN_BYTES_MAX);
        } else if took > LATE {
            self.bytes = (self.bytes / 2).max(BYTES_MIN);
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
        confirm(&mut pace, 10, Span::from_millis(20));
        assert_eq!((pace.bytes(), pace.window()), (RUN_BYTES_MAX, AHEAD * RUN_BYTES_MAX));
        confirm(&mut pace, 20, Span::from_secs(30));
        assert_eq!(pace.bytes(), BYTES_MIN);
        confirm(&mut pace, 5, Span::from_secs(2));
        assert_eq!(pace.bytes(), BYTES_MIN, "what takes two seconds is right");
        pace.stored(Now(0), Seq(99));
        assert_eq!(pace.bytes(), BYTES_MIN, "what was not sent says nothing");
    }
}
