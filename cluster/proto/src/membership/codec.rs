//! How membership looks in a datagram.
//!
//! ```text
//! datagram  header, then nothing or: updates u16 (big-endian), so many members
//! header    identity of the sender, its incarnation u16, identity of the receiver, message
//! message   tag u8; probes: number u8; indirect ones: identity, number u8
//! member    identity, incarnation u16, state u8 (0 alive, 1 suspected, 2 down)
//! identity  origin 16 bytes; family u8 (4, 6), address 4 or 16 bytes, port u16; boot, round (LEB128); name: length u8, UTF-8
//! ```
//! Integers are big-endian. About 40 bytes per identity; MessagePack with names would take 90.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Message, State};
use millpond_core::ids::Origin;

use super::{DATAGRAM_BYTES_MAX, Member, NAME_BYTES_MAX};

pub struct Layout;

/// The bytes are not what they should be, or there is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a membership datagram, or no room in it")]
pub struct Unsound;

/// A datagram that was understood to its last byte.
pub struct Envelope {
    pub header: Header<Member>,
    pub updates: Vec<foca::Member<Member>>,
}

/// Decodes all of a datagram, or nothing.
pub fn open(mut bytes: &[u8]) -> Option<Envelope> {
    if bytes.len() > DATAGRAM_BYTES_MAX {
        return None;
    }
    let bytes = &mut bytes;
    let header = take_header(bytes).ok()?;
    let mut updates = Vec::new();
    // An announcement carries nothing, and custom broadcasts are not ours.
    if matches!(header.message, Message::Announce | Message::Broadcast) && !bytes.is_empty() {
        return None;
    }
    if !bytes.is_empty() {
        for _ in 0..bytes.try_get_u16().ok()? {
            updates.push(take_member(bytes).ok()?);
        }
    }
    bytes.is_empty().then_some(Envelope { header, updates })
}

/// A datagram that tells a member that it is suspected, so that it can object.
pub fn suspicion(me: &Member, member: &Member, incarnation: foca::Incarnation) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    let header = Header { src: me.clone(), src_incarnation: 0, dst: member.clone(), message: Message::Gossip };
    let update = foca::Member::new(member.clone(), incarnation, State::Suspect);
    Layout.encode_header(&header, &mut bytes).expect("a vector grows");
    bytes.put_u16(1);
    Layout.encode_member(&update, &mut bytes).expect("a vector grows");
    bytes
}

impl Codec<Member> for Layout {
    type Error = Unsound;

    fn encode_header(&mut self, header: &Header<Member>, buf: impl BufMut) -> Result<(), Unsound> {
        let mut out = Vec::with_capacity(128);
        put_identity(&mut out, &header.src);
        out.put_u16(header.src_incarnation);
        put_identity(&mut out, &header.dst);
        put_message(&mut out, &header.message);
        write(&out, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Member>, Unsound> {
        read(buf, take_header)
    }

    fn encode_member(&mut self, member: &foca::Member<Member>, buf: impl BufMut) -> Result<(), Unsound> {
        let mut out = Vec::with_capacity(64);
        put_identity(&mut out, member.id());
        out.put_u16(member.incarnation());
        out.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        write(&out, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Member>, Unsound> {
        read(buf, take_member)
    }
}

/// All of it or nothing: foca asks how much fits.
fn write(bytes: &[u8], mut buf: impl BufMut) -> Result<(), Unsound> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Unsound);
    }
    buf.put_slice(bytes);
    Ok(())
}

/// foca's buffers lie in one piece.
fn read<T>(mut buf: impl Buf, take: impl FnOnce(&mut &[u8]) -> Result<T, Unsound>) -> Result<T, Unsound> {
    let mut rest = buf.chunk();
    let before = rest.len();
    let value = take(&mut rest)?;
    let used = before - rest.len();
    buf.advance(used);
    Ok(value)
}

fn put_identity(out: &mut Vec<u8>, member: &Member) {
    out.put_slice(&member.origin.0);
    match member.addr.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(member.addr.port());
    put_number(out, member.boot);
    put_number(out, u64::from(member.round));
    debug_assert!(member.name.len() <= NAME_BYTES_MAX);
    out.put_u8(member.name.len() as u8);
    out.put_slice(member.name.as_bytes());
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_message(out: &mut Vec<u8>, message: &Message<Member>) {
    let mut indirect = |tag: u8, member: &Member, number: u8| {
        out.put_u8(tag);
        put_identity(out, member);
        out.put_u8(number);
    };
    match message {
        Message::PingReq { target, probe_number } => indirect(2, target, *probe_number),
        Message::IndirectPing { origin, probe_number } => indirect(3, origin, *probe_number),
        Message::IndirectAck { target, probe_number } => indirect(4, target, *probe_number),
        Message::ForwardedAck { origin, probe_number } => indirect(5, origin, *probe_number),
        Message::Ping(number) => out.put_slice(&[0, *number]),
        Message::Ack(number) => out.put_slice(&[1, *number]),
        Message::Announce => out.put_u8(6),
        Message::Feed => out.put_u8(7),
        Message::Gossip => out.put_u8(8),
        Message::Broadcast => out.put_u8(9),
        Message::TurnUndead => out.put_u8(10),
    }
}

fn take_header(bytes: &mut &[u8]) -> Result<Header<Member>, Unsound> {
    Ok(Header {
        src: take_identity(bytes)?,
        src_incarnation: bytes.try_get_u16().map_err(|_| Unsound)?,
        dst: take_identity(bytes)?,
        message: take_message(bytes)?,
    })
}

fn take_member(bytes: &mut &[u8]) -> Result<foca::Member<Member>, Unsound> {
    let id = take_identity(bytes)?;
    let incarnation = bytes.try_get_u16().map_err(|_| Unsound)?;
    let state = match take_byte(bytes)? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Unsound),
    };
    Ok(foca::Member::new(id, incarnation, state))
}

fn take_message(bytes: &mut &[u8]) -> Result<Message<Member>, Unsound> {
    Ok(match take_byte(bytes)? {
        0 => Message::Ping(take_byte(bytes)?),
        1 => Message::Ack(take_byte(bytes)?),
        2 => Message::PingReq { target: take_identity(bytes)?, probe_number: take_byte(bytes)? },
        3 => Message::IndirectPing { origin: take_identity(bytes)?, probe_number: take_byte(bytes)? },
        4 => Message::IndirectAck { target: take_identity(bytes)?, probe_number: take_byte(bytes)? },
        5 => Message::ForwardedAck { origin: take_identity(bytes)?, probe_number: take_byte(bytes)? },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(Unsound),
    })
}

fn take_identity(bytes: &mut &[u8]) -> Result<Member, Unsound> {
    let origin = Origin(take_array(bytes)?);
    let ip: IpAddr = match take_byte(bytes)? {
        4 => Ipv4Addr::from(take_array::<4>(bytes)?).into(),
        6 => Ipv6Addr::from(take_array::<16>(bytes)?).into(),
        _ => return Err(Unsound),
    };
    let port = bytes.try_get_u16().map_err(|_| Unsound)?;
    let boot = take_number(bytes)?;
    let round = u32::try_from(take_number(bytes)?).map_err(|_| Unsound)?;
    let length = usize::from(take_byte(bytes)?);
    if length > NAME_BYTES_MAX {
        return Err(Unsound);
    }
    let (name, rest) = bytes.split_at_checked(length).ok_or(Unsound)?;
    let name = std::str::from_utf8(name).map_err(|_| Unsound)?.to_string();
    *bytes = rest;
    Ok(Member { origin, addr: SocketAddr::new(ip, port), boot, round, name })
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, Unsound> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return Err(Unsound);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Unsound)
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, Unsound> {
    bytes.try_get_u8().map_err(|_| Unsound)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Unsound> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(Unsound)?;
    *bytes = rest;
    Ok(*array)
}
