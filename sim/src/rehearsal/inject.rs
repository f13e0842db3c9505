//! Faults as they happen, and as they end.

use millpond_actors::upkeep::{self, Repair};
use millpond_core::time::Span;

use super::{Rehearsal, Todo, calm};
use crate::{
    scenario::{Fault, Way},
    site::Phase,
    world::{
        bucket::{Bucket, StoreSpec},
        clock::EPOCH,
        core::HostId,
        mishap::known_trip,
        net::LinkSpec,
    },
};

/// A panic strikes one of so many handlers of actors that come next.
const PANIC_WITHIN: u64 = 40;

impl Rehearsal {
    pub(super) fn inject(&mut self, number: usize) {
        let injection = self.injections[number].clone();
        let fault = &injection.fault;
        let at = fault.node().and_then(|name| self.nodes.iter().position(|node| node.name == name));
        let host = at.map_or(self.floor_host, |at| self.nodes[at].host);
        self.world.core().note(host, "fault", fault.name().as_bytes());
        let mut fault = injection.fault;
        if fault.is_state()
            && let Some(lasts) = fault.lasts_mut()
        {
            self.agenda.add(self.world.now().after(lasts.0.0.max(0) as u64), Todo::Undo(number));
            *self.under_way.entry((host.0, fault.name())).or_default() += 1;
        }
        match fault {
            Fault::PowerLoss { down, .. } => {
                let Some(at) = at.filter(|at| self.world.is_up(self.nodes[*at].host)) else { return };
                self.downtime.insert(at, down.0);
                match (injection.operations, self.world.disk(host)) {
                    (Some(operations), Some(disk)) => disk.die_in(operations),
                    _ => self.power_off(at),
                }
            }
            Fault::Wipe { down, .. } => {
                let Some(at) = at else { return };
                self.downtime.insert(at, down.0);
                self.power_off(at);
                self.nodes[at].lost_disks += 1;
                if let Some(disk) = self.world.disk(host) {
                    disk.wipe();
                }
            }
            Fault::Kill { down, .. } => {
                if let Some(at) = at.filter(|at| self.world.is_up(self.nodes[*at].host)) {
                    self.kill(at, down.0);
                }
            }
            Fault::Restart { down, .. } => {
                if let Some(at) = at.filter(|at| self.nodes[*at].phase() == Phase::Up) {
                    self.downtime.insert(at, down.0);
                    self.nodes[at].stop(&self.world);
                }
            }
            Fault::Partition { whom, only, .. } => {
                for (from, to) in self.parted(host, whom.as_deref(), only) {
                    self.world.network().cut(from, to);
                }
            }
            Fault::Link { loss, duplicate, reorder, latency, bytes_per_second, .. } => {
                let spec = LinkSpec { latency: (latency.0, latency.1), loss, duplicate, reorder, bytes_per_second };
                for other in self.others(host) {
                    self.world.network().set_both(host, other, spec);
                }
            }
            Fault::ClockStep { ahead, back, .. } => {
                self.world.clock(host).step(self.world.now(), Span(ahead.0.0 - back.0.0));
                self.note_clock(host);
            }
            Fault::ClockSetRight { .. } => {
                self.world.clock(host).set_right(self.world.now());
                self.note_clock(host);
            }
            Fault::ClockDrift { ppm, .. } => {
                self.world.clock(host).drift(self.world.now(), ppm);
                self.note_clock(host);
            }
            Fault::SlowDisk { sync, bytes_per_second, .. } => self.with_disk(host, |disk| {
                disk.set_sync_time((sync.0, sync.1));
                if let Some(bytes) = bytes_per_second {
                    disk.set_bytes_per_second(bytes);
                }
            }),
            Fault::FullDisk { leave_bytes, .. } => self.with_disk(host, |disk| disk.free_leave(leave_bytes)),
            Fault::LyingDisk { .. } => self.with_disk(host, |disk| disk.set_lies(true)),
            Fault::FlipBits { bits, .. } => self.with_disk(host, |disk| {
                disk.flip_bits(bits);
            }),
            Fault::FailingSyncs { syncs, .. } => self.with_disk(host, |disk| disk.fail_syncs(syncs)),
            Fault::PoorStore { refused, lied, duplicate, latency, .. } => {
                if let Some(store) = at.and_then(|at| self.nodes[at].store.as_ref()) {
                    store.set(StoreSpec { refused, lied, duplicate, latency: (latency.0, latency.1) });
                }
            }
            Fault::Repair { .. } => {
                let Some(at) = at else { return };
                self.kill(at, Span::from_secs(1));
                let now = self.world.now();
                let Some(disk) = self.world.disk(host) else { return };
                let now_ms = EPOCH.as_millis() + (now.0 / 1_000_000) as i64;
                let outcome = match upkeep::repair_journal(&disk.power_on(), now_ms) {
                    Ok(Repair::NotNeeded) => "the journal was sound".to_owned(),
                    Ok(Repair::Done { repaired, .. }) => format!(
                        "the journal was repaired: incarnation {}, {} receipts for what is lost, {} damaged places",
                        repaired.incarnation.0,
                        repaired.lost.len(),
                        repaired.damage.len()
                    ),
                    Err(error) => format!("the journal could not be repaired: {error}"),
                };
                disk.close();
                self.world.core().note(host, "repair", outcome.as_bytes());
                self.repairs[at].push((now, outcome));
            }
            Fault::Panic { .. } => {
                let handlers = 1 + injection.at_ns % PANIC_WITHIN;
                self.world.mishaps(host).panic_in(handlers);
            }
            Fault::Poison { device, place, .. } => {
                if let Some(place) = known_trip(&place) {
                    self.world.mishaps(host).poison(place, &device);
                }
            }
            Fault::Silence { fleet, share, .. } => {
                let floor = self.floor.clone();
                self.world.enter(self.floor_host, || floor.silence(&fleet, share));
            }
            Fault::ReconnectStorm { fleet } => {
                let floor = self.floor.clone();
                self.world.enter(self.floor_host, || floor.storm(&fleet));
            }
            Fault::FailingReceiver { receiver, .. } => self.floor.fail_receiver(&receiver, true),
        }
    }

    /// The fault is over, unless another of its kind still lasts.
    pub(super) fn undo(&mut self, number: usize) {
        let fault = self.injections[number].fault.clone();
        let at = fault.node().and_then(|name| self.nodes.iter().position(|node| node.name == name));
        let host = at.map_or(self.floor_host, |at| self.nodes[at].host);
        if let Fault::Partition { whom, only, .. } = &fault {
            // The network counts who holds a link cut.
            for (from, to) in self.parted(host, whom.as_deref(), *only) {
                self.world.network().heal(from, to);
            }
        }
        let left = self.under_way.entry((host.0, fault.name())).or_default();
        *left = left.saturating_sub(1);
        if *left > 0 {
            return;
        }
        self.world.core().note(host, "fault over", fault.name().as_bytes());
        match fault {
            Fault::Link { .. } => {
                for other in self.others(host) {
                    self.world.network().set_both(host, other, calm());
                }
            }
            Fault::ClockDrift { .. } => {
                let ppm = at.map_or(0.0, |at| self.plan.scenario.nodes[at].clock.drift_ppm);
                self.world.clock(host).drift(self.world.now(), ppm);
                self.note_clock(host);
            }
            Fault::SlowDisk { .. } => self.reset_disk_speed(host),
            Fault::FullDisk { .. } => self.with_disk(host, |disk| disk.set_fill(0)),
            Fault::LyingDisk { .. } => self.with_disk(host, |disk| disk.set_lies(false)),
            Fault::PoorStore { .. } => {
                if let Some(store) = at.and_then(|at| self.nodes[at].store.as_ref()) {
                    store.set(StoreSpec::CALM);
                }
            }
            Fault::Silence { fleet, .. } => {
                let floor = self.floor.clone();
                self.world.enter(self.floor_host, || floor.silence(&fleet, 0.0));
            }
            Fault::FailingReceiver { receiver, .. } => self.floor.fail_receiver(&receiver, false),
            _ => {}
        }
    }

    /// From where to where nothing passes while a node is cut off.
    fn parted(&self, host: HostId, whom: Option<&str>, only: Option<Way>) -> Vec<(HostId, HostId)> {
        let others =
            self.others(host).into_iter().filter(|other| whom.is_none_or(|name| self.world.name(*other) == name));
        let ways = others.flat_map(|other| [(Way::In, (other, host)), (Way::Out, (host, other))]);
        ways.filter(|(way, _)| only.is_none_or(|only| only == *way)).map(|(_, way)| way).collect()
    }

    /// The end of all faults: devices stop measuring, and nodes that are down come up.
    pub(super) fn heal(&mut self) {
        self.world.core().note(self.floor_host, "heal", &[]);
        self.world.network().heal_all();
        for host in self.nodes.iter().map(|node| node.host).collect::<Vec<_>>() {
            for other in self.others(host) {
                self.world.network().set_both(host, other, calm());
            }
            self.with_disk(host, |disk| {
                disk.die_in(u64::MAX);
                disk.set_fill(0);
                disk.set_lies(false);
                disk.fail_syncs(0);
            });
            self.reset_disk_speed(host);
            self.world.mishaps(host).panic_in(0);
        }
        self.stores().for_each(|store| store.set(StoreSpec::CALM));
        self.under_way.clear();
        for name in self.receivers.keys() {
            self.floor.fail_receiver(name, false);
        }
        let floor = self.floor.clone();
        self.world.enter(self.floor_host, || floor.stop_measuring());
        // A loss of power that has not struck will not: who is not on its way down stays up.
        let nodes = &self.nodes;
        self.downtime.retain(|at, _| nodes[*at].phase() == Phase::Stopping);
        for at in 0..self.nodes.len() {
            if !self.world.is_up(self.nodes[at].host) && !self.awaited.contains(&at) {
                self.start_after(at, Span::ZERO);
            }
        }
    }

    pub(super) fn power_off(&mut self, at: usize) {
        let host = self.nodes[at].host;
        self.world.power_off(host);
        self.nodes[at].gone(self.world.now());
        let pause = self.downtime.remove(&at).unwrap_or(self.nodes[at].restart);
        self.start_after(at, pause);
    }

    pub(super) fn kill(&mut self, at: usize, pause: Span) {
        self.world.kill(self.nodes[at].host);
        self.nodes[at].gone(self.world.now());
        self.start_after(at, pause);
    }

    pub(super) fn start_after(&mut self, at: usize, pause: Span) {
        self.awaited.insert(at);
        self.agenda.add(self.world.now().after(pause.0.max(0) as u64), Todo::Start(at));
    }

    fn others(&self, host: HostId) -> Vec<HostId> {
        let all = [self.floor_host]
            .into_iter()
            .chain(self.nodes.iter().map(|node| node.host))
            .chain(self.receivers.values().copied())
            .chain(self.stores().map(Bucket::host));
        all.filter(|other| *other != host).collect()
    }

    fn stores(&self) -> impl Iterator<Item = &Bucket> {
        self.nodes.iter().filter_map(|node| node.store.as_ref())
    }

    fn with_disk(&self, host: HostId, f: impl FnOnce(&crate::world::disk::Disk)) {
        if let Some(disk) = self.world.disk(host) {
            f(disk);
        }
    }

    fn reset_disk_speed(&self, host: HostId) {
        let Some(at) = self.nodes.iter().position(|node| node.host == host) else { return };
        let settings = &self.plan.scenario.nodes[at].disk;
        self.with_disk(host, |disk| {
            disk.set_sync_time((settings.sync.0, settings.sync.1));
            disk.set_bytes_per_second(settings.bytes_per_second);
        });
    }

    fn note_clock(&mut self, host: HostId) {
        let now = self.world.now();
        if let Some(at) = self.nodes.iter().position(|node| node.host == host) {
            self.clock_errors[at].push((now, self.world.clock(host).error(now).0));
        }
    }
}
