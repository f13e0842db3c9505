//! Changes of what a site says of its devices: made at one node, until every node shows them.

use std::fmt;

use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::Env;
use rand::RngExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Site,
    report::{Quantiles, histogram, quantiles},
};

#[derive(Clone, Debug, Serialize)]
pub struct ChangesReport {
    /// Changes of each kind.
    pub changes: u32,
    /// What is said of a device.
    pub registry: Quantiles,
    /// What a device should be.
    pub twin: Quantiles,
}

pub async fn run(env: &Env, changes: u32) -> anyhow::Result<ChangesReport> {
    eprintln!("a site of three nodes, and {changes} changes of devices and of twins");
    let site = Site::start(env, &["site.replicas=2", "site.ack=\"local\""]).await?;
    let (mut registry, mut twin) = (histogram(), histogram());
    let mut rng = env.rng("bench/changes");
    // Nodes do some things every 100 ms: a change falls anywhere between.
    let mut pause = || env.sleep(Span(rng.random_range(0..100_000_000)));
    for number in 1..=changes {
        pause().await;
        let device = format!("/v1/devices/press-{}", number % 10);
        let put = Asked { method: "PUT", path: device.clone(), body: json!({ "place": number }) };
        let took = put.until_all_show(&site, number, &device, |answer| answer["place"] == number).await?;
        registry.record(took.0.max(1) as u64)?;
        pause().await;
        let (path, read) = (format!("{device}/twin/desired"), format!("{device}/twin"));
        let patch = Asked { method: "PATCH", path, body: json!({ "speed": number }) };
        let took = patch.until_all_show(&site, number, &read, |twin| twin["desired"]["speed"] == number).await?;
        twin.record(took.0.max(1) as u64)?;
    }
    site.stop().await?;
    Ok(ChangesReport { changes, registry: quantiles(&registry), twin: quantiles(&twin) })
}

struct Asked {
    method: &'static str,
    path: String,
    body: Value,
}

impl Asked {
    /// Asks one node after the other; timed from the question until the answers of all nodes have it.
    async fn until_all_show(
        &self,
        site: &Site,
        number: u32,
        read: &str,
        shows: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Span> {
        let begun = site.env.now();
        let writer = &site.clients[number as usize % site.clients.len()];
        writer.ask(self.method, &self.path, Some(Bytes::from(self.body.to_string()))).await?;
        for reader in &site.clients {
            // A node that knows nothing of the device yet refuses to speak of it.
            site.until("a change at every node", async |_| {
                Ok(reader.get(read).await.is_ok_and(|answer| shows(&answer)))
            })
            .await?;
        }
        Ok(site.env.now().since(begun))
    }
}

impl fmt::Display for ChangesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "registry, all three    {} ({} changes)", self.registry, self.changes)?;
        writeln!(f, "twin, all three        {} ({} changes)", self.twin, self.changes)
    }
}
