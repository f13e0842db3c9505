//! From one manifest to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_core::{
    ranges::RangeSet,
    time::{Span, Timestamp},
};

use super::{Dropped, File, KEPT, Manifest, MetricOf, NAMES_MAX, SPANS_MAX, Source, SpanOf, Tier, Tombstone, Unit};
use crate::names;

/// A file that was written and that no manifest names yet.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub path: String,
    pub tier: Tier,
    pub tenant: Arc<str>,
    pub day: i32,
    pub shape: String,
    pub metrics: Vec<MetricOf>,
    pub unit: Unit,
    pub rows: u64,
    pub bytes: u64,
    pub tail: u64,
    pub tail_crc: u32,
    pub min_time: i64,
    pub max_time: i64,
    pub devices: BTreeSet<Arc<str>>,
    pub spans: BTreeMap<Source, (u64, u64)>,
}

/// What a commit changes. It holds for every manifest in which `remove` still stands and, where something is taken, no part of it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edit {
    pub remove: BTreeSet<String>,
    pub add: Vec<NewFile>,
    pub take: Vec<(Source, u64, u64)>,
    pub forget: Vec<Tombstone>,
    /// Files of `remove` that are dropped for their age.
    pub drop: bool,
}

impl Edit {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty() && self.take.is_empty() && self.forget.is_empty()
    }

    /// The manifest after `base`, whose bytes have the hash `hash`; `None` when the edit does not hold for it.
    pub fn apply(&self, base: &Manifest, hash: &str, now_ms: i64) -> Option<Manifest> {
        let number = base.number + 1;
        let standing = base.files.iter().filter(|file| self.remove.contains(&file.path)).count();
        let fresh = self.add.iter().all(|file| names::number_of_data(&file.path).is_some_and(|of| of + KEPT > number));
        let free =
            |(source, first, last): &(Source, u64, u64)| base.ledger.gaps(source, *first, *last) == [(*first, *last)];
        if standing != self.remove.len() || !fresh || !self.take.iter().all(free) {
            return None;
        }
        let mut next = base.clone();
        next.number = number;
        next.at_ms = now_ms;
        if base.number > 0 {
            next.before.insert(0, (base.number, hash.to_owned()));
            next.before.truncate(KEPT as usize);
        }
        self.take_out(&mut next);
        self.take.iter().for_each(|(source, first, last)| next.ledger.take(source, *first, *last));
        self.add.iter().for_each(|file| add(&mut next, file));
        next.files.sort_by(|a, b| (&a.tenant, a.day, &a.path).cmp(&(&b.tenant, b.day, &b.path)));
        for stone in &self.forget {
            next.forgotten.retain(|old| (&old.tenant, &old.device) != (&stone.tenant, &stone.device));
            next.forgotten.push(stone.clone());
        }
        Some(next)
    }

    fn take_out(&self, next: &mut Manifest) {
        if self.remove.is_empty() {
            return;
        }
        let (gone, kept) =
            std::mem::take(&mut next.files).into_iter().partition(|file: &File| self.remove.contains(&file.path));
        next.files = kept;
        if self.drop {
            gone.iter().for_each(|file: &File| note_dropped(&mut next.dropped, file));
        }
        let used: BTreeSet<&str> = next.files.iter().map(|file| file.shape.as_str()).collect();
        next.shapes.retain(|shape, _| used.contains(shape.as_str()));
        for (tenant, devices) in &mut next.devices {
            let mut used = RangeSet::default();
            for file in next.files.iter().filter(|file| *file.tenant == **tenant) {
                file.devices.iter().flatten().for_each(|(first, last)| used.insert(*first, *last));
            }
            for (first, last) in used.gaps(0, (devices.len() as u64).saturating_sub(1)) {
                (first..=last)
                    .filter_map(|place| devices.get_mut(place as usize).map(|name| *name = "".into()))
                    .for_each(drop);
            }
        }
    }
}

fn note_dropped(dropped: &mut Vec<Dropped>, file: &File) {
    let at = dropped.iter().position(|line| line.tenant == file.tenant).unwrap_or_else(|| {
        dropped.push(Dropped { tenant: file.tenant.clone(), day: file.day, ..Dropped::default() });
        dropped.len() - 1
    });
    let line = &mut dropped[at];
    line.rows += file.rows;
    line.bytes += file.bytes;
    line.files += 1;
    line.day = line.day.max(file.day);
}

fn add(next: &mut Manifest, new: &NewFile) {
    next.shapes.entry(new.shape.clone()).or_insert_with(|| new.metrics.clone());
    let devices = places(next.devices.entry(new.tenant.to_string()).or_default(), &new.devices);
    let line =
        |(source, (first, last)): (&Source, &(u64, u64))| SpanOf { source: source.clone(), first: *first, last: *last };
    let end = |name: Option<&Arc<str>>| name.cloned().unwrap_or_default();
    next.files.push(File {
        path: new.path.clone(),
        tier: new.tier,
        tenant: new.tenant.clone(),
        day: new.day,
        date: names::day_text(new.day),
        shape: new.shape.clone(),
        unit: new.unit,
        rows: new.rows,
        bytes: new.bytes,
        tail: new.tail,
        tail_crc: new.tail_crc,
        min_time: Timestamp(new.min_time),
        max_time: Timestamp(new.max_time),
        min_device: end(new.devices.first()),
        max_device: end(new.devices.last()),
        devices,
        spans: (new.spans.len() <= SPANS_MAX).then(|| new.spans.iter().map(line).collect()),
        more: BTreeMap::new(),
    });
}

/// The places of `names` in the tenant's list, which grows by those that are new; `None` when it would grow too long.
fn places(listed: &mut Vec<Arc<str>>, names: &BTreeSet<Arc<str>>) -> Option<Vec<(u64, u64)>> {
    let mut known: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut free = Vec::new();
    for (place, name) in listed.iter().enumerate().rev() {
        if name.is_empty() {
            free.push(place);
        } else {
            known.insert(name.clone(), place as u64);
        }
    }
    let unknown = names.iter().filter(|name| !known.contains_key(*name)).count();
    if listed.len() + unknown.saturating_sub(free.len()) > NAMES_MAX || names.contains("") {
        return None;
    }
    let mut places = RangeSet::default();
    for name in names {
        let place = known.get(name).copied().unwrap_or_else(|| {
            let place = free.pop().unwrap_or(listed.len());
            if place == listed.len() {
                listed.push(name.clone())
            } else {
                listed[place] = name.clone()
            }
            place as u64
        });
        places.insert(place, place);
    }
    Some(places.iter().collect())
}

/// Whether a day ended so long ago.
pub(crate) fn older_than(day: i32, span: Span, now_ms: i64) -> bool {
    names::bounds_of(day).1 < Timestamp::from_millis(now_ms).saturating_sub(span).0
}
