//! Finds a peer at one of its addresses.

use std::{net::SocketAddr, sync::Arc};

use millpond_core::time::Span;
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{DUPLICATE, Event, GOODBYE, MEETING, REFUSED, Shared, meet};

/// The next address is tried when the one before has not answered by then (RFC 8305).
const STAGGER: Span = Span::from_millis(250);
/// Addresses of one peer that are tried.
const ADDRESSES_MAX: usize = 16;

pub(super) async fn dial(shared: Arc<Shared>, addrs: Vec<SocketAddr>) {
    if let Err(why) = try_all(&shared, &addrs).await {
        let _ = shared.tell(Event::DialFailed { addrs, why }).await;
    }
}

async fn try_all(shared: &Arc<Shared>, addrs: &[SocketAddr]) -> Result<(), String> {
    let (tell, mut tries) = mpsc::channel(ADDRESSES_MAX);
    let found = CancellationToken::new();
    for (n, addr) in addrs.iter().take(ADDRESSES_MAX).enumerate() {
        let (tell, addr, ended, shared) = (tell.clone(), *addr, found.child_token(), shared.clone());
        shared.env.clone().spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                connected = reach(&shared, n as i64, addr) => {
                    if let Err(mpsc::error::SendError(Ok(connection))) = tell.send(connected).await {
                        connection.close(VarInt::from_u32(GOODBYE), b"another address was faster");
                    }
                }
            }
        });
    }
    drop(tell);
    let _end = found.drop_guard();
    let mut whys = Vec::new();
    while let Some(connected) = tries.recv().await {
        match connected {
            Ok(connection) => {
                let met = meet(shared, &connection).await;
                // Whoever answered now is the peer, or in its place: other addresses lead to no one else.
                close_rest(&mut tries);
                return met;
            }
            Err(why) => whys.push(why),
        }
    }
    Err(if whys.is_empty() { "there is no address".to_owned() } else { whys.join("; ") })
}

fn close_rest(tries: &mut mpsc::Receiver<Result<Connection, String>>) {
    tries.close();
    while let Ok(connected) = tries.try_recv() {
        if let Ok(connection) = connected {
            connection.close(VarInt::from_u32(GOODBYE), b"another address was faster");
        }
    }
}

async fn reach(shared: &Arc<Shared>, n: i64, addr: SocketAddr) -> Result<Connection, String> {
    shared.env.sleep(Span(STAGGER.0 * n)).await;
    let connecting = shared.connect(addr).map_err(|error| format!("{addr}: {error}"))?;
    match shared.env.timeout(MEETING, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{addr}: {error}")),
        Err(_) => Err(format!("{addr}: no answer")),
    }
}

async fn meet(shared: &Arc<Shared>, connection: &Connection) -> Result<(), String> {
    let addr = connection.remote_address();
    let peer = shared.peer_of(connection).map_err(|why| {
        connection.close(VarInt::from_u32(REFUSED), why.as_bytes());
        format!("{addr}: {why}")
    })?;
    let mut mark = shared.next_mark();
    match shared.env.timeout(MEETING, meet::greet(connection, &mut mark)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("{addr}: {error}")),
        Err(_) => return Err(format!("{addr}: no welcome")),
    }
    match shared.admit(peer, mark, connection) {
        Some(link) => {
            let running = shared.clone();
            shared.env.spawn(async move { running.run(link).await });
            Ok(())
        }
        None => {
            connection.close(VarInt::from_u32(DUPLICATE), b"there is a better connection already");
            Err(format!("{addr}: connected to {peer} already"))
        }
    }
}
