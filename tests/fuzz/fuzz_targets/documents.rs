//! A peer's words about documents. What is malformed is counted; what makes the library below fail is caught as the mesh does it, and costs
//! the peer its link. Nothing else may fail: neither this crate, nor the library when a later clock tick meets what a peer has left there.
//!
//! The first byte of the input says what is there and how often the peer's own words are heard before; then come frames, each behind its
//! length (u16). The checksums of automerge's chunks are put right, or few inputs would come further.
#![no_main]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    process::abort,
    sync::atomic::{AtomicBool, Ordering},
};

use libfuzzer_sys::fuzz_target;
use millpond_core::ids::Origin;
use millpond_proto::{
    Now,
    documents::{Documents, Effect, Input, Kind},
};
use sha2::{Digest, Sha256};

const ME: Origin = Origin([1; 16]);
const PEER: Origin = Origin([2; 16]);
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// What is heard is guarded.
static GUARDED: AtomicBool = AtomicBool::new(false);

fuzz_target!(
    init: {
        let abort_at_once = take_hook();
        set_hook(Box::new(move |info| {
            let ours = info.location().is_none_or(|at| ["cluster/", "actors/"].iter().any(|dir| at.file().contains(dir)));
            if ours || !GUARDED.load(Ordering::Relaxed) {
                abort_at_once(info);
                abort();
            }
        }));
    },
    |data: &[u8]| {
        let Some((choice, mut rest)) = data.split_first() else { return };
        let mut me = Documents::new(ME, 1, []);
        if choice & 8 != 0 {
            me.put_text(Now(1), 1, Kind::Rules, "hot", "mine").expect("it is a text");
            me.set_device(Now(1), 1, "press-1", &serde_json::json!({ "c": { "d": ["mine"] } })).expect("it is a device");
            run(&mut me, Now(400_000_000), Input::Tick);
        }
        run(&mut me, Now(400_000_000), Input::PeerUp(PEER));
        talk(&mut me, choice % 8);
        while let Some((length, more)) = rest.split_first_chunk::<2>() {
            let (frame, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*length))));
            rest = more;
            let mut frame = frame.to_vec();
            put_right(&mut frame);
            if !hear(&mut me, &frame) {
                break;
            }
        }
        run(&mut me, Now(9_000_000_000), Input::Tick);
        let devices: Vec<_> = me.devices().iter().map(|device| me.device(device)).collect();
        let desired: Vec<_> = me.with_desired().iter().map(|device| me.desired(device).to_string()).collect();
        let _ = (devices, desired, format!("{:?}", me.conflicts()));
        Kind::ALL.into_iter().for_each(|kind| drop((me.head(kind), me.texts(kind))));
        if choice & 16 != 0 {
            // Upon what the peer has left here people go on to write.
            me.set_device(Now(9_000_000_000), 9_000, "press-1", &serde_json::json!({ "a": 1 })).expect("it is a device");
            run(&mut me, Now(19_000_000_000), Input::Tick);
        }
    }
);

/// The peer's own words, so many times back and forth.
fn talk(me: &mut Documents, rounds: u8) {
    if rounds == 0 {
        return;
    }
    let now = Now(400_000_000);
    let mut peer = Documents::new(PEER, 1, []);
    peer.put_text(Now(1), 1, Kind::Rules, "hot", "theirs").expect("it is a text");
    let mut words = run(&mut peer, now, Input::Tick);
    words.extend(run(&mut peer, now, Input::PeerUp(ME)));
    for _ in 0..rounds {
        let heard: Vec<Vec<u8>> =
            words.drain(..).flat_map(|bytes| run(me, now, Input::Heard { from: PEER, bytes: &bytes })).collect();
        words = heard.iter().flat_map(|bytes| run(&mut peer, now, Input::Heard { from: ME, bytes })).collect();
    }
}

/// Hands a frame over, and says whether the peer is still linked.
fn hear(documents: &mut Documents, bytes: &[u8]) -> bool {
    let mut effects = Vec::new();
    GUARDED.store(true, Ordering::Relaxed);
    let input = Input::Heard { from: PEER, bytes };
    let heard = catch_unwind(AssertUnwindSafe(|| documents.handle(Now(500_000_000), input, &mut effects)));
    GUARDED.store(false, Ordering::Relaxed);
    if heard.is_err() {
        run(documents, Now(500_000_000), Input::PeerDown(PEER));
        return false;
    }
    carry_out(documents, Now(500_000_000), effects);
    true
}

/// What is to be saved is saved. Returns what is said.
fn run(documents: &mut Documents, now: Now, input: Input<'_>) -> Vec<Vec<u8>> {
    let mut effects = Vec::new();
    documents.handle(now, input, &mut effects);
    carry_out(documents, now, effects)
}

fn carry_out(documents: &mut Documents, now: Now, mut effects: Vec<Effect>) -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Save { id, .. } => documents.handle(now, Input::Saved(id), &mut effects),
                Effect::Send { bytes, .. } => said.push(bytes),
                Effect::Changed(..) => {}
            }
        }
    }
    said
}

/// Gives each chunk (magic, checksum, type, length as LEB128, data) the checksum that it should have.
fn put_right(frame: &mut [u8]) {
    let starts: Vec<usize> = (0..frame.len()).filter(|at| frame[*at..].starts_with(&MAGIC)).collect();
    for start in starts.into_iter().rev() {
        let Some(chunk) = frame.get(start + 8..) else { continue };
        let (mut length, mut at) = (0usize, 1);
        while let Some(byte) = chunk.get(at).filter(|_| at < 6) {
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(chunk) = chunk.get(..at.saturating_add(length)) else { continue };
        let checksum = Sha256::digest(chunk);
        frame[start + 4..start + 8].copy_from_slice(&checksum[..4]);
    }
}
