//! Scenarios: a site, its devices, what befalls them, and what must hold all the same. Written in TOML by whoever wants to know.

mod fault;
mod operator;
mod range;
mod rollout;
mod shipped;
mod timeline;
mod trust;

use std::path::PathBuf;

use millpond_cluster::habits::Dialect;
use millpond_core::{budget::BudgetSpec, time::Span};
use serde::{Deserialize, Serialize};

pub use fault::{Fault, Scheduled, Way, When};
pub use operator::{OperatorSpec, What};
pub use range::Range;
pub use rollout::{Ends, RolloutSpec};
pub use shipped::{SHIPPED, Shipped, shipped};
pub use timeline::{Injection, timeline};
pub use trust::TrustSpec;

use crate::promise::Promise;

/// A rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Letters, digits and `_`.
    pub name: String,
    /// One sentence for `sim list`.
    pub about: String,
    /// How long the devices measure and faults happen.
    pub duration: Span,
    /// Length of a run in a search, where many short runs show more than a few long ones. Default: `duration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<Span>,
    /// Quiet time after it, in which everything heals and what is under way arrives. Default: 3m.
    #[serde(default = "default_settle")]
    pub settle: Span,
    /// How likely a handler of an actor lets others go first, from 0 to 1. Default: 0.05.
    #[serde(default = "default_yields")]
    pub yields: f64,
    /// How often readiness is asked for and sizes are noted. Default: 30s.
    #[serde(default = "default_watch")]
    pub watch: Span,
    #[serde(rename = "node")]
    pub nodes: Vec<NodeSpec>,
    #[serde(rename = "fleet", default)]
    pub fleets: Vec<FleetSpec>,
    #[serde(rename = "operator", default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorSpec>,
    /// Definitions that go to the sites of a cloud.
    #[serde(rename = "rollout", default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutSpec>,
    /// Hosts that take notifications on port 80, by name.
    #[serde(default)]
    pub receivers: Vec<String>,
    /// Faults, each by its own clock.
    #[serde(rename = "fault", default)]
    pub faults: Vec<Scheduled>,
    /// The promises that are checked. Default: all.
    #[serde(default = "Promise::all")]
    pub promises: Vec<Promise>,
    /// What must have happened for the run to mean anything.
    #[serde(default)]
    pub expect: Expect,
}

/// A box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    pub name: String,
    /// A configuration file as `millpond edge` takes it, relative to the scenario's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// The configuration in place, when there is no file; or values laid over the file's.
    #[serde(default)]
    pub config: toml::Table,
    #[serde(default)]
    pub disk: DiskSettings,
    #[serde(default)]
    pub clock: ClockSettings,
    /// Default: 2.
    #[serde(default = "default_cores")]
    pub cores: usize,
    /// After how long a program that ended is started again, as systemd does. Default: 2s.
    #[serde(default = "default_restart")]
    pub restart: Span,
    /// The site that the box belongs to; boxes of one site know each other's addresses and hold certificates of its authority. Default:
    /// none, a box on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Operations of a document of the site before the node begins its next epoch. Default: as for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_operations: Option<u64>,
    /// The site was founded at this box: it renews the certificates of the others. Default: false, it has the certificate of somebody far
    /// away.
    #[serde(default)]
    pub founder: bool,
    /// How long the box's first certificate is valid; at the founder's also how long those are that it issues. Default: a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_life: Option<Span>,
    /// `newer`: the box speaks to the others as a later version will, which they understand but for what is new; `alien`: as one with which
    /// they have nothing in common, so that it is none of them. Default: own.
    #[serde(default, skip_serializing_if = "is_own")]
    pub wire: Dialect,
    /// A site whose nodes the box calls with a certificate of an authority of its own. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger_to: Option<String>,
    /// The box is a node of a cloud: it takes what the sites deliver that it trusts. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cloud: bool,
    /// Other sites with which the box exchanges records. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<TrustSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskSettings {
    /// Size of the file system in bytes. Default: 2 GiB.
    pub bytes: u64,
    /// How long a sync takes. Default: 0.5ms to 3ms.
    pub sync: Range,
    /// Default: 100 MB/s.
    pub bytes_per_second: u64,
}

impl Default for DiskSettings {
    fn default() -> DiskSettings {
        DiskSettings { bytes: 2 << 30, sync: Range(Span(500_000), Span(3_000_000)), bytes_per_second: 100_000_000 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSettings {
    /// How far ahead the wall clock is at the beginning.
    pub ahead: Span,
    /// How far behind it is.
    pub behind: Span,
    /// Parts per million by which it runs fast (or, negative, slow).
    pub drift_ppm: f64,
}

/// Machines that publish to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetSpec {
    /// Name for faults, and first part of the names of its devices when it is not `floor`. Default: `floor`.
    #[serde(default = "default_fleet")]
    pub name: String,
    pub node: String,
    /// Nodes that its connections turn to when theirs cannot be reached, in this order. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    pub devices: u32,
    /// One of the configuration's device types: the devices have names and metrics as it and its schema say. Default: none; then they are
    /// presses, ovens, conveyors and compressors with metrics of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// Time between two readings of a device. Default: 1s.
    #[serde(default = "default_every")]
    pub every: Span,
    #[serde(default)]
    pub via: Via,
    /// Connections that the devices share, as behind the gateway of a line; 0: each has its own. Default: 0.
    #[serde(default)]
    pub connections: u32,
    /// How long a gateway gathers readings before it publishes them together. Default: 0s, each by itself.
    #[serde(default)]
    pub gather: Span,
    /// Publishes without an acknowledgement, per connection. Default: 64.
    #[serde(default = "default_in_flight")]
    pub in_flight: u16,
    /// Readings that a connection keeps while it cannot publish; beyond it the devices of the fleet wait with measuring. Default: 100000.
    #[serde(default = "default_keep")]
    pub keep: u32,
    #[serde(default)]
    pub mischief: MischiefSettings,
    /// Machines that break and are repaired.
    #[serde(rename = "breaks", default)]
    pub breaks: Vec<Break>,
}

/// How a fleet's readings travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// JSON over MQTT 3.1.1 at QoS 1.
    #[default]
    Mqtt,
    /// JSON lines by `POST /v1/telemetry`.
    Http,
}

/// Probabilities are per reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MischiefSettings {
    pub duplicate: f64,
    /// Held back by up to `delay`, so that others overtake it.
    pub disorder: f64,
    pub delay: Span,
    /// The device falls silent for up to `silence_max`, and then sends all it has measured in a burst.
    pub silence: f64,
    pub silence_max: Span,
    /// Something that is no reading is sent as well.
    pub malformed: f64,
    /// Greatest constant error of a device's clock, either way.
    pub clock_offset: Span,
    /// Greatest drift of a device's clock, either way, in parts per million.
    pub clock_drift_ppm: f64,
    /// A device stamps one reading with a time far in the future.
    pub future: f64,
    /// How far. Default: 0s.
    pub future_by: Span,
}

/// A machine that breaks: `bearing_wear` raises its vibration to about 12 mm/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    pub device: String,
    /// `bearing_wear`, `leak` or `jam`.
    pub fault: String,
    pub at: Span,
    pub repaired: Span,
}

/// Least counts; a run with fewer fails, because it shows less than it claims. And a greatest one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    pub events_stored: u64,
    pub power_losses: u64,
    pub power_losses_mid_commit: u64,
    pub alerts_fired: u64,
    pub refusals: u64,
    pub dead_letters: u64,
    pub drops: u64,
    pub changes: u64,
    /// The latest epoch of a document of a site.
    pub epoch: u32,
    /// Records of sites that the cloud has at the end.
    pub in_cloud: u64,
    /// Readings in the cloud's archive at the end.
    pub archived: u64,
    /// Operations of object stores that failed, or said so.
    pub store_failures: u64,
    /// Readings that came to the cloud while older ones of the same node were still to come.
    pub live_beside_backlog: u64,
    /// Times that a box gave up events that its cloud does not have.
    pub undelivered: u64,
    /// Times that a node's certificate ran out.
    pub certificates_expired: u64,
    /// The program of no node may have been started more often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_max: Option<u32>,
}

fn is_own(dialect: &Dialect) -> bool {
    *dialect == Dialect::Own
}

fn default_settle() -> Span {
    Span::from_secs(180)
}

fn default_yields() -> f64 {
    0.05
}

fn default_watch() -> Span {
    Span::from_secs(30)
}

fn default_cores() -> usize {
    2
}

fn default_restart() -> Span {
    Span::from_secs(2)
}

fn default_fleet() -> String {
    "floor".to_owned()
}

fn default_every() -> Span {
    Span::from_secs(1)
}

fn default_in_flight() -> u16 {
    64
}

fn default_keep() -> u32 {
    100_000
}

/// Why a scenario cannot be played.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadScenario {
    /// With the place in the text.
    #[error("{0}")]
    Unreadable(String),
    #[error("{place}: {message}")]
    Wrong { place: String, message: String },
}

impl Scenario {
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Scenario, BadScenario> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| BadScenario::Unreadable(error.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The scenario as a search plays it: shorter, and without expectations that only the whole length can meet.
    pub fn brief(mut self) -> Scenario {
        if let Some(brief) = self.brief.filter(|brief| *brief < self.duration) {
            self.duration = brief;
            self.expect = Expect::default();
        }
        self
    }

    /// # Errors
    /// The first thing in it that cannot be.
    pub fn check(&self) -> Result<(), BadScenario> {
        let wrong = |place: String, message: String| Err(BadScenario::Wrong { place, message });
        if self.nodes.is_empty() {
            return wrong("node".to_owned(), "there is none: write at least one [[node]]".to_owned());
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if self.nodes[..at].iter().any(|other| other.name == node.name) || ["floor", ""].contains(&&*node.name) {
                return wrong(format!("node[{at}].name"), format!("`{}` is taken", node.name));
            }
        }
        let known = |name: &str| self.nodes.iter().any(|node| node.name == name);
        self.check_clouds()?;
        for (at, node) in self.nodes.iter().enumerate() {
            for (of, trust) in node.trusts.iter().enumerate() {
                let is_of_it = |name: &&String| {
                    !self.nodes.iter().any(|node| node.name == **name && node.site.as_ref() == Some(&trust.site))
                };
                if let Some(name) = trust.from.iter().find(is_of_it) {
                    let message = format!("`{name}` is no node of site `{}`", trust.site);
                    return wrong(format!("node[{at}].trusts[{of}].from"), message);
                }
            }
        }
        for (at, fleet) in self.fleets.iter().enumerate() {
            if !known(&fleet.node) {
                return wrong(format!("fleet[{at}].node"), format!("there is no node `{}`", fleet.node));
            }
            if self.fleets[..at].iter().any(|other| other.name == fleet.name) {
                return wrong(format!("fleet[{at}].name"), format!("`{}` is taken", fleet.name));
            }
            if fleet.every.0 <= 0 {
                return wrong(format!("fleet[{at}].every"), "must be more than nothing".to_owned());
            }
        }
        for (at, operator) in self.operators.iter().enumerate() {
            let place = format!("operator[{at}]");
            if self.operators[..at].iter().any(|other| other.name == operator.name) {
                return wrong(place + ".name", format!("`{}` is taken", operator.name));
            }
            let of_site = |name: &String| self.nodes.iter().any(|node| node.name == *name && node.site.is_some());
            if let Some(node) = operator.nodes.iter().find(|name| !of_site(name)) {
                return wrong(place + ".nodes", format!("there is no node `{node}` that belongs to a site"));
            }
            if operator.nodes.is_empty() || operator.changes.is_empty() || operator.devices * operator.keys == 0 {
                return wrong(place, "it has no node, or nothing to change".to_owned());
            }
        }
        for (at, rollout) in self.rollouts.iter().enumerate() {
            if !self.nodes.iter().any(|node| node.name == rollout.node && node.cloud) {
                let message = format!("there is no node `{}` of a cloud", rollout.node);
                return wrong(format!("rollout[{at}].node"), message);
            }
            if let Some(site) =
                rollout.canary.as_ref().filter(|site| !self.nodes.iter().any(|n| n.site.as_ref() == Some(site)))
            {
                return wrong(format!("rollout[{at}].canary"), format!("there is no site `{site}`"));
            }
        }
        for (at, fault) in self.faults.iter().enumerate() {
            if let Some(node) = fault.fault.node().filter(|node| !known(node)) {
                return wrong(format!("fault[{at}].node"), format!("there is no node `{node}`"));
            }
            if let Some(fleet) = fault.fault.fleet().filter(|name| !self.fleets.iter().any(|fleet| fleet.name == *name))
            {
                return wrong(format!("fault[{at}].fleet"), format!("there is no fleet `{fleet}`"));
            }
        }
        Ok(())
    }

    /// A cloud is one node of a site, and knows the sites that deliver to it.
    fn check_clouds(&self) -> Result<(), BadScenario> {
        let wrong = |place: String, message: String| Err(BadScenario::Wrong { place, message });
        for (at, node) in self.nodes.iter().enumerate() {
            let place = |key: &str| format!("node[{at}].{key}");
            if node.cloud && node.site.is_none() {
                return wrong(place("cloud"), "a node of a cloud belongs to a site: give it a `site`".to_owned());
            }
            let is_second = |other: &NodeSpec| other.cloud && other.site == node.site;
            if node.cloud && self.nodes[..at].iter().any(is_second) {
                return wrong(place("cloud"), "the site has a node of a cloud already".to_owned());
            }
            for (of, trust) in node.trusts.iter().enumerate().filter(|(_, trust)| trust.uplink) {
                if let Some(problem) = trust.budget.iter().flat_map(BudgetSpec::problems).next() {
                    return wrong(format!("node[{at}].trusts[{of}].budget"), problem.to_string());
                }
                let place = format!("node[{at}].trusts[{of}].uplink");
                let Some(site) = &node.site else {
                    return wrong(place, "the node belongs to no site, so nothing can be delivered of it".to_owned());
                };
                let Some(cloud) = self.cloud_of(&trust.site) else {
                    let message = format!("no node of site `{}` has `cloud = true`", trust.site);
                    return wrong(place, message);
                };
                if !cloud.trusts.iter().any(|back| back.site == *site) {
                    let message = format!("`{}` does not trust site `{site}`: it would take nothing", cloud.name);
                    return wrong(place, message);
                }
            }
        }
        Ok(())
    }

    pub fn checks(&self, promise: Promise) -> bool {
        self.promises.contains(&promise)
    }

    /// Nodes of the sites of which one delivers to a node of a cloud, each with its site.
    pub fn delivering_to<'a>(&'a self, cloud: &'a NodeSpec) -> impl Iterator<Item = (&'a str, &'a str)> {
        let delivers =
            |node: &NodeSpec| node.trusts.iter().any(|to| to.uplink && Some(&to.site) == cloud.site.as_ref());
        let is_of =
            move |site: &str| self.nodes.iter().any(|node| node.site.as_deref() == Some(site) && delivers(node));
        let all = self.nodes.iter().filter_map(|node| Some((&*node.name, node.site.as_deref()?)));
        all.filter(move |(_, site)| is_of(site))
    }

    /// The node of a site that takes what other sites deliver.
    pub fn cloud_of(&self, site: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.cloud && node.site.as_deref() == Some(site))
    }
}
