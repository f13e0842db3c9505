//! Another world for nodes: one heap of what will happen, one executor for each host, simulated time, network and disks.
//!
//! The world takes what happens next from its heap, hands it to the host that it concerns, and lets that host's tasks run until none
//! can go on; then it takes the next. Nothing else moves the time. All of it is one thread, and each choice (how long a datagram
//! travels, which of two events at the same nanosecond is first, which sectors a dying disk has written) is drawn from streams of
//! randomness that the seed names, so a run is a function of the seed and of what was asked of the world.
//!
//! What must stay true:
//! 1. The time never goes back, and stands still while tasks run.
//! 2. What was meant for one boot of a host never reaches another.
//! 3. When the power of a host goes, nothing of it runs any more: its tasks are dropped, its streams cut, its disk torn.
//! 4. Hosts share nothing but the network.

pub mod bucket;
pub mod clock;
pub mod core;
pub mod disk;
pub mod mishap;
pub mod net;
mod runtime;
mod task;
pub mod trace;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
};

use millpond_core::time::Span;
use millpond_env::Env;

use self::{
    clock::{Drifting, HostClock},
    core::{Act, Core, HostId, Instant, Place},
    disk::{Disk, DiskSpec},
    mishap::Mishaps,
    net::Network,
    runtime::HostRuntime,
    task::{HostBlocking, HostTrace, RuntimeSpawner, SeededEntropy},
};

/// A machine, before it is there.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// By which other hosts reach it.
    pub name: String,
    pub address: IpAddr,
    pub clock_offset: Span,
    pub clock_ppm: f64,
    /// None: a host without a disk, such as the floor with its devices.
    pub disk: Option<DiskSpec>,
}

pub struct World {
    core: Arc<Core>,
    network: Network,
    hosts: Vec<Host>,
}

/// A machine that may be on or off.
struct Host {
    name: String,
    boots: u32,
    up: Option<Up>,
    drifting: Arc<Drifting>,
    disk: Option<Disk>,
    mishaps: Arc<Mishaps>,
}

struct Up {
    place: Place,
    runtime: HostRuntime,
}

impl World {
    /// `yield_share` is how likely a handler of an actor lets others go first.
    pub fn new(seed: u64, yield_share: f64) -> World {
        let core = Core::new(seed, yield_share);
        World { network: Network::new(core.clone()), core, hosts: Vec::new() }
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn now(&self) -> Instant {
        self.core.now()
    }

    /// Adds a host; its power is off.
    pub fn add(&mut self, spec: HostSpec) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        self.network.add_host(id, &spec.name, spec.address);
        self.hosts.push(Host {
            disk: spec.disk.map(|disk| Disk::new(self.core.clone(), id, &spec.name, disk)),
            name: spec.name,
            boots: 0,
            up: None,
            drifting: Drifting::new(spec.clock_offset, spec.clock_ppm),
            mishaps: Arc::new(Mishaps::default()),
        });
        id
    }

    pub fn name(&self, host: HostId) -> &str {
        &self.hosts[host.0 as usize].name
    }

    pub fn is_up(&self, host: HostId) -> bool {
        self.hosts[host.0 as usize].up.is_some()
    }

    pub fn boots(&self, host: HostId) -> u32 {
        self.hosts[host.0 as usize].boots
    }

    pub fn clock(&self, host: HostId) -> &Drifting {
        &self.hosts[host.0 as usize].drifting
    }

    pub fn disk(&self, host: HostId) -> Option<&Disk> {
        self.hosts[host.0 as usize].disk.as_ref()
    }

    pub fn mishaps(&self, host: HostId) -> &Mishaps {
        &self.hosts[host.0 as usize].mishaps
    }

    /// Switches a host on and returns its outside. Nothing runs there yet.
    ///
    /// # Panics
    /// When it is on already.
    pub fn boot(&mut self, id: HostId) -> Env {
        let host = &mut self.hosts[id.0 as usize];
        assert!(host.up.is_none(), "{} is on already", host.name);
        let place = Place { host: id, boot: host.boots };
        host.boots += 1;
        self.core.set_live(id, Some(place.boot));
        self.core.note(id, "boot", &place.boot.to_le_bytes());
        self.network.attach(place);
        let runtime = HostRuntime::new();
        let behind = Arc::new(AtomicU64::new(0));
        let disk = host.disk.clone();
        let env = Env {
            clock: Arc::new(HostClock::new(self.core.clone(), place, host.drifting.clone(), behind.clone())),
            net: self.network.net(place),
            disk: disk.as_ref().map_or_else(disk::none, Disk::power_on),
            entropy: Arc::new(SeededEntropy { core: self.core.clone(), place }),
            spawner: Arc::new(RuntimeSpawner(runtime.handle())),
            blocking: Arc::new(HostBlocking::new(self.core.clone(), place, disk, behind)),
            trace: Arc::new(HostTrace { core: self.core.clone(), place, mishaps: host.mishaps.clone() }),
        };
        host.up = Some(Up { place, runtime });
        env
    }

    /// Runs `f` on a host that is on, and then its tasks.
    pub fn enter(&self, host: HostId, f: impl FnOnce()) {
        if let Some(up) = &self.hosts[host.0 as usize].up {
            up.runtime.drive(f);
        }
    }

    /// Cuts the power: tasks end where they are, streams break, and of what the disk had not synced some is there, some is not.
    pub fn power_off(&mut self, id: HostId) {
        if self.end(id, "power off")
            && let Some(disk) = &self.hosts[id.0 as usize].disk
        {
            disk.power_off();
        }
    }

    /// Ends the host's program: what it wrote stays, as it does in the memory of an operating system.
    pub fn kill(&mut self, id: HostId) {
        if self.end(id, "kill")
            && let Some(disk) = &self.hosts[id.0 as usize].disk
        {
            disk.close();
        }
    }

    fn end(&mut self, id: HostId, how: &'static str) -> bool {
        let Some(up) = self.hosts[id.0 as usize].up.take() else { return false };
        self.core.set_live(id, None);
        self.core.note(id, how, &up.place.boot.to_le_bytes());
        if let Some(disk) = &self.hosts[id.0 as usize].disk {
            disk.freeze();
        }
        self.network.detach(id, how == "kill");
        up.runtime.drop_all();
        true
    }

    /// Lets happen what happens next, if that is until `until`; returns the host that it concerned. `None`: nothing more happens
    /// until then, and the time is `until`.
    pub fn step(&mut self, until: Instant) -> Option<Option<HostId>> {
        loop {
            let Some(due) = self.core.pop(until) else {
                self.core.skip_to(until);
                return None;
            };
            let Some(place) = due.to else {
                if let Act::Run(act) = due.act {
                    act();
                }
                return Some(None);
            };
            let host = &self.hosts[place.host.0 as usize];
            let Some(up) = host.up.as_ref().filter(|up| up.place == place) else { continue };
            match due.act {
                Act::Ring(alarm) if alarm.is_over() => continue,
                Act::Ring(alarm) => {
                    self.core.note(place.host, due.kind, &[]);
                    up.runtime.drive(|| alarm.ring());
                }
                Act::Run(act) => {
                    self.core.note(place.host, due.kind, &[]);
                    up.runtime.drive(act);
                }
            }
            return Some(Some(place.host));
        }
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Instant> {
        self.core.peek()
    }
}

impl Drop for World {
    /// Hosts end one by one, so that nothing of one runs while another is half gone. What a program holds in circles stays until the end of the
    /// process, as everywhere; the contents of its disk need not.
    fn drop(&mut self) {
        for id in 0..self.hosts.len() {
            self.end(HostId(id as u32), "end");
        }
        self.hosts.iter().filter_map(|host| host.disk.as_ref()).for_each(Disk::wipe);
        self.core.end();
    }
}
