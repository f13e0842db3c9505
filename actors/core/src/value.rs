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
