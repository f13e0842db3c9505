//! A change on its way through a large site, which no single machine could run but in simulated time.

use std::fmt;

use anyhow::Context;
use millpond_core::time::Span;
use millpond_env::Env;
use millpond_sim::spread::{Spread, spread};
use serde::Serialize;
use tokio::sync::oneshot;

use super::report::{Quantiles, histogram, quantiles};
use crate::world::os;

const SEED: u64 = 1;
const CHANGES: u32 = 20;

#[derive(Clone, Debug, Serialize)]
pub struct BoxesReport {
    pub boxes: u16,
    pub changes: u32,
    /// Simulated time until every box is linked with every other.
    pub joined_s: f64,
    /// Simulated time of a change from one box until all boxes show it.
    pub reached: Quantiles,
    /// What the simulation took.
    pub cpu_s: f64,
}

pub async fn run(env: &Env, boxes: u16) -> anyhow::Result<BoxesReport> {
    eprintln!("a simulated site of {boxes} boxes, and {CHANGES} changes of devices");
    let (done, result) = oneshot::channel();
    // A simulation brings executors of its own, and must not run inside of another.
    let worker = env.blocking.worker("boxes");
    worker.run(Box::new(move || {
        let begun = os::thread_cpu();
        let _ = done.send((spread(SEED, boxes, CHANGES), Span(os::thread_cpu().0 - begun.0)));
    }));
    let (spread, cpu) = result.await.context("the simulation panicked")?;
    let Spread { joined, reached } = spread?;
    let mut times = histogram();
    for span in &reached {
        times.record(span.0.max(1) as u64)?;
    }
    Ok(BoxesReport {
        boxes,
        changes: CHANGES,
        joined_s: joined.as_secs_f64(),
        reached: quantiles(&times),
        cpu_s: cpu.as_secs_f64(),
    })
}

impl fmt::Display for BoxesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<3}simulated boxes     {} ({} changes)", self.boxes, self.reached, self.changes)?;
        writeln!(
            f,
            "  all linked           {:.1} s after they were switched on; {:.0} s of CPU",
            self.joined_s, self.cpu_s
        )
    }
}
