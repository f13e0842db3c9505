//! Hands on what the sites delivered: to files and webhooks now, and to whatever else implements [`Sink`].
//!
//! A sink gets each record at least once, of each journal in the order of its numbers, with a key that is the same each time
//! (`ORIGIN/INCARNATION/NUMBER`): whoever has an effect by it looks whether he knows the key. How far each sink has come is on disk after
//! each delivery; a sink that fails holds up nobody but itself.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_actors::{
    config::{SinkKind, SinkSettings},
    shapes,
};
use millpond_core::{
    alert::Alert,
    block::Decoder,
    ids::{RecordId, Seq},
    record::{self, Class, RecordKind},
    schema::Pattern,
    time::Span,
    window::Pane,
};
use millpond_env::{BlockDevice, Env};
use millpond_gateway::{port::Json, webhook};
use millpond_proto::replication::Life;
use millpond_store::{ReadError, Reader, RecordRef};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use serde_json::{Map, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Cloud, site::SiteMsg};

/// Where the cursors lie on the node's disk.
const FOLDER: &str = "sinks";
/// Records of one delivery, and bytes of their payloads.
const RECORDS_MAX: usize = 256;
const BYTES_MAX: usize = 256 << 10;
const IDLE: Span = Span::from_millis(500);
const BACK_OFF: Span = Span::from_secs(1);
const BACK_OFF_MAX: Span = Span::from_secs(60);
const TIMEOUT: Span = Span::from_secs(30);

/// One record on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The same each time that the record is delivered.
    pub key: String,
    pub site: String,
    pub class: Class,
    /// What is in it, an object each.
    pub items: Vec<Json>,
}

/// Somewhere that takes what the sites delivered.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// All of it, or an error; it is given again then, and perhaps also after a success.
    ///
    /// # Errors
    /// In words.
    async fn deliver(&self, batch: &[Delivered]) -> Result<(), String>;
}

/// Up to where a life can be handed on: results in causal order, events without gaps and settled.
pub(super) struct Ready {
    pub life: Life,
    pub reader: Reader,
    pub results: Seq,
    pub raw: Seq,
}

/// One line of JSON for each item, appended to a file and on disk before it counts.
struct File {
    env: Env,
    device: Arc<dyn BlockDevice>,
}

/// One POST for each batch, with its first and last key.
struct Webhook {
    env: Env,
    url: String,
    headers: Vec<(String, String)>,
}

pub(super) struct Measures {
    records: IntCounterVec,
    failures: IntCounterVec,
    waiting: IntGaugeVec,
}

impl Measures {
    pub fn new(registry: &Registry) -> Result<Measures, prometheus::Error> {
        let opts = Opts::new;
        let measures = Measures {
            records: IntCounterVec::new(
                opts("millpond_sink_records_total", "Records that a sink has taken"),
                &["sink"],
            )?,
            failures: IntCounterVec::new(
                opts("millpond_sink_failures_total", "Deliveries that a sink has not taken; they are tried again"),
                &["sink"],
            )?,
            waiting: IntGaugeVec::new(
                opts("millpond_sink_waiting_records", "Sequence numbers that a sink has not come to yet"),
                &["sink"],
            )?,
        };
        registry.register(Box::new(measures.records.clone()))?;
        registry.register(Box::new(measures.failures.clone()))?;
        registry.register(Box::new(measures.waiting.clone()))?;
        Ok(measures)
    }
}

/// The sink of a section of the configuration. Blocks.
///
/// # Errors
/// When its file cannot be opened.
pub(super) fn open(env: &Env, settings: &SinkSettings) -> std::io::Result<Arc<dyn Sink>> {
    match settings.kind {
        SinkKind::File => {
            let device = env.disk.open(&settings.target)?.into();
            Ok(Arc::new(File { env: env.clone(), device }))
        }
        SinkKind::Webhook => {
            let headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            Ok(Arc::new(Webhook { env: env.clone(), url: settings.target.clone(), headers }))
        }
    }
}

#[async_trait]
impl Sink for File {
    async fn deliver(&self, batch: &[Delivered]) -> Result<(), String> {
        let lines: String = batch.iter().flat_map(lines_of).collect();
        let device = self.device.clone();
        let written = self.env.unblock(move || {
            // A line that a crash has cut off is ended, so that the next one stands for itself.
            let at = device.len()?;
            let mut last = [b'\n'];
            if at > 0 {
                device.read(at - 1, &mut last)?;
            }
            let gap: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
            device.write(at, &[gap, lines.as_bytes()].concat())?;
            device.sync()
        });
        written.await.ok_or("the node is stopping")?.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn deliver(&self, batch: &[Delivered]) -> Result<(), String> {
        let body: String = batch.iter().flat_map(lines_of).collect();
        let key = |at: Option<&Delivered>| at.map(|delivered| delivered.key.clone()).unwrap_or_default();
        let mut headers = self.headers.clone();
        headers.push(("Content-Type".to_owned(), "application/x-ndjson".to_owned()));
        headers.push(("Idempotency-Key".to_owned(), format!("{}..{}", key(batch.first()), key(batch.last()))));
        let status = webhook::post(&self.env, &self.url, &headers, Bytes::from(body), TIMEOUT).await;
        match status.map_err(|error| error.to_string())? {
            200..300 => Ok(()),
            status => Err(format!("it answers with {status}")),
        }
    }
}

fn lines_of(delivered: &Delivered) -> Vec<String> {
    let line = |(n, item): (usize, &Json)| {
        let key = format!("{}/{n}", delivered.key);
        let (site, class) = (&delivered.site, delivered.class.name());
        format!("{}\n", json!({ "key": key, "site": site, "class": class, "item": item }))
    };
    delivered.items.iter().enumerate().map(line).collect()
}

/// Hands on until it is told to end.
pub(super) async fn run(cloud: Cloud, settings: SinkSettings, sink: Arc<dyn Sink>, ended: CancellationToken) {
    let env = cloud.0.env.clone();
    let path = format!("{FOLDER}/{}", settings.name);
    let (disk, from) = (env.disk.clone(), path.clone());
    let read = env.unblock(move || disk.read(&from)).await;
    let bytes = read.and_then(Result::ok).flatten();
    let cursors = bytes.and_then(|bytes| record::decode::<Vec<(RecordId, RecordId)>>(&bytes).ok()).unwrap_or_default();
    let life_of = |id: &RecordId| Life { origin: id.origin, incarnation: id.incarnation };
    let cursors = cursors.iter().map(|(results, raw)| (life_of(results), [results.seq, raw.seq])).collect();
    let mut task = Task { cloud, settings, sink, path, cursors };
    let mut back_off = BACK_OFF;
    loop {
        let handed = tokio::select! {
            biased;
            () = ended.cancelled() => return,
            handed = task.round() => handed,
        };
        let pause = match handed {
            Ok(true) => {
                back_off = BACK_OFF;
                continue;
            }
            Ok(false) => IDLE,
            Err(why) => {
                let name = &task.settings.name;
                tracing::warn!(sink = name, why, "a sink has not taken what is to go there; it is tried again");
                task.cloud.0.sinks.failures.with_label_values(&[name]).inc();
                back_off = Span(back_off.0 * 2).min(BACK_OFF_MAX);
                back_off
            }
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = env.sleep(pause) => {}
        }
    }
}

struct Task {
    cloud: Cloud,
    settings: SinkSettings,
    sink: Arc<dyn Sink>,
    path: String,
    /// By life the last numbers that were handed on: of results, and of events.
    cursors: BTreeMap<Life, [Seq; 2]>,
}

impl Task {
    /// Looks through all sites once; whether anything was handed on.
    async fn round(&mut self) -> Result<bool, String> {
        let (mut any, mut waiting) = (false, 0);
        for (site, _) in self.cloud.0.shelf.all() {
            if !self.settings.sites.iter().any(|pattern| Pattern::new(pattern).matches(&site)) {
                continue;
            }
            for ready in self.ready(&site).await {
                any |= self.hand_on(&site, ready).await?;
            }
            for ready in self.ready(&site).await {
                let known = self.cursors.get(&ready.life).copied().unwrap_or_default();
                waiting += ready.results.0.saturating_sub(known[0].0);
            }
        }
        self.cloud.0.sinks.waiting.with_label_values(&[&self.settings.name]).set(waiting as i64);
        Ok(any)
    }

    async fn ready(&self, site: &str) -> Vec<Ready> {
        let (reply, answer) = oneshot::channel();
        match self.cloud.site(site).await {
            Some(actor) if actor.cast(SiteMsg::Ready(reply)).is_ok() => answer.await.unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    async fn hand_on(&mut self, site: &str, ready: Ready) -> Result<bool, String> {
        let Ready { life, reader, results, raw } = ready;
        let mut cursors = self.cursors.get(&life).copied().unwrap_or_default();
        let mut any = false;
        for (at, through, classes) in [(0, results, RESULTS), (1, raw, EVENTS)] {
            let wanted: Vec<Class> =
                classes.iter().copied().filter(|class| self.settings.classes.contains(class)).collect();
            if cursors[at] >= through || wanted.is_empty() {
                continue;
            }
            let (reader, name, first) = (reader.clone(), site.to_owned(), cursors[at].next());
            let read = self.cloud.0.env.unblock(move || read(&reader, &name, life, &wanted, first, through));
            let (batch, last) = read.await.ok_or("the node is stopping")?.map_err(|error| error.to_string())?;
            if !batch.is_empty() {
                self.sink.deliver(&batch).await?;
                self.cloud.0.sinks.records.with_label_values(&[&self.settings.name]).inc_by(batch.len() as u64);
            }
            cursors[at] = last;
            any = true;
        }
        if any {
            self.cursors.insert(life, cursors);
            self.save().await?;
        }
        Ok(any)
    }

    async fn save(&self) -> Result<(), String> {
        let id = |life: &Life, seq| RecordId { origin: life.origin, incarnation: life.incarnation, seq };
        let rows: Vec<(RecordId, RecordId)> =
            self.cursors.iter().map(|(life, [results, raw])| (id(life, *results), id(life, *raw))).collect();
        let (disk, path) = (self.cloud.0.env.disk.clone(), self.path.clone());
        let saved = self.cloud.0.env.unblock(move || disk.write(&path, &record::encode(&rows))).await;
        saved.ok_or("the node is stopping")?.map_err(|error| error.to_string())
    }
}

const RESULTS: &[Class] = &[Class::Alert, Class::State, Class::Pane];
const EVENTS: &[Class] = &[Class::Raw];

/// Records from `first` on, as far as one delivery goes, and the number up to which they are all.
fn read(
    reader: &Reader,
    site: &str,
    life: Life,
    classes: &[Class],
    first: Seq,
    through: Seq,
) -> Result<(Vec<Delivered>, Seq), ReadError> {
    let mut last = through;
    let mut found: Vec<(Seq, Delivered)> = Vec::new();
    for class in classes {
        let (mut bytes, mut records) = (0, 0);
        reader.scan(*class, first, |row| {
            if row.seq > last {
                return ControlFlow::Break(());
            }
            if records >= RECORDS_MAX || bytes >= BYTES_MAX {
                last = Seq(row.seq.0 - 1);
                return ControlFlow::Break(());
            }
            (bytes, records) = (bytes + row.payload.len(), records + 1);
            let items = items_of(&row);
            if !items.is_empty() {
                let key = format!("{}/{}/{}", life.origin, life.incarnation.0, row.seq.0);
                found.push((row.seq, Delivered { key, site: site.to_owned(), class: *class, items }));
            }
            ControlFlow::Continue(())
        })?;
    }
    found.retain(|(seq, _)| *seq <= last);
    found.sort_by_key(|(seq, _)| *seq);
    Ok((found.into_iter().map(|(_, delivered)| delivered).collect(), last))
}

fn items_of(row: &RecordRef<'_>) -> Vec<Json> {
    match row.kind {
        RecordKind::Panes => {
            let panes = record::decode::<Vec<Pane>>(row.payload).unwrap_or_default();
            panes.iter().map(shapes::pane).collect()
        }
        RecordKind::Alerts => {
            let alerts = record::decode::<Vec<Alert>>(row.payload).unwrap_or_default();
            alerts.iter().map(shapes::alert).collect()
        }
        RecordKind::Events => events_of(row.payload),
        _ => Vec::new(),
    }
}

fn events_of(block: &[u8]) -> Vec<Json> {
    let Ok(batch) = Decoder::new().decode(block) else { return Vec::new() };
    let mut events = Vec::with_capacity(batch.rows());
    for run in batch.runs() {
        for row in run.rows() {
            let values = batch.shape.metrics().iter().zip(&batch.columns);
            let values: Map<String, Json> = values
                .filter_map(|(metric, column)| Some((metric.name.to_string(), shapes::value(column.value(row)?))))
                .collect();
            events.push(json!({
                "device": batch.device(run),
                "ts": batch.times[row].as_millis(),
                "seq": batch.seq(row),
                "metrics": values,
            }));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_a_line_with_a_key_of_its_own() {
        let items = vec![json!({ "n": 1 }), json!({ "n": 2 })];
        let delivered = Delivered { key: "ab/1/7".to_owned(), site: "mill".to_owned(), class: Class::Pane, items };
        let lines = lines_of(&delivered);
        assert_eq!(lines.len(), 2);
        let line: Json = serde_json::from_str(&lines[1]).expect("JSON");
        assert_eq!((&line["key"], &line["site"], &line["item"]["n"]), (&json!("ab/1/7/1"), &json!("mill"), &json!(2)));
    }
}
