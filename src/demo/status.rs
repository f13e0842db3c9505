//! What the demo knows at a moment. Tasks write it, views show it.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use hdrhistogram::Histogram;
use millpond_core::time::Span;
use millpond_env::Mono;
use serde_json::Value;

/// Time over which rates and latencies are told.
const PERIOD: Span = Span::from_secs(2);
/// Longer ones count as this long.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Entries of each list that are kept for the view.
const KEEP: usize = 64;

#[derive(Debug)]
pub struct Status {
    pub begun: Mono,
    pub pid: u32,
    pub mqtt: String,
    pub http: String,
    pub data: PathBuf,
    pub restarts: u32,
    pub connected: bool,
    pub devices: usize,
    pub published: u64,
    pub acked: u64,
    pub reconnects: u64,
    /// Readings that wait for room in flight.
    pub waiting: usize,
    /// Of the last whole period.
    pub recent: Recent,
    period: Period,
    pub panes: VecDeque<Pane>,
    pub panes_seen: u64,
    /// By identifier, in the order in which they came up.
    pub alerts: BTreeMap<(i64, String), Alert>,
    pub alerts_fired: u64,
    pub alerts_resolved: u64,
    pub journal: Journal,
    pub health: String,
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

#[derive(Clone, Copy, Debug, Default)]
pub struct Journal {
    pub events: u64,
    pub file_bytes: u64,
    pub dead_letters: u64,
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
    pub fn new(begun: Mono, pid: u32, mqtt: (&str, u16), http: (&str, u16), data: &Path) -> Status {
        Status {
            begun,
            pid,
            mqtt: format!("{}:{}", mqtt.0, mqtt.1),
            http: format!("http://{}:{}", http.0, http.1),
            data: data.to_owned(),
            restarts: 0,
            connected: true,
            devices: 0,
            published: 0,
            acked: 0,
            reconnects: 0,
            waiting: 0,
            recent: Recent::default(),
            period: Period { since: begun, acked: 0, latency: Histogram::new_with_max(LATENCY_NS_MAX, 3).ok() },
            panes: VecDeque::new(),
            panes_seen: 0,
            alerts: BTreeMap::new(),
            alerts_fired: 0,
            alerts_resolved: 0,
            journal: Journal::default(),
            health: "starting".to_owned(),
            said: VecDeque::new(),
        }
    }

    pub fn say(&mut self, now: Mono, what: String) {
        push(&mut self.said, (now.since(self.begun), what));
    }

    /// Where the node is to be found.
    pub fn say_where(&mut self, now: Mono) {
        let (pid, mqtt, http, data) = (self.pid, &self.mqtt, &self.http, self.data.display());
        self.say(now, format!("the node is ready: process {pid}, mqtt://{mqtt}, {http}, data in {data}"));
    }

    pub fn acked(&mut self, now: Mono, published: Mono) {
        self.acked += 1;
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

    /// Takes the panes of an answer, newest first; those that are known already are left out.
    pub fn take_panes(&mut self, now: Mono, panes: &[Value]) {
        for pane in panes.iter().rev().filter_map(Pane::of_json) {
            if self.panes.contains(&pane) {
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
            push(&mut self.panes, pane);
        }
    }

    /// Takes the alerts of an answer; each change of state is said.
    pub fn take_alerts(&mut self, now: Mono, alerts: &[Value]) {
        for (id, alert) in alerts.iter().rev().filter_map(Alert::of_json) {
            let key = (alert.since_ms, id);
            let before = self.alerts.get(&key).map(|known| known.state.clone());
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
            self.alerts.insert(key, alert);
        }
        while self.alerts.len() > KEEP {
            self.alerts.pop_first();
        }
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
        Status::new(Mono(0), 1, ("127.0.0.1", 1), ("127.0.0.1", 2), Path::new("/tmp/x"))
    }

    #[test]
    fn an_alert_is_said_at_each_change_of_its_state() {
        let mut status = status();
        let alert = |state: &str| json!({ "id": "a", "rule": "r", "key": "press-0001", "severity": "critical", "state": state, "since": 5, "peak": 9.5, "message": "m" });
        for state in ["pending", "pending", "firing", "firing", "resolved", "resolved"] {
            status.take_alerts(Mono(0), &[alert(state)]);
        }
        let said: Vec<&str> = status.said.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(said.len(), 3);
        assert_eq!(said[1], "alert r FIRING (critical): m, worst 9.50");
        assert_eq!((status.alerts_fired, status.alerts_resolved), (1, 1));
    }

    #[test]
    fn a_pane_is_said_once_per_revision() {
        let mut status = status();
        let pane = |revision: u64| {
            json!({ "key": "press-0001", "start": 0, "end": 5000, "revision": revision,
                "metrics": { "vibration": { "count": 3, "mean": 1.5, "max": 2.0 }, "bearing_temperature": { "mean": 40.0 } } })
        };
        status.take_panes(Mono(0), &[pane(0)]);
        status.take_panes(Mono(0), &[pane(1), pane(0)]);
        assert_eq!((status.panes_seen, status.said.len()), (2, 2));
    }
}
