//! MQTT 3.1.1 as far as a publisher at QoS 1 needs it, on a blocking socket.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub struct Publisher {
    stream: TcpStream,
    next_id: u16,
    /// Packet ids under way, and what they stand for.
    pub in_flight: BTreeMap<u16, u64>,
}

impl Publisher {
    pub fn connect(addr: SocketAddr, client_id: &str) -> io::Result<Publisher> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut publisher = Publisher { stream, next_id: 0, in_flight: BTreeMap::new() };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        put_text(&mut body, client_id);
        publisher.send(0x10, &body)?;
        let (kind, body) = publisher.packet()?;
        if kind != 0x20 || body.get(1) != Some(&0) {
            return Err(io::Error::other(format!("refused: {kind:#x} {body:?}")));
        }
        Ok(publisher)
    }

    /// Publishes at QoS 1 without waiting; `what` comes back with the acknowledgement.
    pub fn publish(&mut self, topic: &str, payload: &[u8], what: u64) -> io::Result<()> {
        self.next_id = self.next_id % u16::MAX + 1;
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        put_text(&mut body, topic);
        body.extend_from_slice(&self.next_id.to_be_bytes());
        body.extend_from_slice(payload);
        self.in_flight.insert(self.next_id, what);
        self.send(0x32, &body)
    }

    /// Waits for one acknowledgement; what was published with it.
    pub fn acknowledged(&mut self) -> io::Result<u64> {
        loop {
            let (kind, body) = self.packet()?;
            if kind == 0x40 {
                let id = u16::from_be_bytes([body[0], body[1]]);
                return self.in_flight.remove(&id).ok_or_else(|| io::Error::other("an unknown packet id"));
            }
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![kind];
        let mut rest = body.len();
        loop {
            let byte = (rest % 128) as u8;
            rest /= 128;
            packet.push(if rest > 0 { byte | 0x80 } else { byte });
            if rest == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.stream.write_all(&packet)
    }

    fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let kind = byte[0];
        let (mut len, mut shift) = (0usize, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}
