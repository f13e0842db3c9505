//! Answers to questions about one metric of one device.

use std::{collections::BTreeMap, ops::ControlFlow};

use millpond_core::{block, ids::device_hash, record::RecordKind, time::Timestamp};
use millpond_gateway::port::{AskError, Json, Query, QueryAggregate, QueryAnswer};
use millpond_store::Reader;
use serde_json::json;

use crate::shapes;

/// Points that are held while a question without steps is answered.
const POINTS_HELD_MAX: usize = 4_000_000;

/// # Errors
/// When the question contradicts itself or the journal cannot be read.
pub fn query(reader: &Reader, query: &Query) -> Result<QueryAnswer, AskError> {
    if query.end < query.start {
        return Err(AskError::Invalid("`end` lies before `start`".into()));
    }
    let points = match (query.aggregate, query.step) {
        (Some(aggregate), step) => {
            let step = step.map_or_else(|| query.end.since(query.start).0, |step| step.0).max(1);
            aggregated(reader, query, aggregate, step)?
        }
        (None, None) => plain(reader, query)?,
        (None, Some(_)) => return Err(AskError::Invalid("`step` needs an `aggregate`".into())),
    };
    let truncated = points.len() > query.limit;
    let points = points.into_iter().take(query.limit).collect();
    Ok(QueryAnswer { device_id: query.device_id.clone(), metric: query.metric.clone(), points, truncated })
}

fn plain(reader: &Reader, query: &Query) -> Result<Vec<(f64, Json)>, AskError> {
    let mut points: Vec<(Timestamp, Json)> = Vec::new();
    each(reader, query, |time, value| {
        points.push((time, shapes::value(value)));
        points.len() < POINTS_HELD_MAX
    })?;
    // Records lie in the order of arrival.
    points.sort_by_key(|(time, _)| *time);
    Ok(points.into_iter().map(|(time, value)| (epoch_ms(time), value)).collect())
}

#[derive(Clone, Copy)]
struct Step {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    first: (Timestamp, f64),
    last: (Timestamp, f64),
}

fn aggregated(
    reader: &Reader,
    query: &Query,
    aggregate: QueryAggregate,
    step: i64,
) -> Result<Vec<(f64, Json)>, AskError> {
    let mut steps: BTreeMap<i64, Step> = BTreeMap::new();
    each(reader, query, |time, value| {
        let Some(v) = value.as_f64().filter(|v| !v.is_nan()) else { return true };
        let fresh = Step { count: 0, sum: 0.0, min: v, max: v, first: (time, v), last: (time, v) };
        let at = steps.entry(time.0.div_euclid(step)).or_insert(fresh);
        at.count += 1;
        at.sum += v;
        at.min = at.min.min(v);
        at.max = at.max.max(v);
        if time < at.first.0 {
            at.first = (time, v);
        }
        if time >= at.last.0 {
            at.last = (time, v);
        }
        true
    })?;
    let point = |(number, step_at): (i64, Step)| {
        let value = match aggregate {
            QueryAggregate::Count => step_at.count as f64,
            QueryAggregate::Sum => step_at.sum,
            QueryAggregate::Min => step_at.min,
            QueryAggregate::Max => step_at.max,
            QueryAggregate::Mean => step_at.sum / step_at.count as f64,
            QueryAggregate::First => step_at.first.1,
            QueryAggregate::Last => step_at.last.1,
        };
        // Steps are aligned to the epoch; the first one begins at `start` when that lies inside it.
        let start = Timestamp(number.saturating_mul(step)).max(query.start);
        (epoch_ms(start), json!(value))
    };
    Ok(steps.into_iter().map(point).collect())
}

/// Calls `f` for each value in the range, in the order of the journal, until it says `false`.
fn each(
    reader: &Reader,
    query: &Query,
    mut f: impl FnMut(Timestamp, millpond_core::value::Value<'_>) -> bool,
) -> Result<(), AskError> {
    let mut damaged = None;
    let mut go_on = true;
    let scanned = reader.scan_series(query.start, query.end, device_hash(&query.device_id), |row| {
        if row.kind != RecordKind::Events {
            return ControlFlow::Continue(());
        }
        let read = block::read_series(row.payload, &query.device_id, &query.metric, &mut |time, value| {
            if go_on && query.start <= time && time < query.end {
                go_on = f(time, value);
            }
        });
        if let Err(error) = read {
            damaged = Some(AskError::Failed(format!("record {} is damaged (MP0402): {error}", row.seq.0)));
            return ControlFlow::Break(());
        }
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    scanned.map_err(crate::api::unreadable)?;
    damaged.map_or(Ok(()), Err)
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
