//! What this node could give to another site: its own records, and its copies of its mates'.

use millpond_core::{ids::Seq, record::Track};
use millpond_proto::{RangeSet, replication::Life};
use millpond_store::Reader;

use super::state::State;

/// The records of a life that are here, whoever may have them.
pub(crate) struct OnOffer {
    pub life: Life,
    /// The name of the life's node.
    pub name: String,
    /// By track.
    pub ranges: [RangeSet; 2],
    pub reader: Reader,
}

impl State {
    pub(super) fn on_offer(&self) -> Vec<OnOffer> {
        let own = std::iter::once((self.life(), &self.node.reader));
        let on_offer = |(life, reader): (Life, &Reader)| {
            let all = |track| self.replication.offered(life, track, Seq(1), Seq(u64::MAX - 1)).into_iter().collect();
            OnOffer { life, name: self.name_of(life.origin), ranges: Track::ALL.map(all), reader: reader.clone() }
        };
        own.chain(self.copies.readers()).map(on_offer).collect()
    }
}
