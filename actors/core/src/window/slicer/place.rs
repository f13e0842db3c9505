//! Where rows go: the current slice of their key, an older one, or the late stream.

use super::*;

/// What becomes of a row.
enum Place {
    Current,
    /// Key of `held`.
    Held((u32, i64, u32)),
    Late,
}

impl Slicer {
    /// Adds a run to its key and returns its greatest event time. The usual case: all rows are of the key's current slice.
    #[inline]
    pub(super) fn take_run(
        &mut self,
        route: &mut Route,
        key: u32,
        batch: &Batch,
        run: &Run,
        rows: Option<&[bool]>,
        received: Timestamp,
    ) -> i64 {
        let (high, end) = within(&self.grid, &self.keys[key as usize], &batch.times[run.rows()]);
        if let (Some(end), None, false) = (end, rows, route.empty) {
            if self.keys[key as usize].layout != route.layout {
                self.fit(route, key);
            }
            let state = &mut self.keys[key as usize];
            state.end = end;
            state.dirty = true;
            let block = Block { at: state.block, len: 0 };
            add_columns(&mut self.slots, &mut self.scratch, self.wants, block, &route.mapping, batch, run.rows());
            self.left_out += u64::from(route.mapping.left_out) * run.rows().len() as u64;
            return high;
        }
        self.take_rows(route, key, batch, run, rows, received)
    }

    /// The same for rows of any slice.
    fn take_rows(
        &mut self,
        route: &mut Route,
        key: u32,
        batch: &Batch,
        run: &Run,
        rows: Option<&[bool]>,
        received: Timestamp,
    ) -> i64 {
        let time = |row: usize| event_time(batch.times[row], received);
        let high = run.rows().map(time).max().unwrap_or(i64::MIN);
        if route.empty {
            return high;
        }
        if self.keys[key as usize].layout != route.layout {
            self.fit(route, key);
        }
        let takes_part = |row: usize| rows.is_none_or(|rows| rows[row]);
        let mut row = run.rows().start;
        while row < run.rows().end {
            if !takes_part(row) {
                row += 1;
                continue;
            }
            let place = self.place(key, time(row));
            let (start, end) = self.bounds(key, &place);
            let first = row;
            row += 1;
            // Sessions grow row by row; of a slice, neighbours go together.
            let same = |row: usize| row < run.rows().end && takes_part(row) && (start..end).contains(&time(row));
            while matches!(self.grid.shape, Shape::Aligned { .. }) && same(row) {
                row += 1;
            }
            self.put(route, key, &place, batch, first..row, run, received);
        }
        high
    }

    fn put(
        &mut self,
        route: &mut Route,
        key: u32,
        place: &Place,
        batch: &Batch,
        rows: std::ops::Range<usize>,
        run: &Run,
        received: Timestamp,
    ) {
        let (block, layout) = match place {
            Place::Current => {
                let state = &mut self.keys[key as usize];
                state.dirty = true;
                (Block { at: state.block, len: 0 }, state.layout)
            }
            Place::Held(at) => {
                self.held.get(at).map_or((Block::NONE, Layouts::EMPTY), |held| (held.block, held.layout))
            }
            Place::Late => {
                for row in rows {
                    let event = self.late_event(route.plan, key, batch, row, run, received);
                    self.late.entry(key).or_default().push(event);
                }
                return;
            }
        };
        self.left_out += u64::from(route.mapping.left_out) * rows.len() as u64;
        let held_mapping;
        let mapping = if layout == route.layout {
            &route.mapping
        } else {
            held_mapping = self.mapping(route.plan, layout);
            &held_mapping
        };
        let exact_times = batch.times[rows.clone()].iter().all(|time| event_time(*time, received) == time.0);
        if exact_times {
            return add_columns(&mut self.slots, &mut self.scratch, self.wants, block, mapping, batch, rows);
        }
        for row in rows {
            let at = [Timestamp(event_time(batch.times[row], received))];
            for (column, slot) in mapping.pairs.iter() {
                if let Some(value) = batch.columns[*column as usize].value(row).and_then(|value| value.as_f64()) {
                    self.slots.add(block, *slot, &at, &[value]);
                }
            }
        }
    }

    /// Decides for a row and makes its slice or session ready.
    fn place(&mut self, key: u32, time: i64) -> Place {
        match self.grid.shape {
            Shape::Aligned { .. } => self.place_in_slice(key, time),
            Shape::Session { gap } => self.place_in_session(key, time, time + gap),
        }
    }

    fn place_in_slice(&mut self, key: u32, time: i64) -> Place {
        let state = self.keys[key as usize];
        let (start, end) = self.grid.slice(time);
        let empty = state.start == state.end;
        if !empty && state.start == start {
            return Place::Current;
        }
        if self.grid.is_closed(end, state.watermark) {
            if self.grid.is_dropped(self.grid.last_end(start, end), state.watermark) {
                return Place::Late;
            }
            return self.hold(key, start, end);
        }
        if empty || start > state.start {
            self.hold_current(key);
            self.begin(key, start, end);
            return Place::Current;
        }
        self.hold(key, start, end)
    }

    /// `start..end` is the session of this event alone. It joins every session that it meets or touches.
    fn place_in_session(&mut self, key: u32, start: i64, end: i64) -> Place {
        self.forget_sessions(key);
        let state = self.keys[key as usize];
        let empty = state.start == state.end;
        let joins_current = !empty && start <= state.end && end >= state.start;
        let older = self.sessions.get(&key).map_or(&[][..], Vec::as_slice);
        let touching = |from: i64, to: i64| move |s: &&(i64, i64)| s.0 <= to && s.1 >= from;
        let (mut from, mut to) = (start, end);
        if joins_current {
            (from, to) = (from.min(state.start), to.max(state.end));
        }
        for session in older.iter().filter(touching(start, end)) {
            (from, to) = (from.min(session.0), to.max(session.1));
        }
        if self.grid.is_dropped(to, state.watermark) {
            return Place::Late;
        }
        let joins_older = older.iter().any(|session| touching(start, end)(&session));
        let latest = empty || joins_current || start > state.end;
        if !latest || self.grid.is_closed(to, state.watermark) {
            self.remember_session(key, from, to);
            return self.hold_session(key, start, end);
        }
        if !joins_current {
            self.hold_current(key);
            self.begin(key, start, end);
        }
        if joins_older {
            // The window actor must not think the older session over.
            self.sessions.entry(key).or_default().retain(|session| !(session.0 <= to && session.1 >= from));
            self.keys[key as usize].ship = true;
        }
        let state = &mut self.keys[key as usize];
        (state.start, state.end) = (from, to);
        Place::Current
    }

    /// Starts a new current slice; the key has none.
    fn begin(&mut self, key: u32, start: i64, end: i64) {
        let state = &mut self.keys[key as usize];
        (state.start, state.end) = (start, end);
        state.notify = state.notify.min(end - 1);
    }

    /// Makes the current slice, if there is one, a held one.
    pub(super) fn hold_current(&mut self, key: u32) {
        let state = self.keys[key as usize];
        if state.start == state.end {
            return;
        }
        if matches!(self.grid.shape, Shape::Session { .. }) {
            self.remember_session(key, state.start, state.end);
        }
        if state.dirty {
            let len = self.layouts.names(state.layout).len() as u32;
            self.layouts.share(state.layout);
            let fresh = self.slots.alloc(len);
            let held = Held { end: state.end, block: Block { at: state.block, len }, layout: state.layout };
            let after = self.held.range((key, state.start, 0)..=(key, state.start, u32::MAX)).next_back();
            let n = after.map_or(0, |((_, _, n), _)| n + 1);
            self.held.insert((key, state.start, n), held);
            self.keys[key as usize].block = fresh.at;
        }
        let state = &mut self.keys[key as usize];
        state.notify = state.notify.min(state.end - 1);
        (state.start, state.end, state.dirty) = (0, 0, false);
    }

    fn hold(&mut self, key: u32, start: i64, end: i64) -> Place {
        let layout = self.keys[key as usize].layout;
        let mut of_slice = self.held.range((key, start, 0)..=(key, start, u32::MAX));
        if let Some((at, _)) = of_slice.rfind(|(_, held)| held.layout == layout) {
            return Place::Held(*at);
        }
        let n = self.held.range((key, start, 0)..=(key, start, u32::MAX)).count() as u32;
        let block = self.slots.alloc(self.layouts.names(layout).len() as u32);
        self.layouts.share(layout);
        self.held.insert((key, start, n), Held { end, block, layout });
        Place::Held((key, start, n))
    }

    /// Adds an event to a held part of a session when it is inside one, or begins another part: they meet in the window actor.
    fn hold_session(&mut self, key: u32, start: i64, end: i64) -> Place {
        let layout = self.keys[key as usize].layout;
        let before = self.held.range_mut((key, i64::MIN, 0)..=(key, start, u32::MAX)).next_back();
        if let Some((at, held)) = before
            && held.end >= start
            && held.layout == layout
        {
            held.end = held.end.max(end);
            return Place::Held(*at);
        }
        self.hold(key, start, end)
    }

    /// Joins `start..end` with the sessions before the current one that it touches.
    fn remember_session(&mut self, key: u32, start: i64, end: i64) {
        let sessions = self.sessions.entry(key).or_default();
        let (mut from, mut to) = (start, end);
        sessions.retain(|session| {
            let touches = session.0 <= to && session.1 >= from;
            if touches {
                (from, to) = (from.min(session.0), to.max(session.1));
            }
            !touches
        });
        let at = sessions.partition_point(|session| session.0 < from);
        sessions.insert(at, (from, to));
    }

    /// Forgets the bounds of sessions that are closed for good.
    pub(super) fn forget_sessions(&mut self, key: u32) {
        if let Some(sessions) = self.sessions.get_mut(&key) {
            let watermark = self.keys[key as usize].watermark;
            sessions.retain(|(_, end)| !self.grid.is_dropped(*end, watermark));
            if sessions.is_empty() {
                self.sessions.remove(&key);
            }
        }
    }

    /// At which watermark the window actor must hear of the key again, when nothing else happens.
    pub(super) fn next_notify(&self, key: u32) -> i64 {
        let state = &self.keys[key as usize];
        let watermark = state.watermark;
        match self.grid.shape {
            // A window ends at the end of a slice.
            Shape::Aligned { .. } => {
                self.grid.slice(event_time(Timestamp(watermark.saturating_add(1)), Timestamp::default())).1 - 1
            }
            Shape::Session { .. } => {
                let current = (state.start < state.end).then_some((state.start, state.end));
                let sessions = self.sessions.get(&key).into_iter().flatten().copied().chain(current);
                sessions.map(|(_, end)| end - 1).filter(|end| *end > watermark).min().unwrap_or(i64::MAX)
            }
        }
    }

    fn bounds(&self, key: u32, place: &Place) -> (i64, i64) {
        match place {
            Place::Current => {
                let state = &self.keys[key as usize];
                (state.start, state.end)
            }
            Place::Held(at) => (at.1, self.held.get(at).map_or(at.1, |held| held.end)),
            Place::Late => (0, 0),
        }
    }

    /// Gives the key slots for all metrics of the route's plan, and the route the key's layout.
    fn fit(&mut self, route: &mut Route, key: u32) {
        let mut layout = self.keys[key as usize].layout;
        if self.plans.mapping(route.plan, layout).is_none()
            && let Some(wider) = self.plans.widened(route.plan, self.layouts.names(layout))
        {
            self.widen(key, wider);
            layout = self.keys[key as usize].layout;
        }
        route.mapping = self.mapping(route.plan, layout);
        route.layout = layout;
    }

    fn mapping(&mut self, plan: usize, layout: u32) -> Mapping {
        match self.plans.mapping(plan, layout) {
            Some(mapping) => mapping.clone(),
            None => self.plans.map(plan, layout, self.layouts.names(layout)),
        }
    }

    /// Gives a key the layout `names`, which holds all metrics that it has.
    pub(super) fn widen(&mut self, key: u32, names: Vec<Arc<str>>) {
        let state = self.keys[key as usize];
        let old = self.layouts.names(state.layout).clone();
        let from = Block { at: state.block, len: old.len() as u32 };
        let to = self.slots.alloc(names.len() as u32);
        let slot = |name: &Arc<str>| names.binary_search(name).map_or(0, |slot| slot as u32);
        self.slots.move_to(from, to, old.iter().map(slot));
        self.slots.free(from);
        let layout = self.layouts.enter(names);
        let state = &mut self.keys[key as usize];
        let left = state.layout;
        (state.block, state.layout) = (to.at, layout);
        if left != Layouts::EMPTY {
            self.leave(left);
        }
    }

    fn late_event(
        &self,
        plan: usize,
        key: u32,
        batch: &Batch,
        row: usize,
        run: &Run,
        received: Timestamp,
    ) -> LateEvent {
        let metric = |(name, column): &(Arc<str>, u32)| {
            let value = batch.columns[*column as usize].value(row)?.as_f64()?;
            Some((name.to_string(), value))
        };
        LateEvent {
            window: self.spec.name.clone(),
            key: self.names[key as usize].to_string(),
            device: batch.device(run).to_owned(),
            time: Timestamp(event_time(batch.times[row], received)),
            metrics: self.plans.columns(plan).iter().filter_map(metric).collect(),
        }
    }
}

/// The greatest time, and the end of the current slice when all rows belong to it (of a session: its new end).
#[inline]
fn within(grid: &Grid, state: &Key, times: &[Timestamp]) -> (i64, Option<i64>) {
    match grid.shape {
        Shape::Aligned { .. } => {
            let length = (state.end - state.start) as u64;
            let (mut high, mut inside) = (i64::MIN, true);
            for time in times {
                high = high.max(time.0);
                inside &= (time.0.wrapping_sub(state.start) as u64) < length;
            }
            (high, inside.then_some(state.end))
        }
        Shape::Session { gap } => {
            let (mut high, mut end, mut inside) = (i64::MIN, state.end, state.start < state.end);
            for time in times {
                high = high.max(time.0);
                inside &= time.0 >= state.start && time.0 <= end;
                end = end.max(time.0.saturating_add(gap));
            }
            (high, inside.then_some(end))
        }
    }
}

/// Adds the values of some rows, all of one slice, to its block.
#[inline]
fn add_columns(
    slots: &mut Slots,
    scratch: &mut Scratch,
    wants: Wants,
    block: Block,
    mapping: &Mapping,
    batch: &Batch,
    rows: std::ops::Range<usize>,
) {
    for (column, slot) in mapping.pairs.iter() {
        let column = &batch.columns[*column as usize];
        match (&column.values, &column.present) {
            (ColumnValues::F64(values), None) => {
                slots.add(block, *slot, &batch.times[rows.clone()], &values[rows.clone()]);
            }
            _ => {
                scratch.values.clear();
                scratch.times.clear();
                for row in rows.clone() {
                    if let Some(value) = column.value(row).and_then(|value| value.as_f64()) {
                        scratch.values.push(value);
                        if wants.order {
                            scratch.times.push(batch.times[row]);
                        }
                    }
                }
                if !scratch.values.is_empty() {
                    slots.add(block, *slot, &scratch.times, &scratch.values);
                }
            }
        }
    }
}
