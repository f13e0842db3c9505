//! Readings as a node takes them.

use std::fmt::Write;

use millpond_core::{batch::BatchBuilder, value::Value};

use super::kind::Reading;

impl Reading {
    /// Appends the reading as one JSON object: `{"ts":…,"seq":…,"force":…,…}` with `ts` in epoch milliseconds. With a name for the
    /// device's key the object begins with it, as topics of many devices want it.
    pub fn write_json(&self, device_key: Option<&str>, out: &mut String) {
        out.push('{');
        if let Some(key) = device_key {
            // Names of machines have nothing that JSON must escape.
            let _ = write!(out, "\"{key}\":\"{}\",", self.device);
        }
        let _ = write!(out, "\"ts\":{},\"seq\":{}", self.ts.as_millis(), self.seq);
        for (name, value) in self.metrics() {
            let _ = match value {
                Value::F64(v) => write!(out, ",\"{name}\":{v}"),
                Value::Bool(v) => write!(out, ",\"{name}\":{v}"),
                Value::Text(v) => write!(out, ",\"{name}\":\"{v}\""),
                Value::I64(_) | Value::Bytes(_) => Ok(()),
            };
        }
        out.push('}');
    }

    /// Appends the reading as a row of columns.
    pub fn write_row(&self, out: &mut BatchBuilder) {
        out.begin(&self.device);
        out.time(self.ts);
        out.seq(self.seq);
        for (name, value) in self.metrics() {
            out.cell(name, value);
        }
        out.end();
    }
}
