//! What can be wrong with rules.

use super::{Condition, Operator, RuleSpec};
use crate::{
    expr::Expr,
    limits::{EXPR_BYTES_MAX, METRIC_NAME_BYTES_MAX, RULE_FACTS_MAX, RULES_MAX},
    problem::{SpecProblem, did_you_mean, is_name},
    time::Span,
    window::{Aggregate, WindowSpec},
};

/// Everything that is wrong with the rules, given the names of the device types and the windows.
pub fn problems(specs: &[RuleSpec], types: &[String], windows: &[WindowSpec]) -> Vec<SpecProblem> {
    let mut found = own_problems(specs, types);
    for (at, spec) in specs.iter().enumerate() {
        if let Condition::Window { window, metric, aggregate, .. } = &spec.when {
            check_window(&format!("rules[{at}].when"), (window, metric, aggregate), windows, &mut found);
        }
    }
    found
}

/// What is wrong with the rules whatever windows there are.
pub(super) fn own_problems(specs: &[RuleSpec], types: &[String]) -> Vec<SpecProblem> {
    let mut found = Vec::new();
    if specs.len() > RULES_MAX {
        found.push(SpecProblem::new(
            "rules",
            format!("a node has at most {RULES_MAX} rules, these are {}", specs.len()),
        ));
    }
    for (at, spec) in specs.iter().enumerate() {
        let place = format!("rules[{at}]");
        check_name(&place, spec, &specs[..at], &mut found);
        check_condition(&format!("{place}.when"), &spec.when, &mut found);
        check_types(&place, spec, types, &mut found);
        check_text(&place, spec, &mut found);
        for (key, span) in [("for", spec.hold), ("quiet", spec.quiet)] {
            if span < Span::ZERO {
                found.push(SpecProblem::new(format!("{place}.{key}"), "a duration cannot be negative"));
            }
        }
    }
    found
}

fn check_name(place: &str, spec: &RuleSpec, before: &[RuleSpec], found: &mut Vec<SpecProblem>) {
    let place = format!("{place}.name");
    if !is_name(&spec.name) {
        let problem = SpecProblem::new(place, format!("`{}` is not a name", spec.name));
        found.push(problem.hint("use up to 64 letters, digits, `-` and `_`"));
    } else if let Some(first) = before.iter().position(|other| other.name == spec.name) {
        found.push(SpecProblem::new(place, format!("`{}` is the name of rules[{first}] already", spec.name)));
    }
}

fn check_condition(place: &str, when: &Condition, found: &mut Vec<SpecProblem>) {
    let key = |key: &str| format!("{place}.{key}");
    match when {
        Condition::Threshold { metric, op, value, clear } => {
            check_metric(key("metric"), metric, found);
            check_levels(place, "value", (*op, *value, *clear), found);
        }
        Condition::Rate { metric, op, per_second, clear } => {
            check_metric(key("metric"), metric, found);
            check_levels(place, "per_second", (*op, *per_second, *clear), found);
        }
        Condition::Silence { after } => {
            if *after < Span::from_millis(100) {
                found.push(
                    SpecProblem::new(key("after"), "a device is silent after 100ms at the earliest")
                        .hint("for example 30s"),
                );
            }
        }
        Condition::Window { window, metric, aggregate, op, value, clear } => {
            check_metric(key("metric"), metric, found);
            check_levels(place, "value", (*op, *value, *clear), found);
            for (name, text) in [("window", window), ("aggregate", aggregate)] {
                if text.is_empty() {
                    found.push(SpecProblem::new(key(name), "must not be empty"));
                }
            }
        }
        Condition::Zscore { metric, limit, samples } => {
            check_metric(key("metric"), metric, found);
            if !(*limit > 1.0 && *limit <= 1e6) {
                found.push(
                    SpecProblem::new(key("limit"), "must be more than 1 standard deviation")
                        .hint("usual limits are 3 to 6"),
                );
            }
            if !(10..=100_000).contains(samples) {
                found.push(SpecProblem::new(key("samples"), "must be from 10 to 100000"));
            }
        }
        Condition::Expression { expr } => check_expr(key("expr"), expr, found),
    }
}

fn check_metric(place: String, metric: &str, found: &mut Vec<SpecProblem>) {
    if metric.is_empty() || metric.len() > METRIC_NAME_BYTES_MAX {
        found.push(SpecProblem::new(place, format!("the name of a metric has 1 to {METRIC_NAME_BYTES_MAX} bytes")));
    }
}

fn check_levels(
    place: &str,
    key: &str,
    (op, value, clear): (Operator, f64, Option<f64>),
    found: &mut Vec<SpecProblem>,
) {
    if !value.is_finite() {
        found.push(SpecProblem::new(format!("{place}.{key}"), "must be a finite number"));
    }
    let Some(clear) = clear else { return };
    let upward = matches!(op, Operator::Above | Operator::AtLeast);
    let behind = if upward { clear <= value } else { clear >= value };
    if !behind {
        let side = if upward { "at most" } else { "at least" };
        let problem = SpecProblem::new(format!("{place}.clear"), format!("{clear} is on the wrong side of {value}"));
        found.push(problem.hint(format!("with `{}` it must be {side} {value}", op.symbol())));
    }
}

fn check_expr(place: String, source: &str, found: &mut Vec<SpecProblem>) {
    if let Err(error) = Expr::compile(source) {
        let message = match error.column {
            Some(column) => format!("{} (character {column})", error.message),
            None => error.message,
        };
        found.push(SpecProblem::new(place, message));
    }
}

fn check_types(place: &str, spec: &RuleSpec, types: &[String], found: &mut Vec<SpecProblem>) {
    if matches!(spec.when, Condition::Window { .. }) && !spec.device_types.is_empty() {
        let problem = SpecProblem::new(format!("{place}.device_types"), "a rule on a window judges all of its panes");
        found.push(problem.hint("give the window `device_types`"));
        return;
    }
    for (at, name) in spec.device_types.iter().enumerate() {
        if !types.contains(name) {
            let problem =
                SpecProblem::new(format!("{place}.device_types[{at}]"), format!("there is no device type `{name}`"));
            let hint = did_you_mean(name, types.iter().map(String::as_str));
            found.push(SpecProblem { hint, ..problem });
        }
    }
}

fn check_text(place: &str, spec: &RuleSpec, found: &mut Vec<SpecProblem>) {
    if let Some(message) = &spec.message {
        let place = format!("{place}.message");
        if message.len() > EXPR_BYTES_MAX {
            found.push(SpecProblem::new(&*place, format!("a message has at most {EXPR_BYTES_MAX} bytes")));
        }
        for name in
            crate::alert::placeholders(message).filter(|name| !["device", "rule", "value", "metric"].contains(name))
        {
            let problem = SpecProblem::new(&*place, format!("there is nothing to put in the place of `{{{name}}}`"));
            found.push(problem.hint("known are {device}, {rule}, {value} and {metric}"));
        }
    }
    let eventless = matches!(spec.when, Condition::Window { .. } | Condition::Silence { .. });
    if eventless && !spec.enrich.is_empty() {
        found.push(SpecProblem::new(
            format!("{place}.enrich"),
            "needs an event, and rules on windows and on silence have none",
        ));
    }
    if spec.enrich.len() > RULE_FACTS_MAX {
        found.push(SpecProblem::new(format!("{place}.enrich"), format!("a rule has at most {RULE_FACTS_MAX} facts")));
    }
    for (name, source) in &spec.enrich {
        check_expr(format!("{place}.enrich.{name}"), source, found);
    }
}

fn check_window(
    place: &str,
    (window, metric, aggregate): (&str, &str, &str),
    windows: &[WindowSpec],
    found: &mut Vec<SpecProblem>,
) {
    let Some(spec) = windows.iter().find(|spec| spec.name == window) else {
        let problem = SpecProblem::new(format!("{place}.window"), format!("there is no window `{window}`"));
        let hint = did_you_mean(window, windows.iter().map(|spec| spec.name.as_str()));
        found.push(SpecProblem { hint, ..problem });
        return;
    };
    if !spec.metrics.is_empty() && !spec.metrics.iter().any(|known| known == metric) {
        let problem =
            SpecProblem::new(format!("{place}.metric"), format!("the window `{window}` does not aggregate `{metric}`"));
        found.push(problem.hint(format!("it aggregates {}", spec.metrics.join(", "))));
    }
    let mut known: Vec<String> = spec.aggregates.iter().map(|one| aggregate_name(*one).to_owned()).collect();
    known.extend(spec.quantiles.iter().map(|q| format!("p{}", (q * 1e8).round() / 1e6)));
    if !known.iter().any(|name| name == aggregate) {
        let problem = SpecProblem::new(
            format!("{place}.aggregate"),
            format!("the window `{window}` does not compute `{aggregate}`"),
        );
        found.push(problem.hint(format!("it computes {}", known.join(", "))));
    }
}

fn aggregate_name(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Count => "count",
        Aggregate::Sum => "sum",
        Aggregate::Min => "min",
        Aggregate::Max => "max",
        Aggregate::Mean => "mean",
        Aggregate::Stddev => "stddev",
        Aggregate::First => "first",
        Aggregate::Last => "last",
    }
}
