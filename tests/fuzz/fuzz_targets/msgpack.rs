//! A stranger's MessagePack: nothing panics, a payload is taken whole or not at all, what is taken keeps the limits and can be stored.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millpond_core::dead_letter::PayloadFormat;

#[path = "../payload.rs"]
mod payload;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rows)) = bytes.split_first() else { return };
    let device = (choice & 1 == 0).then_some("press-17");
    let format = if choice & 2 == 0 { PayloadFormat::Msgpack } else { PayloadFormat::Unknown };
    payload::decode(format, device, &Bytes::copy_from_slice(rows));
});
