//! What the demo knows at a moment. Tasks write it, views show it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use hdrhistogram::Histogram;
use millpond_core::time::Span;
use millpond_env::Mono;
use serde_json::Value;

use super::{
    cloud::CloudStatus,
    mesh::{NAMES, NODES, SITES, nodes_of},
};

/// Time over which rates and latencies are told.
const PERIOD: Span = Span::from_secs(2);
/// Longer ones count as this long.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Entries of each list that are kept for the view.
const KEEP: usize = 64;

#[derive(Debug)]
pub struct Status {
    pub begun: Mono,
    pub data: PathBuf,
    pub nodes: Vec<NodeStatus>,
    pub cloud: CloudStatus,
    pub kills: u32,
    pub restarts: u32,
    pub cuts: u32,
    /// To which node the machines of each node are connected.
    pub lines: [Option<usize>; NODES],
    pub machines: Vec<Machine>,
    pub published: u64,
    pub acked: u64,
    pub reconnects: u64,
    /// Readings of each node's machines that wait for room in flight.
    pub waiting: [usize; NODES],
    /// Windows of nodes that were gone, continued by others.
    pub adopted: u64,
    /// By site, whether what was acknowledged is there; the last that was counted.
    pub audits: [Option<Audit>; SITES.len()],
    /// Of the last whole period.
    pub recent: Recent,
    period: Period,
    /// By site.
    panes: [VecDeque<Pane>; SITES.len()],
    pub panes_seen: u64,
    /// By site and identifier, in the order in which they came up.
    alerts: [BTreeMap<(i64, String), Alert>; SITES.len()],
    pub alerts_fired: u64,
    pub alerts_resolved: u64,
    /// What happened, with the time since the start; the view that shows lines takes them away.
    pub said: VecDeque<(Span, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    pub events_per_s: f64,
    pub ack_ms_p50: f64,
    pub ack_ms_p99: f64,
}

#[derive(Debug)]
struct Period {
    since: Mono,
    acked: u64,
    latency: Option<Histogram<u64>>,
}

/// One of the nodes.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub pid: u32,
    pub mqtt: String,
    pub http: String,
    /// When its process was ready; nothing while it is gone.
    pub up_since: Option<Mono>,
    /// Readings that it acknowledged.
    pub acked: u64,
    /// What it says of itself and of the others; empty when it says nothing.
    pub seen: Seen,
}

/// What a node says of itself and of the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Nodes that it sees up, itself included; 0 when it did not answer.
    pub members: u64,
    /// Connections to others.
    pub links: u64,
    /// Records of others that it keeps and knows to be missing here.
    pub missing: u64,
    /// Records of others that came to be kept.
    pub copied: u64,
    /// Windows of nodes that are gone, continued here.
    pub adopted: u64,
    pub events: u64,
    pub file_bytes: u64,
    pub dead_letters: u64,
    pub health: String,
    /// Its origin, its incarnation, and the last number of its journal.
    pub head: Option<((String, u64), u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub site: usize,
    pub name: String,
    /// One that each of its readings has.
    pub metric: &'static str,
    pub acked: u64,
}

/// What was counted over a whole site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged before the count began.
    pub acked: u64,
    pub stored: u64,
    /// Of what was acknowledged.
    pub missing: u64,
}

/// A result of the window that is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Pane {
    pub key: String,
    pub start_ms: i64,
    pub end_ms: i64,
    pub revision: u64,
    pub count: u64,
    pub mean: f64,
    pub max: f64,
    pub temperature: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub rule: String,
    pub key: String,
    pub severity: String,
    pub state: String,
    pub since_ms: i64,
    pub peak: f64,
    pub message: String,
}

impl Status {
    pub fn new(begun: Mono, data: PathBuf, nodes: Vec<NodeStatus>) -> Status {
        Status {
            begun,
            data,
            nodes,
            cloud: CloudStatus::default(),
            kills: 0,
            restarts: 0,
            cuts: 0,
            lines: std::array::from_fn(Some),
            machines: Vec::new(),
            published: 0,
            acked: 0,
            reconnects: 0,
            waiting: [0; NODES],
            adopted: 0,
            audits: Default::default(),
            recent: Recent::default(),
            period: Period { since: begun, acked: 0, latency: Histogram::new_with_max(LATENCY_NS_MAX, 3).ok() },
            panes: Default::default(),
            panes_seen: 0,
            alerts: Default::default(),
            alerts_fired: 0,
            alerts_resolved: 0,
            said: VecDeque::new(),
        }
    }

    pub fn say(&mut self, now: Mono, what: String) {
        push(&mut self.said, (now.since(self.begun), what));
    }

    /// Where the nodes are to be found.
    pub fn say_where(&mut self, now: Mono) {
        for (name, node) in NAMES.iter().zip(self.nodes.clone()) {
            let NodeStatus { pid, mqtt, http, .. } = node;
            self.say(now, format!("{name} is ready: process {pid}, mqtt://{mqtt}, http://{http}"));
        }
        let CloudStatus { pid, http, .. } = &self.cloud;
        self.say(now, format!("the cloud is ready: process {pid}, http://{http}"));
        self.say(now, format!("data in {}", self.data.display()));
    }

    /// What was counted over all sites, when each was counted.
    pub fn audit(&self) -> Option<Audit> {
        self.audits.iter().try_fold(Audit::default(), |all, audit| Some(all.and((*audit)?)))
    }

    pub fn machines_of(&self, site: usize) -> Vec<Machine> {
        self.machines.iter().filter(|machine| machine.site == site).cloned().collect()
    }

    /// The first node of a site for which this holds.
    pub fn first_of(&self, site: usize, so: impl Fn(&NodeStatus) -> bool) -> Option<usize> {
        nodes_of(site).find(|node| so(&self.nodes[*node]))
    }

    /// `node` acknowledged a reading of `machine`.
    pub fn acked(&mut self, now: Mono, published: Mono, machine: usize, node: usize) {
        self.acked += 1;
        self.nodes[node].acked += 1;
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.acked += 1;
        }
        self.period.acked += 1;
        if let Some(latency) = &mut self.period.latency {
            latency.saturating_record(now.since(published).0 as u64);
        }
    }

    /// Closes the period when it is over.
    pub fn tick(&mut self, now: Mono) {
        let length = now.since(self.period.since);
        if length < PERIOD {
            return;
        }
        let ms = |latency: &Histogram<u64>, quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
        let latency = self.period.latency.as_ref();
        self.recent = Recent {
            events_per_s: self.period.acked as f64 / length.as_secs_f64(),
            ack_ms_p50: latency.map_or(0.0, |latency| ms(latency, 0.5)),
            ack_ms_p99: latency.map_or(0.0, |latency| ms(latency, 0.99)),
        };
        self.period.since = now;
        self.period.acked = 0;
        if let Some(latency) = &mut self.period.latency {
            latency.reset();
        }
    }

    /// Panes of all sites, the newest first.
    pub fn panes(&self) -> Vec<&Pane> {
        let mut panes: Vec<&Pane> = self.panes.iter().flat_map(|panes| panes.iter().rev()).collect();
        panes.sort_by_key(|pane| Reverse(pane.end_ms));
        panes
    }

    /// Alerts of all sites, the newest first.
    pub fn alerts(&self) -> Vec<&Alert> {
        let mut alerts: Vec<&Alert> = self.alerts.iter().flat_map(|alerts| alerts.values().rev()).collect();
        alerts.sort_by_key(|alert| Reverse(alert.since_ms));
        alerts
    }

    /// Takes the panes of a site's answer, newest first; those that are known already are left out.
    pub fn take_panes(&mut self, now: Mono, site: usize, panes: &[Value]) {
        let closed = panes.iter().rev().filter(|pane| pane["open"] != true);
        for pane in closed.filter_map(Pane::of_json) {
            if self.panes[site].contains(&pane) {
                continue;
            }
            self.panes_seen += 1;
            let revised = if pane.revision > 0 { format!(", revision {}", pane.revision) } else { String::new() };
            self.say(
                now,
                format!(
                    "window {}: {} events, vibration mean {:.2} max {:.2} mm/s, bearing {:.1} °C{revised}",
                    pane.key, pane.count, pane.mean, pane.max, pane.temperature
                ),
            );
            push(&mut self.panes[site], pane);
        }
    }

    /// Takes the alerts of a site's answer; each change of state is said.
    pub fn take_alerts(&mut self, now: Mono, site: usize, alerts: &[Value]) {
        for (id, alert) in alerts.iter().rev().filter_map(Alert::of_json) {
            let key = (alert.since_ms, id);
            let before = self.alerts[site].get(&key).map(|known| known.state.clone());
            if before.as_deref() != Some(&*alert.state) {
                let fires =
                    alert.state == "firing" || (alert.state == "resolved" && before.as_deref() != Some("firing"));
                self.alerts_fired += u64::from(fires);
                self.alerts_resolved += u64::from(alert.state == "resolved");
                self.say(
                    now,
                    format!(
                        "alert {} {} ({}): {}, worst {:.2}",
                        alert.rule,
                        alert.state.to_uppercase(),
                        alert.severity,
                        alert.message,
                        alert.peak
                    ),
                );
            }
            self.alerts[site].insert(key, alert);
        }
        while self.alerts[site].len() > KEEP {
            self.alerts[site].pop_first();
        }
    }
}

impl NodeStatus {
    pub fn new(pid: u32, mqtt: (&str, u16), http: (&str, u16), ready: Mono) -> NodeStatus {
        NodeStatus {
            pid,
            mqtt: format!("{}:{}", mqtt.0, mqtt.1),
            http: format!("{}:{}", http.0, http.1),
            up_since: Some(ready),
            acked: 0,
            seen: Seen::default(),
        }
    }
}

impl Seen {
    /// From the node's metrics of the site, its journal and its health.
    pub fn of(metrics: &[(String, f64)], journal: &Value, health: &Value) -> Seen {
        let metric = |name: &str| -> u64 {
            metrics.iter().filter(|(metric, _)| metric == name).map(|(_, value)| *value as u64).sum()
        };
        let reasons: Vec<&str> = health["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let classes = journal["classes"].as_object().into_iter().flatten();
        let head = classes.filter_map(|(_, class)| class["last_seq"].as_u64()).max();
        let life = journal["origin"].as_str().map(str::to_owned).zip(journal["incarnation"].as_u64());
        let word = health["status"].as_str().unwrap_or("unknown");
        Seen {
            members: metric("members"),
            links: metric("links"),
            missing: metric("missing_records"),
            copied: metric("copied_records_total"),
            adopted: metric("adopted_panes_total"),
            events: journal["classes"]["raw"]["events"].as_u64().unwrap_or_default(),
            file_bytes: journal["file_bytes"].as_u64().unwrap_or_default(),
            dead_letters: journal["dead_letters"].as_u64().unwrap_or_default(),
            health: if reasons.is_empty() { word.to_owned() } else { format!("{word}: {}", reasons.join("; ")) },
            head: life.zip(head),
        }
    }
}

impl Audit {
    /// Of both together.
    pub fn and(self, other: Audit) -> Audit {
        let Audit { acked, stored, missing } = other;
        Audit { acked: self.acked + acked, stored: self.stored + stored, missing: self.missing + missing }
    }

    /// Compares what each machine was acknowledged before with what is there now; `before` was there when the demo began.
    pub fn of(machines: &[Machine], before: &[u64], stored: &[u64]) -> Audit {
        let mut audit = Audit { acked: 0, stored: 0, missing: 0 };
        for (at, machine) in machines.iter().enumerate() {
            let of = |counts: &[u64]| counts.get(at).copied().unwrap_or_default();
            let there = of(stored).saturating_sub(of(before));
            audit.acked += machine.acked;
            audit.stored += there;
            audit.missing += machine.acked.saturating_sub(there);
        }
        audit
    }
}

impl Pane {
    fn of_json(json: &Value) -> Option<Pane> {
        let vibration = &json["metrics"]["vibration"];
        Some(Pane {
            key: json["key"].as_str()?.to_owned(),
            start_ms: json["start"].as_i64()?,
            end_ms: json["end"].as_i64()?,
            revision: json["revision"].as_u64().unwrap_or_default(),
            count: vibration["count"].as_u64()?,
            mean: vibration["mean"].as_f64()?,
            max: vibration["max"].as_f64()?,
            temperature: json["metrics"]["bearing_temperature"]["mean"].as_f64().unwrap_or_default(),
        })
    }
}

impl Alert {
    fn of_json(json: &Value) -> Option<(String, Alert)> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let alert = Alert {
            rule: text("rule")?,
            key: text("key")?,
            severity: text("severity").unwrap_or_default(),
            state: text("state")?,
            since_ms: json["since"].as_i64()?,
            peak: json["peak"].as_f64().unwrap_or_default(),
            message: text("message").unwrap_or_default(),
        };
        Some((text("id")?, alert))
    }
}

fn push<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > KEEP {
        list.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        Status::new(Mono(0), "/tmp/x".into(), Vec::new())
    }

    #[test]
    fn an_alert_is_said_at_each_change_of_its_state() {
        let mut status = status();
        let alert = |state: &str| json!({ "id": "a", "rule": "r", "key": "press-0001", "severity": "critical", "state": state, "since": 5, "peak": 9.5, "message": "m" });
        for state in ["pending", "pending", "firing", "firing", "resolved", "resolved"] {
            status.take_alerts(Mono(0), 0, &[alert(state)]);
        }
        let said: Vec<&str> = status.said.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(said.len(), 3);
        assert_eq!(said[1], "alert r FIRING (critical): m, worst 9.50");
        assert_eq!((status.alerts_fired, status.alerts_resolved), (1, 1));
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_missed() {
        let machine = |acked| Machine { site: 0, name: "m".to_owned(), metric: "t", acked };
        let audit = Audit::of(&[machine(5), machine(5)], &[10, 0], &[16, 4]);
        assert_eq!(audit, Audit { acked: 10, stored: 10, missing: 1 });
    }

    #[test]
    fn a_pane_is_said_once_per_revision() {
        let mut status = status();
        let pane = |revision: u64| {
            json!({ "key": "press-0001", "start": 0, "end": 5000, "revision": revision,
                "metrics": { "vibration": { "count": 3, "mean": 1.5, "max": 2.0 }, "bearing_temperature": { "mean": 40.0 } } })
        };
        status.take_panes(Mono(0), 0, &[pane(0)]);
        status.take_panes(Mono(0), 0, &[pane(1), pane(0)]);
        assert_eq!((status.panes_seen, status.said.len()), (2, 2));
    }

    #[test]
    fn what_a_busy_site_says_does_not_make_the_panes_of_a_quiet_one_new_again() {
        let mut status = status();
        let pane = |key: &str, end: u64| json!({ "key": key, "start": 0, "end": end, "metrics": { "vibration": { "count": 3, "mean": 1.5, "max": 2.0 } } });
        status.take_panes(Mono(0), 1, &[pane("quiet", 1)]);
        (1..200).for_each(|end| status.take_panes(Mono(0), 0, &[pane("busy", end)]));
        status.take_panes(Mono(0), 1, &[pane("quiet", 1)]);
        assert_eq!(status.panes_seen, 200);
        assert_eq!((status.panes()[0].end_ms, status.panes().len()), (199, KEEP + 1));
    }
}
