//! The rules for one row, the same in every format.

use millpond_core::{
    batch::{BatchBuilder, UNTIMED},
    dead_letter::Reason,
    limits::{
        DEVICE_NAME_BYTES_MAX, EVENTS_PER_BATCH_MAX, METRIC_NAME_BYTES_MAX, METRICS_PER_EVENT_MAX,
        SHAPES_PER_PAYLOAD_MAX, VALUE_BYTES_MAX,
    },
    time::Timestamp,
    value::{Quality, Value, number_of_integer},
};

use super::PayloadError;

/// The value of a key, as the format has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Null,
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// A time stamp in a type of its own.
    Time(Timestamp),
}

/// Writes the rows of one payload into the builder and checks them.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    builder: &'a mut BatchBuilder,
    /// The device that the address of the payload names.
    topic: Option<&'a str>,
    count: usize,
    seen: Seen,
}

/// Keys with a meaning that the current row had.
#[derive(Debug, Default)]
struct Seen {
    device: bool,
    ts: bool,
    seq: bool,
    quality: bool,
}

impl<'a> Rows<'a> {
    pub fn new(builder: &'a mut BatchBuilder, topic: Option<&'a str>) -> Result<Rows<'a>, PayloadError> {
        if let Some(device) = topic {
            check_device(device)?;
        }
        builder.mark();
        Ok(Rows { builder, topic, count: 0, seen: Seen::default() })
    }

    /// Rows that are complete.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes back all rows of the payload.
    pub fn rollback(&mut self) {
        self.builder.rollback();
        self.count = 0;
    }

    pub fn begin(&mut self) {
        self.builder.begin(self.topic.unwrap_or_default());
        self.builder.time(UNTIMED);
        self.seen = Seen::default();
    }

    /// Adds one key of the current row.
    #[inline]
    pub fn field(&mut self, key: &[u8], field: Field<'_>) -> Result<(), PayloadError> {
        match key {
            b"ts" => self.time(field),
            b"seq" => self.seq(field),
            b"device" | b"device_id" => self.device(field),
            b"quality" => self.quality(field),
            _ => self.metric(key, field),
        }
    }

    pub fn end(&mut self) -> Result<(), PayloadError> {
        if self.topic.is_none() && !self.seen.device {
            return Err(PayloadError::new(Reason::BadDevice, "there is no `device`"));
        }
        if self.builder.cells() == 0 {
            return Err(PayloadError::malformed("there is no metric"));
        }
        if self.count == EVENTS_PER_BATCH_MAX {
            let detail = format!("the payload has more than {EVENTS_PER_BATCH_MAX} events");
            return Err(PayloadError::new(Reason::TooLarge, detail));
        }
        self.builder.end();
        self.count += 1;
        if self.builder.new_shapes() > SHAPES_PER_PAYLOAD_MAX {
            let detail = format!("the payload has more than {SHAPES_PER_PAYLOAD_MAX} different sets of metrics");
            return Err(PayloadError::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    #[inline]
    fn metric(&mut self, name: &[u8], field: Field<'_>) -> Result<(), PayloadError> {
        let value = match field {
            Field::Null => return metric_name(name).map(|_| ()),
            Field::Unsigned(n) => i64::try_from(n).map_or(Value::F64(n as f64), number_of_integer),
            Field::Signed(n) => number_of_integer(n),
            Field::Float(x) => Value::F64(x),
            Field::Bool(b) => Value::Bool(b),
            Field::Text(text) => Value::Text(check_size(name, text.len()).map(|()| text)?),
            Field::Bytes(bytes) => Value::Bytes(check_size(name, bytes.len()).map(|()| bytes)?),
            Field::Time(at) => Value::I64(at.0),
        };
        if self.builder.cell_as_before(name, value) { Ok(()) } else { self.other_metric(name, value) }
    }

    /// A metric that the row before did not have in this place.
    #[cold]
    fn other_metric(&mut self, name: &[u8], value: Value<'_>) -> Result<(), PayloadError> {
        let name = metric_name(name)?;
        if self.builder.cells() == METRICS_PER_EVENT_MAX {
            let detail = format!("there are more than {METRICS_PER_EVENT_MAX} metrics");
            return Err(PayloadError::new(Reason::TooLarge, detail));
        }
        if self.builder.cell(name, value) { Ok(()) } else { Err(twice(name)) }
    }

    fn device(&mut self, field: Field<'_>) -> Result<(), PayloadError> {
        first(&mut self.seen.device, "device")?;
        let Field::Text(device) = field else {
            return Err(PayloadError::new(Reason::BadDevice, "`device` is not text"));
        };
        match self.topic {
            None => {
                check_device(device)?;
                self.builder.device(device);
                Ok(())
            }
            Some(topic) if topic == device => Ok(()),
            Some(topic) => {
                let detail = format!("`device` is {:?}, but the payload was sent for {topic:?}", shown(device));
                Err(PayloadError::new(Reason::BadDevice, detail))
            }
        }
    }

    fn time(&mut self, field: Field<'_>) -> Result<(), PayloadError> {
        first(&mut self.seen.ts, "ts")?;
        let time = match field {
            Field::Null => return Ok(()),
            Field::Time(at) => Some(at),
            Field::Unsigned(n) => i64::try_from(n).ok().and_then(epoch),
            Field::Signed(n) => epoch(n),
            Field::Float(x) => epoch_fraction(x),
            Field::Text(text) => text.parse().ok(),
            Field::Bool(_) | Field::Bytes(_) => None,
        };
        match time {
            Some(time) if time != UNTIMED => {
                self.builder.time(time);
                Ok(())
            }
            _ => Err(PayloadError::malformed(
                "`ts` is not a time: expected RFC 3339, or a number of s, ms, µs or ns since 1970",
            )),
        }
    }

    fn seq(&mut self, field: Field<'_>) -> Result<(), PayloadError> {
        first(&mut self.seen.seq, "seq")?;
        let seq = match field {
            Field::Null => return Ok(()),
            Field::Unsigned(n) => Some(n),
            Field::Signed(n) => u64::try_from(n).ok(),
            Field::Float(x) if x >= 0.0 && x <= (1u64 << 53) as f64 && x.fract() == 0.0 => Some(x as u64),
            _ => None,
        };
        let seq = seq.ok_or_else(|| PayloadError::malformed("`seq` is not a whole number from 0 on"))?;
        self.builder.seq(seq);
        Ok(())
    }

    fn quality(&mut self, field: Field<'_>) -> Result<(), PayloadError> {
        first(&mut self.seen.quality, "quality")?;
        let quality = match field {
            Field::Null => return Ok(()),
            Field::Text("good") => Quality::Good,
            Field::Text("uncertain") => Quality::Uncertain,
            Field::Text("bad") => Quality::Bad,
            _ => return Err(PayloadError::malformed("`quality` is none of \"good\", \"uncertain\", \"bad\"")),
        };
        self.builder.quality(quality);
        Ok(())
    }
}

/// A device's name: text without control characters, neither empty nor too long.
pub(super) fn check_device(device: &str) -> Result<(), PayloadError> {
    if !device.is_empty() && device.len() <= DEVICE_NAME_BYTES_MAX && is_printable(device) {
        return Ok(());
    }
    let detail = format!(
        "the device's name {:?} is empty, longer than {DEVICE_NAME_BYTES_MAX} bytes, or has control characters",
        shown(device)
    );
    Err(PayloadError::new(Reason::BadDevice, detail))
}

/// A metric's name: as a device's.
pub(super) fn check_metric(name: &str) -> Result<(), PayloadError> {
    if !name.is_empty() && name.len() <= METRIC_NAME_BYTES_MAX && is_printable(name) {
        return Ok(());
    }
    Err(PayloadError::malformed(format!(
        "the metric's name {:?} is empty, longer than {METRIC_NAME_BYTES_MAX} bytes, or has control characters",
        shown(name)
    )))
}

/// The beginning of a text, for messages.
pub(super) fn shown(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

fn metric_name(name: &[u8]) -> Result<&str, PayloadError> {
    let name = std::str::from_utf8(name).map_err(|_| PayloadError::malformed("a metric's name is not UTF-8"))?;
    check_metric(name).map(|()| name)
}

fn check_size(name: &[u8], bytes: usize) -> Result<(), PayloadError> {
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let name = metric_name(name)?;
    let detail = format!("metric {name:?} has {bytes} bytes, more than {VALUE_BYTES_MAX}");
    Err(PayloadError::new(Reason::TooLarge, detail))
}

/// No control characters: bytes below 0x20 and 0x7f in ASCII names, the C1 range too in others.
fn is_printable(name: &str) -> bool {
    if name.is_ascii() {
        return name.bytes().all(|b| b >= 0x20 && b != 0x7f);
    }
    !name.chars().any(char::is_control)
}

fn first(seen: &mut bool, key: &str) -> Result<(), PayloadError> {
    if std::mem::replace(seen, true) { Err(twice(key)) } else { Ok(()) }
}

fn twice(key: &str) -> PayloadError {
    PayloadError::malformed(format!("the key {:?} occurs twice", shown(key)))
}

/// Nanoseconds per unit of a number of that size: below 10¹¹ it counts seconds (until the year 5138), below 10¹⁴ ms, below
/// 10¹⁷ µs, and ns above.
fn unit_ns(size: u64) -> i64 {
    match size {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    }
}

fn epoch(n: i64) -> Option<Timestamp> {
    n.checked_mul(unit_ns(n.unsigned_abs())).map(Timestamp)
}

/// Fractions are kept to the microsecond: a 64-bit float of seconds since 1970 holds no more.
fn epoch_fraction(x: f64) -> Option<Timestamp> {
    if !x.is_finite() || x.abs() >= 9.2e18 {
        return None;
    }
    let unit_ns = unit_ns(x.abs() as u64);
    if unit_ns <= 1_000 || x.fract() == 0.0 {
        return epoch(x as i64);
    }
    ((x * (unit_ns / 1_000) as f64).round() as i64).checked_mul(1_000).map(Timestamp)
}
