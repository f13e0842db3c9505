//! Who is there: SWIM with suspicion, by foca, with an identity, a wire format and numbers of our own.
//!
//! What it decides: which members of the site are up, suspected, or down, and what each of them is called and where it listens. It
//! believes monotonic time only, and only to space its announcements; foca's own times are timers that the shell keeps.
//!
//! A member is its [`Origin`]. Under it there is one [`Member`] at a time: the one with the highest (boot, round). A node that starts
//! again has a higher boot; a node that was declared down wrongly raises its round and is back at once.
//!
//! Invariants:
//! 1. A datagram is decoded completely before any of it counts; what is malformed, or says it is from somebody else than the peer whose
//!    certificate was checked, is counted and changes nothing.
//! 2. Nobody is forgotten. Each [`Input::Tick`] announces us to some of those that are not up, so that two halves of a site find each
//!    other however long they were apart. The shell keeps the known peers on disk too and says them again with [`Input::Join`].
//! 3. No datagram is longer than [`DATAGRAM_BYTES_MAX`].
//! 4. Every member's effects alternate: `Up`, `Suspected`, `Down` are told only when what was told before is not true any more.
//! 5. A suspicion ends: the member is asked to object after one suspicion time, and is down after two.
//!
//! Limits: at most [`MEMBERS_MAX`] members, those that are down included. A node whose clock of timers stands still for longer than the
//! suspicion is declared down by the others, rightly. Detection costs each node one probe per period, whatever the size of the site.
//!
//! Das, Gupta, Motivala: "SWIM", 2002; Dadgar, Phillips, Currey: "Lifeguard", 2017, for what suspicion is good for.

mod codec;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, num::NonZeroUsize};

use core::net::SocketAddr;

use foca::{Config as FocaConfig, Foca, Identity, Notification, PeriodicParams, Runtime, State, Timer};
use millpond_core::{ids::Origin, time::Span};
use rand::RngExt;

use crate::Now;

use self::codec::Layout;

/// What fits into a datagram of any QUIC connection.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;
/// Members of a site, those that are down included.
pub const MEMBERS_MAX: usize = 256;
/// Other members up to which a site is small.
pub const SMALL: usize = 8;
/// Bytes of a member's name; a longer one is cut.
pub const NAME_BYTES_MAX: usize = 32;

/// A node of the site as others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub origin: Origin,
    /// Where it can be reached.
    pub addr: SocketAddr,
    /// Counts the starts of the node; higher with each.
    pub boot: u64,
    /// Counts how often it had to come back within one boot.
    pub round: u32,
    /// For people.
    pub name: String,
}

impl Member {
    pub fn new(origin: Origin, addr: SocketAddr, boot: u64, name: &str) -> Member {
        let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        Member { origin, addr, boot, round: 0, name: name[..end].to_string() }
    }
}

impl Identity for Member {
    type Addr = Origin;

    fn renew(&self) -> Option<Member> {
        Some(Member { round: self.round.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> Origin {
        self.origin
    }

    /// The later one. Two that claim the same boot and round are ordered by the rest, so that all nodes keep the same one.
    fn win_addr_conflict(&self, other: &Member) -> bool {
        let rank = |member: &Member| (member.boot, member.round, member.addr, member.name.clone());
        rank(self) > rank(other)
    }
}

/// The numbers of the protocol. All nodes of a site have the same.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Each node probes one other in each period.
    pub probe_period: Span,
    /// After this without an answer others are asked to try; less than the period.
    pub probe_rtt: Span,
    /// How long a suspected member has to object.
    pub suspicion: Span,
    /// How often news are passed on while there are any.
    pub gossip_period: Span,
    /// How often a member is asked whom it knows.
    pub feed_period: Span,
    /// The same in a site of at most [`SMALL`] other members, where one answer holds them all.
    pub feed_period_small: Span,
    /// How often we announce ourselves to members that are not up, and to how many of them.
    pub announce_period: Span,
    pub announce_to: usize,
}

impl Default for Config {
    /// For 3 to 50 nodes in one building. Measured with 40 pretend sites of 3, 10 and 50 nodes, half/worst in ms: the last node suspects a
    /// dead one after 338/576, 409/1360, 536/1312 and knows it down after 1237/1476, 1368/2262, 1428/2208; halves are one again
    /// 200/400, 320/480, 1060/1660 after a partition. Idle: 796, 456, 187 B/s per pair.
    fn default() -> Config {
        Config {
            probe_period: Span::from_millis(200),
            probe_rtt: Span::from_millis(80),
            suspicion: Span::from_millis(900),
            gossip_period: Span::from_millis(100),
            feed_period: Span::from_millis(300),
            feed_period_small: Span::from_millis(1_500),
            announce_period: Span::from_millis(400),
            announce_to: 6,
        }
    }
}

impl Config {
    fn foca(self) -> FocaConfig {
        let three = NonZeroUsize::new(3).expect("not zero");
        FocaConfig {
            probe_period: self.probe_period.into(),
            probe_rtt: self.probe_rtt.into(),
            num_indirect_probes: three,
            suspect_to_down_after: self.suspicion.into(),
            remove_down_after: None,
            max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX).expect("not zero"),
            notify_down_members: true,
            // One datagram does not hold a large site: who is new asks around for the rest.
            periodic_announce: Some(PeriodicParams {
                frequency: self.feed_period.into(),
                num_members: NonZeroUsize::MIN,
            }),
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: self.gossip_period.into(),
                num_members: NonZeroUsize::new(5).expect("not zero"),
            }),
            ..FocaConfig::simple()
        }
    }
}

/// Gives a timer back to whom it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerToken(pub u64);

#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// `from` is whose certificate the connection showed.
    Datagram { from: Origin, bytes: &'a [u8] },
    /// The time of [`Effect::Timer`] is over.
    Timer(TimerToken),
    /// A peer that we know of, from the configuration, from disk or because it connected to us.
    Join { origin: Origin, addr: SocketAddr },
    /// A peer said goodbye.
    Left(Origin),
    /// We go down in good order. Nothing but dropping this follows.
    LeftInGoodOrder,
    /// Some time went by; given at least twice per second.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Best effort. Nothing is lost when there is no connection, but it is a hint to make one.
    Send {
        to: Member,
        bytes: Vec<u8>,
    },
    Timer {
        after: Span,
        token: TimerToken,
    },
    /// Is there: for the first time, again, no longer suspected, or with another boot, address or name.
    Up(Member),
    /// Does not answer; counts as up until it is down.
    Suspected(Member),
    Down(Member),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Up,
    Suspected,
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were no sound message.
    pub malformed: u64,
    /// Datagrams that named another sender than the one they came from.
    pub forged: u64,
    /// Datagrams left alone because they would have brought more than [`MEMBERS_MAX`] members.
    pub crowded: u64,
    /// Turns that foca refused; such as an answer to a probe that had long ended.
    pub refused: u64,
}

pub struct Membership<R> {
    config: Config,
    foca: Foca<Member, Layout, R, foca::NoCustomBroadcast>,
    timers: BTreeMap<TimerToken, Timer<Member>>,
    next_timer: u64,
    /// What was told of each member.
    told: BTreeMap<Origin, Told>,
    /// Peers we were asked to join and have not seen yet.
    sought: BTreeMap<Origin, SocketAddr>,
    /// Whom we announced ourselves to last, and when the next turn is.
    announced: Origin,
    next_announcement: Now,
    counts: Counts,
    /// Members are asked less often.
    small: bool,
}

struct Told {
    member: Member,
    health: Health,
    /// Of foca: what an objection to a suspicion has to exceed.
    incarnation: u16,
    since: Now,
}

impl<R: RngExt> Membership<R> {
    pub fn new(me: Member, rng: R, config: Config) -> Membership<R> {
        Membership {
            config,
            foca: Foca::new(me, config.foca(), rng, Layout),
            timers: BTreeMap::new(),
            next_timer: 0,
            told: BTreeMap::new(),
            sought: BTreeMap::new(),
            announced: Origin::default(),
            next_announcement: Now::default(),
            counts: Counts::default(),
            small: false,
        }
    }

    /// As others know us now.
    pub fn me(&self) -> &Member {
        self.foca.identity()
    }

    /// Everybody we ever heard of but ourselves, by origin.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Health)> {
        self.told.values().map(|told| (&told.member, told.health))
    }

    pub fn health(&self, origin: Origin) -> Option<Health> {
        self.told.get(&origin).map(|told| told.health)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        let mut outside = Outside { timers: &mut self.timers, next_timer: &mut self.next_timer, effects };
        let done = match input {
            Input::Datagram { from, bytes } => {
                if !self.admits(from, bytes) {
                    return;
                }
                let mut outside = Outside { timers: &mut self.timers, next_timer: &mut self.next_timer, effects };
                self.foca.handle_data(bytes, &mut outside)
            }
            Input::Timer(token) => match outside.timers.remove(&token) {
                Some(timer) => self.foca.handle_timer(timer, &mut outside),
                None => Ok(()),
            },
            Input::Join { origin, addr } => {
                let known = self.told.contains_key(&origin) || origin == self.foca.identity().origin;
                if known || self.sought.len() + self.told.len() >= MEMBERS_MAX {
                    return;
                }
                self.sought.insert(origin, addr);
                self.foca.announce(Member::new(origin, addr, 0, ""), &mut outside)
            }
            Input::Left(origin) => match self.told.get(&origin) {
                Some(Told { member, health: Health::Up | Health::Suspected, .. }) => {
                    let down = foca::Member::down(member.clone());
                    self.foca.apply_many([down].into_iter(), true, &mut outside)
                }
                _ => Ok(()),
            },
            Input::LeftInGoodOrder => self.foca.leave_cluster(&mut outside),
            Input::Tick => {
                self.announce(now, effects);
                self.press(now, effects)
            }
        };
        self.counts.refused += u64::from(done.is_err());
        self.tell(now, effects);
        self.pace();
    }

    /// A small site talks less.
    fn pace(&mut self) {
        let small = self.told.len() <= SMALL && self.sought.is_empty();
        if small != self.small {
            let feed_period = if small { self.config.feed_period_small } else { self.config.feed_period };
            let config = Config { feed_period, ..self.config };
            self.small = self.foca.set_config(config.foca()).is_ok() == small;
        }
    }

    /// Invariant 1.
    fn admits(&mut self, from: Origin, bytes: &[u8]) -> bool {
        let Some(envelope) = codec::open(bytes) else {
            self.counts.malformed += 1;
            return false;
        };
        if envelope.header.src.origin != from {
            self.counts.forged += 1;
            return false;
        }
        let named = envelope.updates.iter().map(|update| update.id().origin).chain([from]);
        let strangers = named.filter(|origin| !self.told.contains_key(origin)).count();
        let fits = strangers == 0 || self.told.len() + strangers <= MEMBERS_MAX;
        self.counts.crowded += u64::from(!fits);
        fits
    }

    /// Invariant 2: the next few of those that are not up, in a circle.
    fn announce(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if now < self.next_announcement {
            return;
        }
        self.next_announcement = now.after(self.config.announce_period);
        let mut absent: BTreeMap<Origin, Member> =
            self.sought.iter().map(|(origin, addr)| (*origin, Member::new(*origin, *addr, 0, ""))).collect();
        let down = self.told.values().filter(|told| told.health == Health::Down);
        absent.extend(down.map(|told| (told.member.origin, told.member.clone())));
        let start = self.announced;
        let after = absent.range((std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded));
        let turn: Vec<Member> = after
            .chain(absent.range(..=start))
            .take(self.config.announce_to)
            .map(|(_, member)| member.clone())
            .collect();
        for member in turn {
            self.announced = member.origin;
            let mut outside = Outside { timers: &mut self.timers, next_timer: &mut self.next_timer, effects };
            self.counts.refused += u64::from(self.foca.announce(member, &mut outside).is_err());
        }
    }

    /// Invariant 5. Foca drops the timers of its suspicions when it takes a new round, and nobody would end them.
    fn press(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), foca::Error> {
        let (ask_after, end_after) = (self.config.suspicion, self.config.suspicion + self.config.suspicion);
        let mut given_up = Vec::new();
        for told in self.told.values().filter(|told| told.health == Health::Suspected) {
            if now.since(told.since) >= end_after {
                given_up.push(foca::Member::new(told.member.clone(), told.incarnation, State::Down));
            } else if now.since(told.since) >= ask_after {
                let bytes = codec::suspicion(self.foca.identity(), &told.member, told.incarnation);
                effects.push(Effect::Send { to: told.member.clone(), bytes });
            }
        }
        let mut outside = Outside { timers: &mut self.timers, next_timer: &mut self.next_timer, effects };
        self.foca.apply_many(given_up.into_iter(), true, &mut outside)
    }

    /// Invariant 4: what is different from what was told.
    fn tell(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for member in self.foca.iter_membership_state() {
            let health = match member.state() {
                State::Alive => Health::Up,
                State::Suspect => Health::Suspected,
                State::Down => Health::Down,
            };
            let (id, incarnation) = (member.id(), member.incarnation());
            let before = self.told.get(&id.origin);
            if before.is_some_and(|told| told.health == health && told.incarnation == incarnation && told.member == *id)
            {
                continue;
            }
            let was = before.map_or(Health::Down, |told| told.health);
            let same = before.is_some_and(|told| {
                (told.member.boot, told.member.addr, &told.member.name) == (id.boot, id.addr, &id.name)
            });
            match health {
                Health::Up if was != Health::Up || !same => effects.push(Effect::Up(id.clone())),
                Health::Suspected if was == Health::Down || !same => {
                    effects.extend([Effect::Up(id.clone()), Effect::Suspected(id.clone())]);
                }
                Health::Suspected if was == Health::Up => effects.push(Effect::Suspected(id.clone())),
                Health::Down if was != Health::Down => effects.push(Effect::Down(id.clone())),
                _ => {}
            }
            let since = before.filter(|_| was == health && same).map_or(now, |told| told.since);
            self.sought.remove(&id.origin);
            self.told.insert(id.origin, Told { member: id.clone(), health, incarnation, since });
        }
    }
}

/// Turns what foca wants into effects. Its notifications are not needed: [`Membership::tell`] sees every change, suspicions too.
struct Outside<'a> {
    timers: &'a mut BTreeMap<TimerToken, Timer<Member>>,
    next_timer: &'a mut u64,
    effects: &'a mut Vec<Effect>,
}

impl Runtime<Member> for Outside<'_> {
    fn notify(&mut self, _: Notification<'_, Member>) {}

    fn send_to(&mut self, to: Member, data: &[u8]) {
        debug_assert!(data.len() <= DATAGRAM_BYTES_MAX, "invariant 3");
        self.effects.push(Effect::Send { to, bytes: data.to_vec() });
    }

    fn submit_after(&mut self, timer: Timer<Member>, after: std::time::Duration) {
        let token = TimerToken(*self.next_timer);
        *self.next_timer += 1;
        self.timers.insert(token, timer);
        self.effects.push(Effect::Timer { after: Span(after.as_nanos() as i64), token });
    }
}
