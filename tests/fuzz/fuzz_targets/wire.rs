//! A peer's frames: whatever the bytes, reading them does not panic, and what is read is the same after it was written and read again. The
//! machine that hears them goes on, whatever they say one after the other: an input is one frame, or several behind their lengths (u16).
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    ranges::RangeSet,
    record::Track,
};
use millpond_proto::{
    membership::Member,
    replication::{Effect, FetchEnd, Input, Life, Moment, Replication, RunKey, Settings},
    wire::{self, Message, Reply, Request},
};
use serde::{Serialize, de::DeserializeOwned};

const ME: Origin = Origin([1; 16]);
const PEER: Origin = Origin([2; 16]);

fuzz_target!(|data: &[u8]| {
    let _ = Member::new(PEER, ([127, 0, 0, 1], 1).into(), 1, &String::from_utf8_lossy(data));
    let mut machine = Machine::new();
    if stays_the_same::<Message>(data).is_some() {
        return machine.hear(data);
    }
    if let Some(request) = stays_the_same::<Request>(data) {
        return machine.asked(request);
    }
    if stays_the_same::<Reply>(data).is_some() {
        return;
    }
    let mut rest = data;
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (frame, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*length))));
        rest = more;
        machine.hear(frame);
    }
});

fn stays_the_same<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let read = wire::decode::<T>(bytes).ok()?;
    assert_eq!(wire::decode::<T>(&wire::encode(&read)).as_ref(), Ok(&read));
    Some(read)
}

struct Machine {
    replication: Replication,
    now: u64,
}

impl Machine {
    /// One with a peer that is linked.
    fn new() -> Machine {
        let me = Life { origin: ME, incarnation: Incarnation(1) };
        let replication = Replication::new(Settings { me, replicas: 1 }, Seq(10), [Seq(9), Seq(10)], []);
        let mut machine = Machine { replication, now: 1 };
        machine.handle(Input::Members(vec![ME, PEER, Origin([3; 16])]));
        machine.handle(Input::PeerUp(PEER));
        machine
    }

    /// What it wants to be done comes about, and of what can fail a part does.
    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        for turn in 0..64 {
            let Some(input) = inputs.pop() else { return };
            let mut effects = Vec::new();
            self.now += 1;
            self.replication.handle(Moment(self.now), input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Keep(run) if turn % 3 == 2 => inputs.push(Input::NotPersisted(run)),
                    Effect::Keep(run) => inputs.push(Input::Persisted(run)),
                    Effect::Fetch { id, run, from, .. } => {
                        assert!(1 <= run.first.0 && run.first <= run.last && run.last.0 < u64::MAX);
                        let all = [
                            FetchEnd::Done,
                            FetchEnd::Unknown,
                            FetchEnd::Busy { retry_ms: u32::MAX },
                            FetchEnd::Failed,
                        ];
                        inputs.push(Input::FetchEnded { id, how: all[turn % 4] });
                        inputs.push(Input::Arrived { from, run, live: false });
                    }
                    Effect::Push { to, track, .. } => inputs.push(Input::PushFailed { to, track }),
                    Effect::Announce { held, .. } => assert!(held.len() <= 64 << 10),
                    _ => {}
                }
            }
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        match wire::decode::<Message>(frame) {
            Ok(Message::Held(held)) => self.handle(Input::Heard { from: PEER, held }),
            Ok(Message::Stored(stored)) => self.handle(Input::PeerStored { from: PEER, stored }),
            Ok(Message::Run(run)) if run.is_sound() => {
                let run = RunKey::of(&run);
                self.handle(Input::Arrived { from: PEER, run, live: true });
                self.handle(Input::Dropped { life: run.life, track: run.track, floor: run.last });
            }
            _ => return,
        }
        self.now += 1_500_000_000;
        self.handle(Input::Tick);
        self.handle(Input::Committed { head: Seq(11), last: [Seq(9), Seq(11)] });
        self.handle(Input::PeerUp(PEER));
    }

    fn asked(&self, request: Request) {
        match request {
            Request::Repair { origin, incarnation, track, first, last, .. } => {
                for life in [Life { origin, incarnation }, Life { origin: ME, incarnation: Incarnation(1) }] {
                    let offered = self.replication.offered(life, track, first, last);
                    assert!(offered.iter().all(|range| first.0 <= range.0 && range.1 <= last.0 && range.1 <= 11));
                }
            }
            Request::Known { claims } => {
                let seen: RangeSet = [(1, 7), (9, u64::MAX)].into_iter().collect();
                for claim in claims {
                    let claimed: RangeSet = claim.seqs.into_iter().collect();
                    assert!(seen.intersection(&claimed).count() <= claimed.count());
                }
            }
            _ => {}
        }
        assert!(
            self.replication
                .offered(Life { origin: PEER, incarnation: Incarnation(1) }, Track::Raw, Seq(1), Seq(9))
                .is_empty()
        );
    }
}
