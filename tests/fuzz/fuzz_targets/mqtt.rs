//! Bytes of a client: whatever they are, splitting and decoding them must not panic, and what is a packet must be the same packet after
//! it was encoded and decoded again. The first byte chooses the version.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use millpond_gateway::mqtt::codec::{Packet, Split, Version, decode, encode, split};

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut version = [Version::V31, Version::V311, Version::V5][usize::from(choice % 3)];
    let mut rest = Bytes::copy_from_slice(rest);
    while let Ok(Split::Packet { first, body, len }) = split(&rest, 1 << 16) {
        assert!(body <= len && len <= rest.len());
        let packet = rest.split_to(len);
        let Ok(packet) = decode(version, first, packet.slice(body..)) else { return };
        if let Packet::Connect(connect) = &packet {
            version = connect.version;
        }
        let mut out = BytesMut::new();
        encode(version, &packet, &mut out);
        let Ok(Split::Packet { first, body, len }) = split(&out, usize::MAX) else { panic!("not a packet any more") };
        assert_eq!(len, out.len());
        assert_eq!(decode(version, first, out.freeze().slice(body..)), Ok(packet));
    }
});
