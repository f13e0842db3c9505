//! Which changes of a schema are allowed.

use super::{MetricSpec, SchemaSpec};
use crate::problem::SpecProblem;

/// Problems of replacing `old` by `new`; none when every event that was accepted still is, and readers of old events
/// understand new ones. Metrics may be added (optional) and ranges widened; types and units stay, an optional metric
/// never becomes required, none is removed, and the version rises with every change.
pub fn compatible(old: &SchemaSpec, new: &SchemaSpec) -> Vec<SpecProblem> {
    let place = format!("schemas.{}", new.name);
    let mut problems = Vec::new();
    if old == new {
        return problems;
    }
    if new.version <= old.version {
        let message = format!("the schema changed, but its version {} is not above {}", new.version, old.version);
        problems.push(SpecProblem::new(format!("{place}.version"), message).hint(raise(old)));
    }
    if old.additional && !new.additional {
        let message = "other metrics were allowed and no longer are";
        problems.push(SpecProblem::new(format!("{place}.additional"), message).hint(KEEP_OR_RENAME));
    }
    for (name, before) in &old.metrics {
        let place = format!("{place}.metrics.{name}");
        match new.metrics.get(name) {
            Some(after) => compare(before, after, &place, &mut problems),
            None => problems.push(SpecProblem::new(place, "the metric was removed").hint(KEEP_OR_RENAME)),
        }
    }
    for (name, after) in &new.metrics {
        if !old.metrics.contains_key(name) && after.required {
            let place = format!("{place}.metrics.{name}.required");
            let hint = "leave it optional, or give the schema a new name";
            problems.push(SpecProblem::new(place, "a metric that was added cannot be required").hint(hint));
        }
    }
    problems
}

const KEEP_OR_RENAME: &str = "keep it as it was, or give the schema a new name";

fn raise(old: &SchemaSpec) -> String {
    format!("set version = {}", u64::from(old.version) + 1)
}

fn compare(before: &MetricSpec, after: &MetricSpec, place: &str, problems: &mut Vec<SpecProblem>) {
    let mut problem = |field: &str, message: String| {
        problems.push(SpecProblem::new(format!("{place}.{field}"), message).hint(KEEP_OR_RENAME));
    };
    if before.value_type != after.value_type {
        let (was, is) = (before.value_type.name(), after.value_type.name());
        problem("type", format!("the type changed from {was} to {is}"));
    }
    if before.unit != after.unit {
        let name = |unit: &Option<String>| unit.clone().unwrap_or_else(|| "none".into());
        problem("unit", format!("the unit changed from {} to {}", name(&before.unit), name(&after.unit)));
    }
    if after.min.is_some_and(|min| before.min.is_none_or(|was| min > was)) {
        problem("min", "the range became narrower".into());
    }
    if after.max.is_some_and(|max| before.max.is_none_or(|was| max < was)) {
        problem("max", "the range became narrower".into());
    }
    if after.required && !before.required {
        problem("required", "the metric was optional and cannot become required".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::ValueType;

    fn schema() -> SchemaSpec {
        let temperature = MetricSpec {
            value_type: ValueType::F64,
            unit: Some("Cel".into()),
            min: Some(-40.0),
            max: Some(200.0),
            required: false,
        };
        let metrics = [("temperature".to_string(), temperature)].into();
        SchemaSpec { name: "press".into(), version: 3, metrics, additional: true }
    }

    fn check(change: impl FnOnce(&mut SchemaSpec), places: &[&str]) {
        let old = schema();
        let mut new = schema();
        new.version = 4;
        change(&mut new);
        let found: Vec<String> = compatible(&old, &new).into_iter().map(|problem| problem.place).collect();
        assert_eq!(found, places);
    }

    fn temperature(schema: &mut SchemaSpec) -> &mut MetricSpec {
        schema.metrics.get_mut("temperature").unwrap()
    }

    #[test]
    fn metrics_may_be_added_and_ranges_widened() {
        check(|_| (), &[]);
        check(|s| temperature(s).max = Some(300.0), &[]);
        check(|s| temperature(s).min = None, &[]);
        check(
            |s| {
                let added = MetricSpec { required: false, ..temperature(s).clone() };
                s.metrics.insert("pressure".into(), added);
            },
            &[],
        );
        assert_eq!(compatible(&schema(), &schema()), []);
    }

    #[test]
    fn whatever_would_reject_old_events_is_a_problem() {
        check(|s| temperature(s).value_type = ValueType::I64, &["schemas.press.metrics.temperature.type"]);
        check(|s| temperature(s).unit = None, &["schemas.press.metrics.temperature.unit"]);
        check(|s| temperature(s).min = Some(0.0), &["schemas.press.metrics.temperature.min"]);
        check(|s| temperature(s).max = Some(100.0), &["schemas.press.metrics.temperature.max"]);
        check(|s| temperature(s).required = true, &["schemas.press.metrics.temperature.required"]);
        check(|s| s.metrics.clear(), &["schemas.press.metrics.temperature"]);
        check(|s| s.additional = false, &["schemas.press.additional"]);
        check(
            |s| {
                let added = MetricSpec { required: true, ..temperature(s).clone() };
                s.metrics.insert("pressure".into(), added);
            },
            &["schemas.press.metrics.pressure.required"],
        );
    }

    #[test]
    fn a_change_raises_the_version() {
        check(
            |s| {
                s.version = 3;
                temperature(s).max = None;
            },
            &["schemas.press.version"],
        );
    }
}
