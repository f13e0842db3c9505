//! A connection to a peer, as the node sees it.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use millpond_core::{ids::Origin, record::Class, time::Span};
use quinn::{Connection, VarInt};
use tokio_util::sync::CancellationToken;

use super::{DATAGRAM_BYTES_MAX, Dialect, GOODBYE, frame::LinkError, lanes::Lanes, meet::Mark, request::ReplyFrames};

/// Tells the connections of a node's life apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A connection to a peer. Cheap to clone; it does not keep the connection alive by itself.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    peer: Origin,
    id: LinkId,
    mark: Mark,
    connection: Connection,
    lanes: Arc<Lanes>,
    dialect: Dialect,
    /// Another connection to the same peer takes over.
    retired: CancellationToken,
}

impl Link {
    pub(super) fn new(
        peer: Origin,
        id: LinkId,
        mark: Mark,
        connection: Connection,
        (lanes, dialect): (Arc<Lanes>, Dialect),
    ) -> Link {
        Link(Arc::new(Inner { peer, id, mark, connection, lanes, dialect, retired: CancellationToken::new() }))
    }

    pub fn peer(&self) -> Origin {
        self.0.peer
    }

    pub fn id(&self) -> LinkId {
        self.0.id
    }

    pub fn remote(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    /// The smoothed time to the peer and back.
    pub fn rtt(&self) -> Span {
        Span(i64::try_from(self.0.connection.rtt().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Bytes of datagrams of UDP that went to the peer.
    pub fn sent_bytes(&self) -> u64 {
        self.0.connection.stats().udp_tx.bytes
    }

    /// Sends up to [`DATAGRAM_BYTES_MAX`], which may be lost, doubled or overtaken; false when that cannot be.
    pub fn datagram(&self, bytes: Bytes) -> bool {
        bytes.len() <= DATAGRAM_BYTES_MAX && self.0.connection.send_datagram(bytes).is_ok()
    }

    /// Queues a frame for the peer, in order within its class. False when the queue of the class is full, the frame is too long, or the
    /// connection is over. What was queued may be lost with the connection.
    ///
    /// The queues are those of the pair of nodes: when another connection takes over, the frames of this one go there.
    pub fn send(&self, class: Class, frame: Bytes) -> bool {
        self.0.lanes.push(class, self.0.dialect.speak(frame))
    }

    /// Asks the peer. Waits while as many requests as there may be are under way; the caller sets the limit of time.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn request(&self, class: Class, frame: Bytes) -> Result<ReplyFrames, LinkError> {
        ReplyFrames::ask(&self.0.connection, class, self.0.dialect.speak(frame)).await
    }

    pub fn close(&self, why: &str) {
        self.0.connection.close(VarInt::from_u32(GOODBYE), why.as_bytes());
    }

    pub(super) fn end(&self, code: u32, why: &str) {
        self.0.connection.close(VarInt::from_u32(code), why.as_bytes());
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    pub(super) fn lanes(&self) -> &Arc<Lanes> {
        &self.0.lanes
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    pub(super) fn mark(&self) -> &Mark {
        &self.0.mark
    }

    pub(super) fn retired(&self) -> &CancellationToken {
        &self.0.retired
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { peer, id, .. } = &*self.0;
        f.debug_struct("Link").field("peer", peer).field("id", id).finish_non_exhaustive()
    }
}
