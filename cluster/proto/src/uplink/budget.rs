//! How many bytes of what may leave now.
//!
//! Five lanes share a line: alerts, state, panes, events as they come, and events from before. A spec without bounds lets everything go at
//! once. With a `rate` the line is a bucket that fills with the rate and holds the rate of [`BURST`]; what a lane may take of it:
//!
//! - Its *floor*, a share of the rate that is kept for it in a bucket of its own. It is what the lane gets however much the others have,
//!   so that none starves. A lane that does not use its floor loses it to the others after [`BURST`].
//! - What is left of the rate, which goes to the first lane in the order of [`Lane`] that wants it. A lane that was refused is known to
//!   want something for [`WANTS_FOR`]; as long as it does, those behind it have their floors only.
//!
//! A message that is larger than what was allowed may go all the same when anything was: the lane owes the rest, and has nothing until it
//! is paid. What the line [`carried`](Budget::carried) besides is owed by all.
//!
//! With `per_day` only alerts and state leave when the bytes of the day are used up. Days are of UTC by the wall clock, moved by
//! `offset`. The clock may jump: a day ends when the clock shows another day *and* [`DAY_MIN`] of it have passed: counted from the
//! midnight that the clock showed when it began, but not from before the last use of the day before it. So no jump gives the bytes of more
//! than two days within [`DAY_MIN`], and none takes them for longer. Over a restart the greater of what the wall clock shows and
//! what had passed before counts. `schedule` names hours in which the backlog may go; without it it always may.
//!
//! Invariants
//! 1. Over any interval no more leaves than the rate gives in it and in [`BURST`], what one message of each lane is larger than allowed, and
//!    what was carried besides beyond the share of the rate that is nobody's floor.
//! 2. A lane that wants something, and may leave by day and hour, gets its floor.
//! 3. No pane and no event leaves that would make it more than `per_day` in a day, all lanes together and what was carried besides until then.
//!
//! Clocks: the monotonic one for the rate, the wall clock for days and hours.

#[cfg(test)]
mod tests;

pub use millpond_core::budget::BudgetSpec;
use millpond_core::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Now;

/// What the bucket holds, as a time of the rate.
pub const BURST: Span = Span::from_secs(1);
/// How long a lane that got less than it wanted is believed to want more.
pub const WANTS_FOR: Span = Span::from_secs(2);
/// A day is not counted as over before, whatever the wall clock says.
pub const DAY_MIN: Span = Span::from_secs(20 * 3600);
/// A lane that must wait for the wall clock is told to ask again so often: the clock may be set.
const LOOK_AGAIN: Span = Span::from_secs(30);
const DAY: i64 = 86_400;
const SECOND: i64 = 1_000_000_000;

/// What shares a line, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Lane {
    Alert = 0,
    State = 1,
    Pane = 2,
    /// Events as they come.
    Live = 3,
    /// Events from before.
    Backlog = 4,
}

impl Lane {
    pub const ALL: [Lane; 5] = [Lane::Alert, Lane::State, Lane::Pane, Lane::Live, Lane::Backlog];

    pub fn name(self) -> &'static str {
        ["alert", "state", "pane", "live", "backlog"][self as usize]
    }

    /// Per cent of the rate that are kept for it.
    fn floor(self) -> u64 {
        [20, 10, 10, 10, 5][self as usize]
    }

    /// Whether it leaves when the bytes of the day are used up.
    fn is_vital(self) -> bool {
        self <= Lane::State
    }
}

/// What may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// So many bytes now, none to what was wanted.
    pub bytes: u64,
    /// When it is less than was wanted: from when on it is worth while to ask again.
    pub again_at: Option<Now>,
}

/// The day's count, to be kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Days since 1970, by the wall clock and the offset.
    pub day: i64,
    /// By the wall clock, and how much of it has passed as far as is known.
    pub began: Timestamp,
    pub passed: Span,
    pub used: u64,
    /// Since when it is used up.
    #[serde(default)]
    pub exhausted: Option<Timestamp>,
    /// How much of it had passed when something left last: below zero when that was before it. `None` when nothing ever left, or, with
    /// something `used`, when it is not known.
    #[serde(default)]
    pub last_use: Option<Span>,
}

/// Shares a line among the lanes.
#[derive(Clone, Debug)]
pub struct Budget {
    spec: BudgetSpec,
    /// Seconds of the day, from and to.
    schedule: Vec<(i64, i64)>,
    /// Of the line, and what is kept for each lane. In billionths of bytes, so that no rounding adds up.
    line: Bucket,
    floors: [Bucket; 5],
    /// Until when each lane is believed to want more.
    wants: [Now; 5],
    filled: Option<Now>,
    /// `None` before the wall clock was seen.
    day: Option<Saved>,
    /// What of the day had passed at a monotonic time; `None` before it is known in this life.
    passed: Option<(Now, Span)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Below zero when more was spent than was there.
    level: i128,
    holds: i128,
}

const UNIT: i128 = 1_000_000_000;

impl Budget {
    /// `spec` has no [`problems`](BudgetSpec::problems); what is wrong in it is passed over.
    pub fn new(spec: BudgetSpec) -> Budget {
        let rate = rate_of(&spec).unwrap_or(0);
        let full = |bytes: i128| Bucket { level: bytes, holds: bytes };
        let of_burst = i128::from(rate) * i128::from(BURST.0);
        let floors = Lane::ALL.map(|lane| full(of_burst * i128::from(lane.floor()) / 100));
        let kept: i128 = floors.iter().map(|floor| floor.holds).sum();
        Budget {
            schedule: spec.hours(),
            spec,
            line: full(of_burst - kept),
            floors,
            wants: [Now(0); 5],
            filled: None,
            day: None,
            passed: None,
        }
    }

    /// Bytes that a lane gets sooner or later when it asks for them at once, whatever the others want.
    pub fn sure(&self, lane: Lane) -> u64 {
        let Some(rate) = rate_of(&self.spec) else { return u64::MAX };
        let bytes = u128::from(rate) * BURST.0 as u128 * u128::from(lane.floor()) / (100 * UNIT as u128);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }

    /// How many of so many bytes of a lane may leave now. What does leave is told by [`spent`](Self::spent).
    pub fn allow(&mut self, now: Now, wall: Timestamp, lane: Lane, want_bytes: u64) -> Allowed {
        self.turn(now, wall);
        let later = |after: Span| Some(now.after(after));
        if lane == Lane::Backlog && !self.in_schedule(wall) {
            return Allowed { bytes: 0, again_at: later(LOOK_AGAIN) };
        }
        let mut bytes = want_bytes;
        if !lane.is_vital()
            && let Some(left) = self.left_of_day()
        {
            bytes = bytes.min(left);
            if left == 0 && want_bytes > 0 {
                return Allowed { bytes: 0, again_at: later(LOOK_AGAIN) };
            }
        }
        let Some(rate) = rate_of(&self.spec) else {
            return Allowed { bytes, again_at: (bytes < want_bytes).then(|| now.after(LOOK_AGAIN)) };
        };
        self.fill(now, rate);
        let busy = self.wants[..lane as usize].iter().any(|until| *until > now);
        let floor = &mut self.floors[lane as usize];
        if !busy {
            // What a lane owes it pays first, with all that it may have.
            let paid = (-floor.level).clamp(0, self.line.level.max(0));
            self.line.level -= paid;
            floor.level += paid;
        }
        let shared = if busy { 0 } else { self.line.level.max(0) };
        let there = (floor.level + shared).max(0) / UNIT;
        let may = bytes.min(u64::try_from(there).unwrap_or(u64::MAX));
        if may >= bytes {
            self.wants[lane as usize] = Now(0);
            return Allowed { bytes, again_at: (bytes < want_bytes).then(|| now.after(LOOK_AGAIN)) };
        }
        self.wants[lane as usize] = now.after(WANTS_FOR);
        // What it is sure of comes with its floor.
        let missing = i128::from((bytes - may).min(rate / 10).max(1)) * UNIT * 100;
        let wait = missing / (i128::from(rate) * i128::from(lane.floor())).max(1);
        let wait = Span(i64::try_from(wait).unwrap_or(i64::MAX).clamp(Span::from_millis(1).0, BURST.0));
        Allowed { bytes: may, again_at: later(wait) }
    }

    /// So many bytes of a lane have left, after [`allow`](Self::allow) let them or a part of them go.
    pub fn spent(&mut self, lane: Lane, bytes: u64) {
        let owed = i128::from(bytes) * UNIT;
        let floor = &mut self.floors[lane as usize];
        let of_floor = owed.min(floor.level.max(0));
        let of_line = (owed - of_floor).min(self.line.level.max(0));
        self.line.level -= of_line;
        floor.level -= owed - of_line;
        self.use_up(bytes);
    }

    /// So many bytes went over the line besides what was allowed: those that carry it, receipts, repetitions, questions. All lanes wait for
    /// them, but for their floors.
    pub fn carried(&mut self, now: Now, wall: Timestamp, bytes: u64) {
        self.turn(now, wall);
        self.line.level -= i128::from(bytes) * UNIT;
        self.use_up(bytes);
    }

    fn use_up(&mut self, bytes: u64) {
        if self.spec.per_day.is_some() {
            let counted = (bytes as f64 * self.spec.metered.max(1.0)).ceil() as u64;
            if let Some(day) = &mut self.day {
                day.used = day.used.saturating_add(counted);
                day.last_use = Some(day.passed);
            }
        }
    }

    /// Since when the bytes of the day are used up; `None` when some are left.
    pub fn exhausted(&self) -> Option<Timestamp> {
        self.day.and_then(|day| day.exhausted)
    }

    /// The day's count; `None` when there is none.
    pub fn saved(&self) -> Option<Saved> {
        self.day
    }

    /// Goes on with the day's count of an earlier life, before anything is allowed.
    pub fn restore(&mut self, saved: Saved) {
        self.day = Some(saved);
        self.passed = None;
    }

    fn fill(&mut self, now: Now, rate: u64) {
        let since = self.filled.map_or(Span::ZERO, |filled| now.since(filled));
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
        let ns = i128::from(since.0);
        let mut kept = 0;
        for (lane, floor) in Lane::ALL.into_iter().zip(&mut self.floors) {
            let share = i128::from(rate) * ns * i128::from(lane.floor()) / 100;
            kept += share;
            // What a floor does not hold any more is everybody's.
            let over = (floor.level + share - floor.holds).max(0);
            floor.level += share - over;
            self.line.level += over;
        }
        self.line.level = (self.line.level + i128::from(rate) * ns - kept).min(self.line.holds);
    }

    /// Begins the day that the wall clock shows, when it is a later one.
    fn turn(&mut self, now: Now, wall: Timestamp) {
        if self.spec.per_day.is_none() {
            return;
        }
        let clock = wall.0.saturating_add(self.spec.offset.0);
        let shown = clock.div_euclid(DAY * SECOND);
        let of_shown = Span(clock.rem_euclid(DAY * SECOND));
        let passed = match (self.passed, self.day) {
            (Some((at, passed)), _) => Span(passed.0.saturating_add(now.since(at).0)),
            (None, Some(day)) => day.passed.max(wall.since(day.began)),
            (None, None) => of_shown,
        };
        self.passed = Some((now, passed));
        match &mut self.day {
            Some(day) if day.day == shown || passed < DAY_MIN => day.passed = passed,
            day => {
                // The day after the one that begins here does not begin before `DAY_MIN` after the last use of the one that ends.
                let last_use = day.and_then(|day| day.last_use.or((day.used > 0).then_some(passed)));
                let idle = last_use.map(|last| Span(passed.0.saturating_sub(last.0)));
                let so_far = idle.map_or(of_shown, |idle| of_shown.min(idle));
                let last_use = idle.map(|idle| Span(so_far.0 - idle.0));
                let began = Timestamp(wall.0.saturating_sub(of_shown.0));
                *day = Some(Saved { day: shown, began, passed: so_far, used: 0, exhausted: None, last_use });
                self.passed = Some((now, so_far));
            }
        }
        let none_left = self.left_of_day() == Some(0);
        if let Some(day) = &mut self.day {
            day.exhausted = if none_left { day.exhausted.or(Some(wall)) } else { None };
        }
    }

    /// Bytes that may still leave today; `None` when there is no bound.
    fn left_of_day(&self) -> Option<u64> {
        let per_day = self.spec.per_day?;
        let left = per_day.saturating_sub(self.day.map_or(0, |day| day.used));
        Some((left as f64 / self.spec.metered.max(1.0)) as u64)
    }

    fn in_schedule(&self, wall: Timestamp) -> bool {
        let second = wall.0.saturating_add(self.spec.offset.0).div_euclid(SECOND).rem_euclid(DAY);
        let within = |(from, to): &(i64, i64)| {
            if from <= to { (*from..*to).contains(&second) } else { second >= *from || second < *to }
        };
        self.schedule.is_empty() || self.schedule.iter().any(within)
    }
}

/// Bytes per second as they count on this line.
fn rate_of(spec: &BudgetSpec) -> Option<u64> {
    spec.rate.map(|rate| ((rate as f64 / spec.metered.max(1.0)) as u64).max(1))
}
