//! A peer's datagrams: whatever the bytes, the membership goes on, and nobody is in it twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::ids::Origin;
use millpond_proto::{
    Now,
    membership::{Config, Input, Member, Membership},
};
use rand::{SeedableRng, rngs::StdRng};

fuzz_target!(|data: &[u8]| {
    let me = Member::new(Origin([1; 16]), ([127, 0, 0, 1], 1).into(), 1, "me");
    let mut membership = Membership::new(me, StdRng::seed_from_u64(1), Config::default());
    let mut effects = Vec::new();
    for (at, bytes) in data.chunks(1_100).enumerate() {
        let now = Now(at as u64 * 1_000_000);
        membership.handle(now, Input::Datagram { from: Origin([2; 16]), bytes }, &mut effects);
        membership.handle(now, Input::Tick, &mut effects);
    }
    assert!(membership.members().count() <= millpond_proto::membership::MEMBERS_MAX);
});
