//! Which events of a journal stand in another one as well, and where they count.

use std::{collections::BTreeMap, ops::ControlFlow};

use millpond_core::{
    admission::content,
    batch::Batch,
    block,
    ids::{Origin, Seq},
    ranges::RangeSet,
    record::{self, Class, LeftOut, RecordKind},
    time::Span,
};
use millpond_proto::wire::{Claim, Claimed, Double};
use millpond_store::{ReadError, Reader};

/// Two nodes may give an event without a time of its own times that are so far apart.
const APART: Span = Span::from_secs(3600);

/// When devices came to the node whose journal it is.
pub(crate) type Arrivals = BTreeMap<String, Vec<(Seq, u64)>>;

/// How often a device had moved when a record was written.
pub(crate) fn moves_at(arrivals: &[(Seq, u64)], record: Seq) -> u64 {
    let before = arrivals.partition_point(|(at, _)| *at < record);
    before.checked_sub(1).map_or(0, |index| arrivals[index].1)
}

/// An event in this node's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mine {
    pub record: Seq,
    pub event: Claimed,
    pub moves: u64,
}

/// The numbers of the events in the records `first..=last`, of devices that came here.
pub(super) fn numbers(
    reader: &Reader,
    (first, last): (Seq, Seq),
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, RangeSet>, ReadError> {
    let mut found: BTreeMap<String, RangeSet> = BTreeMap::new();
    each_batch(reader, first, last, |_, batch| {
        for run in batch.runs().iter().filter(|run| wanted(batch.device(run))) {
            let seqs = found.entry(batch.device(run).to_owned()).or_default();
            run.rows().filter_map(|row| batch.seq(row)).for_each(|seq| seqs.insert(seq, seq));
        }
    })?;
    Ok(found)
}

/// The events of these devices and numbers in the records `first..=last`, without those that are left out already.
pub(super) fn events(
    reader: &Reader,
    (first, last): (Seq, Seq),
    wanted: &BTreeMap<String, RangeSet>,
    arrivals: &Arrivals,
) -> Result<BTreeMap<String, Vec<Mine>>, ReadError> {
    let left_out = left_out(reader, first)?;
    let mut found: BTreeMap<String, Vec<Mine>> = BTreeMap::new();
    let mut hashes = Vec::new();
    each_batch(reader, first, last, |record, batch| {
        let mut is_hashed = false;
        for run in batch.runs() {
            let Some((device, seqs)) = wanted.get_key_value(batch.device(run)) else { continue };
            for row in run.rows() {
                let Some(seq) = batch.seq(row).filter(|seq| seqs.contains(*seq)) else { continue };
                if left_out.get(&(record, device.clone())).is_some_and(|seqs| seqs.contains(seq)) {
                    continue;
                }
                if !is_hashed {
                    content::values(batch, &mut hashes);
                    is_hashed = true;
                }
                let event = Claimed { seq, time: batch.times[row], values: hashes[row] };
                let moves = arrivals.get(device).map_or(0, |arrivals| moves_at(arrivals, record));
                found.entry(device.clone()).or_default().push(Mine { record, event, moves });
            }
        }
    })?;
    Ok(found)
}

/// Which of the claimed events of a device are among these, with which rank; those up to `settled` stay, whatever others say.
pub(super) fn doubles(mine: &[Mine], claimed: &[Claimed], settled: Seq) -> Vec<Double> {
    let mut by_seq: BTreeMap<u64, Vec<&Mine>> = BTreeMap::new();
    mine.iter().for_each(|mine| by_seq.entry(mine.event.seq).or_default().push(mine));
    let same = |claimed: &Claimed| {
        let mine = by_seq.get(&claimed.seq)?.iter().find(|mine| is_same(&mine.event, claimed))?;
        Some(Double { seq: claimed.seq, moves: mine.moves, settled: mine.record <= settled })
    };
    claimed.iter().filter_map(same).collect()
}

/// A device that begins to count anew uses its numbers again.
fn is_same(one: &Claimed, other: &Claimed) -> bool {
    let apart = one.time.since(other.time).0.unsigned_abs();
    (one.seq, one.values) == (other.seq, other.values) && apart <= APART.0.unsigned_abs()
}

/// Whether an event that was taken in here after so many moves is left to `other`.
pub(super) fn is_left(me: Origin, moves: u64, other: Origin, double: &Double) -> bool {
    double.settled || (double.moves, other) > (moves, me)
}

/// What is to be left out of records because of one node's answer.
pub(super) fn left_to(me: Origin, device: &str, mine: &[Mine], other: Origin, doubles: &[Double]) -> Vec<LeftOut> {
    let doubles: BTreeMap<u64, &Double> = doubles.iter().map(|double| (double.seq, double)).collect();
    let mut by_record: BTreeMap<Seq, Vec<u64>> = BTreeMap::new();
    for mine in mine {
        if doubles.get(&mine.event.seq).is_some_and(|double| is_left(me, mine.moves, other, double)) {
            by_record.entry(mine.record).or_default().push(mine.event.seq);
        }
    }
    let left = |(record, seqs): (Seq, Vec<u64>)| LeftOut { record: record.0, device: device.to_owned(), seqs };
    by_record.into_iter().map(left).collect()
}

/// Events that are left out of records from `first` on.
fn left_out(reader: &Reader, first: Seq) -> Result<BTreeMap<(Seq, String), RangeSet>, ReadError> {
    let mut all: BTreeMap<(Seq, String), RangeSet> = BTreeMap::new();
    reader.scan(Class::State, first, |row| {
        if row.kind == RecordKind::LeftOut {
            for left in record::decode::<Vec<LeftOut>>(row.payload).unwrap_or_default() {
                let seqs = all.entry((Seq(left.record), left.device)).or_default();
                left.seqs.iter().for_each(|seq| seqs.insert(*seq, *seq));
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

fn each_batch(reader: &Reader, first: Seq, last: Seq, mut f: impl FnMut(Seq, &Batch)) -> Result<(), ReadError> {
    let mut decoder = block::Decoder::new();
    reader.scan(Class::Raw, first, |row| {
        if row.seq > last {
            return ControlFlow::Break(());
        }
        if row.kind == RecordKind::Events
            && let Ok(batch) = decoder.decode(row.payload)
        {
            f(row.seq, &batch);
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Claims by device.
pub(super) fn claims(numbers: &BTreeMap<String, RangeSet>) -> Vec<Claim> {
    let claim = |(device, seqs): (&String, &RangeSet)| Claim { device: device.clone(), seqs: seqs.iter().collect() };
    numbers.iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use millpond_core::time::Timestamp;

    use super::*;

    fn event(seq: u64, values: u64) -> Claimed {
        Claimed { seq, time: Timestamp::from_millis(seq as i64), values }
    }

    fn mine(record: u64, seq: u64, moves: u64) -> Mine {
        Mine { record: Seq(record), event: event(seq, 7), moves }
    }

    #[test]
    fn an_event_counts_at_the_node_to_which_its_device_moved_last() {
        let (a, b) = (Origin([1; 16]), Origin([2; 16]));
        let (at_a, at_b) = ([mine(4, 10, 1), mine(5, 11, 1)], [mine(9, 11, 2), mine(9, 12, 2)]);
        let claimed = |all: &[Mine]| all.iter().map(|mine| mine.event).collect::<Vec<_>>();
        let of_b = doubles(&at_b, &claimed(&at_a), Seq(0));
        let of_a = doubles(&at_a, &claimed(&at_b), Seq(0));
        let left = [LeftOut { record: 5, device: "d".into(), seqs: vec![11] }];
        assert_eq!(left_to(a, "d", &at_a, b, &of_b), left);
        assert_eq!(left_to(b, "d", &at_b, a, &of_a), [], "one of them keeps it");
        // Who has asked everybody already keeps what he has.
        let of_a = doubles(&at_a, &claimed(&at_b), Seq(5));
        assert_eq!(left_to(b, "d", &at_b, a, &of_a).len(), 1);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_event() {
        let claimed = [event(10, 8), Claimed { time: Timestamp::from_millis(86_400_000), ..event(11, 7) }];
        assert_eq!(doubles(&[mine(4, 10, 1), mine(4, 11, 1)], &claimed, Seq(0)), []);
    }

    #[test]
    fn the_moves_of_an_event_are_those_of_the_last_arrival_before_it() {
        let arrivals = [(Seq(3), 1), (Seq(9), 3)];
        let moves = [1, 3, 4, 9, 10].map(|record| moves_at(&arrivals, Seq(record)));
        assert_eq!(moves, [0, 0, 1, 1, 3]);
    }
}
