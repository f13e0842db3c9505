//! Schemas made ready for batches: what a schema says of a shape is worked out once per shape, and then columns are checked whole.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    batch::{Batch, Column, ColumnValues, Metric, Shape},
    dead_letter::Reason,
    limits::{METRIC_NAME_BYTES_MAX, VALUE_BYTES_MAX},
    map::FixedMap,
    schema::{MetricSpec, SchemaSpec},
    value::{Value, ValueType},
};

/// Position of a schema, or [`NO_SCHEMA`].
pub(super) type SchemaIndex = u32;
/// For devices without a type, or whose type has no schema: only what holds for all events is checked.
pub(super) const NO_SCHEMA: SchemaIndex = u32::MAX;

/// Plans kept; strangers may send any number of shapes.
const PLANS_MAX: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Schemas {
    specs: Vec<SchemaSpec>,
    plans: FixedMap<(u64, SchemaIndex), Arc<Plan>>,
    last: Option<Arc<Plan>>,
}

/// What a schema asks of the columns of one shape.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    shape: Arc<Shape>,
    schema: SchemaIndex,
    /// `name v3`, for the details of rejections.
    title: String,
    /// Wrong for every row: a required metric is not among the columns, or a name is impossible.
    all: Option<(Reason, Arc<str>)>,
    checks: Vec<Check>,
}

#[derive(Clone, Debug)]
struct Check {
    column: usize,
    metric: Box<str>,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// No row may have this column, for this reason.
    Forbidden(Reason, Arc<str>),
    Values {
        required: bool,
        integral: bool,
        min: f64,
        max: f64,
    },
    /// Text and bytes up to the general limit.
    Length {
        required: bool,
    },
}

impl Schemas {
    pub(super) fn new(specs: Vec<SchemaSpec>) -> Schemas {
        Schemas { specs, plans: FixedMap::default(), last: None }
    }

    pub(super) fn position(&self, name: &str) -> Option<SchemaIndex> {
        self.specs.iter().position(|schema| schema.name == name).map(|at| at as SchemaIndex)
    }

    pub(super) fn plan(&mut self, shape: &Arc<Shape>, schema: SchemaIndex) -> Arc<Plan> {
        if let Some(last) = self.last.as_ref().filter(|last| last.schema == schema && Arc::ptr_eq(&last.shape, shape)) {
            return last.clone();
        }
        let key = (shape.fingerprint(), schema);
        let known = self.plans.get(&key).filter(|plan| plan.shape == *shape).cloned();
        let plan = known.unwrap_or_else(|| {
            let plan = Arc::new(Plan::new(shape.clone(), schema, self.specs.get(schema as usize)));
            if self.plans.len() >= PLANS_MAX {
                self.plans.clear();
            }
            self.plans.insert(key, plan.clone());
            plan
        });
        self.last = Some(plan.clone());
        plan
    }
}

impl Plan {
    fn new(shape: Arc<Shape>, schema: SchemaIndex, spec: Option<&SchemaSpec>) -> Plan {
        let title = spec.map_or(String::new(), |spec| format!("{} v{}", spec.name, spec.version));
        let none = BTreeMap::new();
        let metrics = spec.map_or(&none, |spec| &spec.metrics);
        let additional = spec.is_none_or(|spec| spec.additional);
        let mut all = shape.metrics().iter().find_map(bad_name);
        let missing = metrics.iter().find(|(name, metric)| metric.required && shape.position(name).is_none());
        if let (None, Some((name, _))) = (&all, missing) {
            all = Some((Reason::MissingMetric, format!("{name} is missing, which schema {title} requires").into()));
        }
        let rule = |(column, metric): (usize, &Metric)| {
            let rule = match metrics.get(&*metric.name) {
                Some(spec) => rule_of(metric, spec, &title),
                None if additional => rule_of_unlisted(metric),
                None => Some(Rule::Forbidden(
                    Reason::UnknownMetric,
                    format!("{} is not in schema {title}, which allows no other metrics", metric.name).into(),
                )),
            };
            rule.map(|rule| Check { column, metric: metric.name.clone(), rule })
        };
        let checks = shape.metrics().iter().enumerate().filter_map(rule).collect();
        Plan { shape, schema, title, all, checks }
    }

    /// Whether every row of the batch passes, told column by column.
    pub(super) fn passes_all(&self, batch: &Batch) -> bool {
        self.all.is_none() && self.checks.iter().all(|check| check.rule.passes_column(&batch.columns[check.column]))
    }

    /// What is wrong with one row: the first problem in the order of the columns.
    pub(super) fn problem(&self, batch: &Batch, row: usize) -> Option<(Reason, Arc<str>)> {
        self.all.clone().or_else(|| {
            self.checks.iter().find_map(|check| {
                let value = batch.columns[check.column].value(row);
                check.rule.problem(value).map(|(reason, what)| match &check.rule {
                    Rule::Forbidden(reason, detail) => (*reason, detail.clone()),
                    _ if self.title.is_empty() => (reason, format!("{} {what}", check.metric).into()),
                    _ => (reason, format!("{} {what} (schema {})", check.metric, self.title).into()),
                })
            })
        })
    }
}

fn bad_name(metric: &Metric) -> Option<(Reason, Arc<str>)> {
    let name = &metric.name;
    if name.len() > METRIC_NAME_BYTES_MAX {
        let detail = format!("a metric's name has {} bytes, more than {METRIC_NAME_BYTES_MAX}", name.len());
        return Some((Reason::TooLarge, detail.into()));
    }
    let bad = name.is_empty() || name.chars().any(char::is_control);
    bad.then(|| (Reason::Malformed, format!("{name:?} cannot be the name of a metric").into()))
}

fn rule_of(metric: &Metric, spec: &MetricSpec, title: &str) -> Option<Rule> {
    use ValueType::{F64, I64};
    let (is, wanted) = (metric.value_type, spec.value_type);
    if is != wanted && !matches!((is, wanted), (F64, I64) | (I64, F64)) {
        let detail = format!("{} is {}, but schema {title} says {}", metric.name, is.name(), wanted.name());
        return Some(Rule::Forbidden(Reason::WrongType, detail.into()));
    }
    if let Some(unit) = spec.unit.as_deref().filter(|unit| !metric.unit.is_empty() && **unit != *metric.unit) {
        let detail = format!("{} is in {}, but schema {title} says {unit}", metric.name, metric.unit);
        return Some(Rule::Forbidden(Reason::WrongUnit, detail.into()));
    }
    if matches!(is, ValueType::Text | ValueType::Bytes) {
        return Some(Rule::Length { required: spec.required });
    }
    let integral = is == F64 && wanted == I64;
    let idle = !spec.required && !integral && spec.min.is_none() && spec.max.is_none();
    let (min, max) = (spec.min.unwrap_or(f64::NEG_INFINITY), spec.max.unwrap_or(f64::INFINITY));
    (!idle).then_some(Rule::Values { required: spec.required, integral, min, max })
}

fn rule_of_unlisted(metric: &Metric) -> Option<Rule> {
    matches!(metric.value_type, ValueType::Text | ValueType::Bytes).then_some(Rule::Length { required: false })
}

impl Rule {
    fn passes_column(&self, column: &Column) -> bool {
        if column.present.is_some() {
            return (0..column.values.len()).all(|row| self.problem(column.value(row)).is_none());
        }
        match (self, &column.values) {
            (Rule::Forbidden(..), values) => values.is_empty(),
            (Rule::Length { .. }, ColumnValues::Text(arena) | ColumnValues::Bytes(arena)) => {
                arena.bytes.len() <= VALUE_BYTES_MAX
                    || (0..arena.ends.len()).all(|row| arena.value(row).len() <= VALUE_BYTES_MAX)
            }
            (Rule::Values { integral: false, min, max, .. }, ColumnValues::F64(values)) => {
                // No early exit: the loop is branchless.
                !has_range(*min, *max) || values.iter().fold(true, |ok, v| ok & (*min <= *v) & (*v <= *max))
            }
            (Rule::Values { .. }, values) => (0..values.len()).all(|row| self.problem(column.value(row)).is_none()),
            (Rule::Length { .. }, _) => true,
        }
    }

    /// What is wrong with a value, without its name: for [`Rule::Forbidden`] the rule itself says it.
    fn problem(&self, value: Option<Value<'_>>) -> Option<(Reason, String)> {
        let missing = || Some((Reason::MissingMetric, "is missing".to_string()));
        match (self, value) {
            (Rule::Forbidden(reason, _), Some(_)) => Some((*reason, String::new())),
            (Rule::Forbidden(..), None) => None,
            (Rule::Values { required, .. } | Rule::Length { required }, None) => required.then(missing).flatten(),
            (Rule::Length { .. }, Some(Value::Text(text))) => too_long(text.len()),
            (Rule::Length { .. }, Some(Value::Bytes(bytes))) => too_long(bytes.len()),
            (Rule::Length { .. }, Some(_)) => None,
            (Rule::Values { integral, min, max, .. }, Some(value)) => {
                let number = value.as_f64()?;
                if *integral && !(number.fract() == 0.0 && number.abs() <= 9_223_372_036_854_774_784.0) {
                    return Some((Reason::WrongType, format!("is {number}, which is not an i64")));
                }
                if !has_range(*min, *max) || (*min <= number && number <= *max) {
                    return None;
                }
                let limit = if number < *min { format!("below {min}") } else { format!("above {max}") };
                let limit = if number.is_nan() { "outside its range".to_string() } else { limit };
                Some((Reason::OutOfRange, format!("is {number}, {limit}")))
            }
        }
    }
}

/// Without a range even NaN is let in.
fn has_range(min: f64, max: f64) -> bool {
    min > f64::NEG_INFINITY || max < f64::INFINITY
}

fn too_long(bytes: usize) -> Option<(Reason, String)> {
    (bytes > VALUE_BYTES_MAX).then(|| (Reason::TooLarge, format!("has {bytes} bytes, more than {VALUE_BYTES_MAX}")))
}
