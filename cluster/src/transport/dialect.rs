//! How a node of another version speaks, so that a rehearsal can have one among the others.
//!
//! ```text
//! own    as this program does
//! newer  as a program that knows more: each frame has a field that nobody here knows, and there are messages and questions that
//!        nobody here knows; it still understands this version
//! alien  in a version that nobody here understands, and that does not understand this one
//! ```

use bytes::Bytes;
use millpond_proto::wire;
use serde::{Deserialize, Serialize};

/// What versions a node speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    #[default]
    Own,
    Newer,
    Alien,
}

/// `forecast: [true, nil]`
const FIELD: [u8; 12] = *b"\xa8forecast\x92\xc3\xc0";
/// `{weather: {forecast: [true, nil]}}`: a message, a question, or something about documents.
const UNKNOWN: [u8; 22] = *b"\x81\xa7weather\x81\xa8forecast\x92\xc3\xc0";

impl Dialect {
    /// The newest version, and the oldest that is understood.
    pub fn versions(self) -> (u16, u16) {
        match self {
            Dialect::Own => (wire::VERSION, wire::OLDEST),
            Dialect::Newer => (wire::VERSION + 2, wire::OLDEST),
            Dialect::Alien => (wire::VERSION + 8, wire::VERSION + 8),
        }
    }

    /// A frame as this node says it.
    pub fn speak(self, frame: Bytes) -> Bytes {
        match self {
            Dialect::Own | Dialect::Alien => frame,
            Dialect::Newer => extended(&frame).map_or(frame, Bytes::from),
        }
    }

    /// What only a node of this dialect says: a message or question that others do not know.
    pub fn unknown(self) -> Option<Bytes> {
        (self == Dialect::Newer).then(|| Bytes::from_static(&UNKNOWN))
    }
}

/// The frame with a field more: `{name: {…}}`, or `{name: [{…}, …]}` in the first element.
fn extended(frame: &[u8]) -> Option<Vec<u8>> {
    let [0x81, tag @ 0xa0..=0xbf, ..] = frame else { return None };
    let mut at = 2 + usize::from(tag & 0x1f);
    match frame.get(at)? {
        0x91..=0x9f => at += 1,
        0xdc => at += 3,
        _ => {}
    }
    let fields = *frame.get(at).filter(|map| (0x80..0x8f).contains(*map))?;
    Some([&frame[..at], &[fields + 1], &FIELD, &frame[at + 1..]].concat())
}

#[cfg(test)]
mod tests {
    use millpond_core::{
        ids::{Incarnation, Origin, Seq},
        record::Track,
    };
    use millpond_proto::wire::{Held, Hello, Message, Reply, Request, Run, Stored, decode, encode};
    use proptest::prelude::*;

    use super::*;

    const ORIGIN: Origin = Origin([7; 16]);
    const LIFE: Incarnation = Incarnation(3);

    fn run() -> Run {
        let (first, last) = (Seq(1), Seq(9));
        Run { origin: ORIGIN, incarnation: LIFE, track: Track::Raw, first, last, records: Vec::new() }
    }

    #[test]
    fn what_a_newer_node_says_is_understood() {
        let hello = Hello { version: 3, oldest: 1, incarnation: LIFE, name: "x".repeat(40), wall_ms: 5 };
        let held = Held { origin: ORIGIN, incarnation: LIFE, track: Track::Raw, ranges: vec![(1, 2)], floor: 0 };
        let stored = Stored { origin: ORIGIN, incarnation: LIFE, track: Track::Raw, first: Seq(1), last: Seq(2) };
        let messages = [
            Message::Hello(hello),
            Message::Held(vec![held; 20]),
            Message::Stored(vec![stored]),
            Message::Run(run()),
            Message::Ping { sent_ns: 5 },
        ];
        for message in messages {
            let (frame, said) = (encode(&message), Dialect::Newer.speak(encode(&message)));
            assert_eq!(said.len(), frame.len() + FIELD.len(), "{message:?}");
            assert_eq!(decode::<Message>(&said).unwrap(), message);
        }
        let request = Request::Seen { origin: ORIGIN, devices: vec!["press".to_owned()] };
        assert_eq!(decode::<Request>(&Dialect::Newer.speak(encode(&request))).unwrap(), request);
        let reply = Reply::Run(run());
        assert_eq!(decode::<Reply>(&Dialect::Newer.speak(encode(&reply))).unwrap(), reply);
        for plain in [encode(&Message::Bye), encode(&Message::Held(Vec::new()))] {
            assert_eq!(Dialect::Newer.speak(plain.clone()), plain, "there is no place for a field");
        }
    }

    #[test]
    fn what_only_a_newer_node_knows_is_no_message_and_no_question() {
        let unknown = Dialect::Newer.unknown().unwrap();
        assert!(decode::<Message>(&unknown).is_err() && decode::<Request>(&unknown).is_err());
        assert!(record::<serde::de::IgnoredAny>(&unknown), "it is sound for who knows it");
    }

    fn record<T: serde::de::DeserializeOwned>(frame: &[u8]) -> bool {
        decode::<T>(frame).is_ok()
    }

    proptest! {
        #[test]
        fn any_bytes_are_spoken(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let said = Dialect::Newer.speak(bytes.clone().into());
            prop_assert!(said == bytes || said.len() == bytes.len() + FIELD.len());
        }
    }
}
