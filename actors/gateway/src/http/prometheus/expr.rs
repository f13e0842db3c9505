//! The expressions that are understood: a selector, a function of a selector over a range, and a sum of numbers, which is what Grafana asks to
//! see whether anybody is there.

use millpond_core::{schema::Pattern, time::Span};

use crate::port::QueryAggregate;

/// What is supported, for who asks for more.
pub const SUPPORTED: &str = "supported are METRIC{device=\"…\"} with = or =~ (names, `.*` and `|` between them), {__name__=\"…\",device=\"…\"}, and \
avg_over_time, min_over_time, max_over_time, sum_over_time, count_over_time and last_over_time of METRIC{…}[5m]";
/// Bytes of an expression.
const BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(f64),
    /// The newest value.
    Instant(Selector),
    Over(Function, Selector, Span),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    pub metric: String,
    pub devices: Devices,
}

/// Which devices are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Devices {
    All,
    Named(Vec<String>),
    Matching(Vec<Pattern>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Last,
}

const FUNCTIONS: [(&str, Function); 6] = [
    ("avg_over_time", Function::Avg),
    ("min_over_time", Function::Min),
    ("max_over_time", Function::Max),
    ("sum_over_time", Function::Sum),
    ("count_over_time", Function::Count),
    ("last_over_time", Function::Last),
];

impl Function {
    /// The parts that it is put together from.
    pub fn parts(self) -> &'static [QueryAggregate] {
        match self {
            Function::Avg => &[QueryAggregate::Sum, QueryAggregate::Count],
            Function::Min => &[QueryAggregate::Min],
            Function::Max => &[QueryAggregate::Max],
            Function::Sum => &[QueryAggregate::Sum],
            Function::Count => &[QueryAggregate::Count],
            Function::Last => &[QueryAggregate::Last],
        }
    }
}

/// # Errors
/// What is not understood, in words.
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > BYTES_MAX {
        return Err("the expression is too long".to_owned());
    }
    let mut parser = Parser { rest: text };
    let expr = parser.expr().map_err(|why| format!("{why}; {SUPPORTED}"))?;
    parser.blank();
    match parser.rest {
        "" => Ok(expr),
        rest => Err(format!("`{}` is not understood; {SUPPORTED}", rest.chars().take(40).collect::<String>())),
    }
}

/// A selector alone, as in `match[]`.
///
/// # Errors
/// As [`parse`].
pub fn selector(text: &str) -> Result<Selector, String> {
    match parse(text)? {
        Expr::Instant(selector) => Ok(selector),
        Expr::Number(_) | Expr::Over(..) => Err(format!("`{text}` is no selector; {SUPPORTED}")),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn expr(&mut self) -> Result<Expr, String> {
        self.blank();
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.numbers();
        }
        let name = self.name();
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            if self.take("(") {
                return Err(format!("the function `{name}` is not supported"));
            }
            let selector = self.selector(name)?;
            return if self.take("[") {
                Err("a range needs a function".to_owned())
            } else {
                Ok(Expr::Instant(selector))
            };
        };
        self.expect("(")?;
        self.blank();
        let name = self.name();
        let selector = self.selector(name)?;
        self.expect("[")?;
        let (range, rest) = self.rest.split_once(']').ok_or("a `]` is missing")?;
        self.rest = rest;
        let range: Span = range.trim().parse().map_err(|_| format!("`{range}` is no length of time"))?;
        self.expect(")")?;
        if range <= Span::ZERO {
            return Err("a range is longer than 0s".to_owned());
        }
        Ok(Expr::Over(*function, selector, range))
    }

    fn numbers(&mut self) -> Result<Expr, String> {
        let mut sum = 0.0;
        loop {
            self.blank();
            let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
            let (number, rest) = self.rest.split_at(end);
            sum += number.parse::<f64>().map_err(|_| format!("`{number}` is no number"))?;
            self.rest = rest;
            if !self.take("+") {
                return Ok(Expr::Number(sum));
            }
        }
    }

    fn selector(&mut self, name: &str) -> Result<Selector, String> {
        let (mut metric, mut devices) = (name.to_owned(), Devices::All);
        if self.take("{") {
            while !self.take("}") {
                self.blank();
                let label = self.name();
                let regex = self.take("=~");
                if !regex && !self.take("=") {
                    return Err(format!("behind the label `{label}` comes = or =~"));
                }
                let value = self.string()?;
                match (label, regex) {
                    ("__name__", false) if metric.is_empty() => metric = value,
                    ("device", false) => devices = Devices::Named(vec![value]),
                    ("device", true) => devices = matching(&value)?,
                    ("__name__", _) => return Err("a metric is named once, with =".to_owned()),
                    _ => return Err(format!("there is no label `{label}` but __name__ and device")),
                }
                if !self.take(",") {
                    self.expect("}")?;
                    break;
                }
            }
        }
        if metric.is_empty() { Err("a metric is missing".to_owned()) } else { Ok(Selector { metric, devices }) }
    }

    fn string(&mut self) -> Result<String, String> {
        self.blank();
        let quote =
            self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or("a text in quotes is missing")?;
        let (mut text, mut escaped) = (String::new(), false);
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    text.push(if c == 'n' { '\n' } else { c });
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("a quote is missing".to_owned())
    }

    fn name(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.blank();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("a `{token}` is missing")) }
    }
}

/// Names and `.*`, with `|` between them; Grafana escapes what could be more.
fn matching(regex: &str) -> Result<Devices, String> {
    let inner = regex.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(regex);
    let (mut names, mut patterns) = (Vec::new(), Vec::new());
    for alternative in inner.split('|') {
        let (mut name, mut stars, mut chars) = (String::new(), false, alternative.chars().peekable());
        while let Some(c) = chars.next() {
            match c {
                '\\' => name.extend(chars.next()),
                '.' if matches!(chars.peek(), Some('*' | '+')) => {
                    chars.next();
                    name.push('*');
                    stars = true;
                }
                '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => {
                    return Err(format!("`{c}` in `{regex}` is not supported"));
                }
                c => name.push(c),
            }
        }
        if stars {
            patterns.push(Pattern::new(&name));
        } else {
            names.push(name);
        }
    }
    if patterns.is_empty() {
        return Ok(Devices::Named(names));
    }
    patterns.extend(names.iter().map(|name| Pattern::new(name)));
    Ok(Devices::Matching(patterns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(metric: &str, devices: &[&str]) -> Selector {
        let devices = Devices::Named(devices.iter().map(|&name| name.to_owned()).collect());
        Selector { metric: metric.to_owned(), devices }
    }

    #[test]
    fn what_is_supported_is_read() {
        let check = |text: &str, expected: Expr| assert_eq!(parse(text), Ok(expected), "{text}");
        check(r#"temperature{device="press-1"}"#, Expr::Instant(named("temperature", &["press-1"])));
        check(r#" {device='a"b', __name__ = "oil.temp"} "#, Expr::Instant(named("oil.temp", &["a\"b"])));
        check(r#"t{device=~"press-1|oven\\.2",}"#, Expr::Instant(named("t", &["press-1", "oven.2"])));
        check("t", Expr::Instant(Selector { metric: "t".into(), devices: Devices::All }));
        let patterns = vec![Pattern::new("press-*"), Pattern::new("x")];
        check(
            r#"t{device=~"(press-.*|x)"}"#,
            Expr::Instant(Selector { metric: "t".into(), devices: Devices::Matching(patterns) }),
        );
        check(
            r#"avg_over_time(t{device="d"}[1h30m])"#,
            Expr::Over(Function::Avg, named("t", &["d"]), Span::from_secs(5_400)),
        );
        check("1+1", Expr::Number(2.0));
    }

    #[test]
    fn the_rest_is_refused_with_what_is_supported() {
        let all = [
            "",
            "rate(t[5m])",
            "t[5m]",
            "sum(t)",
            "t * 2",
            "t{host=\"x\"}",
            "t{device!=\"x\"}",
            "t{device=~\"[ab]\"}",
            "{device=\"x\"}",
            "avg_over_time(t)",
            "avg_over_time(t[soon])",
            "avg_over_time(t[0s])",
            "t{device=\"x",
            "t offset 5m",
            "1+",
            "t{__name__=\"u\"}",
        ];
        for text in all {
            assert!(parse(text).is_err_and(|why| why.contains("supported")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z_(){}\\[\\]=~\"'\\\\|.*+,0-9 é]{0,60}") {
            let _ = parse(&text);
        }
    }
}
