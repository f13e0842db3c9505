//! Programs that say on the local network that they are there: all hosts are on one.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use millpond_env::Neighbours;
use tokio::sync::oneshot;

use super::Shared;
use crate::world::core::Place;

/// How often a host looks for others.
const LOOK_NS: u64 = 1_000_000_000;

pub(super) struct HostNeighbours {
    shared: Arc<Shared>,
    place: Place,
    found: BTreeSet<SocketAddr>,
}

/// The host says from now on that it takes datagrams at that port.
pub(super) fn look(shared: &Arc<Shared>, place: Place, at: SocketAddr) -> io::Result<HostNeighbours> {
    shared.state().live(place)?.says = Some(at.port());
    Ok(HostNeighbours { shared: shared.clone(), place, found: BTreeSet::new() })
}

#[async_trait]
impl Neighbours for HostNeighbours {
    async fn next(&mut self) -> Option<Vec<SocketAddr>> {
        loop {
            let (ring, rung) = oneshot::channel();
            let at = self.shared.now().after(LOOK_NS);
            self.shared.core.schedule(at, Some(self.place), "look", move || {
                let _ = ring.send(());
            });
            rung.await.ok()?;
            let others = self.shared.state().heard_by(self.place.host);
            if let Some(new) = others.into_iter().find(|addr| !self.found.contains(addr)) {
                self.found.insert(new);
                return Some(vec![new]);
            }
        }
    }
}

impl fmt::Debug for HostNeighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostNeighbours").field(&self.place).finish()
    }
}
