//! Prometheus' own questions over the metrics of devices, so that Grafana's data source of that name reads a node.
//!
//! A metric of a device is a series with the labels `__name__` and `device`. At a time t an expression is about the values in `[t − range, t)`;
//! Prometheus takes `(t − range, t]`. A selector without a function takes the newest value of the last five minutes, or of one step when that is
//! longer. Times of a range are multiples of the step, as Grafana asks for them: `start` is rounded down.

pub mod expr;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Extension, Path, Query as UrlQuery, Request, State},
    response::{IntoResponse, Response},
};
use hyper::{StatusCode, Uri, header};
use millpond_core::{
    limits::LIST_LINES_MAX,
    time::{Span, Timestamp},
};
use serde_json::{Value, json};

use self::expr::{Devices, Expr, Function, Selector};
use super::{Door, body, login::Who, params::parse_time};
use crate::port::{AskError, DEFAULT_TENANT, DevicesAsked, Query, QueryAggregate};

/// Points of one series, as in Prometheus.
const POINTS_MAX: i64 = 11_000;
/// Parts that the points of one series are put together from.
const PARTS_MAX: i64 = 100_000;
/// Devices of one question.
const DEVICES_MAX: usize = 100;
const LOOKBACK: Span = Span::from_secs(300);

/// An answer in Prometheus' shape that says no.
struct Refused {
    status: StatusCode,
    kind: &'static str,
    error: String,
}

type Answer = Result<Value, Refused>;

/// Name and value of each parameter; one may come several times.
struct Asked(Vec<(String, String)>);

impl Asked {
    /// From behind the question mark, and from a form.
    async fn of(door: &Door, request: Request<Body>) -> Result<Asked, Refused> {
        let (parts, body) = request.into_parts();
        let read = body::read(door, body).await.map_err(|_| bad("the body cannot be read"))?;
        let form = String::from_utf8(read.to_vec()).map_err(|_| bad("the body is no form"))?;
        let query = parts.uri.query().unwrap_or_default();
        let both = format!("/?{query}&{}", form.trim());
        let uri: Uri = both.parse().map_err(|_| bad("the parameters cannot be read"))?;
        let pairs = UrlQuery::<Vec<(String, String)>>::try_from_uri(&uri);
        pairs.map(|UrlQuery(pairs)| Asked(pairs)).map_err(|_| bad("the parameters cannot be read"))
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn time(&self, name: &str) -> Result<Option<Timestamp>, Refused> {
        let parse = |text| parse_time(text).ok_or_else(|| bad(format!("`{name}` is no time: {text}")));
        self.one(name).map(parse).transpose()
    }

    fn selectors(&self) -> Result<Vec<Selector>, Refused> {
        let matches = self.0.iter().filter(|(name, _)| name == "match[]" || name == "match");
        matches.map(|(_, text)| expr::selector(text).map_err(bad)).collect()
    }
}

/// The node, and whose devices it is asked about.
struct Asking<'a> {
    door: &'a Door,
    tenant: &'a str,
}

impl<'a> Asking<'a> {
    fn new(door: &'a Door, who: &'a Who) -> Asking<'a> {
        Asking { door, tenant: who.login.tenant.as_deref().unwrap_or(DEFAULT_TENANT) }
    }

    async fn metric_names(&self) -> Result<Vec<String>, Refused> {
        Ok(self.door.node.metric_names(Some(self.tenant)).await?)
    }

    async fn all_devices(&self) -> Result<Vec<String>, Refused> {
        let asked = DevicesAsked { after: None, tenant: Some(self.tenant.to_owned()), limit: LIST_LINES_MAX };
        let listed = self.door.node.devices(asked).await?;
        let name = |device: &Value| Some(device.get("device_id").or(device.get("device"))?.as_str()?.to_owned());
        let mut names: Vec<String> = listed.iter().filter_map(name).collect();
        names.dedup();
        Ok(names)
    }
}

pub(super) async fn query(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    request: Request<Body>,
) -> Response {
    answered(instant(&Asking::new(&door, &who), request).await)
}

pub(super) async fn query_range(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    request: Request<Body>,
) -> Response {
    answered(range(&Asking::new(&door, &who), request).await)
}

pub(super) async fn labels(State(_): State<Arc<Door>>) -> Response {
    answered(Ok(json!(["__name__", "device"])))
}

pub(super) async fn label_values(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(label): Path<String>,
) -> Response {
    let asking = Asking::new(&door, &who);
    let values = match label.as_str() {
        "__name__" => asking.metric_names().await.map(|names| json!(names)),
        "device" => asking.all_devices().await.map(|names| json!(names)),
        _ => Ok(json!([])),
    };
    answered(values)
}

pub(super) async fn series(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    request: Request<Body>,
) -> Response {
    answered(all_series(&Asking::new(&door, &who), request).await)
}

pub(super) async fn metadata(State(door): State<Arc<Door>>, Extension(who): Extension<Who>) -> Response {
    let gauge = |name: String| (name, json!([{ "type": "gauge", "help": "", "unit": "" }]));
    let names = Asking::new(&door, &who).metric_names().await;
    answered(names.map(|names| Value::Object(names.into_iter().map(gauge).collect())))
}

pub(super) async fn build_info(State(_): State<Arc<Door>>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answered(Ok(json!({
        "application": "Millpond", "version": version, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    })))
}

async fn instant(asking: &Asking<'_>, request: Request<Body>) -> Answer {
    let asked = Asked::of(asking.door, request).await?;
    let at = asked.time("time")?.unwrap_or_else(|| asking.door.env.wall());
    let (function, selector, range) = match parsed(&asked)? {
        Expr::Number(number) => return Ok(json!({ "resultType": "scalar", "result": point(at, number) })),
        Expr::Instant(selector) => (None, selector, LOOKBACK),
        Expr::Over(function, selector, range) => (Some(function), selector, range),
    };
    let mut result = Vec::new();
    for device in devices(asking, &selector).await? {
        let over =
            Over { function: function.unwrap_or(Function::Last), first: at, last: at, step: range, range, part: range };
        if let Some((_, value)) = over.ask(asking, &device, &selector.metric).await?.pop() {
            result.push(json!({ "metric": labels_of(function, &selector, &device), "value": point(at, value) }));
        }
    }
    Ok(json!({ "resultType": "vector", "result": result }))
}

async fn range(asking: &Asking<'_>, request: Request<Body>) -> Answer {
    let asked = Asked::of(asking.door, request).await?;
    let need = |name: &str, at: Option<Timestamp>| at.ok_or_else(|| bad(format!("the parameter `{name}` is missing")));
    let (start, end) = (need("start", asked.time("start")?)?, need("end", asked.time("end")?)?);
    let step =
        asked.one("step").and_then(step_of).ok_or_else(|| bad("`step` is seconds, or a length of time such as 15s"))?;
    if end < start {
        return Err(bad("`end` lies before `start`"));
    }
    let first = Timestamp(start.0 - start.0.rem_euclid(step.0));
    if end.since(first).0 / step.0 >= POINTS_MAX {
        let why = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(bad(why));
    }
    let last = Timestamp(end.0 - end.0.rem_euclid(step.0));
    let (function, selector, range, part) = match parsed(&asked)? {
        Expr::Number(number) => {
            let times = (0..=last.since(first).0 / step.0).map(|n| Timestamp(first.0 + n * step.0));
            let values: Vec<Value> = times.map(|at| point(at, number)).collect();
            return Ok(json!({ "resultType": "matrix", "result": [{ "metric": {}, "values": values }] }));
        }
        Expr::Instant(selector) => {
            let range = Span(step.0 * ((LOOKBACK.0 + step.0 - 1) / step.0).max(1));
            (None, selector, range, step)
        }
        Expr::Over(function, selector, range) => (Some(function), selector, range, common(range, step)),
    };
    if last.since(first).0.saturating_add(range.0) / part.0 > PARTS_MAX {
        return Err(bad(format!(
            "the range {range} and the step {step} have no long common part: choose multiples of each other"
        )));
    }
    let over = Over { function: function.unwrap_or(Function::Last), first, last, step, range, part };
    let mut result = Vec::new();
    for device in devices(asking, &selector).await? {
        let values = over.ask(asking, &device, &selector.metric).await?;
        if !values.is_empty() {
            let values: Vec<Value> = values.into_iter().map(|(at, value)| point(at, value)).collect();
            result.push(json!({ "metric": labels_of(function, &selector, &device), "values": values }));
        }
    }
    Ok(json!({ "resultType": "matrix", "result": result }))
}

async fn all_series(asking: &Asking<'_>, request: Request<Body>) -> Answer {
    let asked = Asked::of(asking.door, request).await?;
    let selectors = asked.selectors()?;
    if selectors.is_empty() {
        return Err(bad("no match[] parameter provided"));
    }
    let mut series = Vec::new();
    for selector in &selectors {
        for device in devices(asking, selector).await? {
            series.push(json!({ "__name__": selector.metric, "device": device }));
        }
    }
    Ok(Value::Array(series))
}

/// A function over the values before each of some times.
#[derive(Clone, Copy)]
struct Over {
    function: Function,
    first: Timestamp,
    last: Timestamp,
    step: Span,
    range: Span,
    /// Divides both; the node is asked for parts of this length.
    part: Span,
}

impl Over {
    /// The times that have a value.
    async fn ask(&self, asking: &Asking<'_>, device: &str, metric: &str) -> Result<Vec<(Timestamp, f64)>, Refused> {
        let mut parts = Vec::new();
        for aggregate in self.function.parts() {
            parts.push(self.parts(asking, device, metric, *aggregate).await?);
        }
        let count = self.last.since(self.first).0 / self.step.0;
        let at = |n: i64| Timestamp(self.first.0 + n * self.step.0);
        Ok((0..=count).filter_map(|n| Some((at(n), self.value(&parts, at(n))?))).collect())
    }

    /// By beginning.
    async fn parts(
        &self,
        asking: &Asking<'_>,
        device: &str,
        metric: &str,
        aggregate: QueryAggregate,
    ) -> Result<BTreeMap<i64, f64>, Refused> {
        // One part alone may lie anywhere; several are multiples of their length.
        let alone = self.first == self.last && self.part == self.range;
        let question = Query {
            tenant: Some(asking.tenant.to_owned()),
            device_id: device.to_owned(),
            metric: metric.to_owned(),
            start: self.first.saturating_sub(self.range),
            end: self.last,
            aggregate: Some(aggregate),
            step: (!alone).then_some(self.part),
            limit: PARTS_MAX as usize + 2,
        };
        let answer = match asking.door.node.query(question).await {
            Ok(answer) => answer,
            Err(AskError::NotFound(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let begin = self.first.0.saturating_sub(self.range.0);
        let part = |(ms, value): &(f64, Value)| {
            let micros = (ms * 1e3).round() as i64;
            let begins = if alone { begin } else { (micros * 1_000).div_euclid(self.part.0) * self.part.0 };
            Some((begins.max(begin), value.as_f64()?))
        };
        Ok(answer.points.iter().filter_map(part).collect())
    }

    fn value(&self, parts: &[BTreeMap<i64, f64>], at: Timestamp) -> Option<f64> {
        let within = |part: usize| parts[part].range(at.0.saturating_sub(self.range.0)..at.0).map(|(_, value)| *value);
        match self.function {
            Function::Avg => Some(within(0).sum::<f64>() / within(1).reduce(|a, b| a + b)?),
            Function::Min => within(0).reduce(f64::min),
            Function::Max => within(0).reduce(f64::max),
            Function::Sum | Function::Count => within(0).reduce(|a, b| a + b),
            Function::Last => within(0).next_back(),
        }
    }
}

fn parsed(asked: &Asked) -> Result<Expr, Refused> {
    let text = asked.one("query").ok_or_else(|| bad("the parameter `query` is missing"))?;
    expr::parse(text).map_err(bad)
}

async fn devices(asking: &Asking<'_>, selector: &Selector) -> Result<Vec<String>, Refused> {
    let found: Vec<String> = match &selector.devices {
        Devices::Named(names) => names.clone(),
        Devices::All => asking.all_devices().await?,
        Devices::Matching(patterns) => {
            let wanted = |name: &String| patterns.iter().any(|pattern| pattern.matches(name));
            asking.all_devices().await?.into_iter().filter(wanted).collect()
        }
    };
    if found.len() > DEVICES_MAX {
        return Err(bad(format!("{} devices are more than {DEVICES_MAX}: name them in the label device", found.len())));
    }
    Ok(found)
}

/// A function makes another metric of it, so that the name goes; as in Prometheus the last value keeps it.
fn labels_of(function: Option<Function>, selector: &Selector, device: &str) -> Value {
    match function {
        None | Some(Function::Last) => json!({ "__name__": selector.metric, "device": device }),
        Some(_) => json!({ "device": device }),
    }
}

fn point(at: Timestamp, value: f64) -> Value {
    let seconds = at.as_millis() as f64 / 1e3;
    let text = match value {
        v if v == f64::INFINITY => "+Inf".to_owned(),
        v if v == f64::NEG_INFINITY => "-Inf".to_owned(),
        v => v.to_string(),
    };
    json!([seconds, text])
}

fn step_of(text: &str) -> Option<Span> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|s| s.is_finite() && *s < 1e9)
        .map(|s| Span((s * 1e3).round() as i64 * 1_000_000));
    seconds.or_else(|| text.parse().ok()).filter(|step| *step >= Span::from_millis(1))
}

/// The greatest length that divides both.
fn common(a: Span, b: Span) -> Span {
    let (mut a, mut b) = (a.0, b.0);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Span(a.max(1))
}

fn bad(error: impl Into<String>) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, kind: "bad_data", error: error.into() }
}

impl From<AskError> for Refused {
    fn from(error: AskError) -> Refused {
        let (status, kind) = match error {
            AskError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            AskError::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_data"),
            AskError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            AskError::NoSite | AskError::Failed(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
        };
        Refused { status, kind, error: error.to_string() }
    }
}

fn answered(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(data) => (StatusCode::OK, json!({ "status": "success", "data": data })),
        Err(Refused { status, kind, error }) => {
            (status, json!({ "status": "error", "errorType": kind, "error": error }))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seconds_or_a_length_of_time() {
        assert_eq!(
            [step_of("15"), step_of("0.5"), step_of("1m")],
            [15_000, 500, 60_000].map(|ms| Some(Span::from_millis(ms)))
        );
        assert_eq!([step_of("0"), step_of("-1"), step_of("soon"), step_of("1e300")], [None; 4]);
    }

    #[test]
    fn parts_are_put_together_as_the_function_says() {
        let s = Span::from_secs;
        let over = |function| Over {
            function,
            first: Timestamp(0),
            last: Timestamp(0),
            step: s(2),
            range: s(4),
            part: common(s(4), s(2)),
        };
        let parts = |values: &[(i64, f64)]| {
            values.iter().map(|(at, value)| (at * 1_000_000_000, *value)).collect::<BTreeMap<_, _>>()
        };
        let value = |function, all: &[BTreeMap<i64, f64>]| over(function).value(all, Timestamp(6_000_000_000));
        let some = [parts(&[(0, 100.0), (2, 3.0), (4, 5.0), (6, 100.0)]), parts(&[(0, 9.0), (2, 1.0), (4, 3.0)])];
        assert_eq!(value(Function::Avg, &some), Some(2.0));
        assert_eq!(
            [Function::Min, Function::Max, Function::Sum, Function::Last].map(|f| value(f, &some)),
            [3.0, 5.0, 8.0, 5.0].map(Some)
        );
        assert_eq!(
            [Function::Avg, Function::Count, Function::Last].map(|f| value(f, &[BTreeMap::new(), BTreeMap::new()])),
            [None; 3]
        );
    }
}
