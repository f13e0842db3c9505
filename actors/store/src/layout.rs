//! How records lie in a value of the journal.
//!
//! A value is a header, then records one behind the other. It is at most 65,520 bytes, but for one that holds a single
//! larger record. Once written it never changes. Numbers are little-endian.
//!
//! ```text
//! value header, 80 bytes                       record header, 40 bytes
//!  0  8  magic "MPvalue\x01"                    0  4  bytes of payload
//!  8  1  class                                  4  4  sequence number less the first of the value
//!  9  3  zero                                   8  4  rows (events)
//! 12  4  incarnation                           12  1  kind
//! 16 16  origin                                13  3  zero
//! 32  8  first sequence number                 16  8  hybrid logical clock
//! 40  8  last sequence number                  24  8  first event time, ns
//! 48  4  records                               32  8  last event time, ns
//! 52  4  bytes after this header               40  …  payload
//! 56  8  written at, ms
//! 64  4  opening of the store that wrote it
//! 68  4  zero
//! 72  4  CRC32 of what follows the header
//! 76  4  CRC32 of bytes 0 to 76
//! ```
//!
//! The header alone says whose the value is and how long, so that it can be found in a file whose trees are lost. The
//! opening tells which of two values with the same sequence numbers was committed: the earlier opening wrote its value
//! just before it crashed, and the number was given again.

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{Class, Hlc, RecordKind},
    time::Timestamp,
};

pub(crate) const MAGIC: [u8; 8] = *b"MPvalue\x01";
pub(crate) const VALUE_HEADER: usize = 80;
pub(crate) const RECORD_HEADER: usize = 40;

/// A record where it lies: the payload is borrowed from the store's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub incarnation: Incarnation,
    pub seq: Seq,
    pub kind: RecordKind,
    pub hlc: Hlc,
    /// Events in the payload.
    pub rows: u32,
    pub min_time: Timestamp,
    pub max_time: Timestamp,
    /// Wall clock of the node when the record was committed.
    pub written_ms: i64,
    pub payload: &'a [u8],
}

/// What a value's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueHeader {
    pub class: Class,
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub first: Seq,
    pub last: Seq,
    pub records: u32,
    pub body_bytes: u32,
    pub written_ms: i64,
    pub opening: u32,
    pub body_crc: u32,
}

/// Why bytes are not a value of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("the value's header is damaged")]
    Header,
    #[error("the value is cut short")]
    Short,
    #[error("the value's content does not match its checksum")]
    Body,
    #[error("a record inside the value is malformed")]
    Record,
}

impl ValueHeader {
    fn encode(&self) -> [u8; VALUE_HEADER] {
        let mut out = [0; VALUE_HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8] = self.class as u8;
        out[12..16].copy_from_slice(&self.incarnation.0.to_le_bytes());
        out[16..32].copy_from_slice(&self.origin.0);
        out[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.last.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.records.to_le_bytes());
        out[52..56].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[56..64].copy_from_slice(&self.written_ms.to_le_bytes());
        out[64..68].copy_from_slice(&self.opening.to_le_bytes());
        out[72..76].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..76]);
        out[76..80].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads and checks the first 80 bytes; more may follow.
    pub fn decode(bytes: &[u8]) -> Result<ValueHeader, BadValue> {
        let bytes = bytes.get(..VALUE_HEADER).ok_or(BadValue::Short)?;
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..76]) != u32_at(bytes, 76) {
            return Err(BadValue::Header);
        }
        let class = Class::ALL.into_iter().find(|class| *class as u8 == bytes[8]).ok_or(BadValue::Header)?;
        let mut origin = Origin::default();
        origin.0.copy_from_slice(&bytes[16..32]);
        let header = ValueHeader {
            class,
            origin,
            incarnation: Incarnation(u32_at(bytes, 12)),
            first: Seq(u64_at(bytes, 32)),
            last: Seq(u64_at(bytes, 40)),
            records: u32_at(bytes, 48),
            body_bytes: u32_at(bytes, 52),
            written_ms: u64_at(bytes, 56) as i64,
            opening: u32_at(bytes, 64),
            body_crc: u32_at(bytes, 72),
        };
        let plausible = header.first.0 >= 1 && header.first <= header.last && header.records >= 1;
        if plausible { Ok(header) } else { Err(BadValue::Header) }
    }

    pub fn value_bytes(&self) -> u64 {
        VALUE_HEADER as u64 + u64::from(self.body_bytes)
    }
}

/// A value whose checksums are right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub header: ValueHeader,
    body: &'a [u8],
}

impl<'a> Value<'a> {
    /// Checks header and content. Bytes behind the value are passed over.
    pub fn parse(bytes: &'a [u8]) -> Result<Value<'a>, BadValue> {
        let header = ValueHeader::decode(bytes)?;
        let end = header.value_bytes() as usize;
        let body = bytes.get(VALUE_HEADER..end).ok_or(BadValue::Short)?;
        if crc32fast::hash(body) != header.body_crc {
            return Err(BadValue::Body);
        }
        Ok(Value { header, body })
    }

    /// The records in the order of their sequence numbers. Ends after the first malformed one.
    pub fn records(&self) -> Records<'a> {
        Records { header: self.header, rest: self.body, left: self.header.records }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    header: ValueHeader,
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, BadValue>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let record = self.take();
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn take(&mut self) -> Result<RecordRef<'a>, BadValue> {
        let (head, rest) = self.rest.split_at_checked(RECORD_HEADER).ok_or(BadValue::Record)?;
        let (payload, rest) = rest.split_at_checked(u32_at(head, 0) as usize).ok_or(BadValue::Record)?;
        let seq = self.header.first.0.checked_add(u64::from(u32_at(head, 4))).ok_or(BadValue::Record)?;
        let kind = RecordKind::from_u8(head[12]).ok_or(BadValue::Record)?;
        if seq > self.header.last.0 || kind.class() != self.header.class {
            return Err(BadValue::Record);
        }
        self.rest = rest;
        Ok(RecordRef {
            incarnation: self.header.incarnation,
            seq: Seq(seq),
            kind,
            hlc: Hlc(u64_at(head, 16)),
            rows: u32_at(head, 8),
            min_time: Timestamp(u64_at(head, 24) as i64),
            max_time: Timestamp(u64_at(head, 32) as i64),
            written_ms: self.header.written_ms,
            payload,
        })
    }
}

/// Who writes: the same for every value of a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub opening: u32,
    pub written_ms: i64,
}

/// Fills `out`, of exactly the right length, with a value of `records`, which are not empty, of one class, in the order
/// of their sequence numbers.
pub(crate) fn write_value<'a>(
    out: &mut [u8],
    author: Author,
    class: Class,
    records: impl Iterator<Item = (Seq, &'a crate::Append)>,
) {
    let (mut first, mut last, mut count, mut at) = (None, Seq(0), 0u32, VALUE_HEADER);
    for (seq, append) in records {
        let first = *first.get_or_insert(seq);
        let head = &mut out[at..at + RECORD_HEADER];
        head[0..4].copy_from_slice(&(append.payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&((seq.0 - first.0) as u32).to_le_bytes());
        head[8..12].copy_from_slice(&append.rows.to_le_bytes());
        head[12..16].copy_from_slice(&[append.kind as u8, 0, 0, 0]);
        head[16..24].copy_from_slice(&append.hlc.0.to_le_bytes());
        head[24..32].copy_from_slice(&append.min_time.0.to_le_bytes());
        head[32..40].copy_from_slice(&append.max_time.0.to_le_bytes());
        at += RECORD_HEADER;
        out[at..at + append.payload.len()].copy_from_slice(&append.payload);
        at += append.payload.len();
        (last, count) = (seq, count + 1);
    }
    debug_assert_eq!(at, out.len());
    let header = ValueHeader {
        class,
        origin: author.origin,
        incarnation: author.incarnation,
        first: first.unwrap_or(last),
        last,
        records: count,
        body_bytes: (at - VALUE_HEADER) as u32,
        written_ms: author.written_ms,
        opening: author.opening,
        body_crc: crc32fast::hash(&out[VALUE_HEADER..]),
    };
    out[..VALUE_HEADER].copy_from_slice(&header.encode());
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(bytes, at + 4)) << 32) | u64::from(u32_at(bytes, at))
}

#[cfg(test)]
mod tests;
