//! MessagePack rows, read straight from the bytes: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use millpond_core::time::Timestamp;

use super::{
    PayloadError,
    row::{Field, Rows, shown},
};

/// Maps, or arrays of maps, one after another.
pub(super) fn decode(rows: &mut Rows<'_>, _: &mut String, payload: &[u8]) -> Result<(), PayloadError> {
    let mut reader = Reader { bytes: payload, at: 0 };
    let placed = |rows: &Rows<'_>, at: usize, error: PayloadError| {
        let detail = format!("event {}, byte {at}: {}", rows.count() + 1, error.detail);
        PayloadError { detail, ..error }
    };
    while reader.at < payload.len() {
        let start = reader.at;
        let maps = reader.array().map_err(|error| placed(rows, start, error))?;
        for _ in 0..maps.unwrap_or(1) {
            row(rows, &mut reader).map_err(|error| placed(rows, reader.at, error))?;
        }
    }
    Ok(())
}

fn row(rows: &mut Rows<'_>, reader: &mut Reader<'_>) -> Result<(), PayloadError> {
    let entries = reader.map()?;
    rows.begin();
    for _ in 0..entries {
        let key = reader.key()?;
        let field = reader.field(key)?;
        rows.field(key, field)?;
    }
    rows.end()
}

struct Reader<'p> {
    bytes: &'p [u8],
    at: usize,
}

impl<'p> Reader<'p> {
    fn take(&mut self, count: usize) -> Result<&'p [u8], PayloadError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..count)) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(PayloadError::malformed("the payload ends in the middle of a value")),
        }
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, PayloadError> {
        self.array_of().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, PayloadError> {
        self.array_of().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, PayloadError> {
        self.array_of().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, PayloadError> {
        self.array_of().map(u64::from_be_bytes)
    }

    /// The length of an array when one begins here; nothing is read otherwise.
    fn array(&mut self) -> Result<Option<usize>, PayloadError> {
        let head = self.bytes[self.at];
        if !matches!(head, 0x90..=0x9f | 0xdc | 0xdd) {
            return Ok(None);
        }
        self.at += 1;
        Ok(Some(match head {
            0xdc => self.u16()? as usize,
            0xdd => self.u32()? as usize,
            fixed => usize::from(fixed & 0x0f),
        }))
    }

    fn map(&mut self) -> Result<usize, PayloadError> {
        match self.u8()? {
            head @ 0x80..=0x8f => Ok(usize::from(head & 0x0f)),
            0xde => Ok(self.u16()? as usize),
            0xdf => Ok(self.u32()? as usize),
            head => {
                Err(PayloadError::malformed(format!("expected a map, or an array of maps, but found {}", kind(head))))
            }
        }
    }

    /// The bytes of a key; whether they are UTF-8 is seen when the name is new.
    fn key(&mut self) -> Result<&'p [u8], PayloadError> {
        let length = match self.u8()? {
            head @ 0xa0..=0xbf => usize::from(head & 0x1f),
            0xd9 => self.u8()? as usize,
            0xda => self.u16()? as usize,
            0xdb => self.u32()? as usize,
            head => return Err(PayloadError::malformed(format!("a key is {}, not text", kind(head)))),
        };
        self.take(length)
    }

    fn text(&mut self, length: usize) -> Result<&'p str, PayloadError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| PayloadError::malformed("text is not UTF-8"))
    }

    fn field(&mut self, key: &[u8]) -> Result<Field<'p>, PayloadError> {
        let head = self.u8()?;
        Ok(match head {
            0xcb => Field::Float(f64::from_bits(self.u64()?)),
            0xca => Field::Float(f64::from(f32::from_bits(self.u32()?))),
            0x00..=0x7f => Field::Unsigned(u64::from(head)),
            0xe0..=0xff => Field::Signed(i64::from(head as i8)),
            0xcc => Field::Unsigned(self.u8()?.into()),
            0xcd => Field::Unsigned(self.u16()?.into()),
            0xce => Field::Unsigned(self.u32()?.into()),
            0xcf => Field::Unsigned(self.u64()?),
            0xd0 => Field::Signed((self.u8()? as i8).into()),
            0xd1 => Field::Signed((self.u16()? as i16).into()),
            0xd2 => Field::Signed((self.u32()? as i32).into()),
            0xd3 => Field::Signed(self.u64()? as i64),
            0xc0 => Field::Null,
            0xc2 => Field::Bool(false),
            0xc3 => Field::Bool(true),
            0xa0..=0xbf => Field::Text(self.text(usize::from(head & 0x1f))?),
            0xd9..=0xdb => {
                let length = self.length(head - 0xd9)?;
                Field::Text(self.text(length)?)
            }
            0xc4..=0xc6 => {
                let length = self.length(head - 0xc4)?;
                Field::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(head - 0xc7)?;
                self.extension(length)?
            }
            0xd4..=0xd8 => self.extension(1 << (head - 0xd4))?,
            _ => {
                let key = String::from_utf8_lossy(key);
                let detail = format!("{:?} is {}, but metrics are flat names", shown(&key), kind(head));
                return Err(PayloadError::malformed(detail));
            }
        })
    }

    /// A length in 1, 2 or 4 bytes.
    fn length(&mut self, width: u8) -> Result<usize, PayloadError> {
        Ok(match width {
            0 => self.u8()? as usize,
            1 => self.u16()? as usize,
            _ => self.u32()? as usize,
        })
    }

    /// Time stamps are understood; other extensions are bytes.
    fn extension(&mut self, length: usize) -> Result<Field<'p>, PayloadError> {
        const TIMESTAMP: u8 = -1i8 as u8;
        let kind = self.u8()?;
        let content = self.take(length)?;
        if kind != TIMESTAMP {
            return Ok(Field::Bytes(content));
        }
        timestamp(content).map(Field::Time).ok_or_else(|| PayloadError::malformed("a time stamp cannot be read"))
    }
}

/// 32 bits of seconds; 30 bits of ns and 34 of seconds; or 32 bits of ns and 64 of signed seconds.
fn timestamp(content: &[u8]) -> Option<Timestamp> {
    let (seconds, nanos) = match *content {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            ((both & ((1 << 34) - 1)) as i64, (both >> 34) as i64)
        }
        [a, b, c, d, ref seconds @ ..] if seconds.len() == 8 => {
            (i64::from_be_bytes(seconds.try_into().ok()?), i64::from(u32::from_be_bytes([a, b, c, d])))
        }
        _ => return None,
    };
    if nanos > 999_999_999 {
        return None;
    }
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

fn kind(head: u8) -> &'static str {
    match head {
        0x80..=0x8f | 0xde | 0xdf => "a map",
        0x90..=0x9f | 0xdc | 0xdd => "an array",
        0xa0..=0xbf | 0xd9..=0xdb => "text",
        0xc0 => "nil",
        0xc2 | 0xc3 => "a boolean",
        0xc4..=0xc6 => "bytes",
        0xc7..=0xc9 | 0xd4..=0xd8 => "an extension",
        0xc1 => "the byte c1, which MessagePack does not use",
        _ => "a number",
    }
}
