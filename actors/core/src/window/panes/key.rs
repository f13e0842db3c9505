//! The panes of one key.

use super::*;
use crate::{
    limits::WINDOW_PARTS_MAX,
    window::{PaneMetric, Part, PartMetric, delta::merge, digest::digest_of_pane, grid::Shape},
};

#[derive(Debug, Serialize, Deserialize)]
pub struct Key {
    pub watermark: i64,
    /// All its devices are idle.
    pub idle: bool,
    /// Slices, or sessions (which neither meet nor touch), by start.
    parts: BTreeMap<i64, Stretch>,
    /// By (end, start).
    panes: BTreeMap<(i64, i64), State>,
    /// Panes that changed since they were last said closed.
    due: BTreeSet<(i64, i64)>,
    /// Windows up to here were closed for good to keep within bounds.
    forced: i64,
    shards: Vec<Shard>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stretch {
    end: i64,
    /// By name.
    metrics: Vec<PartMetric>,
}

/// What was said of a pane.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// The last one used; a session starts with those of the sessions that it absorbed.
    revision: Option<u32>,
    /// Of what was said last under the pane's name.
    digest: Option<u64>,
    /// Changed since it was last said at all.
    fresh: bool,
    /// `(revision, digest)` of what the journal holds beyond `revision`, in order.
    ahead: Vec<(u32, u64)>,
}

/// What a pane says.
#[derive(Default)]
struct Content {
    metrics: Vec<PaneMetric>,
    /// See [`Pane::share`].
    share: Option<Vec<PartMetric>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Shard {
    judged: i64,
    progress: Progress,
}

impl Key {
    pub fn new(shards: usize) -> Key {
        let mut key = Key {
            watermark: i64::MIN,
            idle: false,
            parts: BTreeMap::new(),
            panes: BTreeMap::new(),
            due: BTreeSet::new(),
            forced: i64::MIN,
            shards: Vec::new(),
        };
        key.expect_shards(shards);
        key
    }

    /// What shards of another number said before means nothing any more.
    pub fn expect_shards(&mut self, shards: usize) {
        if self.shards.len() == shards {
            return;
        }
        self.shards = vec![Shard { judged: i64::MIN, progress: Progress::Unchanged }; shards];
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.panes.is_empty()
    }

    pub fn emitted(&mut self, pane: &Pane) {
        let state = self.panes.entry((pane.end.0, pane.start.0)).or_default();
        let last = state.last_revision();
        if last.is_none_or(|last| pane.revision > last) {
            state.ahead.push((pane.revision, digest_of_pane(&pane.metrics, pane.open)));
        }
    }

    pub fn take_back(&mut self, definition: &super::Definition, pane: &Pane, out: &mut Vec<WindowEffect>) {
        let at = (pane.end.0, pane.start.0);
        let content = self.content(definition, at);
        let Some(state) = self.panes.get_mut(&at) else { return };
        let Some((_, last)) = state.ahead.last() else { return };
        if [false, true].iter().any(|open| *last == digest_of_pane(&content.metrics, *open)) {
            return;
        }
        if content.metrics.is_empty() {
            self.due.remove(&at);
            say(definition, &pane.key, at, content, false, state, out);
        } else if !definition.grid.is_closed(at.0, self.watermark) {
            // What had closed it is left out.
            state.revision = state.last_revision();
            state.ahead.clear();
            say(definition, &pane.key, at, content, true, state, out);
        }
    }

    /// Adds a part whose rows were judged against `judged`. Returns how many values no window takes any more.
    pub fn add(
        &mut self,
        definition: &super::Definition,
        name: &str,
        part: Part,
        judged: i64,
        out: &mut Vec<WindowEffect>,
    ) -> u64 {
        let closed = judged.max(self.forced);
        let (start, end) = (part.start.0, part.end.0);
        if definition.grid.is_dropped(definition.grid.last_end(start, end), self.forced) {
            return part.metrics.iter().map(|metric| metric.stats.count).sum();
        }
        if matches!(definition.grid.shape, Shape::Session { .. }) {
            self.add_session(definition, name, start, end, part.metrics, out);
            return 0;
        }
        if part.metrics.is_empty() {
            return 0;
        }
        let stretch = self.parts.entry(start).or_insert_with(|| Stretch { end, metrics: Vec::new() });
        merge(&mut stretch.metrics, &part.metrics);
        for (start, end) in
            definition.grid.windows(start, end).take_while(|(_, end)| !definition.grid.is_dropped(*end, closed))
        {
            self.due.insert((end, start));
            self.panes.entry((end, start)).or_default().fresh = true;
        }
        0
    }

    fn add_session(
        &mut self,
        definition: &super::Definition,
        name: &str,
        start: i64,
        end: i64,
        mut metrics: Vec<PartMetric>,
        out: &mut Vec<WindowEffect>,
    ) {
        let (mut from, mut to) = (start, end);
        let mut absorbed = Vec::new();
        // Sessions are disjoint: those that touch are the last ones that begin by `end`, as long as they reach `start`.
        while let Some((&at, stretch)) = self.parts.range(..=to).next_back()
            && stretch.end >= from
        {
            let Some(stretch) = self.parts.remove(&at) else { break };
            (from, to) = (from.min(at), to.max(stretch.end));
            absorbed.push((stretch.end, at));
            merge(&mut metrics, &stretch.metrics);
        }
        self.parts.insert(from, Stretch { end: to, metrics });
        let mut above = None;
        for old in absorbed.into_iter().filter(|old| *old != (to, from)) {
            self.due.remove(&old);
            let Some(state) = self.panes.get_mut(&old) else { continue };
            if state.digest.is_some() || !state.ahead.is_empty() {
                say(definition, name, old, Content::default(), false, state, out);
                above = above.max(state.revision);
            } else {
                above = above.max(state.revision);
                self.panes.remove(&old);
            }
        }
        let state = self.panes.entry((to, from)).or_default();
        state.revision = state.revision.max(above);
        state.fresh = true;
        self.due.insert((to, from));
    }

    /// Takes note of what a shard said and moves the watermark accordingly.
    pub fn hear(&mut self, shard: usize, judged: i64, progress: Progress) {
        let Some(heard) = self.shards.get_mut(shard) else { return };
        heard.judged = heard.judged.max(judged);
        if progress != Progress::Unchanged {
            heard.progress = progress;
        }
        let reached = self.shards.iter().filter_map(|shard| match shard.progress {
            Progress::Reached(at) => Some(at.0),
            Progress::Idle => None,
            Progress::Unchanged => Some(i64::MIN),
        });
        let least = reached.min();
        self.idle = least.is_none();
        self.reach(judged.max(least.unwrap_or(i64::MIN)));
    }

    /// Moves the watermark on, never back.
    pub fn reach(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
    }

    /// Closes the oldest windows for good when too many slices are open: then a device is far behind the others of its group.
    pub fn bound_parts(&mut self, definition: &super::Definition) {
        let Some(excess) = self.parts.len().checked_sub(WINDOW_PARTS_MAX + 1) else { return };
        if let Some((start, stretch)) = self.parts.iter().nth(excess) {
            let end = definition.grid.last_end(*start, stretch.end);
            self.forced = self.forced.max(definition.grid.dropping(end));
            self.watermark = self.watermark.max(self.forced);
        }
    }

    /// Says the panes that changed and whose end the watermark has passed.
    pub fn fire_closed(&mut self, definition: &super::Definition, name: &str, out: &mut Vec<WindowEffect>) {
        while let Some(&at) = self.due.first()
            && definition.grid.is_closed(at.0, self.watermark)
        {
            self.due.pop_first();
            let content = self.content(definition, at);
            if let Some(state) = self.panes.get_mut(&at) {
                say(definition, name, at, content, false, state, out);
            }
        }
    }

    /// Says the open panes that changed since they were last said, as they stand.
    pub fn fire_open(&mut self, definition: &super::Definition, name: &str, out: &mut Vec<WindowEffect>) {
        let fresh: Vec<_> =
            self.due.iter().filter(|at| self.panes.get(at).is_some_and(|state| state.fresh)).copied().collect();
        for at in fresh {
            let content = self.content(definition, at);
            if let Some(state) = self.panes.get_mut(&at) {
                say(definition, name, at, content, true, state, out);
            }
        }
    }

    pub fn open(&self, definition: &super::Definition, name: &str) -> Vec<Pane> {
        let pane = |at: &(i64, i64)| {
            let revision = self.panes.get(at).and_then(State::last_revision).map_or(0, |last| last.saturating_add(1));
            let content = self.content(definition, *at);
            (!content.metrics.is_empty()).then(|| pane(definition, name, *at, revision, true, content))
        };
        self.due.iter().filter(|at| !definition.grid.is_closed(at.0, self.watermark)).filter_map(pane).collect()
    }

    /// Drops what is closed for good, also in the eyes of the shard that heard the last of it.
    pub fn forget(&mut self, definition: &super::Definition) {
        let judged = self.shards.iter().map(|shard| shard.judged).min().unwrap_or(i64::MIN);
        // A device's own watermark is judged against from the next batch on.
        let own = if definition.spec.by == GroupBy::Device { self.watermark } else { judged };
        let floor = own.max(self.forced);
        while let Some((&at, _)) = self.panes.first_key_value()
            && definition.grid.is_dropped(at.0, floor)
        {
            self.panes.pop_first();
            self.due.remove(&at);
        }
        while let Some((&start, stretch)) = self.parts.first_key_value()
            && definition.grid.is_dropped(definition.grid.last_end(start, stretch.end), floor)
        {
            self.parts.pop_first();
        }
    }

    #[cfg(test)]
    pub fn bound_is_kept(&self) -> bool {
        self.parts.len() <= WINDOW_PARTS_MAX
    }

    fn content(&self, definition: &super::Definition, (end, start): (i64, i64)) -> Content {
        let report = |metric: &PartMetric| metric.stats.report(&metric.name, &definition.spec);
        let mut parts = self.parts.range(start..end).map(|(_, stretch)| &stretch.metrics);
        let Some(first) = parts.next() else { return Content::default() };
        let second = parts.next();
        if second.is_none() && !definition.shares {
            return Content { metrics: first.iter().map(report).collect(), share: None };
        }
        let mut metrics = first.clone();
        second.into_iter().chain(parts).for_each(|more| merge(&mut metrics, more));
        Content { metrics: metrics.iter().map(report).collect(), share: definition.shares.then_some(metrics) }
    }
}

impl State {
    fn last_revision(&self) -> Option<u32> {
        self.ahead.last().map(|(revision, _)| *revision).or(self.revision)
    }
}

/// Emits a pane unless it was said before, as the last thing (invariant 1) or in the journal beyond the checkpoint.
fn say(
    definition: &super::Definition,
    name: &str,
    at: (i64, i64),
    content: Content,
    open: bool,
    state: &mut State,
    out: &mut Vec<WindowEffect>,
) {
    state.fresh = false;
    let digest = digest_of_pane(&content.metrics, open);
    let unsaid = state.digest.is_none() && state.ahead.is_empty();
    if (unsaid && content.metrics.is_empty()) || state.digest == Some(digest) {
        return;
    }
    if let Some(found) = state.ahead.iter().position(|(_, known)| *known == digest) {
        (state.revision, state.digest) = (Some(state.ahead[found].0), Some(digest));
        state.ahead.drain(..=found);
        return;
    }
    if open && !state.ahead.is_empty() {
        // The journal is further than this; what it holds will come up again.
        return;
    }
    let revision = state.last_revision().map_or(0, |last| last.saturating_add(1));
    state.ahead.clear();
    (state.revision, state.digest) = (Some(revision), Some(digest));
    out.push(WindowEffect::Fire(pane(definition, name, at, revision, open, content)));
}

fn pane(
    definition: &super::Definition,
    name: &str,
    (end, start): (i64, i64),
    revision: u32,
    open: bool,
    content: Content,
) -> Pane {
    Pane {
        window: definition.spec.name.clone(),
        key: name.to_owned(),
        start: Timestamp(start),
        end: Timestamp(end),
        revision,
        open,
        metrics: content.metrics,
        share: content.share,
        of: None,
        merged: false,
    }
}
