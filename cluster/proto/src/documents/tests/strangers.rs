//! Bytes that nobody of ours would send.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::site::origin;
use crate::{
    Now,
    documents::{
        Documents, Effect, Input, Kind, Slot,
        said::{Entry, Said},
    },
};

/// Two that are connected, with something to say to each other, and all that they said.
fn talk() -> (Documents, Documents, Vec<(bool, Vec<u8>)>) {
    let (mut a, mut b) = (Documents::new(origin(0), 1, []), Documents::new(origin(1), 1, []));
    for number in 0..20 {
        a.put_text(Now(0), 1, Kind::Rules, &format!("a{number}"), "left").expect("fine");
        b.put_text(Now(0), 1, Kind::Rules, &format!("b{number}"), "right").expect("fine");
        b.set_device(Now(0), 1, "press", &json!({"n": number})).expect("fine");
    }
    let mut inbox = Vec::new();
    let mut said = Vec::new();
    let mut give = |docs: &mut Documents, is_a: bool, now: Now, input: Input<'_>, inbox: &mut Vec<(bool, Vec<u8>)>| {
        let mut effects = Vec::new();
        docs.handle(now, input, &mut effects);
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Save { id, .. } => docs.handle(now, Input::Saved(id), &mut effects),
                Effect::Send { bytes, .. } => {
                    said.push((is_a, bytes.clone()));
                    inbox.insert(0, (!is_a, bytes));
                }
                Effect::Changed(..) => {}
            }
        }
    };
    let late = Now(1_000_000_000);
    give(&mut a, true, late, Input::Tick, &mut inbox);
    give(&mut b, false, late, Input::Tick, &mut inbox);
    give(&mut a, true, late, Input::PeerUp(origin(1)), &mut inbox);
    give(&mut b, false, late, Input::PeerUp(origin(0)), &mut inbox);
    a.put_text(late, 2, Kind::Windows, "w", "1 min").expect("fine");
    give(&mut a, true, Now(2_000_000_000), Input::Tick, &mut inbox);
    while let Some((to_a, bytes)) = inbox.pop() {
        let (docs, from) = if to_a { (&mut a, origin(1)) } else { (&mut b, origin(0)) };
        give(docs, to_a, late, Input::Heard { from, bytes: &bytes }, &mut inbox);
    }
    (a, b, said)
}

#[test]
fn two_that_talk_come_to_say_the_same() {
    let (a, b, said) = talk();
    assert_eq!(a.texts(Kind::Rules).len(), 40);
    assert_eq!((a.sum(), a.head(Kind::Registry)), (b.sum(), b.head(Kind::Registry)));
    let kinds =
        |test: fn(&Said) -> bool| said.iter().any(|(_, bytes)| Said::decode(bytes).is_some_and(|said| test(&said)));
    assert!(kinds(|said| matches!(said, Said::Changes { .. })) && kinds(|said| matches!(said, Said::Sync { .. })));
}

#[test]
fn who_is_not_connected_is_not_heard() {
    let mut docs = Documents::new(origin(0), 1, []);
    let mut effects = Vec::new();
    docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &Said::Ask.encode() }, &mut effects);
    assert_eq!((docs.counts().strangers, effects.len()), (1, 0));
}

/// Gives bytes to a node that knows something, and checks that it still does.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    for me in [0, 2] {
        let mut docs = Documents::new(origin(me), 1, []);
        docs.put_text(Now(0), 1, Kind::Rules, "mine", "kept").expect("fine");
        let mut effects = Vec::new();
        docs.handle(Now(0), Input::PeerUp(origin(1)), &mut effects);
        docs.handle(Now(0), Input::Heard { from: origin(1), bytes }, &mut effects);
        let late = Now(60_000_000_000);
        docs.handle(late, Input::Tick, &mut effects);
        while let Some(effect) = effects.pop() {
            if let Effect::Save { id, .. } = effect {
                docs.handle(late, Input::Saved(id), &mut effects);
            }
        }
        prop_assert!(docs.text(Kind::Rules, "mine").is_some());
        docs.conflicts();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn noise_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut docs = Documents::new(origin(0), 1, []);
        let mut effects = Vec::new();
        docs.handle(Now(0), Input::PeerUp(origin(1)), &mut effects);
        docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &bytes }, &mut effects);
        prop_assert_eq!((docs.counts().malformed == 1, docs.size().values), (Said::decode(&bytes).is_none(), 0));
    }

    #[test]
    fn damaged_messages_never_panic(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (_, _, said) = talk();
        let mut bytes = pick.get(&said).1.clone();
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        survives(&bytes)?;
        survives(&bytes[..place])?;
    }

    #[test]
    fn damaged_content_in_sound_frames_never_panics(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let (_, _, said) = talk();
        let inner: Vec<Said> = said.iter().filter_map(|(_, bytes)| Said::decode(bytes)).filter(|said| matches!(said, Said::Changes { .. } | Said::Sync { .. })).collect();
        let damage = |bytes: &Bytes| {
            let mut bytes = bytes.to_vec();
            if !bytes.is_empty() {
                let place = at.index(bytes.len());
                bytes[place] ^= flip;
                if cut {
                    bytes.truncate(place);
                }
            }
            Bytes::from(bytes)
        };
        let mut said = pick.get(&inner).clone();
        match &mut said {
            Said::Changes { changes, .. } => changes.iter_mut().for_each(|bytes| *bytes = damage(bytes)),
            Said::Sync { bytes, asker, .. } => {
                *bytes = damage(bytes);
                *asker = true;
            }
            _ => {}
        }
        survives(&said.encode())?;
    }

    #[test]
    fn rows_that_cannot_be_read_are_counted(key in "(registry|rules)/[0-9]of(1|64)@0#00000[0-9]", bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
        let docs = Documents::new(origin(0), 1, [(key.into_bytes(), bytes)]);
        prop_assert_eq!((docs.counts().unreadable, docs.size().values), (1, 0));
    }
}

#[test]
fn an_epoch_far_ahead_that_never_comes_changes_nothing() {
    let mut docs = Documents::new(origin(0), 1, []);
    docs.put_text(Now(0), 1, Kind::Rules, "mine", "kept").expect("fine");
    let mut effects = Vec::new();
    docs.handle(Now(0), Input::PeerUp(origin(1)), &mut effects);
    let slot = Slot::of(Kind::Rules, "mine");
    let said =
        Said::Sync { asker: true, turn: 1, slot, epoch: u32::MAX, message: 0, part: 0, parts: 1, bytes: Bytes::new() };
    docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &said.encode() }, &mut effects);
    assert_eq!(docs.docs[&slot].epoch, 0);
    assert_eq!(docs.text(Kind::Rules, "mine").as_deref(), Some("kept"));
}

#[test]
fn the_last_numbers_that_there_are_are_no_trouble() {
    let mut docs = Documents::new(origin(0), 1, []);
    docs.put_text(Now(0), 1, Kind::Rules, "mine", "kept").expect("fine");
    let mut effects = Vec::new();
    docs.handle(Now(0), Input::PeerUp(origin(1)), &mut effects);
    let slot = Slot::of(Kind::Rules, "mine");
    // Said twice: the number after it would be none.
    let bytes = Bytes::from_static(&[0x42, 0, 0, 0, 0]);
    let said = Said::Sync { asker: true, turn: 1, slot, epoch: 0, message: u32::MAX, part: 0, parts: 1, bytes };
    for _ in 0..2 {
        docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &said.encode() }, &mut effects);
    }
    for epoch in [u32::MAX, (1 << 31) + 1] {
        let digest = Said::Digest { whole: false, entries: vec![Entry(slot, epoch, [1; 16])] };
        docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &digest.encode() }, &mut effects);
    }
    assert_eq!((docs.counts().malformed, docs.docs[&slot].epoch), (2, 0));
}

#[test]
fn what_is_pushed_is_not_unpacked() {
    let mut docs = Documents::new(origin(0), 1, []);
    let mut effects = Vec::new();
    docs.handle(Now(0), Input::PeerUp(origin(1)), &mut effects);
    // Magic, checksum, "packed", 2 bytes: they unpack to nothing, and others would to anything.
    let packed = Bytes::from_static(&[0x85, 0x6f, 0x4a, 0x83, 0xe3, 0xb0, 0xc4, 0x42, 2, 2, 3, 0]);
    let said = Said::Changes { slot: Slot::of(Kind::Rules, "mine"), epoch: 0, changes: vec![packed] };
    docs.handle(Now(0), Input::Heard { from: origin(1), bytes: &said.encode() }, &mut effects);
    assert_eq!((docs.counts().malformed, docs.docs.len()), (1, 0));
}
