//! JSON and MessagePack: templates in which times and sequence numbers are overwritten.

use std::fmt::Write;

use millpond_core::value::Value;

use super::{FIRST_SEQ, Outgoing, PAYLOAD_BYTES, Stamps, pool::Pool};
use crate::bench::plan::{Format, Plan};

/// The payloads of one connection, gone through again and again with new stamps.
#[derive(Debug)]
pub struct Patched {
    templates: Vec<Template>,
    /// Templates of one round.
    per_round: usize,
    rounds: usize,
    /// Publishes so far.
    published: usize,
    batch: usize,
    stamps: Stamps,
    write: fn(&mut [u8], Place, ts_ms: u64, seq: u64),
}

#[derive(Debug)]
struct Template {
    topic: String,
    payload: Vec<u8>,
    /// One per row, rows of a device in their order.
    places: Vec<Place>,
}

/// Where a row's time and sequence number stand in the payload.
#[derive(Clone, Copy, Debug)]
struct Place {
    ts: u32,
    seq: u32,
}

pub fn lanes(plan: &Plan, pool: &Pool, stamps: Stamps) -> Vec<Patched> {
    let lanes = plan.connections as usize;
    (0..lanes).map(|lane| Patched::new(plan, pool, stamps, lane, lanes)).collect()
}

impl Patched {
    fn new(plan: &Plan, pool: &Pool, stamps: Stamps, lane: usize, lanes: usize) -> Patched {
        let (make, write): (fn(&Pool, &[usize], usize) -> Template, fn(&mut [u8], Place, u64, u64)) = match plan.format
        {
            Format::Json => (json, write_digits),
            _ => (msgpack, write_integers),
        };
        let limit = match plan.format {
            Format::Json => 1,
            _ => {
                let first = pool.groups(lane, lanes, 1).first().map_or(1, |group| make(pool, group, 0).payload.len());
                (PAYLOAD_BYTES - 64) / (first + 32)
            }
        };
        let groups = pool.groups(lane, lanes, limit);
        let templates =
            (0..pool.rounds).flat_map(|round| groups.iter().map(move |group| make(pool, group, round))).collect();
        Patched {
            templates,
            per_round: groups.len(),
            rounds: pool.rounds,
            published: 0,
            batch: pool.batch,
            stamps,
            write,
        }
    }

    /// Publishes, events and bytes of all templates.
    pub fn totals(&self) -> (u64, u64, u64) {
        let events = self.templates.iter().map(|template| template.places.len() as u64).sum();
        let bytes = self.templates.iter().map(|template| template.payload.len() as u64).sum();
        (self.templates.len() as u64, events, bytes)
    }

    pub fn next(&mut self) -> Outgoing<'_> {
        let (round, group) = (self.published / self.per_round, self.published % self.per_round);
        self.published += 1;
        let template = &mut self.templates[(round % self.rounds) * self.per_round + group];
        for (row, place) in template.places.iter().enumerate() {
            let reading = (round * self.batch + row % self.batch) as u64;
            let ts_ms = self.stamps.at(reading).as_millis() as u64;
            (self.write)(&mut template.payload, *place, ts_ms, FIRST_SEQ + reading);
        }
        Outgoing { topic: &template.topic, payload: &template.payload, events: template.places.len() as u64 }
    }
}

fn json(pool: &Pool, group: &[usize], round: usize) -> Template {
    let device = group[0];
    let mut text = String::from("{\"ts\":0000000000000,\"seq\":0000000000");
    for (name, value) in pool.reading(device, round, 0) {
        // Writing to a string cannot fail.
        let _ = match value {
            Value::F64(v) => write!(text, ",\"{name}\":{v}"),
            Value::Bool(v) => write!(text, ",\"{name}\":{v}"),
            Value::Text(v) => write!(text, ",\"{name}\":\"{v}\""),
            Value::I64(_) | Value::Bytes(_) => Ok(()),
        };
    }
    text.push('}');
    Template {
        topic: format!("devices/{}/telemetry", pool.devices[device].name),
        payload: text.into_bytes(),
        places: vec![Place { ts: 6, seq: 26 }],
    }
}

fn write_digits(payload: &mut [u8], place: Place, ts_ms: u64, seq: u64) {
    digits(&mut payload[place.ts as usize..place.ts as usize + 13], ts_ms);
    digits(&mut payload[place.seq as usize..place.seq as usize + 10], seq);
}

fn digits(out: &mut [u8], mut number: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn msgpack(pool: &Pool, group: &[usize], round: usize) -> Template {
    let mut payload = Vec::new();
    let mut places = Vec::new();
    push_array_len(&mut payload, group.len() * pool.batch);
    for device in group {
        for at in 0..pool.batch {
            places.push(row(&mut payload, pool, *device, round, at));
        }
    }
    Template { topic: "telemetry".to_owned(), payload, places }
}

fn row(out: &mut Vec<u8>, pool: &Pool, device: usize, round: usize, at: usize) -> Place {
    out.push(0x80 | (3 + pool.metrics(pool.devices[device].kind).len()) as u8);
    push_text(out, "device");
    push_text(out, &pool.devices[device].name);
    push_text(out, "ts");
    out.push(0xcf);
    let ts = out.len() as u32;
    out.extend([0; 8]);
    push_text(out, "seq");
    out.push(0xcf);
    let seq = out.len() as u32;
    out.extend([0; 8]);
    for (name, value) in pool.reading(device, round, at) {
        push_text(out, name);
        match value {
            Value::F64(v) => {
                out.push(0xcb);
                out.extend(v.to_be_bytes());
            }
            Value::Bool(v) => out.push(if v { 0xc3 } else { 0xc2 }),
            Value::Text(v) => push_text(out, v),
            Value::I64(_) | Value::Bytes(_) => out.push(0xc0),
        }
    }
    Place { ts, seq }
}

fn write_integers(payload: &mut [u8], place: Place, ts_ms: u64, seq: u64) {
    payload[place.ts as usize..place.ts as usize + 8].copy_from_slice(&ts_ms.to_be_bytes());
    payload[place.seq as usize..place.seq as usize + 8].copy_from_slice(&seq.to_be_bytes());
}

fn push_array_len(out: &mut Vec<u8>, len: usize) {
    out.push(0xdd);
    out.extend((len as u32).to_be_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..32 => out.push(0xa0 | len as u8),
        len => out.extend([0xd9, len as u8]),
    }
    out.extend_from_slice(text.as_bytes());
}
