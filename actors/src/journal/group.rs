//! Which units go into the next commit, and when.
//!
//! Units wait in one queue and leave it in the order in which they came; while a commit is under way the queue grows, and the next
//! commit takes all of it (group commit). When little arrives a commit waits up to `linger` after the last one, to spare flash;
//! a unit after a pause longer than that goes at once.
//!
//! The disk may fill. States: *room* → *tight* (a commit failed for want of space, or the file system has less left than the reserve)
//! → *refusing* (giving way was not allowed or did not help) → *room*. In *tight* commits ask the store to give up the oldest
//! records of the lowest class. In *refusing* units of events are refused as they come, except one probe per second, and none while
//! the file system itself says that it has less than the reserve; all else stays in the queue, for results and receipts must not be lost. Nothing is tried more often than that either: a commit that fails makes
//! the store open its file anew, and read it.
//!
//! Invariants
//! 1. Units are committed or refused in the order in which they came.
//! 2. Only units of class raw are refused.
//! 3. At most one commit is under way.
//!
//! Clock: monotonic.

use std::collections::VecDeque;

use millpond_core::{record::Class, time::Span};
use millpond_env::Mono;

/// Bytes of payload that one commit takes at most: it bounds the time that a unit waits for the one before it.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// A queue of this size does not wait for more.
const LINGER_BYTES_MAX: usize = 16 << 10;
/// Rates above this are not a trickle. Bytes, not units: a busy shard sends few units, and each holds many events.
const TRICKLE_BYTES_PER_S: f64 = 128.0 * 1024.0;
const PROBE_EVERY: Span = Span::from_secs(1);

/// What the queue needs to know of a unit.
pub trait Weighed {
    fn bytes(&self) -> usize;
    fn class(&self) -> Class;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    Tight,
    Refusing { probe_at: Mono },
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<U> {
    Commit { units: Vec<U>, give_way: bool },
    WaitUntil(Mono),
    Nothing,
}

#[derive(Debug)]
pub struct Group<U> {
    queue: VecDeque<U>,
    queued_bytes: usize,
    linger: Span,
    committing: bool,
    last_done: Mono,
    last_push: Mono,
    bytes_per_s: f64,
    room: Room,
    /// After a commit that failed for want of space none is tried before this.
    retry_at: Mono,
    /// The file system had less left than the reserve when it was last asked.
    short: bool,
    may_give_way: bool,
}

impl<U: Weighed> Group<U> {
    pub fn new(linger: Span, may_give_way: bool) -> Group<U> {
        Group {
            queue: VecDeque::new(),
            queued_bytes: 0,
            linger,
            committing: false,
            last_done: Mono(0),
            last_push: Mono(0),
            bytes_per_s: 0.0,
            room: Room::Enough,
            retry_at: Mono(0),
            short: false,
            may_give_way,
        }
    }

    pub fn room(&self) -> Room {
        self.room
    }

    pub fn is_idle(&self) -> bool {
        !self.committing && self.queue.is_empty()
    }

    /// Takes a unit in, or gives it back when it is refused for want of space.
    pub fn push(&mut self, now: Mono, unit: U) -> Option<U> {
        if let Room::Refusing { probe_at } = self.room
            && unit.class() == Class::Raw
        {
            if self.short || now < probe_at {
                return Some(unit);
            }
            self.room = Room::Refusing { probe_at: now.after(PROBE_EVERY) };
        }
        let gap_s = now.since(self.last_push).as_secs_f64().max(1e-6);
        let weight = (gap_s / 0.1).min(1.0);
        self.bytes_per_s += (unit.bytes() as f64 / gap_s - self.bytes_per_s) * weight;
        self.last_push = now;
        self.queued_bytes += unit.bytes();
        self.queue.push_back(unit);
        None
    }

    pub fn next(&mut self, now: Mono) -> Next<U> {
        if self.committing || self.queue.is_empty() {
            return Next::Nothing;
        }
        if now < self.retry_at {
            return Next::WaitUntil(self.retry_at);
        }
        let due = self.last_done.after(self.linger);
        if self.queued_bytes < LINGER_BYTES_MAX && self.bytes_per_s < TRICKLE_BYTES_PER_S && now < due {
            return Next::WaitUntil(due);
        }
        self.commit_now()
    }

    /// The next commit without waiting for more.
    pub fn commit_now(&mut self) -> Next<U> {
        if self.committing || self.queue.is_empty() {
            return Next::Nothing;
        }
        let mut units = Vec::new();
        let mut bytes = 0;
        while let Some(unit) = self.queue.front() {
            if !units.is_empty() && bytes + unit.bytes() > COMMIT_BYTES_MAX {
                break;
            }
            bytes += unit.bytes();
            units.extend(self.queue.pop_front());
        }
        self.queued_bytes -= bytes;
        self.committing = true;
        Next::Commit { units, give_way: self.room != Room::Enough && self.may_give_way }
    }

    /// A commit is on disk.
    pub fn committed(&mut self, now: Mono) {
        self.committing = false;
        self.last_done = now;
        if matches!(self.room, Room::Refusing { .. }) {
            // That one commit found a place does not make room for all.
            self.room = match (self.short, self.may_give_way) {
                (false, _) => Room::Enough,
                (true, true) => Room::Tight,
                (true, false) => Room::Refusing { probe_at: now.after(PROBE_EVERY) },
            };
        }
    }

    /// A commit failed for want of space; nothing of it was written. Returns the units that are refused by it.
    pub fn failed_full(&mut self, now: Mono, units: Vec<U>, gave_way: bool) -> Vec<U> {
        self.committing = false;
        self.last_done = now;
        if self.may_give_way && !gave_way {
            self.room = Room::Tight;
            self.put_back(units);
            return Vec::new();
        }
        self.retry_at = now.after(PROBE_EVERY);
        self.room = Room::Refusing { probe_at: self.retry_at };
        // Raw units of the queue are refused as well: they came after the failed ones (invariant 1).
        let queued: Vec<U> = self.queue.drain(..).collect();
        self.queued_bytes = 0;
        let (refused, kept): (Vec<U>, Vec<U>) =
            units.into_iter().chain(queued).partition(|unit| unit.class() == Class::Raw);
        self.put_back(kept);
        refused
    }

    /// What the file system has left, told from time to time.
    pub fn space(&mut self, now: Mono, enough: bool) {
        let failed = self.retry_at > now;
        self.short = !enough;
        self.room = match (self.room, enough) {
            (Room::Enough | Room::Tight, true) => Room::Enough,
            (Room::Refusing { .. }, true) if !failed => Room::Enough,
            (Room::Enough, false) if self.may_give_way => Room::Tight,
            (Room::Enough, false) => Room::Refusing { probe_at: now.after(PROBE_EVERY) },
            (room, _) => room,
        };
    }

    /// The first units of the queue again, in their order.
    fn put_back(&mut self, units: Vec<U>) {
        for unit in units.into_iter().rev() {
            self.queued_bytes += unit.bytes();
            self.queue.push_front(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Small(u32, Class);

    impl Weighed for Small {
        fn bytes(&self) -> usize {
            100
        }
        fn class(&self) -> Class {
            self.1
        }
    }

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn numbers(units: &[Small]) -> Vec<u32> {
        units.iter().map(|unit| unit.0).collect()
    }

    fn committed_numbers(next: Next<Small>) -> Vec<u32> {
        match next {
            Next::Commit { units, .. } => numbers(&units),
            other => panic!("expected a commit, got {other:?}"),
        }
    }

    #[test]
    fn a_lone_unit_is_committed_at_once_and_a_trickle_waits() {
        let mut group = Group::new(Span::from_millis(20), true);
        assert_eq!(group.push(at(1000), Small(1, Class::Raw)), None);
        assert_eq!(committed_numbers(group.next(at(1000))), [1]);
        group.push(at(1001), Small(2, Class::Raw));
        assert_eq!(group.next(at(1001)), Next::Nothing, "one commit at a time");
        group.committed(at(1002));
        group.push(at(1005), Small(3, Class::Raw));
        assert_eq!(group.next(at(1005)), Next::WaitUntil(at(1022)));
        assert_eq!(committed_numbers(group.next(at(1022))), [2, 3]);
    }

    #[test]
    fn a_full_disk_first_gives_way_then_refuses_events_only() {
        let mut group = Group::new(Span::ZERO, true);
        group.push(at(1), Small(1, Class::Raw));
        group.push(at(1), Small(2, Class::Pane));
        let Next::Commit { units, give_way: false } = group.next(at(1)) else { panic!() };
        assert_eq!(group.failed_full(at(2), units, false), []);
        let Next::Commit { units, give_way: true } = group.next(at(2)) else { panic!() };
        group.push(at(3), Small(3, Class::Raw));
        assert_eq!(numbers(&group.failed_full(at(3), units, true)), [1, 3]);
        assert!(group.push(at(4), Small(4, Class::Raw)).is_some(), "refused while there is no room");
        assert_eq!(group.push(at(1100), Small(5, Class::Raw)), None, "one probe per second");
        assert_eq!(committed_numbers(group.next(at(1100))), [2, 5]);
        group.committed(at(1101));
        assert_eq!(group.room(), Room::Enough);
    }

    #[test]
    fn little_space_stays_little_when_a_result_finds_a_place() {
        let mut group = Group::new(Span::ZERO, false);
        group.space(at(5), false);
        assert_eq!(group.push(at(1100), Small(1, Class::Pane)), None);
        assert_eq!(committed_numbers(group.next(at(1100))), [1]);
        group.committed(at(1101));
        assert!(group.push(at(9000), Small(2, Class::Raw)).is_some(), "still refused");
        group.space(at(9100), true);
        assert_eq!(group.push(at(9101), Small(3, Class::Raw)), None);
    }

    #[test]
    fn what_must_be_kept_on_a_full_disk_is_tried_once_a_second() {
        let mut group = Group::new(Span::ZERO, false);
        group.push(at(1), Small(1, Class::Pane));
        let Next::Commit { units, .. } = group.next(at(1)) else { panic!() };
        assert_eq!(group.failed_full(at(2), units, false), []);
        assert_eq!(group.next(at(2)), Next::WaitUntil(at(1002)));
        group.push(at(3), Small(2, Class::Alert));
        assert_eq!(group.next(at(900)), Next::WaitUntil(at(1002)));
        assert_eq!(committed_numbers(group.next(at(1002))), [1, 2]);
    }

    #[test]
    fn without_leave_to_give_way_little_space_means_refusing() {
        let mut group: Group<Small> = Group::new(Span::ZERO, false);
        group.space(at(5), false);
        assert!(group.push(at(6), Small(1, Class::Raw)).is_some());
        assert_eq!(group.push(at(6), Small(2, Class::Alert)), None);
        assert_eq!(committed_numbers(group.next(at(6))), [2]);
    }
}
