//! Telling repeated events from new ones, remembering, and undoing it.

use super::{Admitted, Gate, RowVerdict, Slot, content, seen::Seen};
use crate::{
    batch::{Batch, DeviceRef, Run, UNTIMED},
    planted::{self, Bug},
    time::Timestamp,
};

/// How far back events are compared that are numbered by the device but timed by the node.
const NUMBERED_BACK: usize = 32;

/// What a device was before a run of a batch.
#[derive(Clone, Debug)]
pub(super) struct RunUndo {
    last_time: Timestamp,
    last_seen: Timestamp,
    skew_ms: f32,
    /// Only when the run did more than add to the highest range.
    seen: Option<Seen>,
    /// Keys that the run put into the ring.
    pushed: u32,
}

impl RunUndo {
    fn of(slot: &Slot) -> RunUndo {
        let Slot { last_time, last_seen, skew_ms, .. } = *slot;
        RunUndo { last_time, last_seen, skew_ms, seen: None, pushed: 0 }
    }
}

pub(super) fn admit(gate: &mut Gate, received: Timestamp, batch: &Batch, out: &mut Admitted) {
    let mut hashed = false;
    for (at, run) in batch.runs().iter().enumerate() {
        let index = out.devices[at].index as usize;
        let Some(slot) = gate.slots.get_mut(index) else {
            out.rejected += run.end - run.start;
            // A place in the list, so that runs and their undo stand side by side.
            out.undo.push(NOTHING);
            continue;
        };
        let mut undo = RunUndo::of(slot);
        let dedup = gate.policy.dedup && !planted::is(Bug::ForgetDuplicates);
        let accepted = if out.rows.is_none() && follows(slot, batch, run, out, dedup) {
            slot.last_time = batch.times[run.rows()].iter().fold(slot.last_time, |newest, &time| newest.max(time));
            run.end - run.start
        } else {
            if dedup && !hashed {
                content::hashes(batch, &mut gate.hashes);
                hashed = true;
            }
            undo.seen = (!batch.seqs.is_empty()).then(|| slot.seen.clone());
            let before = out.lost.len();
            let counts = judge_rows(slot, dedup, &gate.hashes, batch, run, out);
            undo.pushed = (out.lost.len() - before) as u32;
            out.duplicates += counts.duplicates;
            out.rejected += counts.rejected;
            if counts.duplicates + counts.rejected > 0 {
                let cold = &mut gate.cold[index];
                cold.duplicates += u64::from(counts.duplicates);
                cold.rejected += u64::from(counts.rejected);
            }
            counts.accepted
        };
        out.accepted += accepted;
        if accepted > 0 {
            slot.accepted += u64::from(accepted);
            slot.last_seen = slot.last_seen.max(received);
            smooth_skew(slot, received, batch, run, out);
        }
        out.undo.push(undo);
    }
}

const NOTHING: RunUndo =
    RunUndo { last_time: Timestamp::MIN, last_seen: Timestamp::MIN, skew_ms: 0.0, seen: None, pushed: 0 };

/// The common case: a run whose numbers follow the highest one without a gap is new, whatever its times and its content.
fn follows(slot: &mut Slot, batch: &Batch, run: &Run, out: &Admitted, dedup: bool) -> bool {
    if !dedup {
        return true;
    }
    if !out.said.is_empty() || batch.seqs.is_empty() {
        return false;
    }
    let seqs = &batch.seqs[run.rows()];
    let (Some(&Some(first)), Some(&Some(last))) = (seqs.first(), seqs.last()) else { return false };
    let gapless = seqs.iter().zip(0..).fold(true, |all, (seq, step)| all & (*seq == first.checked_add(step)));
    // Before a restart other numbers counted.
    gapless && slot.seen.previous().is_none() && slot.seen.extend(first, last)
}

#[derive(Default)]
struct Counts {
    accepted: u32,
    duplicates: u32,
    rejected: u32,
}

fn judge_rows(slot: &mut Slot, dedup: bool, hashes: &[u64], batch: &Batch, run: &Run, out: &mut Admitted) -> Counts {
    let mut counts = Counts::default();
    for row in run.rows() {
        if !out.is_accepted(row) {
            counts.rejected += 1;
        } else if dedup && is_duplicate(slot, hashes[row], batch, row, out) {
            counts.duplicates += 1;
            out.set(batch, row, RowVerdict::Duplicate);
        } else {
            counts.accepted += 1;
            slot.last_time = slot.last_time.max(batch.times[row]);
        }
    }
    counts
}

/// Judges a row by the rules of the module above, and remembers it when it is new.
fn is_duplicate(slot: &mut Slot, hash: u64, batch: &Batch, row: usize, out: &mut Admitted) -> bool {
    let time = batch.times[row];
    match (batch.seq(row), out.said_otherwise(batch, row)) {
        (Some(seq), None) => is_known_number(slot, seq, time),
        (Some(seq), Some(_)) => {
            let key = content::with_seq(hash, seq);
            if ring_contains(slot, key, NUMBERED_BACK) {
                return true;
            }
            if slot.seen.contains(seq) {
                slot.seen.restart(seq, slot.last_time.0);
            } else {
                slot.seen.insert(seq);
            }
            remember(slot, key, out);
            false
        }
        (None, Some(UNTIMED)) => false,
        (None, said) => {
            let key = content::with_time(hash, said.unwrap_or(time).0);
            // An event newer than all before it cannot be one of them.
            let may_be_known = said.is_some() || time <= slot.last_time;
            if may_be_known && ring_contains(slot, key, usize::MAX) {
                return true;
            }
            remember(slot, key, out);
            false
        }
    }
}

fn is_known_number(slot: &mut Slot, seq: u64, time: Timestamp) -> bool {
    let newest = slot.last_time;
    let seen = &mut slot.seen;
    if let Some(previous) = seen.previous_of(time.0) {
        let known = previous.contains(seq);
        previous.insert(seq);
        return known;
    }
    if !seen.contains(seq) {
        seen.insert(seq);
        return false;
    }
    if time > newest {
        seen.restart(seq, newest.0);
    }
    time <= newest
}

fn ring_contains(slot: &Slot, key: u64, last: usize) -> bool {
    slot.ring.as_ref().is_some_and(|ring| ring.contains(key, last))
}

fn remember(slot: &mut Slot, key: u64, out: &mut Admitted) {
    out.lost.push(slot.ring.get_or_insert_default().push(key));
}

/// An average in which each batch counts a sixteenth.
fn smooth_skew(slot: &mut Slot, received: Timestamp, batch: &Batch, run: &Run, out: &Admitted) {
    let row = run.end as usize - 1;
    if out.said_otherwise(batch, row).is_some() || !out.is_accepted(row) {
        return;
    }
    let skew_ms = received.since(batch.times[row]).0 as f32 / 1e6;
    slot.skew_ms = if slot.skew_ms.is_nan() { skew_ms } else { slot.skew_ms + (skew_ms - slot.skew_ms) / 16.0 };
}

pub(super) fn undo(gate: &mut Gate, batch: &Batch, admitted: &Admitted) {
    let is_last = gate.turns.take_back(admitted);
    if gate.policy.dedup && !is_last {
        content::hashes(batch, &mut gate.hashes);
    }
    let mut lost = admitted.lost.as_slice();
    let runs = batch.runs().iter().zip(&admitted.devices).zip(&admitted.undo);
    for ((run, device), undo) in runs.rev() {
        let (rest, own) = lost.split_at(lost.len() - undo.pushed as usize);
        lost = rest;
        let Some(slot) = gate.slots.get_mut(device.index as usize) else { continue };
        let count =
            |wanted: fn(&RowVerdict) -> bool| run.rows().filter(|&row| wanted(admitted.verdict(row))).count() as u64;
        let accepted = count(|verdict| *verdict == RowVerdict::Accept);
        let cold = &mut gate.cold[device.index as usize];
        cold.duplicates -= count(|verdict| *verdict == RowVerdict::Duplicate).min(cold.duplicates);
        cold.rejected -= count(|verdict| matches!(verdict, RowVerdict::Reject(..))).min(cold.rejected);
        if accepted == 0 {
            continue;
        }
        slot.accepted -= accepted.min(slot.accepted);
        if is_last {
            restore(slot, batch, run, undo, own);
        } else if gate.policy.dedup {
            forget(slot, &gate.hashes, batch, run, admitted);
        }
    }
}

/// Nothing was admitted since: the device becomes what it was.
fn restore(slot: &mut Slot, batch: &Batch, run: &Run, undo: &RunUndo, lost: &[Option<u64>]) {
    slot.last_time = undo.last_time;
    slot.last_seen = undo.last_seen;
    slot.skew_ms = undo.skew_ms;
    match &undo.seen {
        Some(seen) => slot.seen = seen.clone(),
        None => run.rows().rev().filter_map(|row| batch.seq(row)).for_each(|seq| slot.seen.remove(seq)),
    }
    if let Some(ring) = &mut slot.ring {
        lost.iter().rev().for_each(|lost| ring.pop(*lost));
        if ring.is_empty() {
            slot.ring = None;
        }
    }
}

/// Other batches were admitted since: only the batch's own are forgotten.
fn forget(slot: &mut Slot, hashes: &[u64], batch: &Batch, run: &Run, admitted: &Admitted) {
    for row in run.rows().filter(|&row| admitted.is_accepted(row)) {
        let (time, said) = (batch.times[row], admitted.said_otherwise(batch, row));
        let key = match (batch.seq(row), said) {
            (Some(seq), said) => {
                match slot.seen.previous_of(time.0) {
                    Some(previous) if said.is_none() => previous.remove(seq),
                    _ => slot.seen.remove(seq),
                }
                said.map(|_| content::with_seq(hashes[row], seq))
            }
            (None, Some(UNTIMED)) => None,
            (None, said) => Some(content::with_time(hashes[row], said.unwrap_or(time).0)),
        };
        if let (Some(key), Some(ring)) = (key, &mut slot.ring) {
            ring.forget(key);
        }
    }
}

/// Remembers committed rows. Whether a numbered event was timed by the device or by the node is not in the journal, so both are remembered.
pub(super) fn observe(gate: &mut Gate, received: Timestamp, batch: &Batch, devices: &[DeviceRef]) {
    if gate.policy.dedup {
        content::hashes(batch, &mut gate.hashes);
    }
    for (run, device) in batch.runs().iter().zip(devices) {
        let Some(slot) = gate.slots.get_mut(device.index as usize) else { continue };
        for row in run.rows() {
            let time = batch.times[row];
            if gate.policy.dedup {
                let key = match batch.seq(row) {
                    Some(seq) => {
                        is_known_number(slot, seq, time);
                        content::with_seq(gate.hashes[row], seq)
                    }
                    None => content::with_time(gate.hashes[row], time.0),
                };
                slot.ring.get_or_insert_default().push(key);
            }
            slot.last_time = slot.last_time.max(time);
        }
        slot.accepted += u64::from(run.end - run.start);
        slot.last_seen = slot.last_seen.max(received);
    }
}
