//! Which readings lie in dead letters.

use std::ops::ControlFlow;

use millpond_core::{
    block,
    dead_letter::{DeadLetter, PayloadFormat},
    record,
};
use millpond_store::{Reader, Table};

/// Calls `each` for every (device, sequence number) in the dead letters. Payloads that are no readings are passed over.
pub fn read(reader: &Reader, mut each: impl FnMut(&str, u64)) -> Result<(), String> {
    let mut decoder = block::Decoder::new();
    let read = reader.range(Table::DeadLetters, &[], |_, value| {
        if let Ok(letter) = record::decode::<DeadLetter>(&value) {
            match letter.format {
                PayloadFormat::Block => of_block(&mut decoder, &letter, &mut each),
                PayloadFormat::Unknown | PayloadFormat::Json | PayloadFormat::Ndjson => of_json(&letter, &mut each),
                PayloadFormat::Msgpack => {}
            }
        }
        ControlFlow::Continue(())
    });
    read.map_err(|error| error.to_string())
}

/// Rows that passed their decoder are kept as blocks.
fn of_block(decoder: &mut block::Decoder, letter: &DeadLetter, each: &mut impl FnMut(&str, u64)) {
    let Ok(batch) = decoder.decode(&letter.payload) else { return };
    for run in batch.runs() {
        run.rows().filter_map(|row| batch.seq(row)).for_each(|seq| each(batch.device(run), seq));
    }
}

fn of_json(letter: &DeadLetter, each: &mut impl FnMut(&str, u64)) {
    let mut of_value = |value: &serde_json::Value| {
        let named = ["device", "device_id"].iter().find_map(|key| value.get(*key)?.as_str());
        let device = named.unwrap_or(&letter.device);
        if let Some(seq) = value.get("seq").and_then(serde_json::Value::as_u64) {
            each(device, seq);
        }
    };
    for line in letter.payload.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(serde_json::Value::Array(values)) => values.iter().for_each(&mut of_value),
            Ok(value) => of_value(&value),
            Err(_) => {}
        }
    }
}
