//! Rows of a CSV file (RFC 4180), with columns known by their position.

use std::io::BufRead;

use millpond_core::time::Timestamp;

use crate::exit::{Failure, Told};

/// The key of all rows of a file without keys.
const KEY_OF_ALL: &str = "all";

/// Positions of what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    key: Option<usize>,
    time: usize,
    value: usize,
}

impl Columns {
    /// Reads `key,event_time_ms,value`.
    pub fn parse(names: &str) -> anyhow::Result<Columns> {
        let hint = "for example --columns key,event_time_ms,value or --columns time,-,value";
        let (mut key, mut time, mut value) = (None, None, None);
        for (at, name) in names.split(',').map(str::trim).enumerate() {
            let place = match name {
                "key" => &mut key,
                "event_time_ms" | "time" => &mut time,
                "value" => &mut value,
                "-" | "" => continue,
                other => return Err(Told::new(format!("--columns does not know `{other}`")).hint(hint).into()),
            };
            if place.replace(at).is_some() {
                return Err(Told::new(format!("--columns names `{name}` twice")).hint(hint).into());
            }
        }
        match (time, value) {
            (Some(time), Some(value)) => Ok(Columns { key, time, value }),
            _ => Err(Told::new("--columns needs a time and a value").hint(hint).into()),
        }
    }

    fn needed(&self) -> usize {
        self.key.unwrap_or(0).max(self.time).max(self.value) + 1
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: String,
    pub time: Timestamp,
    pub value: f64,
}

/// Reads row after row; ends after the first error.
#[derive(Debug)]
pub struct Rows<R> {
    name: String,
    input: R,
    columns: Columns,
    line: usize,
    text: Vec<u8>,
    failed: bool,
}

impl<R: BufRead> Rows<R> {
    pub fn new(name: String, input: R, columns: Columns) -> Rows<R> {
        Rows { name, input, columns, line: 0, text: Vec::new(), failed: false }
    }

    fn next_row(&mut self) -> anyhow::Result<Option<Row>> {
        loop {
            self.text.clear();
            if self.input.read_until(b'\n', &mut self.text)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let text = String::from_utf8_lossy(&self.text).into_owned();
            let text = text.trim_end_matches(['\r', '\n']);
            if text.trim().is_empty() {
                continue;
            }
            let fields =
                split(text).ok_or_else(|| self.bad("a quote is not closed", "a field must end on its line"))?;
            if fields.len() < self.columns.needed() {
                let message = format!("{} columns, but --columns needs {}", fields.len(), self.columns.needed());
                return Err(self.bad(&message, "give --columns in the order of the file"));
            }
            let time = &fields[self.columns.time];
            match read_time(time) {
                None if self.line == 1 => continue,
                None => return Err(self.bad(&format!("`{time}` is not a time"), "epoch milliseconds, or RFC 3339")),
                Some(time) => return self.row(&fields, time).map(Some),
            }
        }
    }

    fn row(&self, fields: &[String], time: Timestamp) -> anyhow::Result<Row> {
        let text = fields[self.columns.value].trim();
        let value = text
            .parse()
            .map_err(|_| self.bad(&format!("the value `{text}` is not a number"), "correct or remove the row"))?;
        let key = self.columns.key.map_or(KEY_OF_ALL, |at| &fields[at]);
        Ok(Row { key: key.to_owned(), time, value })
    }

    fn bad(&self, message: &str, hint: &str) -> anyhow::Error {
        let told = Told::new(format!("{}:{}: {message}", self.name, self.line));
        told.failure(Failure::BadInput).hint(hint).into()
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.next_row();
        self.failed = row.is_err();
        row.transpose()
    }
}

fn read_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(ms) => Some(Timestamp::from_millis(ms)),
        Err(_) => text.parse().ok(),
    }
}

/// The fields of one line; `None` when a quote is not closed.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            ('"', true) => quoted = false,
            ('"', false) if field.is_empty() => quoted = true,
            (',', false) => fields.push(std::mem::take(&mut field)),
            (c, _) => field.push(c),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}
