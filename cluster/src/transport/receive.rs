//! What comes over a connection becomes events.
//!
//! A lane takes credit for a frame before it reads it, and the credit is free again when the node has dropped the event: a node that is
//! behind does not read on, the peer's stream stops, and the peer's queue says that it is full. Each class has credit of its own.

use std::sync::Arc;

use millpond_core::record::Class;
use millpond_proto::wire::FRAME_BYTES_MAX;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Event, MALFORMED, Shared,
    frame::{self, LinkError},
    link::Link,
    request::Replies,
};

/// Bytes of a class that the node has not dropped yet; a longer frame comes alone.
const CREDIT_BYTES: u32 = 4 << 20;
/// What a frame costs beyond its bytes.
const FRAME_COST: u32 = 256;

/// As long as it is held its bytes count against the peer.
#[derive(Debug)]
pub struct Credit(#[expect(dead_code, reason = "it matters when it is dropped")] OwnedSemaphorePermit);

pub(super) struct Credits {
    classes: [Arc<Semaphore>; 4],
    requests: Arc<Semaphore>,
}

impl Credits {
    pub fn new() -> Credits {
        let pool = || Arc::new(Semaphore::new(CREDIT_BYTES as usize));
        Credits { classes: [pool(), pool(), pool(), pool()], requests: pool() }
    }
}

async fn take(pool: &Arc<Semaphore>, length: usize) -> Result<OwnedSemaphorePermit, LinkError> {
    let cost = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(FRAME_COST).min(CREDIT_BYTES);
    pool.clone().acquire_many_owned(cost).await.map_err(|_| LinkError::Abandoned)
}

/// Starts the readers of a connection; they end with it.
pub(super) fn start(shared: &Arc<Shared>, link: &Link) {
    let credits = Arc::new(Credits::new());
    shared.env.spawn(accept_pushes(shared.clone(), link.clone(), credits.clone()));
    shared.env.spawn(accept_requests(shared.clone(), link.clone(), credits));
    shared.env.spawn(datagrams(shared.clone(), link.clone()));
}

async fn accept_pushes(shared: Arc<Shared>, link: Link, credits: Arc<Credits>) {
    while let Ok(stream) = link.connection().accept_uni().await {
        let (events, link, credits) = (shared.clone(), link.clone(), credits.clone());
        shared.env.spawn(async move {
            let read = pushes(&events, &link, &credits, stream).await;
            end(&link, read);
        });
    }
}

async fn pushes(shared: &Shared, link: &Link, credits: &Credits, mut stream: RecvStream) -> Result<(), LinkError> {
    let Some(kind) = frame::read_kind(&mut stream).await? else { return Ok(()) };
    let class = frame::class_of(kind)?;
    while let Some(length) = frame::read_length(&mut stream, FRAME_BYTES_MAX).await? {
        let credit = take(&credits.classes[class as usize], length).await?;
        let frame = frame::read_body(&mut stream, length).await?;
        let event = Event::Message { from: link.peer(), link: link.id(), class, frame, credit: Credit(credit) };
        shared.tell(event).await?;
    }
    Ok(())
}

async fn accept_requests(shared: Arc<Shared>, link: Link, credits: Arc<Credits>) {
    while let Ok((send, stream)) = link.connection().accept_bi().await {
        let (events, link, credits) = (shared.clone(), link.clone(), credits.clone());
        shared.env.spawn(async move {
            let read = request(&events, &link, &credits, send, stream).await;
            end(&link, read);
        });
    }
}

async fn request(
    shared: &Shared,
    link: &Link,
    credits: &Credits,
    send: SendStream,
    mut stream: RecvStream,
) -> Result<(), LinkError> {
    let Some(kind) = frame::read_kind(&mut stream).await? else { return Ok(()) };
    let class: Class = frame::class_of(kind)?;
    let _ = send.set_priority(frame::priority(class));
    let Some(length) = frame::read_length(&mut stream, FRAME_BYTES_MAX).await? else { return Ok(()) };
    let credit = take(&credits.requests, length).await?;
    let frame = frame::read_body(&mut stream, length).await?;
    let replies = Replies::new(send, link.dialect(), Some(credit));
    shared.tell(Event::Request { from: link.peer(), link: link.id(), class, frame, replies }).await
}

/// A datagram for which there is no room is lost, as it may be on its way.
async fn datagrams(shared: Arc<Shared>, link: Link) {
    while let Ok(bytes) = link.connection().read_datagram().await {
        let _ = shared.events.try_send(Event::Datagram { from: link.peer(), bytes });
    }
}

/// What breaks the protocol ends the connection; what ends a stream ends that stream.
fn end(link: &Link, read: Result<(), LinkError>) {
    if let Err(LinkError::Malformed(why)) = read {
        link.connection().close(VarInt::from_u32(MALFORMED), why.as_bytes());
    }
}
