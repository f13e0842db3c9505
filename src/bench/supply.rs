//! Payloads for the generator, made before the measured time.
//!
//! A fleet of machines gives a pool of readings. JSON and MessagePack payloads are made of them once; while publishing only time
//! stamps and sequence numbers are overwritten in place, so that no two events are the same. Blocks cannot be overwritten: they
//! are encoded for the whole run. All readings of a device go over one connection, in their order.

mod block;
mod pool;
mod rows;

use anyhow::bail;
use millpond_core::time::{Span, Timestamp};

use super::plan::{Format, Plan};
use pool::Pool;
pub use rows::Patched;

/// Payloads stay below this.
const PAYLOAD_BYTES: usize = 48 << 10;
/// The first sequence number of each device: ten digits for as long as a run can last, so that templates keep their length.
const FIRST_SEQ: u64 = 1_000_000_001;

#[derive(Debug)]
pub struct Supply {
    /// One per connection.
    pub lanes: Vec<Lane>,
    events_per_publish: u64,
    bytes_per_publish: u64,
}

/// The payloads of one connection.
#[derive(Debug)]
pub enum Lane {
    Patched(Patched),
    Ready(block::Ready),
}

/// What is to be published next.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub events: u64,
}

impl Supply {
    /// # Errors
    /// When the plan has fewer devices than connections.
    pub fn prepare(plan: &Plan, now: Timestamp) -> anyhow::Result<Supply> {
        if plan.devices < plan.connections {
            bail!(
                "{} devices cannot share {} connections: a device has one connection",
                plan.devices,
                plan.connections
            );
        }
        let clock = Stamps { period: plan.period(), base: base(plan, now) };
        let pool = Pool::new(plan, clock.base);
        let lanes: Vec<Lane> = match plan.format {
            Format::Block => block::lanes(plan, &pool, clock).into_iter().map(Lane::Ready).collect(),
            Format::Msgpack | Format::Json => rows::lanes(plan, &pool, clock).into_iter().map(Lane::Patched).collect(),
        };
        let (mut publishes, mut events, mut bytes) = (0, 0, 0);
        for lane in &lanes {
            let (lane_publishes, lane_events, lane_bytes) = match lane {
                Lane::Patched(lane) => lane.totals(),
                Lane::Ready(lane) => lane.totals(),
            };
            publishes += lane_publishes;
            events += lane_events;
            bytes += lane_bytes;
        }
        let publishes = publishes.max(1);
        Ok(Supply { lanes, events_per_publish: events / publishes, bytes_per_publish: bytes / publishes })
    }

    /// On average.
    pub fn events_per_publish(&self) -> u64 {
        self.events_per_publish
    }

    /// On average.
    pub fn bytes_per_publish(&self) -> u64 {
        self.bytes_per_publish
    }
}

impl Lane {
    /// The next payload; `None` when all that was prepared is used up.
    pub fn next(&mut self) -> Option<Outgoing<'_>> {
        match self {
            Lane::Patched(lane) => Some(lane.next()),
            Lane::Ready(lane) => lane.next(),
        }
    }
}

/// The event time of each reading, the same for all devices.
#[derive(Clone, Copy, Debug)]
struct Stamps {
    base: Timestamp,
    period: Span,
}

impl Stamps {
    fn at(&self, reading: u64) -> Timestamp {
        self.base.saturating_add(Span(self.period.0.saturating_mul(reading as i64)))
    }
}

/// Event time ends at about the present: a node would not believe stamps from the future.
fn base(plan: &Plan, now: Timestamp) -> Timestamp {
    let span = plan.period().0.saturating_mul(plan.readings_per_device().min(i64::MAX as u64) as i64);
    Timestamp::from_millis(now.saturating_sub(Span(span)).as_millis())
}

#[cfg(test)]
mod tests;
