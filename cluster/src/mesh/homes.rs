//! At which node each device is at home.

use std::collections::BTreeMap;

use millpond_core::{ids::Origin, record::Home};

/// A map whose join is the later move: all who know the same records see the same homes.
#[derive(Debug, Default)]
pub struct Homes {
    by_device: BTreeMap<String, (u64, Origin)>,
    /// Devices of this node that others asked for: they go there, and that is not on record yet.
    leaving: BTreeMap<String, Origin>,
}

impl Homes {
    /// What `origin` wrote. Returns the device when it has moved to there by it.
    pub fn learn(&mut self, origin: Origin, home: Home) -> Option<&str> {
        let rank = (home.moves, origin);
        if self.by_device.get(&home.device).is_some_and(|known| *known >= rank) {
            return None;
        }
        let device = home.device;
        self.leaving.remove(&device);
        self.by_device.insert(device.clone(), rank);
        self.by_device.get_key_value(&device).map(|(device, _)| device.as_str())
    }

    pub fn of(&self, device: &str) -> Option<Origin> {
        self.by_device.get(device).map(|(_, origin)| *origin)
    }

    /// `to` was told what this node, `me`, knows of the device, and takes its events from now on.
    pub fn leave(&mut self, device: &str, me: Origin, to: Origin) {
        if self.of(device) == Some(me) {
            self.leaving.insert(device.to_owned(), to);
        }
    }

    /// Who may have events of the device that are not known here: where it is going, or else where it is at home.
    pub fn bound_for(&self, device: &str) -> Option<Origin> {
        self.leaving.get(device).copied().or_else(|| self.of(device))
    }

    /// The device comes to `origin` now: what is to be written of it. Staying is no move.
    pub fn arrive(&self, device: &str, origin: Origin) -> Home {
        let moves = match self.by_device.get(device) {
            Some((moves, at)) if *at == origin => *moves,
            Some((moves, _)) => moves.saturating_add(1),
            None => 1,
        };
        Home { device: device.to_owned(), moves }
    }

    /// Whether the device was at home at `origin` before it was anywhere else, and is still.
    pub fn is_first(&self, device: &str, origin: Origin) -> bool {
        self.by_device.get(device) == Some(&(1, origin))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Origin)> {
        self.by_device.iter().map(|(device, (_, origin))| (device.as_str(), *origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_move_counts_in_whatever_order_it_is_told() {
        let (a, b) = (Origin([1; 16]), Origin([2; 16]));
        let mut homes = Homes::default();
        let first = homes.arrive("d", a);
        assert_eq!(homes.learn(a, first.clone()), Some("d"));
        assert_eq!(homes.arrive("d", a).moves, 1, "staying is no move");
        let second = homes.arrive("d", b);
        assert_eq!(homes.learn(b, second.clone()), Some("d"));
        let mut other = Homes::default();
        other.learn(b, second);
        assert_eq!(other.learn(a, first), None);
        assert_eq!((homes.of("d"), other.of("d")), (Some(b), Some(b)));
    }

    #[test]
    fn who_asked_for_a_device_has_it_before_that_is_on_record() {
        let (a, b, c) = (Origin([1; 16]), Origin([2; 16]), Origin([3; 16]));
        let mut homes = Homes::default();
        homes.leave("d", a, b);
        assert_eq!(homes.bound_for("d"), None, "it was not at home here");
        homes.learn(a, homes.arrive("d", a));
        homes.leave("d", a, b);
        assert_eq!((homes.of("d"), homes.bound_for("d")), (Some(a), Some(b)));
        homes.learn(a, homes.arrive("d", a));
        assert_eq!(homes.bound_for("d"), Some(b), "what still comes here is no move");
        homes.learn(b, homes.arrive("d", b));
        homes.learn(c, homes.arrive("d", c));
        assert_eq!(homes.bound_for("d"), Some(c));
    }
}
