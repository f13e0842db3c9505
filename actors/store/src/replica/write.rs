//! The bodies of a copy's write transactions.

use std::borrow::Cow;

use millpond_core::{
    block,
    ids::Seq,
    limits::RECORD_BYTES_MAX,
    record::{DropRange, DropReason, RecordKind},
};
use redb::WriteTransaction;

use super::{ReplicaCommit, ReplicaCommitted, ReplicaRun};
use crate::{
    commit::Append,
    entries,
    fault::Fault,
    file::State,
    held::Held,
    layout::Author,
    packing,
    retention::{self, Receipts},
    transaction,
    usage::Usage,
};

/// Checks a commit against the bounds; the text names what is wrong.
pub(super) fn check(commit: &ReplicaCommit) -> Result<(), String> {
    for (at, run) in commit.runs.iter().enumerate() {
        let inside = |seq: Seq| run.first <= seq && seq <= run.last;
        let ascending = run.records.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if run.first.0 == 0 || run.first > run.last || run.last.0 == u64::MAX {
            return Err(format!("run {at} goes from {} to {}", run.first.0, run.last.0));
        }
        if !ascending || !run.records.iter().all(|(seq, _)| inside(*seq)) {
            return Err(format!("the records of run {at} are out of order"));
        }
        for (seq, append) in &run.records {
            if append.kind.class().track() != run.track {
                return Err(format!("record {} is not of the track {}", seq.0, run.track.name()));
            }
            if append.payload.len() > RECORD_BYTES_MAX {
                return Err(format!("record {} has {} bytes", seq.0, append.payload.len()));
            }
        }
    }
    transaction::check_puts(&commit.puts)
}

/// The one transaction of a commit, shedding apart.
pub(super) fn write(
    txn: &WriteTransaction,
    state: &mut State,
    author: Author,
    commit: &ReplicaCommit,
) -> Result<ReplicaCommitted, Fault> {
    let before = held(state)?.clone();
    let mut now = before.clone();
    let mut committed = ReplicaCommitted { covered: Vec::new(), records: 0, bytes: 0, dropped: Vec::new() };
    for run in &commit.runs {
        for (first, last) in now.track(run.track).gaps(run.first.0, run.last.0) {
            let part = part_of(run, first, last, &now, &mut state.usage);
            let part: Vec<(Seq, &Append)> = part.iter().map(|(seq, append)| (*seq, append.as_ref())).collect();
            committed.records += part.len() as u64;
            committed.bytes += packing::append_numbered(txn, &mut state.usage, author, &part)?;
            committed.covered.push((run.track, Seq(first), Seq(last)));
            now.cover(run.track, first, last);
        }
    }
    state.usage.next_seq = now.last().next();
    entries::apply(txn, &commit.puts)?;
    if let Some(retention) = &commit.retain {
        let mut receipts = Receipts::default();
        retention::retain(
            txn,
            &mut state.usage,
            retention,
            commit.now_ms,
            commit.keep_from.unwrap_or(Seq(u64::MAX)),
            &mut receipts,
        )?;
        committed.dropped = receipts.into_fresh();
        committed.dropped.iter().for_each(|range| now.give_up(range));
    }
    now.save(txn, &before)?;
    state.held = Some(now);
    Ok(committed)
}

/// The transaction before it that makes room.
pub(super) fn shed(txn: &WriteTransaction, state: &mut State, commit: &ReplicaCommit) -> Result<Vec<DropRange>, Fault> {
    let Some(shed) = &commit.shed else { return Ok(Vec::new()) };
    let before = held(state)?.clone();
    let mut receipts = Receipts::default();
    retention::shed(txn, &mut state.usage, shed, &commit.retain.unwrap_or_default(), &mut receipts)?;
    let (dropped, mut now) = (receipts.into_fresh(), before.clone());
    dropped.iter().for_each(|range| now.give_up(range));
    now.save(txn, &before)?;
    state.held = Some(now);
    Ok(dropped)
}

fn held(state: &State) -> Result<&Held, Fault> {
    state.held.as_ref().ok_or_else(|| Fault::corrupt("the file is not a copy"))
}

/// The records of `first..=last` that are to be stored. What comes after newer records were given up is not stored, only
/// counted: it would be the next to go.
fn part_of<'a>(
    run: &'a ReplicaRun,
    first: u64,
    last: u64,
    held: &Held,
    usage: &mut Usage,
) -> Vec<(Seq, Cow<'a, Append>)> {
    let start = run.records.partition_point(|(seq, _)| seq.0 < first);
    let end = run.records.partition_point(|(seq, _)| seq.0 <= last);
    let mut part = Vec::with_capacity(end - start);
    for (seq, append) in &run.records[start..end] {
        let class = append.kind.class();
        if *seq <= held.class_floor(class) {
            let dropped = &mut usage.class_mut(class).dropped[DropReason::Age as usize];
            dropped.records += 1;
            dropped.events += u64::from(append.rows);
        } else {
            part.push((*seq, with_devices(append)));
        }
    }
    part
}

/// A record that does not say which devices are inside is asked itself, so that queries need not look into it each time.
fn with_devices(append: &Append) -> Cow<'_, Append> {
    if append.kind != RecordKind::Events || !append.devices.is_empty() {
        return Cow::Borrowed(append);
    }
    match block::device_hashes(&append.payload) {
        Ok(devices) => Cow::Owned(Append { devices, ..append.clone() }),
        // Whatever it is, it is kept as it came; any query may look inside.
        Err(_) => Cow::Borrowed(append),
    }
}
