//! Points and lengths of time as plain numbers; reading a clock is the business of `Env`.

use std::{fmt, ops, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, from the years 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    pub const fn from_millis(ms: i64) -> Timestamp {
        Timestamp(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded towards the past.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub fn saturating_add(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }

    pub fn saturating_sub(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_sub(span.0))
    }

    /// The time from `earlier` to `self`; negative when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-20T08:15:00.250Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_millis();
        let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (s, milli) = (ms_of_day / 1000, ms_of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{milli:03}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

/// Parses RFC 3339 (`2026-11-20T08:15:00.25+01:00`); a blank may stand for the `T`, and no offset means UTC.
impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Timestamp, BadTimestamp> {
        parse_rfc3339(text.as_bytes()).ok_or(BadTimestamp)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time: expected RFC 3339 such as 2026-11-20T08:15:00Z")]
pub struct BadTimestamp;

/// A length of time in nanoseconds; written `250ms`, `10s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub i64);

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_millis(ms: i64) -> Span {
        Span(ms * 1_000_000)
    }

    pub const fn from_secs(s: i64) -> Span {
        Span(s * 1_000_000_000)
    }

    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000_000
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        std::time::Duration::from_nanos(span.0.max(0) as u64)
    }
}

impl ops::Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0 + other.0)
    }
}

const UNITS: [(&str, i64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (unit, ns) in UNITS {
            let count = rest / ns as u64;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest -= count * ns as u64;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Span, BadSpan> {
        parse_span(text.trim()).ok_or(BadSpan)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: expected a number with a unit, such as 250ms, 10s, 5m, 1h30m or 7d")]
pub struct BadSpan;

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration",
            "description": "A number with a unit: 250ms, 10s, 5m, 1h30m, 7d."
        })
    }
}

fn parse_span(mut text: &str) -> Option<Span> {
    let mut total = 0i64;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let unit_end = text[digits..].find(|c: char| !c.is_ascii_alphabetic()).map_or(text.len(), |n| digits + n);
        let (_, ns) = UNITS.iter().find(|(unit, _)| *unit == &text[digits..unit_end])?;
        let part = match text[..digits].parse::<i64>() {
            Ok(whole) => whole.checked_mul(*ns)?,
            Err(_) => {
                let exact = text[..digits].parse::<f64>().ok()? * *ns as f64;
                (exact < 9e18).then_some(exact.round() as i64)?
            }
        };
        total = total.checked_add(part)?;
        text = &text[unit_end..];
    }
    Some(Span(total))
}

fn parse_rfc3339(b: &[u8]) -> Option<Timestamp> {
    let number = |range: ops::Range<usize>| -> Option<i64> {
        b.get(range)?.iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    };
    let is = |at: usize, any: &[u8]| b.get(at).is_some_and(|c| any.contains(c));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0i64;
    if is(at, b".") {
        let digits = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..9 {
            nanos = nanos * 10 + if place < digits { i64::from(b[at + 1 + place] - b'0') } else { 0 };
        }
        at += 1 + digits;
    }
    let offset_s = match &b[at..] {
        [] | b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_are_read_as_rfc_3339() {
        let check = |text: &str, ms: Option<i64>| {
            assert_eq!(text.parse::<Timestamp>().ok().map(Timestamp::as_millis), ms, "{text}");
        };
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-11-20T08:15:00.250Z", Some(1_795_162_500_250));
        check("2026-11-20 09:15:00.25+01:00", Some(1_795_162_500_250));
        check("2013-12-02 21:15:00", Some(1_386_018_900_000));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000));
        check("2023-02-29T00:00:00Z", None);
        check("2026-11-20T08:15:00+1", None);
        check("2026-11-20T08:15:00.Z", None);
        check("noon", None);
    }

    #[test]
    fn durations_are_numbers_with_units() {
        let check = |text: &str, ms: Option<i64>| {
            assert_eq!(text.parse::<Span>().ok().map(Span::as_millis), ms, "{text}");
        };
        check("250ms", Some(250));
        check("1.5s", Some(1500));
        check("1h30m", Some(5_400_000));
        check("7d", Some(604_800_000));
        check("10", None);
        check("", None);
        check("5 s", None);
        check("999999999999d", None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(ms in -60_000_000_000_000i64..250_000_000_000_000, span in 0i64..i64::MAX) {
            // Years beyond 0000..9999 do not occur in this range of nanoseconds.
            let ms = ms.clamp(-9_000_000_000_000, 9_000_000_000_000);
            let at = Timestamp::from_millis(ms);
            prop_assert_eq!(at.to_string().parse::<Timestamp>(), Ok(at));
            prop_assert_eq!(Span(span).to_string().parse::<Span>(), Ok(Span(span)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
            let _ = text.parse::<Span>();
        }
    }
}
