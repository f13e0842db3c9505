//! A peer's words about documents. What is malformed is counted; damaged changes with sound checksums are automerge's to refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::ids::Origin;
use millpond_proto::{
    Now,
    documents::{Documents, Input},
};

fuzz_target!(|data: &[u8]| {
    let (me, peer) = (Origin([1; 16]), Origin([2; 16]));
    let mut documents = Documents::new(me, 1, []);
    let mut effects = Vec::new();
    documents.handle(Now(1), Input::PeerUp(peer), &mut effects);
    documents.handle(Now(2), Input::Heard { from: peer, bytes: data }, &mut effects);
    documents.handle(Now(1_000_000_000), Input::Tick, &mut effects);
});
