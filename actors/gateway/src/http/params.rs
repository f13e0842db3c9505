//! Parameters behind the question mark.

use axum::extract::{FromRequestParts, Query};
use hyper::http::request::Parts;
use millpond_core::{
    limits::{LIST_LINES_DEFAULT, LIST_LINES_MAX},
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::problem::{Code, Problem};

/// Parameters as a struct; unknown ones are refused with a problem document.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Problem> {
        let parsed = Query::<T>::from_request_parts(parts, state).await;
        parsed.map(|Query(params)| Params(params)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Problem::new(Code::BadParameter).because(text)
        })
    }
}

/// A time: RFC 3339, or epoch seconds or milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct At(pub Timestamp);

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(At).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is not a time: expected RFC 3339, or epoch seconds or milliseconds"
            ))
        })
    }
}

/// The `+` of an offset that was not escaped arrives as a blank.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if let Some((time, offset)) = text.rsplit_once(' ').filter(|(time, _)| time.len() > 10) {
        return format!("{time}+{offset}").parse().ok();
    }
    let number: f64 = text.parse().ok().filter(|x: &f64| x.is_finite() && x.abs() < 9e15)?;
    let ms = if number.abs() < 1e11 { number * 1e3 } else { number };
    Some(Timestamp(((ms * 1e3).round() as i64).checked_mul(1_000)?))
}

/// How many lines to answer with.
pub(super) fn limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(LIST_LINES_DEFAULT).clamp(1, LIST_LINES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_forms_people_use() {
        let check = |text: &str, ms: Option<i64>| assert_eq!(parse_time(text).map(Timestamp::as_millis), ms, "{text}");
        check("2026-11-20T08:15:00.250Z", Some(1_795_162_500_250));
        check("2026-11-20T09:15:00.25+01:00", Some(1_795_162_500_250));
        check("2026-11-20T09:15:00.25 01:00", Some(1_795_162_500_250));
        check("2026-11-20 08:15:00.25", Some(1_795_162_500_250));
        check("1795162500.25", Some(1_795_162_500_250));
        check("1795162500250", Some(1_795_162_500_250));
        check("0", Some(0));
        check("now", None);
        check("1e300", None);
        check("", None);
    }
}
