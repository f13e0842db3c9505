//! A stranger's JSON: nothing panics, a payload is taken whole or not at all, what is taken keeps the limits and can be stored,
//! and nothing is taken that is not JSON.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use millpond_core::dead_letter::PayloadFormat;

#[path = "../payload.rs"]
mod payload;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let device = (choice & 1 == 0).then_some("press-17");
    let format = [PayloadFormat::Json, PayloadFormat::Ndjson, PayloadFormat::Unknown][usize::from(choice >> 1) % 3];
    let taken = payload::decode(format, device, &Bytes::copy_from_slice(text));
    if taken && format != PayloadFormat::Unknown {
        let stream = serde_json::Deserializer::from_slice(text).into_iter::<serde::de::IgnoredAny>();
        assert!(stream.into_iter().all(|document| document.is_ok()), "{:?}", String::from_utf8_lossy(text));
    }
});
