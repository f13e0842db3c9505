//! Health is progress: a journal that has work and does not move is ill, whatever its actor says of itself.

use std::sync::{Mutex, PoisonError};

use millpond_core::{
    planted::{self, Bug},
    time::Span,
};
use millpond_env::Mono;
use millpond_gateway::port::Health;

use crate::journal::group::Room;

/// The journal has not moved for so long: something hangs.
const STALLED_AFTER: Span = Span::from_secs(10);

/// What is known of the node's progress. Written by its actors, read by `/healthz`.
#[derive(Debug)]
pub struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    beat: Mono,
    room: Room,
    failure: Option<String>,
    rebuilding: bool,
    ended: Option<String>,
}

impl Pulse {
    pub fn new(now: Mono) -> Pulse {
        Pulse(Mutex::new(Beats { beat: now, room: Room::Enough, failure: None, rebuilding: true, ended: None }))
    }

    /// The journal moved, or had nothing to do.
    pub fn beat(&self, now: Mono) {
        self.with(|beats| {
            beats.beat = now;
            beats.failure = None;
        });
    }

    pub fn fail(&self, why: String) {
        self.with(|beats| beats.failure = Some(why));
    }

    pub fn set_room(&self, room: Room) {
        self.with(|beats| beats.room = room);
    }

    /// The data plane is being rebuilt, or is complete again.
    pub fn rebuilding(&self, yes: bool) {
        self.with(|beats| beats.rebuilding = yes);
    }

    pub fn ended(&self, why: String) {
        self.with(|beats| beats.ended = Some(why));
    }

    pub fn health(&self, now: Mono) -> Health {
        self.with(|beats| {
            let mut reasons = Vec::new();
            let stalled = now.since(beats.beat) > STALLED_AFTER;
            reasons.extend(beats.ended.clone());
            reasons.extend(beats.failure.clone());
            if stalled {
                reasons.push(format!(
                    "the journal has not moved for {}",
                    Span::from_secs(now.since(beats.beat).0 / 1_000_000_000)
                ));
            }
            if beats.rebuilding {
                reasons.push("the data plane is being rebuilt from the journal".into());
            }
            match beats.room {
                Room::Enough => {}
                Room::Tight => reasons.push("the disk is nearly full: the oldest events give way (MP0401)".into()),
                Room::Refusing { .. } => reasons.push("the disk is full: new events are refused (MP0401)".into()),
            }
            let failing = stalled || beats.ended.is_some() || beats.failure.is_some();
            let status = match (failing, reasons.is_empty()) {
                (true, _) => "failing",
                (false, true) => "ok",
                (false, false) => "degraded",
            };
            let ready = planted::is(Bug::AlwaysReady)
                || !failing && !beats.rebuilding && !matches!(beats.room, Room::Refusing { .. });
            Health { status, ready, reasons }
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Beats) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
