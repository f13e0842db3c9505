//! Measuring: the machines of a fleet take their readings in time, mischief is done to them, and each goes to its line.

use std::sync::Arc;

use millpond_actors::config::Config;
use millpond_core::time::{Span, Timestamp};
use millpond_env::Env;
use rand::RngExt;

use super::{Controls, Floor, Item, Queue, costume::Costume};
use crate::{
    fleet::{Clocks, Delivery, FaultKind, Fleet, FleetSpec as Machines, Mischief, PlannedFault, Troublemaker},
    scenario::FleetSpec,
    witness::Sent,
    world::{clock::EPOCH, core::Instant},
};

/// How long devices wait with measuring when their line keeps too much already.
const FULL_PAUSE: Span = Span::from_millis(500);

pub(super) async fn supply(
    env: Env,
    floor: Floor,
    spec: FleetSpec,
    config: Arc<Config>,
    seed: u64,
    controls: Arc<Controls>,
) {
    let queues = &controls.lines;
    let seed = seed ^ millpond_core::ids::device_hash(&spec.name);
    let start = env.wall();
    let mut fleet = Fleet::new(seed, machines(&spec, start));
    let costume = Costume::new(&spec, &config, fleet.machines().map(|(name, _, _)| name.into()).collect());
    let costume = Arc::new(costume);
    for queue in queues {
        let _ = queue.costume.set(costume.clone());
    }
    let add = |name: &Arc<str>| floor.with_witness(|witness| witness.add(name, &spec.node, &spec.name));
    let devices: Vec<u32> = costume.names.iter().map(add).collect();
    let mut trouble = Troublemaker::new(seed, mischief(&spec));
    let mut rng = env.rng(&format!("future/{}", spec.name));
    // A gateway that gathers does not look at every reading by itself.
    let pause_min = Span((spec.gather.0 / 8).max(1));
    let (mut readings, mut deliveries, mut held) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let super::Mood { silenced: share, stopped: stop } = controls.mood();
        let now = env.wall();
        let full = queues.iter().any(|queue| queue.lock().len() >= spec.keep as usize);
        if !stop && !full {
            fleet.step(now, &mut readings);
        }
        for reading in &mut readings {
            if spec.mischief.future > 0.0 && rng.random_bool(spec.mischief.future) {
                reading.ts = reading.ts.saturating_add(spec.mischief.future_by);
            }
            let sent = Sent {
                stamp: reading.ts,
                measured: Instant(reading.at.since(EPOCH).0.max(0) as u64),
                acked: Sent::NEVER,
                digest: costume.digest(reading),
            };
            floor.with_witness(|witness| witness.measured(devices[reading.machine as usize], reading.seq, sent));
        }
        trouble.pass(now, &mut readings, &mut deliveries);
        // A silent device keeps what it would have sent.
        held.append(&mut deliveries);
        let silent =
            |delivery: &Delivery| machine_of(delivery).is_some_and(|at| f64::from(at) < share * devices.len() as f64);
        for delivery in std::mem::take(&mut held) {
            if silent(&delivery) {
                held.push(delivery);
            } else {
                hand_over(delivery, &fleet, &costume, &devices, queues);
            }
        }
        let next =
            if stop { trouble.next_due() } else { [fleet.next_due(), trouble.next_due()].into_iter().flatten().min() };
        let pause = match next {
            _ if full && !stop => FULL_PAUSE,
            Some(at) => at.since(now).max(pause_min),
            None if held.is_empty() => return,
            None => Span::from_secs(1),
        };
        tokio::select! {
            biased;
            () = controls.changed.notified() => {}
            () = env.sleep(pause) => {}
        }
    }
}

fn machine_of(delivery: &Delivery) -> Option<u32> {
    match delivery {
        Delivery::Reading(reading) => Some(reading.machine),
        Delivery::Malformed { .. } => None,
    }
}

fn hand_over(delivery: Delivery, fleet: &Fleet, costume: &Costume, devices: &[u32], queues: &[Arc<Queue>]) {
    let (machine, item) = match delivery {
        Delivery::Reading(reading) => {
            let at = reading.machine as usize;
            (at, Item::Reading { device: devices[at], reading })
        }
        Delivery::Malformed { device, payload } => {
            let at = fleet.machines().position(|(name, _, _)| *name == *device).unwrap_or(0);
            (at, Item::Malformed { topic: format!("devices/{}/telemetry", costume.names[at]), payload })
        }
    };
    let queue = &queues[machine % queues.len()];
    queue.lock().push_back(item);
    queue.more.notify_one();
}

fn machines(spec: &FleetSpec, start: Timestamp) -> Machines {
    let planned = spec.breaks.iter().map(|planned| PlannedFault {
        device: own_name(spec, &planned.device),
        kind: match &*planned.fault {
            "leak" => FaultKind::Leak,
            "jam" => FaultKind::Jam,
            _ => FaultKind::BearingWear,
        },
        at: planned.at,
        repaired: planned.repaired,
        ramp: Span::from_secs(4),
    });
    Machines {
        prefix: if spec.name == "floor" { String::new() } else { format!("{}-", spec.name) },
        start,
        period: spec.every,
        jitter: 0.02,
        planned: planned.collect(),
        clocks: Clocks {
            offset_max: spec.mischief.clock_offset,
            drift_ppm_max: spec.mischief.clock_drift_ppm,
            resolution: Span::from_millis(1),
        },
        ..match spec.device_type {
            None => Machines::mixed(spec.devices),
            Some(_) => {
                Machines { presses: spec.devices, ovens: 0, conveyors: 0, compressors: 0, ..Machines::default() }
            }
        }
    }
}

/// In a fleet of the user's own type the machine with the same number breaks.
fn own_name(spec: &FleetSpec, device: &str) -> String {
    let digits = device.len() - device.bytes().rev().take_while(u8::is_ascii_digit).count();
    let number: u32 = device[digits..].parse().unwrap_or(1);
    let prefix = if spec.name == "floor" { String::new() } else { format!("{}-", spec.name) };
    match spec.device_type {
        None => device.to_owned(),
        Some(_) => format!("{prefix}press-{number:04}"),
    }
}

fn mischief(spec: &FleetSpec) -> Mischief {
    let knobs = &spec.mischief;
    Mischief {
        duplicate: knobs.duplicate,
        disorder: knobs.disorder,
        delay_max: knobs.delay,
        silence: knobs.silence,
        silence_max: knobs.silence_max,
        malformed: knobs.malformed,
    }
}
