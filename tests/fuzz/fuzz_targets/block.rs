//! A stranger's block: whatever the bytes, nothing panics, nothing takes more memory than the limits say, and what is read
//! can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::block::{Decoder, devices, encode, peek, read_series, statistics};

fuzz_target!(|bytes: &[u8]| {
    survive(bytes);
    // Most inputs end at the magic number or the checksum: the same bytes with a header that leads further.
    let mut block = vec![0xc1, b'M', b'P', b'B', 1];
    block.extend_from_slice(bytes);
    if block.len() >= 40 {
        let length = block.len() as u32;
        block[8..12].copy_from_slice(&length.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&block[..12]);
        crc.update(&block[16..]);
        let crc = crc.finalize();
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        survive(&block);
    }
});

fn survive(block: &[u8]) {
    let summary = peek(block);
    let mut name = String::new();
    let _ = devices(block, &mut |device, _| name = device.to_string());
    let _ = read_series(block, &name, "temperature", &mut |_, _| ());
    let _ = statistics(block, "temperature");
    let Ok(batch) = Decoder::new().decode(block) else { return };
    assert_eq!(summary.map(|summary| summary.rows as usize), Ok(batch.rows()));
    let mut again = Vec::new();
    encode(&batch, &mut again);
    assert_eq!(Decoder::new().decode(&again), Ok(batch.grouped()));
}
