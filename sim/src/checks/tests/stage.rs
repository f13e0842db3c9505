//! Evidence by hand: devices `d1` and `d2` measure once a second; reading n is stamped and measured n seconds into the run. Five readings
//! are stored and acknowledged together, a second after the last.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    alert::{Alert, AlertState},
    batch::{Batch, BatchBuilder},
    block,
    disk::BlockDevice,
    ids::Origin,
    record::{self, Hlc, RecordKind},
    rule::Severity,
    time::{Span, Timestamp},
    value::Value,
    window::{Pane, PaneMetric},
};
use millpond_store::{Append, Commit, Options, Put, Store, Table};

use crate::{
    checks,
    evidence::{Evidence, NodeEvidence, Sample},
    promise::{Broken, Promise},
    scenario::Scenario,
    witness::{Answer, Notified, Probe, Sent, Witness, digest},
    world::{clock::EPOCH, core::Instant},
};

pub const T0: i64 = EPOCH.0;
const S: i64 = 1_000_000_000;
/// Readings of each device, and seconds of the run.
pub const READINGS: i64 = 200;

const SCENARIO: &str = r#"
name = "by_hand"
about = "Written down, not played."
duration = "200s"
settle = "100s"
receivers = ["people.example"]

[[node]]
name = "edge"

[[fleet]]
node = "edge"
devices = 2
breaks = [{ device = "d1", fault = "bearing_wear", at = "50s", repaired = "80s" }]
"#;

const CONFIG: &str = r#"
webhooks = [{ name = "people", url = "http://people.example/hook" }]

[[windows]]
name = "ten"
size = "10s"

[[rules]]
name = "worn"
when = { type = "threshold", metric = "vibration", op = ">", value = 9.0 }
for = "5s"
"#;

pub struct Stage {
    pub evidence: Evidence,
}

#[derive(Debug, Default)]
pub struct Memory(Arc<Mutex<Vec<u8>>>);

impl BlockDevice for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub fn value(n: i64) -> f64 {
    if (50..80).contains(&n) { 12.0 + n as f64 / 1024.0 } else { 2.0 + n as f64 / 1024.0 }
}

/// Reading n of a device as a row of a block.
pub fn row(builder: &mut BatchBuilder, device: &str, n: i64, stamp: i64, value: f64) {
    builder.begin(device);
    builder.time(Timestamp(stamp));
    builder.seq(n as u64);
    builder.cell("vibration", Value::F64(value));
    builder.end();
}

pub fn batch(device: &str, readings: impl IntoIterator<Item = i64>) -> Batch {
    let mut builder = BatchBuilder::default();
    readings.into_iter().for_each(|n| row(&mut builder, device, n, T0 + n * S, value(n)));
    builder.finish().remove(0)
}

/// The pane over readings `from` to `to`, of the window that begins at a time of the run.
pub fn pane(device: &str, start: i64, readings: std::ops::RangeInclusive<i64>) -> Pane {
    let values: Vec<f64> = readings.map(value).collect();
    let sum: f64 = values.iter().sum();
    let metric = PaneMetric {
        name: "vibration".to_owned(),
        count: values.len() as u64,
        sum: Some(sum),
        mean: Some(sum / values.len() as f64),
        min: values.iter().copied().reduce(f64::min),
        max: values.iter().copied().reduce(f64::max),
        ..PaneMetric::default()
    };
    Pane {
        window: "ten".to_owned(),
        key: device.to_owned(),
        start: Timestamp(T0 + start * S),
        end: Timestamp(T0 + (start + 10) * S),
        revision: 0,
        open: false,
        metrics: vec![metric],
        share: None,
        of: None,
        merged: false,
    }
}

pub fn alert(state: AlertState) -> Alert {
    let at = |n: i64| Timestamp(T0 + n * S);
    let resolved = state == AlertState::Resolved;
    Alert {
        id: "a1".to_owned(),
        rule: "worn".into(),
        key: "d1".into(),
        severity: Severity::Warning,
        state,
        since: at(50),
        fired: Some(at(55)),
        resolved: resolved.then(|| at(80)),
        resolved_by: None,
        cleared: resolved.then(|| at(80)),
        acknowledged: None,
        metric: "vibration".into(),
        value: 12.0,
        peak: 12.0,
        message: "worn".to_owned(),
        facts: Default::default(),
        repeats: 1,
        notified: Some(at(55)),
        digested: false,
        changed: at(55),
    }
}

pub fn notified(at: i64, key: &str, message: &str) -> Notified {
    let body = serde_json::json!({
        "id": key, "kind": "firing", "message": message, "alerts": [{ "key": "d1" }],
    });
    Notified { at: second(at), receiver: "people.example".to_owned(), key: key.to_owned(), body }
}

pub fn second(n: i64) -> Instant {
    Instant((n * S) as u64)
}

/// What is said of a promise; nothing else may be said.
#[track_caller]
pub fn said(stage: &mut Stage, promise: Promise) -> Vec<String> {
    stage.evidence.scenario.promises = vec![promise];
    let (broken, _) = checks::check(&stage.evidence);
    let detail = |broken: Broken| {
        assert_eq!((broken.promise, &*broken.node), (Some(promise), "edge"), "{}", broken.detail);
        broken.detail
    };
    broken.into_iter().map(detail).collect()
}

impl Stage {
    /// Nothing is stored, and everything was acknowledged.
    pub fn empty() -> Stage {
        Stage::empty_of(Origin::default())
    }

    /// Nothing is stored by this origin, and everything was acknowledged.
    pub fn empty_of(origin: Origin) -> Stage {
        let mut witness = Witness::default();
        for name in ["d1", "d2"] {
            let number = witness.add(name, "edge", "floor");
            for n in 1..=READINGS {
                let stamp = Timestamp(T0 + n * S);
                let digest = digest(stamp, [("vibration", Value::F64(value(n)))].into_iter());
                let acked = second((n - 1) / 5 * 5 + 6);
                witness.measured(number, n as u64, Sent { stamp, measured: second(n), acked, digest });
            }
        }
        let open = Box::new(|| Ok(Box::new(Memory::default()) as Box<dyn BlockDevice>));
        let (store, opened) = Store::open(open, Options::default(), origin).unwrap();
        let samples = (0..10).map(|n| Sample { at: second(n * 30), up: true, ..Sample::default() });
        let node = NodeEvidence {
            name: "edge".to_owned(),
            config: toml::from_str(CONFIG).unwrap(),
            journal: Ok(store),
            life: (opened.origin, opened.incarnation),
            copies: Vec::new(),
            disk: Default::default(),
            boots: 1,
            clock_errors: Vec::new(),
            repairs: Vec::new(),
            up: vec![(second(0), second(300))],
            samples: samples.collect(),
            others: Vec::new(),
            given: Vec::new(),
            lake: None,
            failed_starts: Default::default(),
        };
        let answer = |n: i64| Probe {
            at: second(n * 30 + 1),
            node: "edge".to_owned(),
            answer: Answer::Said { status: 200, body: String::new() },
        };
        witness.probes = (0..10).map(answer).collect();
        Stage {
            evidence: Evidence {
                scenario: Scenario::parse(SCENARIO).unwrap(),
                seed: 1,
                witness,
                nodes: vec![node],
                injections: Vec::new(),
                net: Default::default(),
                ended: (second(200), second(300)),
                divergence: None,
            },
        }
    }

    /// Everything is as it should be.
    pub fn honest() -> Stage {
        let mut stage = Stage::without_panes();
        for device in ["d1", "d2"] {
            stage.panes(&Stage::all_panes(device));
        }
        stage
    }

    pub fn without_panes() -> Stage {
        let mut stage = Stage::empty();
        for n in (1..=READINGS).step_by(5) {
            stage.events(&batch("d1", n..n + 5), n + 5);
            stage.events(&batch("d2", n..n + 5), n + 5);
        }
        stage.alerts(&[alert(AlertState::Firing)]);
        stage.alerts(&[alert(AlertState::Resolved)]);
        let told = [notified(55, "a1-firing", "worn"), notified(80, "a1-resolved", "resolved: worn")];
        stage.evidence.witness.notifications.extend(told);
        stage
    }

    /// What has fired: the last stamp is 200 s, the bound 2 s.
    pub fn all_panes(device: &str) -> Vec<Pane> {
        let first = std::iter::once(pane(device, 0, 1..=9));
        first.chain((1..19).map(|n| pane(device, n * 10, n * 10..=n * 10 + 9))).collect()
    }

    pub fn node(&mut self) -> &mut NodeEvidence {
        &mut self.evidence.nodes[0]
    }

    pub fn sent(&mut self, device: usize, n: i64) -> &mut Sent {
        &mut self.evidence.witness.devices[device].readings[n as usize - 1]
    }

    pub fn commit(&mut self, commit: &Commit) {
        self.node().journal.as_mut().unwrap().commit(commit).unwrap();
    }

    pub fn append(&mut self, kind: RecordKind, rows: u32, payload: Vec<u8>, at: i64) {
        let now_ms = T0 / 1_000_000 + at * 1000;
        let append = Append {
            kind,
            hlc: Hlc::default().tick(now_ms),
            rows,
            min_time: EPOCH,
            max_time: EPOCH.saturating_add(Span(at * S)),
            devices: Vec::new(),
            payload: Bytes::from(payload),
        };
        self.commit(&Commit { records: vec![append], now_ms, ..Commit::default() });
    }

    pub fn events(&mut self, batch: &Batch, at: i64) {
        let mut payload = Vec::new();
        block::encode(batch, &mut payload);
        self.append(RecordKind::Events, batch.rows() as u32, payload, at);
    }

    pub fn panes(&mut self, panes: &[Pane]) {
        self.append(RecordKind::Panes, 0, record::encode(&panes), READINGS);
    }

    pub fn alerts(&mut self, alerts: &[Alert]) {
        self.append(RecordKind::Alerts, 0, record::encode(&alerts), 60);
        for alert in alerts {
            let (key, value) = (alert.id.clone().into_bytes(), Some(record::encode(alert).into()));
            self.commit(&Commit { puts: vec![Put { table: Table::Alerts, key, value }], ..Commit::default() });
        }
    }
}
