//! Answers to questions about one metric of one device.
//!
//! What one node finds in its journals is [`Found`]; it is merged with what other nodes found in theirs before it becomes an answer.

mod events;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_core::{
    block::{self, BlockError},
    ids::{Seq, device_hash},
    ranges::RangeSet,
    record::{self, Class, LeftOut, RecordKind},
    time::Timestamp,
    value::Value,
};
use millpond_gateway::port::{AskError, Json, Query, QueryAggregate, QueryAnswer};
use millpond_store::Reader;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::events::{Event, Wanted, each_event};
use crate::shapes;

/// Points that are held while a question without steps is answered.
const POINTS_HELD_MAX: usize = 4_000_000;

/// What is in some journals, before it is cut and shaped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Found {
    /// (event time in ns, value), journal by journal.
    Points(Vec<Vec<(i64, Json)>>),
    /// By number of the step, counted from the epoch.
    Steps(BTreeMap<i64, Step>),
}

/// What the values of one step come to; times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub first: (i64, f64),
    pub last: (i64, f64),
}

/// A journal, without the records that are looked for elsewhere.
#[derive(Clone, Debug)]
pub struct Journal {
    pub reader: Reader,
    pub without: RangeSet,
}

impl Step {
    fn of(time: i64, v: f64) -> Step {
        Step { count: 1, sum: v, min: v, max: v, first: (time, v), last: (time, v) }
    }

    pub fn merge(&mut self, other: &Step) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.first.0 < self.first.0 {
            self.first = other.first;
        }
        if other.last.0 >= self.last.0 {
            self.last = other.last;
        }
    }
}

/// Looks through journals, each of another origin.
///
/// # Errors
/// When the question contradicts itself or a journal cannot be read.
pub fn find(journals: &[&Reader], query: &Query) -> Result<Found, AskError> {
    let whole = |reader: &&Reader| Journal { reader: (*reader).clone(), without: RangeSet::default() };
    find_in(&journals.iter().map(whole).collect::<Vec<_>>(), query)
}

/// Looks through parts of journals, each of another origin.
///
/// # Errors
/// When the question contradicts itself or a journal cannot be read.
pub fn find_in(journals: &[Journal], query: &Query) -> Result<Found, AskError> {
    if query.end < query.start {
        return Err(AskError::Invalid("`end` lies before `start`".into()));
    }
    match (query.aggregate, query.step) {
        (None, Some(_)) => Err(AskError::Invalid("`step` needs an `aggregate`".into())),
        (None, None) => {
            Ok(Found::Points(journals.iter().map(|journal| points(journal, query)).collect::<Result<_, _>>()?))
        }
        (Some(_), _) => {
            let mut steps = BTreeMap::new();
            journals.iter().try_for_each(|journal| add_steps(journal, query, &mut steps))?;
            Ok(Found::Steps(steps))
        }
    }
}

/// What others found as well. What does not fit the question is passed over.
pub fn join(found: &mut Found, more: Found) {
    match (found, more) {
        (Found::Points(points), Found::Points(more)) => points.extend(more),
        (Found::Steps(steps), Found::Steps(more)) => {
            for (at, step) in more {
                steps.entry(at).and_modify(|held| held.merge(&step)).or_insert(step);
            }
        }
        _ => {}
    }
}

/// The answer in its order and length.
pub fn answer(query: &Query, found: Found) -> QueryAnswer {
    let points = match found {
        Found::Points(journals) => in_order(journals),
        Found::Steps(steps) => steps.into_iter().map(|(at, step)| shaped(query, at, &step)).collect(),
    };
    let truncated = points.len() > query.limit;
    let points = points.into_iter().take(query.limit).collect();
    QueryAnswer { device_id: query.device_id.clone(), metric: query.metric.clone(), points, truncated }
}

/// A value that stands in several journals is one: its device got no acknowledgement and sent it to another node as well. Soon after one of the
/// journals leaves it out; until then only single values can be told apart, and a step counts both.
fn in_order(journals: Vec<Vec<(i64, Json)>>) -> Vec<(f64, Json)> {
    let numbered = journals.into_iter().enumerate();
    let mut points: Vec<(i64, usize, Json)> = numbered
        .flat_map(|(journal, points)| points.into_iter().map(move |(time, value)| (time, journal, value)))
        .collect();
    // Records lie in the order of arrival.
    points.sort_by_key(|(time, journal, _)| (*time, *journal));
    points.dedup_by(|later, first| later.0 == first.0 && later.1 != first.1 && later.2 == first.2);
    points.into_iter().map(|(time, _, value)| (epoch_ms(Timestamp(time)), value)).collect()
}

fn points(journal: &Journal, query: &Query) -> Result<Vec<(i64, Json)>, AskError> {
    let mut points = Vec::new();
    each(journal, query, |time, value| {
        points.push((time.0, shapes::value(value)));
        points.len() < POINTS_HELD_MAX
    })?;
    Ok(points)
}

fn add_steps(journal: &Journal, query: &Query, steps: &mut BTreeMap<i64, Step>) -> Result<(), AskError> {
    let length = step_length(query);
    each(journal, query, |time, value| {
        let Some(v) = value.as_f64().filter(|v| !v.is_nan()) else { return true };
        let step = Step::of(time.0, v);
        steps.entry(time.0.div_euclid(length)).and_modify(|held| held.merge(&step)).or_insert(step);
        true
    })
}

/// In ns.
pub fn step_length(query: &Query) -> i64 {
    query.step.map_or_else(|| query.end.since(query.start).0, |step| step.0).max(1)
}

fn shaped(query: &Query, number: i64, step: &Step) -> (f64, Json) {
    let value = match query.aggregate.unwrap_or(QueryAggregate::Count) {
        QueryAggregate::Count => step.count as f64,
        QueryAggregate::Sum => step.sum,
        QueryAggregate::Min => step.min,
        QueryAggregate::Max => step.max,
        QueryAggregate::Mean => step.sum / step.count as f64,
        QueryAggregate::First => step.first.1,
        QueryAggregate::Last => step.last.1,
    };
    // Steps are aligned to the epoch; the first one begins at `start` when that lies inside it.
    let start = Timestamp(number.saturating_mul(step_length(query))).max(query.start);
    (epoch_ms(start), json!(value))
}

/// Calls `f` for each value in the range that counts in this journal, in its order, until it says `false`.
fn each(journal: &Journal, query: &Query, mut f: impl FnMut(Timestamp, Value<'_>) -> bool) -> Result<(), AskError> {
    let left_out = left_out(&journal.reader, &query.device_id)?;
    let mut damaged = None;
    let mut go_on = true;
    let scanned = journal.reader.scan_series(query.start, query.end, device_hash(&query.device_id), |row| {
        if row.kind != RecordKind::Events || journal.without.contains(row.seq.0) {
            return ControlFlow::Continue(());
        }
        let mut point = |time, value: Value<'_>| {
            if go_on && query.start <= time && time < query.end {
                go_on = f(time, value);
            }
        };
        let read = match left_out.get(&row.seq) {
            None => block::read_series(row.payload, &query.device_id, &query.metric, &mut point).map(drop),
            Some(without) => read_without(row.payload, query, without, &mut point),
        };
        if let Err(error) = read {
            damaged = Some(AskError::Failed(format!("record {} is damaged (MP0402): {error}", row.seq.0)));
            return ControlFlow::Break(());
        }
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    scanned.map_err(crate::api::unreadable)?;
    damaged.map_or(Ok(()), Err)
}

/// Records that are looked through for names of metrics.
const NAMING_RECORDS_MAX: usize = 64;

/// Names of the metrics in the newest records of a journal.
///
/// # Errors
/// When the journal cannot be read.
pub fn metric_names(reader: &Reader) -> Result<BTreeSet<String>, AskError> {
    let (mut found, mut read, mut decoder) = (BTreeSet::new(), 0, block::Decoder::new());
    crate::api::newest(reader, Class::Raw, |row| {
        if let Ok(batch) = decoder.decode(row.payload) {
            found.extend(batch.shape.metrics().iter().map(|metric| metric.name.to_string()));
        }
        read += 1;
        read < NAMING_RECORDS_MAX
    })?;
    Ok(found)
}

/// A value in an answer.
pub fn json_of(value: Value<'_>) -> Json {
    shapes::value(value)
}

/// As [`block::read_series`], but for events with these sequence numbers.
fn read_without(
    block: &[u8],
    query: &Query,
    without: &RangeSet,
    point: &mut dyn FnMut(Timestamp, Value<'_>),
) -> Result<(), BlockError> {
    let batch = block::Decoder::new().decode(block)?;
    let Some(column) = batch.shape.position(&query.metric).and_then(|at| batch.columns.get(at)) else { return Ok(()) };
    for run in batch.runs().iter().filter(|run| batch.device(run) == query.device_id) {
        for row in run.rows().filter(|row| !batch.seq(*row).is_some_and(|seq| without.contains(seq))) {
            column.value(row).into_iter().for_each(|value| point(batch.times[row], value));
        }
    }
    Ok(())
}

/// Which events of the device count in the journal of another node, by their records.
fn left_out(reader: &Reader, device: &str) -> Result<BTreeMap<Seq, RangeSet>, AskError> {
    let mut all: BTreeMap<Seq, RangeSet> = BTreeMap::new();
    each_left_out(reader, |left| {
        if left.device == device {
            let seqs = all.entry(Seq(left.record)).or_default();
            left.seqs.iter().for_each(|seq| seqs.insert(*seq, *seq));
        }
    })?;
    Ok(all)
}

fn each_left_out(reader: &Reader, mut each: impl FnMut(LeftOut)) -> Result<(), AskError> {
    let scanned = reader.scan(Class::State, Seq(0), |row| {
        if row.kind == RecordKind::LeftOut {
            record::decode::<Vec<LeftOut>>(row.payload).unwrap_or_default().into_iter().for_each(&mut each);
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(crate::api::unreadable)
}

/// Whole milliseconds are exact; a fraction is rounded to about 200 ns.
fn epoch_ms(time: Timestamp) -> f64 {
    time.as_millis() as f64 + time.0.rem_euclid(1_000_000) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_stay_whole() {
        assert_eq!(epoch_ms(Timestamp::from_millis(1_760_000_000_050)), 1_760_000_000_050.0);
        assert_eq!(epoch_ms(Timestamp(-500_000)), -0.5);
    }
}
