//! What is wrong with the specs a gate is made of.

use std::collections::BTreeSet;

use super::Policy;
use crate::{
    limits::METRIC_NAME_BYTES_MAX,
    problem::{SpecProblem, did_you_mean, is_name},
    schema::{DeviceTypeSpec, MetricSpec, SchemaSpec},
    time::Span,
    value::ValueType,
};

const NAME_HINT: &str = "use letters, digits, `-` and `_`, up to 64 of them";

pub(super) fn problems(policy: &Policy, types: &[DeviceTypeSpec], schemas: &[SchemaSpec]) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    check_policy(policy, &mut problems);
    check_types(types, schemas, &mut problems);
    let mut names = BTreeSet::new();
    for (at, schema) in schemas.iter().enumerate() {
        let place = format!("schemas[{at}]");
        check_name(&schema.name, &place, &mut names, &mut problems);
        if schema.version == 0 {
            problems.push(SpecProblem::new(format!("{place}.version"), "versions count from 1"));
        }
        for (name, metric) in &schema.metrics {
            check_metric(name, metric, &format!("{place}.metrics.{name}"), &mut problems);
        }
    }
    problems
}

fn check_policy(policy: &Policy, problems: &mut Vec<SpecProblem>) {
    if policy.future_limit < Span::ZERO {
        problems.push(SpecProblem::new("ingest.future_limit", "a length of time cannot be negative"));
    }
    if policy.max_age.is_some_and(|age| age <= Span::ZERO) {
        let problem = SpecProblem::new("ingest.max_age", "no event would be young enough");
        problems.push(problem.hint("leave it out to accept events of any age"));
    }
    if !(1..=10_000_000).contains(&policy.devices_max) {
        problems.push(SpecProblem::new("ingest.devices_max", "must be from 1 to 10000000"));
    }
}

fn check_types(types: &[DeviceTypeSpec], schemas: &[SchemaSpec], problems: &mut Vec<SpecProblem>) {
    const TYPES_MAX: usize = u16::MAX as usize;
    if types.len() >= TYPES_MAX {
        problems.push(SpecProblem::new("device_types", format!("must be fewer than {TYPES_MAX}")));
    }
    let mut names = BTreeSet::new();
    for (at, spec) in types.iter().enumerate() {
        let place = format!("device_types[{at}]");
        check_name(&spec.name, &place, &mut names, problems);
        if spec.devices.is_empty() || spec.devices.iter().any(String::is_empty) {
            let problem = SpecProblem::new(format!("{place}.devices"), "no device would belong to this type");
            problems.push(problem.hint("give a pattern such as `press-*`"));
        }
        let Some(schema) = &spec.schema else { continue };
        if !schemas.iter().any(|known| known.name == *schema) {
            let problem = SpecProblem::new(format!("{place}.schema"), format!("there is no schema `{schema}`"));
            let hint = did_you_mean(schema, schemas.iter().map(|known| known.name.as_str()));
            problems.push(SpecProblem { hint, ..problem });
        }
    }
}

fn check_name<'a>(name: &'a str, place: &str, names: &mut BTreeSet<&'a str>, problems: &mut Vec<SpecProblem>) {
    if !is_name(name) {
        problems.push(SpecProblem::new(format!("{place}.name"), format!("`{name}` is not a name")).hint(NAME_HINT));
    }
    if !names.insert(name) {
        problems.push(SpecProblem::new(format!("{place}.name"), format!("`{name}` is there twice")));
    }
}

fn check_metric(name: &str, metric: &MetricSpec, place: &str, problems: &mut Vec<SpecProblem>) {
    if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let message = format!("a metric's name has 1 to {METRIC_NAME_BYTES_MAX} bytes and no control characters");
        problems.push(SpecProblem::new(place, message));
    }
    let number = matches!(metric.value_type, ValueType::F64 | ValueType::I64 | ValueType::Bool);
    for (field, limit) in [("min", metric.min), ("max", metric.max)] {
        if limit.is_some() && !number {
            let message = format!("{} has no range", metric.value_type.name());
            problems.push(SpecProblem::new(format!("{place}.{field}"), message));
        }
        if limit.is_some_and(f64::is_nan) {
            problems.push(SpecProblem::new(format!("{place}.{field}"), "NaN is no limit"));
        }
    }
    if let (Some(min), Some(max)) = (metric.min, metric.max)
        && min > max
    {
        problems.push(SpecProblem::new(format!("{place}.min"), format!("{min} is above the maximum of {max}")));
    }
}
