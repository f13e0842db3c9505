//! JSON and NDJSON, read in one pass without a tree between.

use std::fmt;

use millpond_core::dead_letter::Reason;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::{
    PayloadError,
    row::{Field, Rows, shown},
};

/// An object or an array of objects; when more follows, lines of them.
pub(super) fn decode(rows: &mut Rows<'_>, key: &mut String, payload: &[u8]) -> Result<(), PayloadError> {
    let text = utf8(payload)?;
    let mut json = sonic_rs::Deserializer::from_str(text);
    document(rows, key, &mut json, 0)?;
    if json.end().is_ok() {
        return Ok(());
    }
    rows.rollback();
    lines(rows, key, text)
}

/// An object or an array of objects per line; empty lines are skipped.
pub(super) fn decode_lines(rows: &mut Rows<'_>, key: &mut String, payload: &[u8]) -> Result<(), PayloadError> {
    lines(rows, key, utf8(payload)?)
}

fn lines(rows: &mut Rows<'_>, key: &mut String, text: &str) -> Result<(), PayloadError> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if !line.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            let mut json = sonic_rs::Deserializer::from_str(line);
            document(rows, key, &mut json, start)?;
            json.end().map_err(|error| unreadable(rows, &error, start))?;
        }
        start += line.len();
    }
    Ok(())
}

fn utf8(payload: &[u8]) -> Result<&str, PayloadError> {
    std::str::from_utf8(payload)
        .map_err(|error| PayloadError::malformed(format!("byte {} is not UTF-8", error.valid_up_to())))
}

/// Reads one document that begins at byte `start` of the payload.
fn document<'de>(
    rows: &mut Rows<'_>,
    key: &mut String,
    json: &mut sonic_rs::Deserializer<sonic_rs::Read<'de>>,
    start: usize,
) -> Result<(), PayloadError> {
    let mut reading = Reading { rows, key, rejected: None };
    match (Document(&mut reading)).deserialize(&mut *json) {
        Ok(()) => Ok(()),
        Err(error) => Err(match reading.rejected.take() {
            Some(rejected) => placed(reading.rows, rejected, start + error.offset()),
            None => unreadable(reading.rows, &error, start),
        }),
    }
}

fn placed(rows: &Rows<'_>, error: PayloadError, byte: usize) -> PayloadError {
    let detail = format!("event {} (until byte {byte}): {}", rows.count() + 1, error.detail);
    PayloadError { detail, ..error }
}

/// The first line of the library's error says what it expected; the others show the text.
fn unreadable(rows: &Rows<'_>, error: &sonic_rs::Error, start: usize) -> PayloadError {
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or(&whole);
    let byte = start + error.offset();
    PayloadError::new(Reason::Malformed, format!("event {}, byte {byte}: {}", rows.count() + 1, shown(what)))
}

/// What the visitors share. A row's own error is kept in `rejected`; the library's then only says where.
struct Reading<'r, 'a> {
    rows: &'r mut Rows<'a>,
    /// Holds a key with escapes while its value is read.
    key: &'r mut String,
    rejected: Option<PayloadError>,
}

impl Reading<'_, '_> {
    fn check<E: de::Error>(&mut self, result: Result<(), PayloadError>) -> Result<(), E> {
        result.map_err(|error| {
            self.rejected = Some(error);
            E::custom("rejected")
        })
    }
}

struct Document<'x, 'r, 'a>(&'x mut Reading<'r, 'a>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        Row(self.0).visit_map(map)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq.next_element_seed(Row(self.0))?.is_some() {}
        Ok(())
    }
}

struct Row<'x, 'r, 'a>(&'x mut Reading<'r, 'a>);

impl<'de> DeserializeSeed<'de> for Row<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let reading = self.0;
        reading.rows.begin();
        while let Some(key) = map.next_key_seed(Key(&mut *reading.key))? {
            match key {
                Some(key) => {
                    map.next_value_seed(Cell { rows: &mut *reading.rows, rejected: &mut reading.rejected, key })?
                }
                None => {
                    let key = &**reading.key;
                    map.next_value_seed(Cell { rows: &mut *reading.rows, rejected: &mut reading.rejected, key })?;
                }
            }
        }
        let end = reading.rows.end();
        reading.check(end)
    }
}

/// Borrows a key from the payload, or leaves it in the string when it has escapes.
struct Key<'x>(&'x mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<&'de str>;
    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Option<&'de str>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Option<&'de str>, E> {
        Ok(Some(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<&'de str>, E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(None)
    }
}

struct Cell<'x, 'a> {
    rows: &'x mut Rows<'a>,
    rejected: &'x mut Option<PayloadError>,
    key: &'x str,
}

impl Cell<'_, '_> {
    fn set<E: de::Error>(self, field: Field<'_>) -> Result<(), E> {
        self.rows.field(self.key.as_bytes(), field).map_err(|error| {
            *self.rejected = Some(error);
            E::custom("rejected")
        })
    }

    fn nested<E: de::Error>(self, what: &str) -> Result<(), E> {
        let detail = format!("{:?} is {what}, but metrics are flat names", shown(self.key));
        *self.rejected = Some(PayloadError::malformed(detail));
        Err(E::custom("rejected"))
    }
}

impl<'de> DeserializeSeed<'de> for Cell<'_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Cell<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a boolean, text or null")
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<(), E> {
        self.set(Field::Float(x))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<(), E> {
        self.set(Field::Unsigned(n))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<(), E> {
        self.set(Field::Signed(n))
    }

    fn visit_bool<E: de::Error>(self, b: bool) -> Result<(), E> {
        self.set(Field::Bool(b))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.set(Field::Text(text))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.set(Field::Null)
    }

    fn visit_map<M: MapAccess<'de>>(self, _: M) -> Result<(), M::Error> {
        self.nested("an object")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, _: S) -> Result<(), S::Error> {
        self.nested("an array")
    }
}
