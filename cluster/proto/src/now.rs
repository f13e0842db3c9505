use millpond_core::time::Span;

/// Monotonic time of one boot of a node: nanoseconds since some point in its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub u64);

impl Now {
    pub fn after(self, span: Span) -> Now {
        Now(self.0.saturating_add(span.0.max(0) as u64))
    }

    /// The time from `earlier` to `self`; none when `earlier` is later.
    pub fn since(self, earlier: Now) -> Span {
        Span(i64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(i64::MAX))
    }
}
