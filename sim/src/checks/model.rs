//! Windows as a child would count them: each keeps its own numbers, and every event is added to every window that it falls into. It
//! shares no code with the engine: no slices, no exact sums, no deltas. Sums are compensated (Neumaier), and compared within 1e-9 of
//! the sum of magnitudes.

use std::collections::BTreeMap;

use millpond_core::window::{GroupBy, WindowKind, WindowSpec};

use super::panes::Told;

/// The geometry and rules of a window definition, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Size and slide; `None` for sessions.
    pub aligned: Option<(i64, i64)>,
    pub gap: i64,
    pub bound: i64,
    pub lateness: i64,
    pub by: GroupBy,
}

impl Rules {
    pub fn of(spec: &WindowSpec) -> Rules {
        let size = spec.size.map_or(1, |size| size.0);
        let aligned = match spec.kind {
            WindowKind::Tumbling => Some((size, size)),
            WindowKind::Sliding => Some((size, spec.slide.map_or(size, |slide| slide.0))),
            WindowKind::Session => None,
        };
        let gap = spec.gap.map_or(1, |gap| gap.0);
        Rules { aligned, gap, bound: spec.bound.0, lateness: spec.lateness.0, by: spec.by }
    }

    /// Whether a window with this end fires, when the greatest stamp so far is `high`.
    pub fn is_closed(&self, end: i64, high: i64) -> bool {
        end <= high.saturating_sub(self.bound)
    }

    /// Whether it takes no late event either.
    pub fn is_dropped(&self, end: i64, high: i64) -> bool {
        end.saturating_add(self.lateness) <= high.saturating_sub(self.bound)
    }

    /// Starts and ends of the windows that hold `time`, the latest first; the event's own session.
    pub fn windows(&self, time: i64) -> impl Iterator<Item = (i64, i64)> {
        let (size, slide, last) = match self.aligned {
            Some((size, slide)) => (size, slide, time.div_euclid(slide) * slide),
            None => (self.gap, self.gap, time),
        };
        (0..).map(move |n| last - n * slide).take_while(move |start| start + size > time).map(move |s| (s, s + size))
    }
}

/// The numbers of one metric.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acc {
    pub count: u64,
    pub skipped: u64,
    sum: f64,
    lost: f64,
    magnitude: f64,
    min: f64,
    max: f64,
    first: (i64, f64),
    last: (i64, f64),
}

impl Acc {
    pub fn add(&mut self, time: i64, value: f64) {
        if !value.is_finite() {
            self.skipped += 1;
            return;
        }
        let at = (time, value);
        if self.count == 0 {
            (self.min, self.max, self.first, self.last) = (value, value, at, at);
        }
        self.count += 1;
        self.add_up(value);
        self.magnitude += value.abs();
        self.span(value, value, at, at);
    }

    fn merge(&mut self, other: &Acc) {
        self.skipped += other.skipped;
        if self.count == 0 {
            let skipped = self.skipped;
            *self = Acc { skipped, ..*other };
            return;
        }
        if other.count > 0 {
            self.count += other.count;
            self.add_up(other.sum);
            self.lost += other.lost;
            self.magnitude += other.magnitude;
            self.span(other.min, other.max, other.first, other.last);
        }
    }

    fn span(&mut self, min: f64, max: f64, first: (i64, f64), last: (i64, f64)) {
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        // Of two values at the same time the lesser is the first.
        if first.0 < self.first.0 || (first.0 == self.first.0 && first.1.total_cmp(&self.first.1).is_lt()) {
            self.first = first;
        }
        if last.0 > self.last.0 || (last.0 == self.last.0 && last.1.total_cmp(&self.last.1).is_gt()) {
            self.last = last;
        }
    }

    fn add_up(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    /// What a pane says otherwise.
    pub fn differs(&self, told: &Told) -> Option<String> {
        if (told.count, told.skipped) != (self.count, self.skipped) {
            return Some(format!(
                "it counts {} (+{}), not {} (+{})",
                told.count, told.skipped, self.count, self.skipped
            ));
        }
        if self.count == 0 {
            return None;
        }
        let (sum, slack) = (self.sum + self.lost, 1e-9 * self.magnitude);
        let count = self.count as f64;
        let checks = [
            ("sum", told.sum, sum, slack),
            ("mean", told.mean, sum / count, slack / count),
            ("min", told.min, self.min, 0.0),
            ("max", told.max, self.max, 0.0),
            ("first", told.first, self.first.1, 0.0),
            ("last", told.last, self.last.1, 0.0),
        ];
        let wrong = checks
            .into_iter()
            .find(|(_, told, own, slack)| told.is_some_and(|told| (told - own).abs() > *slack || told.is_nan()));
        wrong.map(|(what, told, own, _)| format!("its {what} is {}, not {own}", told.unwrap_or_default()))
    }
}

/// One window of one key.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub end: i64,
    /// By number of the metric's name.
    pub metrics: Vec<(u32, Acc)>,
    /// Events that are counted here and may be missing in the pane, and the other way round: nobody but the node knows what it knew
    /// when they came.
    pub less: u64,
    pub more: u64,
}

impl Window {
    pub fn add(&mut self, time: i64, values: &[(u32, f64)]) {
        for (name, value) in values {
            self.acc(*name).add(time, *value);
        }
    }

    fn absorb(&mut self, other: &Window) {
        self.end = self.end.max(other.end);
        for (name, acc) in &other.metrics {
            self.acc(*name).merge(acc);
        }
    }

    fn acc(&mut self, name: u32) -> &mut Acc {
        let at = self.metrics.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.metrics.push((name, Acc::default()));
            self.metrics.len() - 1
        });
        &mut self.metrics[at].1
    }
}

/// A device, a type or the node.
#[derive(Debug)]
pub struct Key {
    /// Greatest stamp before the record at hand, and with it.
    pub judged: i64,
    pub high: i64,
    /// By start.
    pub open: BTreeMap<i64, Window>,
}

impl Default for Key {
    fn default() -> Key {
        Key { judged: i64::MIN, high: i64::MIN, open: BTreeMap::new() }
    }
}

impl Key {
    /// Adds an event to its windows that are not closed for good. False: there is none, the event is late.
    pub fn add(&mut self, rules: &Rules, time: i64, values: &[(u32, f64)]) -> bool {
        if rules.aligned.is_none() {
            return self.add_to_session(rules, time, values);
        }
        let mut taken = false;
        let judged = self.judged;
        for (start, end) in rules.windows(time).filter(|(_, end)| !rules.is_dropped(*end, judged)) {
            taken = true;
            self.window(start, end).add(time, values);
        }
        taken
    }

    pub fn window(&mut self, start: i64, end: i64) -> &mut Window {
        self.open.entry(start).or_insert_with(|| Window { end, ..Window::default() })
    }

    /// The sessions that the event meets or touches become one.
    fn add_to_session(&mut self, rules: &Rules, time: i64, values: &[(u32, f64)]) -> bool {
        let own = time + rules.gap;
        let touching: Vec<i64> =
            self.open.range(..=own).filter(|(_, window)| window.end >= time).map(|(start, _)| *start).collect();
        let ends = touching.iter().filter_map(|start| self.open.get(start)).map(|window| window.end);
        let (from, to) = (touching.iter().copied().fold(time, i64::min), ends.fold(own, i64::max));
        if rules.is_dropped(to, self.judged) {
            return false;
        }
        let mut session = Window { end: to, ..Window::default() };
        for window in touching.iter().filter_map(|start| self.open.remove(start)).collect::<Vec<_>>() {
            session.absorb(&window);
        }
        session.add(time, values);
        self.open.insert(from, session);
        true
    }

    /// The record is over: what is closed for good by now leaves.
    pub fn settle(&mut self, rules: &Rules, mut leave: impl FnMut(i64, Window)) {
        self.judged = self.high;
        while let Some(entry) = self.open.first_entry() {
            if !rules.is_dropped(entry.get().end, self.judged) {
                return;
            }
            let (start, window) = entry.remove_entry();
            leave(start, window);
        }
    }
}
