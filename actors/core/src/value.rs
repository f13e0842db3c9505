//! What a metric can hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ValueType {
    F64 = 0,
    I64 = 1,
    Bool = 2,
    Text = 3,
    Bytes = 4,
}

impl ValueType {
    pub const ALL: [ValueType; 5] =
        [ValueType::F64, ValueType::I64, ValueType::Bool, ValueType::Text, ValueType::Bytes];

    pub fn from_u8(code: u8) -> Option<ValueType> {
        Self::ALL.get(usize::from(code)).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            ValueType::F64 => "f64",
            ValueType::I64 => "i64",
            ValueType::Bool => "bool",
            ValueType::Text => "text",
            ValueType::Bytes => "bytes",
        }
    }
}

/// One value, borrowed from the batch or the payload it stands in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::F64(_) => ValueType::F64,
            Value::I64(_) => ValueType::I64,
            Value::Bool(_) => ValueType::Bool,
            Value::Text(_) => ValueType::Text,
            Value::Bytes(_) => ValueType::Bytes,
        }
    }

    /// The value as a number: booleans are 0 and 1, text and bytes have none.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F64(v) => Some(*v),
            Value::I64(v) => Some(*v as f64),
            Value::Bool(v) => Some(f64::from(u8::from(*v))),
            Value::Text(_) | Value::Bytes(_) => None,
        }
    }
}

/// An integer written without a type (JSON, CSV) becomes a floating-point number where that is exact, so that `20`
/// and `20.5` are the same metric; larger ones stay integers.
pub fn number_of_integer(n: i64) -> Value<'static> {
    const EXACT: i64 = 1 << 53;
    if (-EXACT..=EXACT).contains(&n) { Value::F64(n as f64) } else { Value::I64(n) }
}

/// The number to so many digits behind the point, or before it when negative.
pub fn rounded(value: f64, digits: i8) -> f64 {
    let scale = 10f64.powi(i32::from(digits).abs());
    let rounded = if digits < 0 { (value / scale).round() * scale } else { (value * scale).round() / scale };
    // What is too large to be scaled has no digits there.
    if rounded.is_finite() { rounded } else { value }
}

/// The same for a whole number.
pub fn rounded_integer(value: i64, digits: i8) -> i64 {
    if digits >= 0 {
        return value;
    }
    let scale = 10i128.saturating_pow(u32::from(digits.unsigned_abs()));
    let (value, half) = (i128::from(value), scale / 2);
    let away = if value < 0 { value - half } else { value + half };
    (away / scale * scale).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// How far a reading can be trusted, after OPC UA's severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Quality {
    #[default]
    Good = 0,
    Uncertain = 1,
    Bad = 2,
}

impl Quality {
    pub fn from_u8(code: u8) -> Option<Quality> {
        [Quality::Good, Quality::Uncertain, Quality::Bad].get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_behind_and_before_the_point() {
        assert_eq!(
            [rounded(81.26, 1), rounded(-81.26, 1), rounded(81.26, 0), rounded(81.26, -1)],
            [81.3, -81.3, 81.0, 80.0]
        );
        assert_eq!((rounded(f64::MAX, 9), rounded(f64::INFINITY, 1)), (f64::MAX, f64::INFINITY));
        assert!(rounded(f64::NAN, 1).is_nan());
        assert_eq!(
            [rounded_integer(15, -1), rounded_integer(-15, -1), rounded_integer(14, -1), rounded_integer(7, 2)],
            [20, -20, 10, 7]
        );
        assert_eq!((rounded_integer(i64::MAX, -1), rounded_integer(i64::MAX, i8::MIN)), (i64::MAX, 0));
    }
}
