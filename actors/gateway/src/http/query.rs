//! `GET /v1/query`: a range of one metric of one device.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use hyper::header;
use millpond_core::{
    downsample,
    limits::{QUERY_POINTS_DEFAULT, QUERY_POINTS_MAX},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Value, json};

use super::{
    Door,
    login::Who,
    params::{At, Params},
    problem::{Code, Problem},
};
use crate::port::{Query, QueryAggregate, QueryAnswer};

const DEFAULT_RANGE: Span = Span::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(alias = "device")]
    device_id: String,
    metric: String,
    start: Option<At>,
    end: Option<At>,
    aggregate: Option<Aggregate>,
    step: Option<Span>,
    limit: Option<usize>,
    points: Option<usize>,
    downsample: Option<Downsample>,
    site: Option<String>,
    tenant: Option<String>,
}

/// How points are chosen for a chart.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Downsample {
    #[default]
    Lttb,
    MinMax,
}

/// Points of a chart at most.
const CHART_POINTS_MAX: usize = 10_000;

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Aggregate {
    Count,
    Sum,
    Min,
    Max,
    #[serde(alias = "avg")]
    Mean,
    First,
    Last,
}

pub(super) async fn query(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Params(mut range): Params<Range>,
) -> Result<Response, Problem> {
    range.tenant = who.tenant_here(range.tenant, range.site.as_deref())?;
    let (site, chart) = (range.site.clone(), chart_of(&range)?);
    let query = checked(range, door.env.wall())?;
    if let Some(site) = site {
        let question = json!({ "what": "query", "query": query });
        let mut answer = super::site::of_other(&door, &site, question).await?;
        if let (Some((count, how)), Some(points)) = (chart, answer["points"].as_array()) {
            let plain: Vec<(f64, f64)> = points.iter().map(|point| (number(&point[0]), number(&point[1]))).collect();
            let kept: Vec<Value> = how.of(&plain, count).into_iter().map(|at| points[at].clone()).collect();
            answer["points"] = Value::Array(kept);
        }
        return Ok(answer.into_response());
    }
    let mut answer = door.node.query(query).await?;
    if let Some((count, how)) = chart {
        let plain: Vec<(f64, f64)> = answer.points.iter().map(|(ms, value)| (*ms, number(value))).collect();
        let mut kept = how.of(&plain, count).into_iter().peekable();
        let mut at = 0..;
        answer.points.retain(|_| kept.next_if_eq(&at.next().unwrap_or(usize::MAX)).is_some());
    }
    let body = serde_json::to_vec(&Answer::of(&answer))
        .map_err(|error| Problem::new(Code::Failed).because(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// How many points a chart wants.
fn chart_of(range: &Range) -> Result<Option<(usize, Downsample)>, Problem> {
    let bad = |error: &str| Err(Problem::new(Code::BadParameter).because(error));
    match (range.points, range.downsample) {
        (None, None) => Ok(None),
        (None, Some(_)) => bad("`downsample` needs `points`"),
        (Some(_), _) if range.aggregate.is_some() => bad("`points` is for questions without `aggregate`"),
        (Some(points), _) if !(2..=CHART_POINTS_MAX).contains(&points) => bad("`points` is from 2 to 10000"),
        (Some(points), how) => Ok(Some((points, how.unwrap_or_default()))),
    }
}

impl Downsample {
    fn of(self, points: &[(f64, f64)], count: usize) -> Vec<usize> {
        match self {
            Downsample::Lttb => downsample::lttb(points, count),
            Downsample::MinMax => downsample::min_max(points, count),
        }
    }
}

/// Truth values are 0 and 1, as in windows; a text is no point of a chart.
fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_bool().map(|on| f64::from(u8::from(on)))).unwrap_or(f64::NAN)
}

fn checked(range: Range, now: Timestamp) -> Result<Query, Problem> {
    let bad = |error: &str| Err(Problem::new(Code::BadParameter).because(error));
    let end = range.end.map_or(now, |end| end.0);
    let start = range.start.map_or(end.saturating_sub(DEFAULT_RANGE), |start| start.0);
    if start > end {
        return bad("`start` lies after `end`");
    }
    if range.aggregate.is_some() != range.step.is_some() {
        return bad("`aggregate` and `step` go together: aggregate=mean&step=1m");
    }
    if range.step.is_some_and(|step| step <= Span::ZERO) {
        return bad("`step` must be longer than 0s");
    }
    Ok(Query {
        device_id: range.device_id,
        tenant: range.tenant,
        metric: range.metric,
        start,
        end,
        aggregate: range.aggregate.map(|aggregate| match aggregate {
            Aggregate::Count => QueryAggregate::Count,
            Aggregate::Sum => QueryAggregate::Sum,
            Aggregate::Min => QueryAggregate::Min,
            Aggregate::Max => QueryAggregate::Max,
            Aggregate::Mean => QueryAggregate::Mean,
            Aggregate::First => QueryAggregate::First,
            Aggregate::Last => QueryAggregate::Last,
        }),
        step: range.step,
        limit: range
            .limit
            .unwrap_or(if range.points.is_some() { QUERY_POINTS_MAX } else { QUERY_POINTS_DEFAULT })
            .clamp(1, QUERY_POINTS_MAX),
    })
}

/// The answer as it is written: whole milliseconds without a fraction, and `truncated` only when it is true.
#[derive(Serialize)]
struct Answer<'a> {
    device_id: &'a str,
    metric: &'a str,
    points: Points<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl<'a> Answer<'a> {
    fn of(answer: &'a QueryAnswer) -> Answer<'a> {
        Answer {
            device_id: &answer.device_id,
            metric: &answer.metric,
            points: Points(&answer.points),
            truncated: answer.truncated,
        }
    }
}

struct Points<'a>(&'a [(f64, Value)]);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut points = serializer.serialize_seq(Some(self.0.len()))?;
        for (ms, value) in self.0 {
            if ms.fract() == 0.0 {
                points.serialize_element(&(*ms as i64, value))?;
            } else {
                points.serialize_element(&(ms, value))?;
            }
        }
        points.end()
    }
}
