//! The text of an alert.

use crate::{
    rule::{Condition, RuleSpec, Signal},
    time::Span,
};

/// The names in `{…}` of a template.
pub(crate) fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

/// A template made from the condition, for rules that have none.
pub(super) fn default_text(spec: &RuleSpec) -> String {
    let mut text = match &spec.when {
        Condition::Threshold { op, value, .. } => {
            format!("{{metric}} of {{device}} is {{value}} ({} {value})", op.symbol())
        }
        Condition::Rate { op, per_second, .. } => {
            format!("{{metric}} of {{device}} changes by {{value}} per second ({} {per_second})", op.symbol())
        }
        Condition::Silence { after } => format!("nothing was received from {{device}} for {after}"),
        Condition::Window { window, aggregate, op, value, .. } => {
            format!("{aggregate} of {{metric}} of {{device}} in `{window}` is {{value}} ({} {value})", op.symbol())
        }
        Condition::Zscore { limit, .. } => {
            format!("{{metric}} of {{device}} is {{value}} standard deviations from its mean (limit {limit})")
        }
        Condition::Expression { expr } => format!("{{device}}: {expr}"),
    };
    if spec.hold > Span::ZERO {
        text.push_str(&format!(" for {}", spec.hold));
    }
    text
}

/// Puts a signal's words in the places of a template; what is not known stays as it is.
pub(super) fn fill(template: &str, signal: &Signal) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        text.push_str(&rest[..start]);
        let end = rest[start..].find('}').map_or(rest.len(), |end| start + end + 1);
        match &rest[start..end] {
            "{device}" => text.push_str(&signal.key),
            "{rule}" => text.push_str(&signal.rule),
            "{metric}" => text.push_str(&signal.metric),
            "{value}" => text.push_str(&number(signal.value)),
            other => text.push_str(other),
        }
        rest = &rest[end..];
    }
    text.push_str(rest);
    text
}

/// Six significant digits are what a person reads.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    if !(1e-4..1e15).contains(&magnitude) {
        return format!("{value:.5e}");
    }
    let decimals = (5 - magnitude.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits() {
        let check = |value: f64, text: &str| assert_eq!(number(value), text);
        check(81.5, "81.5");
        check(1.0 / 3.0, "0.333333");
        check(123_456_789.0, "123456789");
        check(-0.000_123_456_7, "-0.000123457");
        check(1e-9, "1.00000e-9");
        check(0.0, "0");
        check(f64::INFINITY, "inf");
    }
}
