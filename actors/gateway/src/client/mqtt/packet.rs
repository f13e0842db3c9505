//! The bytes of MQTT 3.1.1 packets, as far as this client needs them.

/// What a server sent that this client cannot go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a packet whose length is not a length")]
    Length,
    #[error("a packet that ends too early")]
    Short,
    #[error("a packet of type {0}, which a server does not send")]
    Type(u8),
    #[error("a publish with QoS 2, which was not asked for")]
    Qos,
    #[error("an acknowledgement of nothing that was sent (packet {0})")]
    Unasked(u16),
    #[error("a refusal of a subscription")]
    Subscription,
    #[error("a topic that is not text")]
    Topic,
}

pub const CONNACK: u8 = 0x20;
pub const PUBLISH: u8 = 0x30;
pub const PUBACK: u8 = 0x40;
pub const SUBACK: u8 = 0x90;
pub const PINGRESP: u8 = 0xd0;

/// A packet from the server: its first byte and its body; and the bytes it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub head: u8,
    pub body: &'a [u8],
    pub len: usize,
}

/// The packet at the start of `bytes`; `None` when more bytes are needed.
pub fn split(bytes: &[u8]) -> Result<Option<Packet<'_>>, Malformed> {
    let [head, rest @ ..] = bytes else { return Ok(None) };
    let mut length = 0;
    for place in 0..4 {
        let Some(byte) = rest.get(place) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let start = 2 + place;
            let packet = bytes.get(start..start + length);
            return Ok(packet.map(|body| Packet { head: *head, body, len: start + length }));
        }
    }
    Err(Malformed::Length)
}

pub fn connect(out: &mut Vec<u8>, client_id: &str, login: Option<&(String, String)>) {
    let login_len = login.map_or(0, |(user, password)| 4 + user.len() + password.len());
    head(out, 0x10, 12 + client_id.len() + login_len);
    text(out, "MQTT");
    // Clean session; what was not acknowledged is kept and sent again by the client itself.
    out.extend([4, if login.is_some() { 0b1100_0010 } else { 0b0000_0010 }, 0, 0]);
    text(out, client_id);
    if let Some((user, password)) = login {
        text(out, user);
        text(out, password);
    }
}

/// With an `id` at QoS 1, else (which only servers do here) at QoS 0.
pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8], id: Option<u16>, again: bool) {
    let qos = if id.is_some() { 0b0010 } else { 0 };
    let dup = if again { 0b1000 } else { 0 };
    head(out, PUBLISH | qos | dup, 2 + topic.len() + if id.is_some() { 2 } else { 0 } + payload.len());
    text(out, topic);
    if let Some(id) = id {
        out.extend(id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

pub fn puback(out: &mut Vec<u8>, id: [u8; 2]) {
    out.extend([PUBACK, 2, id[0], id[1]]);
}

pub fn subscribe(out: &mut Vec<u8>, id: u16, filters: &[(String, u8)]) {
    head(out, 0x82, 2 + filters.iter().map(|(filter, _)| 3 + filter.len()).sum::<usize>());
    out.extend(id.to_be_bytes());
    for (filter, qos) in filters {
        text(out, filter);
        out.push(*qos);
    }
}

pub fn disconnect(out: &mut Vec<u8>) {
    out.extend([0xe0, 0]);
}

fn head(out: &mut Vec<u8>, first: u8, mut length: usize) {
    out.push(first);
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

/// Names longer than MQTT can say are cut; callers check theirs.
fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
