//! What operators and Prometheus are told.

use millpond_gateway::port::Json;
use millpond_proto::{membership::Health, wire::Run};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};
use serde_json::json;

use super::state::State;

/// Metrics of the mesh, on the node's registry.
#[derive(Debug)]
pub(super) struct MeshMetrics {
    pub members: IntGauge,
    pub links: IntGauge,
    pub malformed: IntCounter,
    pub ignored: IntCounter,
    pub panics: IntCounter,
    pub rejected_definitions: IntGauge,
    pub adopted_panes: IntCounter,
    kept_records: IntCounterVec,
    kept_bytes: IntCounterVec,
    missing: IntGaugeVec,
    unconfirmed: IntGauge,
    unverified: IntGauge,
    unsettled: IntGauge,
    pub left_out: IntCounter,
    clock_ahead: IntGaugeVec,
    certificate: IntGauge,
}

impl MeshMetrics {
    pub fn new(registry: &Registry) -> Result<MeshMetrics, prometheus::Error> {
        Ok(MeshMetrics {
            members: register(
                registry,
                IntGauge::new("millpond_site_members", "Nodes of the site that are up, this one included")?,
            )?,
            links: register(registry, IntGauge::new("millpond_site_links", "Connections to other nodes")?)?,
            malformed: register(
                registry,
                IntCounter::new("millpond_site_malformed_total", "Messages of peers that could not be read")?,
            )?,
            ignored: register(
                registry,
                IntCounter::new(
                    "millpond_site_ignored_runs_total",
                    "Runs of records that were held already or not wanted",
                )?,
            )?,
            panics: register(
                registry,
                IntCounter::new("millpond_site_panics_total", "Times that the mesh failed at a message and went on")?,
            )?,
            rejected_definitions: register(
                registry,
                IntGauge::new(
                    "millpond_site_rejected_definitions",
                    "Problems of the site's newest windows, rules, schemas and types; the earlier ones stay",
                )?,
            )?,
            adopted_panes: register(
                registry,
                IntCounter::new(
                    "millpond_site_adopted_panes_total",
                    "Shares of nodes that are gone, said in their place",
                )?,
            )?,
            kept_records: register(
                registry,
                counters("millpond_site_copied_records_total", "Records of other nodes that came to be kept")?,
            )?,
            kept_bytes: register(registry, counters("millpond_site_copied_bytes_total", "Bytes of such records")?)?,
            missing: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "millpond_site_missing_records",
                        "Sequence numbers of an origin that are known and not held here",
                    ),
                    &["origin", "track"],
                )?,
            )?,
            unconfirmed: register(
                registry,
                IntGauge::new(
                    "millpond_site_unconfirmed_submissions",
                    "Submissions on disk whose acknowledgement waits for other nodes",
                )?,
            )?,
            unsettled: register(
                registry,
                IntGauge::new(
                    "millpond_site_unsettled_records",
                    "Records of which it is not known yet whether other nodes have events of them too",
                )?,
            )?,
            left_out: register(
                registry,
                IntCounter::new(
                    "millpond_site_left_out_events_total",
                    "Events that are left out of this node's windows because they count at another one",
                )?,
            )?,
            unverified: register(
                registry,
                IntGauge::new(
                    "millpond_site_unverified_devices",
                    "Devices whose events were taken before it was known what other nodes had of them",
                )?,
            )?,
            certificate: register(
                registry,
                IntGauge::new(
                    "millpond_site_certificate_seconds",
                    "Seconds until this node's certificate ends; below 0 other nodes do not let it in",
                )?,
            )?,
            clock_ahead: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("millpond_site_clock_ahead_ms", "How far a peer's wall clock is ahead of this node's"),
                    &["peer"],
                )?,
            )?,
        })
    }

    pub fn kept(&self, run: &Run) {
        let track = [run.track.name()];
        self.kept_records.with_label_values(&track).inc_by(run.records.len() as u64);
        self.kept_bytes.with_label_values(&track).inc_by(run.bytes() as u64);
    }
}

fn counters(name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), &["track"])
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl State {
    /// Brings the gauges up to date.
    pub(super) fn measure(&self) {
        self.metrics.unconfirmed.set(self.node.site.unconfirmed() as i64);
        let unsettled = self.node.site.head().0.saturating_sub(self.node.site.settled().0);
        self.metrics.unsettled.set(unsettled as i64);
        self.metrics.unverified.set(self.node.site.taken_unverified() as i64);
        self.metrics.certificate.set(self.identity.expires.since(self.env.wall()).0 / 1_000_000_000);
        for row in self.replication.ledger() {
            let labels = [&row.origin.to_string(), row.track.name()];
            self.metrics.missing.with_label_values(&labels).set(row.missing as i64);
        }
        for (origin, peer) in &self.peers {
            if let Some(ahead) = peer.clock_ahead_ms {
                self.metrics.clock_ahead.with_label_values(&[&origin.to_string()]).set(ahead);
            }
        }
    }

    pub(super) fn members_json(&self) -> Json {
        let devices = |origin| self.homes.iter().filter(|(_, home)| *home == origin).count();
        let me = json!({
            "origin": self.me.to_string(),
            "name": self.config.node.name,
            "state": "up",
            "self": true,
            "incarnation": self.node.incarnation.0,
            "address": self.transport.local_addr().to_string(),
            "devices": devices(self.me),
        });
        let others = self.membership.members().map(|(member, health)| {
            let peer = self.peers.get(&member.origin);
            let state = match health {
                Health::Up => "up",
                Health::Suspected => "suspected",
                Health::Down => "down",
            };
            json!({
                "origin": member.origin.to_string(),
                "name": member.name,
                "state": state,
                "self": false,
                "incarnation": peer.and_then(|peer| peer.hello.as_ref()).map(|hello| hello.incarnation.0),
                "address": peer.map_or(member.addr, |peer| peer.link.remote()).to_string(),
                "linked": peer.is_some(),
                "rtt_ms": peer.map(|peer| peer.link.rtt().0 as f64 / 1e6),
                "clock_ahead_ms": peer.and_then(|peer| peer.clock_ahead_ms),
                "sent_bytes": peer.map(|peer| peer.link.sent_bytes()),
                "devices": devices(member.origin),
            })
        });
        let members: Vec<Json> = std::iter::once(me).chain(others).collect();
        json!({ "site": self.identity.site, "members": members })
    }

    pub(super) fn ledger_json(&self) -> Json {
        let rows = self.replication.ledger().into_iter().map(|row| {
            let mut json = serde_json::to_value(&row).unwrap_or_default();
            json["origin"] = json!(row.origin.to_string());
            json["name"] = json!(self.name_of(row.origin));
            json["head_at"] = row.head_at.iter().map(|origin| self.name_of(*origin)).collect();
            json
        });
        let rows: Vec<Json> = rows.collect();
        let size = self.shelf.documents.size();
        let counts = self.shelf.documents.counts();
        let documents = json!({
            "documents": size.documents,
            "operations": size.operations,
            "changes": size.changes,
            "values": size.values,
            "malformed": counts.malformed,
            "refused": counts.refused,
            "unreadable": counts.unreadable,
            "repairs": counts.repairs,
            "epochs_begun": counts.epochs_begun,
            "epochs_taken": counts.epochs_taken,
        });
        json!({ "documents": documents, "self": self.me.to_string(), "head": self.node.site.head().0, "confirmed": self.node.site.confirmed().0, "rows": rows })
    }
}
