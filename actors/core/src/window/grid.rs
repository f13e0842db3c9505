//! Where windows and slices lie in event time. All times are nanoseconds; ends are exclusive.

use super::{WindowKind, WindowSpec};
use crate::time::{Span, Timestamp};

/// Times further out than this are taken as this, so that sums with the lengths of windows (at most 366 days) stay in range:
/// the years 1680 and 2259.
const EDGE: i64 = i64::MAX - (1 << 57);

/// The geometry of a window definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub shape: Shape,
    bound: i64,
    lateness: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Tumbling and sliding windows start at the multiples of `slide`. Slices start at the multiples of `slice`, which divides
    /// both lengths, so that each window is made of whole slices.
    Aligned { slice: i64, size: i64, slide: i64 },
    /// A session lasts until `gap` after its last event. An event exactly at its end still prolongs it.
    Session { gap: i64 },
}

impl Grid {
    /// The geometry of a definition that has no [`problems`](WindowSpec::problems).
    pub fn of(spec: &WindowSpec) -> Grid {
        let length = |span: Option<Span>| span.map_or(1, |span| span.0.max(1));
        let shape = match spec.kind {
            WindowKind::Session => Shape::Session { gap: length(spec.gap) },
            WindowKind::Tumbling => {
                Shape::Aligned { slice: length(spec.size), size: length(spec.size), slide: length(spec.size) }
            }
            WindowKind::Sliding => {
                let (size, slide) = (length(spec.size), length(spec.slide));
                Shape::Aligned { slice: slice_length(Span(size), Some(Span(slide))).0, size, slide }
            }
        };
        Grid { shape, bound: spec.bound.0, lateness: spec.lateness.0 }
    }

    /// Everything up to here has been seen once an event at `high` was: `high − bound − 1`.
    pub fn watermark(&self, high: i64) -> i64 {
        high.saturating_sub(self.bound).saturating_sub(1)
    }

    /// Whether the watermark has passed the end: windows fire, slices and sessions take no more events in time.
    pub fn is_closed(&self, end: i64, watermark: i64) -> bool {
        end.saturating_sub(1) <= watermark
    }

    /// Whether a window is closed for good, so that it takes no late event either.
    pub fn is_dropped(&self, end: i64, watermark: i64) -> bool {
        self.dropping(end) <= watermark
    }

    /// The watermark at which a window with this end is closed for good.
    pub fn dropping(&self, end: i64) -> i64 {
        end.saturating_sub(1).saturating_add(self.lateness)
    }

    /// The end of the last window that holds what starts at `start` and ends at `end`.
    pub fn last_end(&self, start: i64, end: i64) -> i64 {
        match self.shape {
            Shape::Aligned { size, slide, .. } => start.div_euclid(slide) * slide + size,
            Shape::Session { .. } => end,
        }
    }

    /// The windows that hold the slice at `start`, as (start, end), the last one first.
    pub fn windows(&self, start: i64, end: i64) -> impl Iterator<Item = (i64, i64)> {
        let (last, size, slide) = match self.shape {
            Shape::Aligned { size, slide, .. } => (start.div_euclid(slide) * slide, size, slide),
            Shape::Session { .. } => (start, end - start, i64::MAX),
        };
        std::iter::successors(Some(last), move |at| at.checked_sub(slide))
            .take_while(move |at| *at > start.saturating_sub(size))
            .map(move |at| (at, at + size))
    }

    /// The slice (or the session of this event alone) that holds time `t`.
    pub fn slice(&self, t: i64) -> (i64, i64) {
        match self.shape {
            Shape::Aligned { slice, .. } => {
                let start = t.div_euclid(slice) * slice;
                (start, start + slice)
            }
            Shape::Session { gap } => (t, t + gap),
        }
    }
}

/// The event time of a row: its stamp within the range that can be computed with, or the time of receipt when it has none.
pub fn event_time(time: Timestamp, received: Timestamp) -> i64 {
    let time = if time == crate::batch::UNTIMED { received } else { time };
    time.0.clamp(-EDGE, EDGE)
}

/// The length of the slices of tumbling (no `slide`) or sliding windows.
pub fn slice_length(size: Span, slide: Option<Span>) -> Span {
    Span(gcd(size.0, slide.map_or(0, |slide| slide.0)).max(1))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
