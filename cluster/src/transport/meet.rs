//! How two nodes begin, and which of two connections they keep.
//!
//! Who dialled opens a bidirectional stream and says on it which connection this is ([`Mark`]); who was dialled looks at the
//! certificate, at the connections that it has, and answers with one byte, or closes the connection and says why. Only then either side
//! counts on the connection: a client of TLS 1.3 believes that it is connected before the server has looked at its certificate.
//!
//! ```text
//! GREETING (u8) boot (u64) dial (u64)   ──►
//!                                       ◄── WELCOME (u8) boot (u64)
//! ```
//!
//! A pair of nodes has one connection. When both have dialled, both keep the one that the smaller origin dialled; of two that the same
//! node dialled both keep the later one. So each side alone comes to the same answer, in whatever order it learns of them. A connection to an
//! earlier boot of a node is a dead one, whoever dialled it, though it may take long until that is felt: any other is better.

use std::net::SocketAddr;

use millpond_core::ids::Origin;
use quinn::{Connection, VarInt};

use super::{DUPLICATE, Link, MALFORMED, MEETING, REFUSED, Shared, frame::LinkError};

const GREETING: u8 = 0xf0;
const WELCOME: u8 = 0xf1;

/// Which connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Who dialled.
    pub dialler: Origin,
    /// Drawn when its transport opened.
    pub boot: u64,
    /// Counts its dials since then.
    pub dial: u64,
    /// The boot of who was dialled.
    pub answered: u64,
}

impl Mark {
    /// Whether both sides keep this one rather than `other`, which this node has to `peer`.
    pub fn replaces(&self, other: &Mark, peer: Origin) -> bool {
        if self.boot_of(peer) != other.boot_of(peer) {
            return true;
        }
        if self.dialler != other.dialler {
            return self.dialler < other.dialler;
        }
        self.boot != other.boot || self.dial > other.dial
    }

    fn boot_of(&self, peer: Origin) -> u64 {
        if self.dialler == peer { self.boot } else { self.answered }
    }
}

/// Asks to be let in over a connection that this node has dialled; notes the boot of who answers.
pub(super) async fn greet(connection: &Connection, mark: &mut Mark) -> Result<(), LinkError> {
    let opened = connection.open_bi().await?;
    let (mut send, mut receive) = opened;
    let mut greeting = [GREETING; 17];
    greeting[1..9].copy_from_slice(&mark.boot.to_le_bytes());
    greeting[9..].copy_from_slice(&mark.dial.to_le_bytes());
    send.write_all(&greeting).await?;
    let _ = send.finish();
    let mut answer = [0; 9];
    match receive.read_exact(&mut answer).await {
        Ok(()) if answer[0] == WELCOME => {
            mark.answered = u64::from_le_bytes(std::array::from_fn(|n| answer[1 + n]));
            Ok(())
        }
        Ok(()) | Err(quinn::ReadExactError::FinishedEarly(_)) => Err(LinkError::Malformed("no welcome")),
        Err(quinn::ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

/// Lets a peer in that has dialled this node, or closes the connection.
pub(super) async fn welcome(shared: &Shared, connection: Connection) -> Option<Link> {
    let welcomed = shared.env.timeout(MEETING, try_welcome(shared, &connection)).await;
    match welcomed.unwrap_or(Err((MALFORMED, "no greeting"))) {
        Ok(link) => Some(link),
        Err((code, why)) => {
            connection.close(VarInt::from_u32(code), why.as_bytes());
            None
        }
    }
}

async fn try_welcome(shared: &Shared, connection: &Connection) -> Result<Link, (u32, &'static str)> {
    let peer = shared.peer_of(connection).map_err(|why| (REFUSED, why))?;
    let no_greeting = (MALFORMED, "no greeting");
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| no_greeting)?;
    let mut greeting = [0; 17];
    receive.read_exact(&mut greeting).await.map_err(|_| no_greeting)?;
    if greeting[0] != GREETING {
        return Err(no_greeting);
    }
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| greeting[at + n]));
    let mark = Mark { dialler: peer, boot: number(1), dial: number(9), answered: shared.boot };
    let link = shared.admit(peer, mark, connection).ok_or((DUPLICATE, "there is a better connection already"))?;
    let mut answer = [WELCOME; 9];
    answer[1..].copy_from_slice(&shared.boot.to_le_bytes());
    // So few bytes do not wait.
    let _ = send.write_all(&answer).await;
    let _ = send.finish();
    Ok(link)
}

/// A name for an address, under which TLS remembers sessions.
pub(super) fn name_of(addr: SocketAddr) -> String {
    let ip: String = addr.ip().to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("at-{ip}-{}.millpond", addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_same_connection_in_whatever_order_they_learn_of_them() {
        let mark = |dialler: u8, dial| {
            let boots = if dialler == 1 { (7, 9) } else { (9, 7) };
            Mark { dialler: Origin([dialler; 16]), boot: boots.0, dial, answered: boots.1 }
        };
        let all = [mark(1, 1), mark(1, 2), mark(2, 5), mark(2, 6)];
        for a in &all {
            for b in all.iter().filter(|b| *b != a) {
                for peer in [Origin([1; 16]), Origin([2; 16])] {
                    assert_ne!(a.replaces(b, peer), b.replaces(a, peer), "{a:?} {b:?}");
                }
            }
        }
        let peer = Origin([2; 16]);
        assert!(all[0].replaces(&all[2], peer) && all[1].replaces(&all[0], peer));
    }

    #[test]
    fn who_has_started_anew_is_believed_that_the_old_connection_is_gone() {
        let (smaller, greater) = (Origin([1; 16]), Origin([2; 16]));
        let mark = |dialler, boot, answered| Mark { dialler, boot, dial: 1, answered };
        assert!(mark(smaller, 2, 9).replaces(&mark(smaller, 1, 9), smaller));
        // Also of a connection that the other node had dialled to it, and would keep.
        assert!(mark(greater, 6, 1).replaces(&mark(smaller, 1, 5), greater));
        assert!(!mark(greater, 5, 1).replaces(&mark(smaller, 1, 5), greater));
    }

    #[test]
    fn the_name_of_an_address_is_one_that_tls_takes() {
        for addr in ["10.0.0.1:7400", "[fe80::1]:7400", "[::]:1"] {
            let name = name_of(addr.parse().unwrap());
            assert!(rustls::pki_types::DnsName::try_from(name.as_str()).is_ok(), "{name}");
        }
    }
}
