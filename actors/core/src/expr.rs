//! Conditions, filters and enrichment, written in CEL.
//!
//! An expression looks at one event and nothing else: it has no clock, no memory and no loops, so that it gives the
//! same answer whenever and wherever it is asked, at a cost that its length bounds.
//!
//! What differs from CEL at large:
//! - A name is a metric of the event, dots included (`motor.temperature`); `metrics["any name"]` reaches the others.
//!   `device` and `device_type` are text, `ts` is the event's time in epoch milliseconds.
//! - Every number of an event is a double, whether its device wrote `20` or `20.0`. So that nobody needs to write `2.0`
//!   for `2`, an integer that meets a metric in arithmetic becomes a double, and a metric before `%` an integer.
//! - `has(name)` tells whether the event carries the metric. A condition that needs a metric which is not there is
//!   neither true nor false but [`Truth::Missing`], unless `||`, `&&` or `?:` can do without it.
//! - There are no macros (`all`, `exists`, `map` …), no maps, no messages and no `null`.
//!
//! Functions: `size contains startsWith endsWith int uint double string`, and `math.` with `abs ceil floor round trunc
//! sign sqrt isNaN isInf isFinite greatest least`.

use std::{fmt, sync::Arc};

use cel::common::ast::IdedExpr;
use smallvec::SmallVec;

use crate::{
    batch::{Batch, DeviceRef, Shape},
    time::Timestamp,
    value::Value,
};

mod compile;
mod eval;

/// An expression, ready to be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expr {
    source: Arc<str>,
    tree: Arc<IdedExpr>,
    variables: Arc<[Variable]>,
}

/// What a name in an expression stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Metric(Box<str>),
    Device,
    DeviceType,
    Ts,
}

/// Where the metrics of an expression stand among the columns of one shape.
#[derive(Clone, Debug)]
pub struct Binding(SmallVec<[Option<u16>; 4]>);

/// One event, as an expression sees it.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    pub batch: &'a Batch,
    pub row: usize,
    pub device: &'a str,
    /// Empty when the device has no type.
    pub device_type: &'a str,
    pub time: Timestamp,
}

/// What an expression came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(String),
}

/// How a condition came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    /// The event lacks a metric without which the condition cannot be decided. It counts as false.
    Missing,
}

/// Why an expression cannot be compiled, or has no value for an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    pub message: String,
    /// Character of the source where the trouble is, from 1; `None` when it is not at one place.
    pub column: Option<u32>,
}

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// Bad syntax, an unknown function, something that CEL has and this dialect has not, and sources that are longer
    /// than [`EXPR_BYTES_MAX`](crate::limits::EXPR_BYTES_MAX) or nested deeper than
    /// [`EXPR_DEPTH_MAX`](crate::limits::EXPR_DEPTH_MAX).
    pub fn compile(source: &str) -> Result<Expr, ExprError> {
        compile::compile(source)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The metrics that the expression names, in the order in which it does.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter_map(|variable| match variable {
            Variable::Metric(name) => Some(&**name),
            _ => None,
        })
    }

    /// Finds the expression's metrics in a shape: once per batch, or once per shape where bindings are kept.
    pub fn bind(&self, shape: &Shape) -> Binding {
        let column = |variable: &Variable| match variable {
            Variable::Metric(name) => shape.position(name).map(|at| at as u16),
            _ => None,
        };
        Binding(self.variables.iter().map(column).collect())
    }

    /// The expression's value for an event; `None` when a metric is missing.
    ///
    /// # Errors
    /// When operands have types that do not go together, on division of integers by zero and on overflow.
    pub fn eval(&self, event: &EventView<'_>) -> Result<Option<Outcome>, ExprError> {
        self.eval_bound(event, &self.bind(&event.batch.shape))
    }

    /// As [`eval`](Self::eval), with the binding of the event's shape.
    pub fn eval_bound(&self, event: &EventView<'_>, binding: &Binding) -> Result<Option<Outcome>, ExprError> {
        eval::eval(self, event, binding)
    }

    /// Whether the condition holds for an event; a missing metric makes it false.
    ///
    /// # Errors
    /// As [`eval`](Self::eval), and when the value is not a boolean.
    pub fn is_true(&self, event: &EventView<'_>) -> Result<bool, ExprError> {
        Ok(self.truth(event, &self.bind(&event.batch.shape))? == Truth::True)
    }

    /// As [`is_true`](Self::is_true), telling false and missing apart.
    ///
    /// # Errors
    /// As [`is_true`](Self::is_true).
    pub fn truth(&self, event: &EventView<'_>, binding: &Binding) -> Result<Truth, ExprError> {
        match self.eval_bound(event, binding)? {
            Some(Outcome::Bool(true)) => Ok(Truth::True),
            Some(Outcome::Bool(false)) => Ok(Truth::False),
            None => Ok(Truth::Missing),
            Some(other) => Err(ExprError {
                message: format!("a condition must be true or false, but it is `{other}`"),
                column: None,
            }),
        }
    }

    /// Judges the rows of a batch: `mask[row]` tells whether the condition holds. `devices` stands beside the batch's runs,
    /// `types` are the names of the device types. When `mask` comes with the batch's length, rows that are false in it
    /// are not looked at; else it is made anew.
    pub fn mask(&self, batch: &Batch, devices: &[DeviceRef], types: &[String], mask: &mut Vec<bool>) -> MaskCount {
        if mask.len() != batch.rows() {
            mask.clear();
            mask.resize(batch.rows(), true);
        }
        let binding = self.bind(&batch.shape);
        let mut count = MaskCount::default();
        for (run, known) in batch.runs().iter().zip(devices) {
            let (device, device_type) = (batch.device(run), type_name(*known, types));
            for row in run.rows() {
                if !mask[row] {
                    continue;
                }
                let event = EventView { batch, row, device, device_type, time: batch.times[row] };
                mask[row] = match self.truth(&event, &binding) {
                    Ok(truth) => {
                        count.missing += u64::from(truth == Truth::Missing);
                        truth == Truth::True
                    }
                    Err(error) => {
                        count.errors += 1;
                        count.first_error.get_or_insert(error);
                        false
                    }
                };
            }
        }
        count
    }
}

/// What [`Expr::mask`] could not decide; the rows are false in the mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskCount {
    pub missing: u64,
    pub errors: u64,
    pub first_error: Option<ExprError>,
}

/// The name of a device's type; empty when it has none.
pub fn type_name(device: DeviceRef, types: &[String]) -> &str {
    types.get(device.device_type as usize).map_or("", String::as_str)
}

impl EventView<'_> {
    fn metric(&self, column: Option<u16>) -> Option<Value<'_>> {
        self.batch.columns.get(usize::from(column?))?.value(self.row)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::F64(v) => write!(f, "{v}"),
            Outcome::I64(v) => write!(f, "{v}"),
            Outcome::Bool(v) => write!(f, "{v}"),
            Outcome::Text(v) => f.write_str(v),
        }
    }
}

#[cfg(test)]
mod tests;
