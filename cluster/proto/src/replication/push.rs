//! Live runs of this node's own journal.

use millpond_core::{
    ids::{Origin, Seq},
    record::Track,
};

use super::{Effect, Moment, Replication, limits::*, peer::Pushes};
use crate::wire::Stored;

impl Replication {
    /// Pushes what was committed to those that are to hold it.
    pub(super) fn push(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let me = self.settings.me;
        let holders = self.holders(me.origin);
        for (to, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up) {
            for track in Track::ALL {
                let pushes = &mut peer.pushes[track as usize];
                if track == Track::Raw && !holders.contains(to) {
                    // Should it become a holder, it fetches what came before.
                    pushes.skip_to(self.head);
                } else if self.last[track as usize].0 < pushes.next {
                    // Nothing in it for this track: the next push covers these numbers as well.
                } else if pushes.unacknowledged.len() >= PUSHES_MAX {
                    // It lags. It is told where the head is, and fetches what it misses.
                    pushes.skip_to(self.head);
                    let soon = now.after_ms(ANNOUNCE_SOON_MS);
                    peer.changed.entry((me, track)).or_insert(soon);
                } else {
                    let first = Seq(pushes.next);
                    pushes.unacknowledged.push_back((pushes.next, self.head.0));
                    pushes.skip_to(self.head);
                    effects.push(Effect::Push { to: *to, track, first, last: self.head });
                }
            }
        }
    }

    pub(super) fn push_failed(&mut self, now: Moment, to: Origin, track: Track) {
        let me = self.settings.me;
        if let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.is_up) {
            let pushes = &mut peer.pushes[track as usize];
            pushes.skip_to(self.head);
            pushes.unacknowledged.clear();
            peer.changed.insert((me, track), now.after_ms(ANNOUNCE_SOON_MS));
        }
    }

    /// A peer has some of this node's records on disk.
    pub(super) fn peer_stored(&mut self, from: Origin, stored: &[Stored]) {
        let (me, head) = (self.settings.me, self.head.0);
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.is_up) else { return };
        for stored in stored {
            let ours = (stored.origin, stored.incarnation) == (me.origin, me.incarnation);
            if !ours || stored.first.0 == 0 || stored.last.0 > head {
                continue;
            }
            let heard = peer.held.entry((me, stored.track)).or_default();
            heard.covered.insert(stored.first.0, stored.last.0);
            // Holes would be remembered for ever otherwise; what is left out here is told again.
            while heard.covered.len() > 2 * RANGES_MAX {
                let lowest = heard.covered.iter().next();
                lowest.into_iter().for_each(|(first, last)| heard.covered.remove(first, last));
            }
            let covered = &heard.covered;
            peer.pushes[stored.track as usize].unacknowledged.retain(|(first, last)| !covered.covers(*first, *last));
        }
    }
}

impl Pushes {
    /// Goes on behind `head`; what lies before it and was not pushed is left to be fetched.
    fn skip_to(&mut self, head: Seq) {
        self.next = head.0 + 1;
    }
}
