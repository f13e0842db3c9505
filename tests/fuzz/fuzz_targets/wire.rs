//! A peer's frames: whatever the bytes, reading them does not panic, and what is read is the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::ids::{Incarnation, Origin, Seq};
use millpond_proto::{
    membership::Member,
    replication::{Input, Life, Moment, Replication, RunKey, Settings},
    wire::{self, Message, Reply, Request},
};

const ME: Origin = Origin([1; 16]);
const PEER: Origin = Origin([2; 16]);

fuzz_target!(|data: &[u8]| {
    let _ = Member::new(PEER, ([127, 0, 0, 1], 1).into(), 1, &String::from_utf8_lossy(data));
    if let Ok(request) = wire::decode::<Request>(data) {
        assert_eq!(wire::decode::<Request>(&wire::encode(&request)), Ok(request));
    }
    if let Ok(reply) = wire::decode::<Reply>(data) {
        assert_eq!(wire::decode::<Reply>(&wire::encode(&reply)), Ok(reply));
    }
    let Ok(message) = wire::decode::<Message>(data) else { return };
    assert_eq!(wire::decode::<Message>(&wire::encode(&message)), Ok(message.clone()));
    // And the machine that hears it goes on.
    let me = Life { origin: ME, incarnation: Incarnation(1) };
    let mut machine = Replication::new(Settings { me, replicas: 1 }, Seq(10), [Seq(9), Seq(10)], []);
    let mut effects = Vec::new();
    machine.handle(Moment(1), Input::Members(vec![ME, PEER]), &mut effects);
    machine.handle(Moment(2), Input::PeerUp(PEER), &mut effects);
    match message {
        Message::Held(held) => machine.handle(Moment(3), Input::Heard { from: PEER, held }, &mut effects),
        Message::Stored(stored) => machine.handle(Moment(3), Input::PeerStored { from: PEER, stored }, &mut effects),
        Message::Run(run) if run.is_sound() => {
            let run = RunKey::of(&run);
            machine.handle(Moment(3), Input::Arrived { from: PEER, run, live: true }, &mut effects);
        }
        _ => {}
    }
    machine.handle(Moment(1_000_000_000), Input::Tick, &mut effects);
});
