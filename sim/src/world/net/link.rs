//! Links: how long what is sent travels, and whether it arrives.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use millpond_core::time::Span;
use rand::{RngExt, rngs::StdRng};

use crate::world::core::{Core, HostId, Instant};

/// One way between two hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// Shortest and longest time on the way; each datagram and segment draws its own, which is what jitter is.
    pub latency: (Span, Span),
    /// Share of transmissions that are lost. Of a stream they are made again later, a datagram stays lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams that are held back until later ones have passed.
    pub reorder: f64,
    /// `None`: as much as anybody sends.
    pub bytes_per_second: Option<u64>,
}

impl LinkSpec {
    /// Machines of one site.
    pub const LOCAL: LinkSpec = LinkSpec {
        latency: (Span(150_000), Span(400_000)),
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        bytes_per_second: None,
    };

    /// What a host has with itself.
    const LOOPBACK: LinkSpec = LinkSpec { latency: (Span(25_000), Span(35_000)), ..LinkSpec::LOCAL };

    /// How long so many bytes take to leave, in nanoseconds.
    fn time_of(&self, bytes: usize) -> u64 {
        let Some(rate) = self.bytes_per_second else { return 0 };
        let ns = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
        ns.min(u128::from(u64::MAX)) as u64
    }
}

impl Default for LinkSpec {
    fn default() -> LinkSpec {
        LinkSpec::LOCAL
    }
}

/// The pause before a transmission is made again; it doubles each time.
pub(super) const RETRANSMIT_NS: u64 = 200_000_000;
/// Retransmissions of one segment in a row that a lossy link can cause.
const LOSSES_MAX: u32 = 7;
/// A datagram that would wait longer than this for a full link is dropped,
const QUEUE_NS_MAX: u64 = 250_000_000;
/// when as many bytes wait before it: a thin link has room for a few packets, too.
const QUEUE_BYTES: usize = 4 * 1500;
/// How often the kernel has no room for a datagram for a moment: one in so many.
const BUSY_ONE_IN: u32 = 4096;

pub(super) struct Links {
    core: Arc<Core>,
    default: LinkSpec,
    links: BTreeMap<(HostId, HostId), Link>,
}

struct Link {
    spec: Option<LinkSpec>,
    /// How many hold it cut.
    cuts: u32,
    /// When the last byte that is waiting will have left.
    busy_until: Instant,
    /// Bytes of datagrams that went into it, whether they arrive or not.
    carried: u64,
    rng: StdRng,
}

/// The way of a segment that will arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    /// Until then it waits for the link.
    pub depart: Instant,
    pub arrive: Instant,
    pub losses: u32,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lost,
    /// The kernel has no room before then.
    Busy(Instant),
    Arrives(Instant, Option<Instant>),
}

impl Links {
    pub fn new(core: Arc<Core>) -> Links {
        Links { core, default: LinkSpec::default(), links: BTreeMap::new() }
    }

    pub fn set_default(&mut self, spec: LinkSpec) {
        self.default = spec;
    }

    pub fn set(&mut self, from: HostId, to: HostId, spec: LinkSpec) {
        self.link(from, to).0.spec = Some(spec);
    }

    pub fn spec(&mut self, from: HostId, to: HostId) -> LinkSpec {
        self.link(from, to).1
    }

    /// Until it was healed as often as it was cut.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        if from != to {
            self.link(from, to).0.cuts += 1;
        }
    }

    pub fn heal(&mut self, from: HostId, to: HostId) {
        let link = self.link(from, to).0;
        link.cuts = link.cuts.saturating_sub(1);
    }

    pub fn heal_all(&mut self) {
        self.links.values_mut().for_each(|link| link.cuts = 0);
    }

    pub fn is_open(&self, from: HostId, to: HostId) -> bool {
        self.links.get(&(from, to)).is_none_or(|link| link.cuts == 0)
    }

    /// Bytes of datagrams that went that way.
    pub fn carried(&mut self, from: HostId, to: HostId) -> u64 {
        self.link(from, to).0.carried
    }

    /// How long something small travels now, in nanoseconds.
    pub fn latency(&mut self, from: HostId, to: HostId) -> u64 {
        let (link, spec) = self.link(from, to);
        link.latency(&spec)
    }

    /// Something of a host's own that takes a random time.
    pub fn draw(&mut self, host: HostId, range: Range<u64>) -> u64 {
        self.link(host, host).0.rng.random_range(range)
    }

    pub fn loses(&mut self, from: HostId, to: HostId) -> bool {
        let (link, spec) = self.link(from, to);
        spec.loss > 0.0 && link.rng.random_bool(spec.loss)
    }

    /// Sends a segment on its way.
    pub fn segment(&mut self, from: HostId, to: HostId, now: Instant, bytes: usize) -> Transit {
        let (link, spec) = self.link(from, to);
        let depart = link.queue(&spec, now, bytes);
        let mut losses = 0;
        while spec.loss > 0.0 && losses < LOSSES_MAX && link.rng.random_bool(spec.loss) {
            losses += 1;
        }
        let again = RETRANSMIT_NS * ((1 << losses) - 1);
        Transit { depart, arrive: depart.after(again + link.latency(&spec)), losses }
    }

    /// More bytes join a segment that waits for the link. Returns when it leaves.
    pub fn lengthen(&mut self, from: HostId, to: HostId, now: Instant, bytes: usize) -> Instant {
        let (link, spec) = self.link(from, to);
        link.queue(&spec, now, bytes)
    }

    pub fn datagram(&mut self, from: HostId, to: HostId, now: Instant, bytes: usize) -> Fate {
        let (link, spec) = self.link(from, to);
        if from != to && link.rng.random_range(0..BUSY_ONE_IN) == 0 {
            return Fate::Busy(now.after(link.rng.random_range(20_000..200_000)));
        }
        let patience = QUEUE_NS_MAX.max(spec.time_of(QUEUE_BYTES));
        if link.cuts > 0 || link.busy_until > now.after(patience) {
            return Fate::Lost;
        }
        link.carried += bytes as u64;
        if spec.loss > 0.0 && link.rng.random_bool(spec.loss) {
            return Fate::Lost;
        }
        let depart = link.queue(&spec, now, bytes);
        let arrive = depart.after(link.delay(&spec));
        let twice = spec.duplicate > 0.0 && link.rng.random_bool(spec.duplicate);
        Fate::Arrives(arrive, twice.then(|| depart.after(link.delay(&spec))))
    }

    fn link(&mut self, from: HostId, to: HostId) -> (&mut Link, LinkSpec) {
        let core = &self.core;
        let link = self.links.entry((from, to)).or_insert_with(|| Link {
            spec: (from == to).then_some(LinkSpec::LOOPBACK),
            cuts: 0,
            busy_until: Instant(0),
            carried: 0,
            rng: core.rng(&format!("net/{}/{}", from.0, to.0)),
        });
        let spec = link.spec.unwrap_or(self.default);
        (link, spec)
    }
}

impl Link {
    /// When the last of `bytes` has left, behind everything that waits already.
    fn queue(&mut self, spec: &LinkSpec, now: Instant, bytes: usize) -> Instant {
        if spec.bytes_per_second.is_none() {
            return now;
        }
        self.busy_until = self.busy_until.max(now).after(spec.time_of(bytes));
        self.busy_until
    }

    fn latency(&mut self, spec: &LinkSpec) -> u64 {
        let (least, most) = (spec.latency.0.0.max(0) as u64, spec.latency.1.0.max(0) as u64);
        if least >= most { least } else { self.rng.random_range(least..=most) }
    }

    /// The latency of a datagram, which may be held back on its way.
    fn delay(&mut self, spec: &LinkSpec) -> u64 {
        let latency = self.latency(spec);
        let held = spec.reorder > 0.0 && self.rng.random_bool(spec.reorder);
        if held { latency + self.rng.random_range(1_000_000..=10_000_000 + 4 * latency) } else { latency }
    }
}
