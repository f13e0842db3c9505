//! The device table: names, and how many rows each device has.
//!
//! ```text
//! bytes    varint    length of all names together
//! form u8
//! 0 front-coded, for each device:
//!     u8: high half bytes shared with the name before, low half bytes that follow; 15 means "15 and a varint more"
//!     the bytes that follow
//! 1 numbered: names are one prefix and a decimal number
//!     prefix (varint length, bytes), digits u8 (0: no leading zeros, else every number has so many), stream of numbers
//! then     stream of row counts (each at least 1)
//! ```

use super::{
    stream,
    wire::{Reader, put_varint},
};
use crate::limits::BLOCK_NAME_BYTES_MAX;

const FRONT_CODED: u8 = 0;
const NUMBERED: u8 = 1;
const DIGITS_MAX: usize = 18;

/// Names one after another, and where each ends.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) text: String,
    pub(super) ends: Vec<u32>,
}

impl Names {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let name = &self.text[start as usize..end as usize];
            start = end;
            name
        })
    }
}

pub(super) fn encode(names: &[&str], counts: &[u32], out: &mut Vec<u8>) {
    put_varint(out, names.iter().map(|name| name.len() as u64).sum());
    let mut scratch = Vec::new();
    if let Some((prefix, digits, numbers)) = numbered(names) {
        out.push(NUMBERED);
        put_varint(out, prefix.len() as u64);
        out.extend_from_slice(prefix.as_bytes());
        out.push(digits);
        stream::encode(&numbers, &mut scratch, out);
    } else {
        out.push(FRONT_CODED);
        front_code(names, out);
    }
    let counts: Vec<i64> = counts.iter().map(|&count| i64::from(count)).collect();
    stream::encode(&counts, &mut scratch, out);
}

/// Reads `devices` names and row counts that add up to `rows`.
pub(super) fn decode(reader: &mut Reader<'_>, devices: usize, rows: usize) -> Option<(Names, Vec<u32>)> {
    let total = reader.length().filter(|&total| total <= BLOCK_NAME_BYTES_MAX)?;
    let names = match reader.u8()? {
        FRONT_CODED => front_decode(reader, devices, total)?,
        NUMBERED => decode_numbered(reader, devices, total)?,
        _ => return None,
    };
    let mut wide = Vec::new();
    stream::decode(reader, devices, &mut wide)?;
    let mut sum = 0usize;
    let mut counts = Vec::with_capacity(devices);
    for count in wide {
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        sum += count as usize;
        counts.push(count);
    }
    (sum == rows).then_some((names, counts))
}

/// The common prefix, the number of digits (0 when it varies), and the numbers, when all names are like that.
fn numbered<'a>(names: &[&'a str]) -> Option<(&'a str, u8, Vec<i64>)> {
    let first = names.first()?;
    let digits_of = |name: &str| name.bytes().rev().take_while(u8::is_ascii_digit).count().min(DIGITS_MAX);
    let prefix = &first[..first.len() - digits_of(first)];
    let width = first.len() - prefix.len();
    let mut same_width = true;
    let mut plain = true;
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        let digits = name.strip_prefix(prefix)?;
        if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        same_width &= digits.len() == width;
        plain &= digits.len() == 1 || !digits.starts_with('0');
        if !same_width && !plain {
            return None;
        }
        numbers.push(digits.bytes().fold(0i64, |number, byte| number * 10 + i64::from(byte - b'0')));
    }
    Some((prefix, if plain { 0 } else { width as u8 }, numbers))
}

fn decode_numbered(reader: &mut Reader<'_>, devices: usize, total: usize) -> Option<Names> {
    let prefix_len = reader.length()?;
    let prefix = reader.take(prefix_len)?;
    let digits = usize::from(reader.u8()?);
    if digits > DIGITS_MAX {
        return None;
    }
    let mut numbers = Vec::new();
    stream::decode(reader, devices, &mut numbers)?;
    let mut text = Vec::with_capacity(total);
    let mut ends = Vec::with_capacity(devices);
    let mut decimal = [0u8; DIGITS_MAX + 2];
    for number in numbers {
        let mut rest = u64::try_from(number).ok().filter(|&number| number < 10u64.pow(DIGITS_MAX as u32))?;
        let mut start = decimal.len();
        loop {
            start -= 1;
            decimal[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            let written = decimal.len() - start;
            if rest == 0 && written >= digits {
                break;
            }
        }
        if text.len() + prefix.len() + decimal.len() - start > total {
            return None;
        }
        text.extend_from_slice(prefix);
        text.extend_from_slice(&decimal[start..]);
        ends.push(text.len() as u32);
    }
    checked(text, ends, total)
}

fn front_code(names: &[&str], out: &mut Vec<u8>) {
    let mut before: &[u8] = b"";
    for name in names {
        let name = name.as_bytes();
        let shared = before.iter().zip(name).take_while(|(a, b)| a == b).count();
        let own = name.len() - shared;
        out.push((shared.min(15) << 4 | own.min(15)) as u8);
        [shared, own].into_iter().filter(|&len| len >= 15).for_each(|len| put_varint(out, len as u64 - 15));
        out.extend_from_slice(&name[shared..]);
        before = name;
    }
}

fn front_decode(reader: &mut Reader<'_>, devices: usize, total: usize) -> Option<Names> {
    let mut text = Vec::with_capacity(total);
    let mut ends = Vec::with_capacity(devices);
    let mut name: Vec<u8> = Vec::new();
    for _ in 0..devices {
        let lens = reader.u8()?;
        let mut len = |half: u8| match half {
            15 => reader.length()?.checked_add(15),
            short => Some(usize::from(short)),
        };
        let (shared, own) = (len(lens >> 4)?, len(lens & 15)?);
        if shared > name.len() {
            return None;
        }
        name.truncate(shared);
        name.extend_from_slice(reader.take(own)?);
        if text.len() + name.len() > total {
            return None;
        }
        text.extend_from_slice(&name);
        ends.push(text.len() as u32);
    }
    checked(text, ends, total)
}

fn checked(text: Vec<u8>, ends: Vec<u32>, total: usize) -> Option<Names> {
    let text = String::from_utf8(text).ok()?;
    let whole = text.len() == total && ends.iter().all(|&end| text.is_char_boundary(end as usize));
    whole.then_some(Names { text, ends })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(names: &[&str]) -> usize {
        let counts: Vec<u32> = (1..=names.len() as u32).collect();
        let mut bytes = Vec::new();
        encode(names, &counts, &mut bytes);
        let mut reader = Reader::new(&bytes);
        let rows = counts.iter().sum::<u32>() as usize;
        let (decoded, read) = decode(&mut reader, names.len(), rows).unwrap();
        assert!(reader.rest().is_empty());
        assert_eq!(decoded.iter().collect::<Vec<_>>(), names);
        assert_eq!(read, counts);
        bytes.len()
    }

    #[test]
    fn numbered_names_cost_next_to_nothing() {
        let padded: Vec<String> = (0..1000).map(|i| format!("press-{i:05}")).collect();
        let plain: Vec<String> = (95..1095).map(|i| format!("press-{i}")).collect();
        for names in [padded, plain] {
            assert!(check(&names.iter().map(String::as_str).collect::<Vec<_>>()) < 100);
        }
    }

    #[test]
    fn names_of_every_kind_are_read_back() {
        check(&["a"]);
        check(&[""]);
        check(&["", "a", ""]);
        check(&["press-01", "press-1"]);
        check(&["press-1", "press-x"]);
        check(&["007", "042"]);
        check(&["1234567890123456789012345", "1234567890123456789012346"]);
        check(&["müll", "mühl", "mü"]);
        check(&["a-name-of-more-than-fifteen-bytes-1x", "a-name-of-more-than-fifteen-bytes-2y"]);
    }

    proptest! {
        #[test]
        fn any_names_are_read_back(names in proptest::collection::vec("[a-cä0-9]{0,20}", 1..50)) {
            check(&names.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
