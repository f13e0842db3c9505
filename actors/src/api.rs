//! The node as its doors see it.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    alert::{Alert, AlertEffect, AlertFilter, AlertState, Alerts},
    dead_letter::DeadLetter,
    ids::Seq,
    record::{self, Class, DropRange, RecordKind},
    rule::Condition,
    time::{Span, Timestamp},
    window::{LateEvent, Pane, WindowSpec},
};
use millpond_env::Env;
use millpond_gateway::{
    payload::PayloadDecoder,
    port::{
        AlertAction, AlertsAsked, AskError, DevicesAsked, Health, Json, Node, PanesAsked, Query, QueryAnswer, Receipt,
        Source, Submission,
    },
};
use millpond_store::{Opened, Put, ReadError, Reader, RecordRef, Table};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    alert::AlertMsg,
    device::{DeviceMsg, DirectoryMsg},
    front::{Front, shard_of},
    handover::Handover,
    health::Pulse,
    journal::{JournalMsg, Unit, Work},
    merged::{DEFAULT_TENANT, tenant_of},
    metrics::Metrics,
    query,
    root::Refs,
    settings::{Current, Settings},
    shapes,
    shard::{ShardMsg, core::ShardCore},
    site::{Copy, Site},
    site_panes,
};

/// The question to other nodes for the values of a metric.
pub const QUERY: &str = "query";
const ASK_TIMEOUT: Span = Span::from_secs(10);
const READ_TRIES: usize = 5;
const READ_AGAIN_AFTER: Span = Span::from_millis(20);
/// Records that are read for one list at most.
const RECORDS_READ_MAX: usize = 100_000;

pub struct Api {
    pub env: Env,
    pub settings: Current,
    pub reader: Reader,
    pub front: Arc<Front>,
    pub site: Arc<Site>,
    /// On a node of a site.
    pub handover: Option<Arc<Handover>>,
    pub refs: Refs,
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub registry: Registry,
    pub opened: Opened,
}

#[async_trait]
impl Node for Api {
    async fn credit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.front.credit(bytes).await
    }

    fn submit(&self, submission: Submission) {
        match &self.handover {
            Some(handover) => handover.submit(&self.env, &self.site, &self.front, submission),
            None => self.front.submit(submission),
        }
    }

    async fn retain(&self, topic: String, payload: Bytes, qos: u8) -> bool {
        let value = (!payload.is_empty()).then(|| Bytes::from([&[qos], &payload[..]].concat()));
        self.commit(vec![Put { table: Table::Retained, key: topic.into_bytes(), value }]).await
    }

    fn presence(&self, device: &str, connected: bool) {
        let _ = self.refs.directory.cast(DirectoryMsg::To(device.into(), DeviceMsg::Presence { connected }));
    }

    async fn site(&self, what: &str, body: Json) -> Result<Json, AskError> {
        self.site.others().ok_or(AskError::NoSite)?.operate(what, body).await
    }

    fn listens(&self, device: &str, on: bool) {
        if let Some(others) = self.site.others() {
            others.listens(device, on);
        }
    }

    async fn query(&self, question: Query) -> Result<QueryAnswer, AskError> {
        if is_of_another(question.tenant.as_deref()) {
            // What came to this node itself is nobody else's.
            let of_sites = match self.site.others() {
                Some(others) => others.find(&question).await,
                None => None,
            };
            let found = of_sites.unwrap_or_else(|| query::find(&[], &question))?;
            return Ok(query::answer(&question, found));
        }
        let (copies, elsewhere) = match self.site.others() {
            Some(others) => others.ask(QUERY, record::encode(&question).into()).await,
            None => (Vec::new(), Vec::new()),
        };
        let here = self.read({
            let question = question.clone();
            move |reader| {
                let journals: Vec<&Reader> =
                    [reader].into_iter().chain(copies.iter().map(|copy| &copy.reader)).collect();
                query::find(&journals, &question)
            }
        });
        let mut found = here.await?;
        if let Some(others) = self.site.others()
            && let Some(more) = others.find(&question).await
        {
            query::join(&mut found, more?);
        }
        for more in elsewhere.iter().filter_map(|bytes| record::decode(bytes).ok()) {
            query::join(&mut found, more);
        }
        Ok(query::answer(&question, found))
    }

    async fn devices(&self, asked: DevicesAsked) -> Result<Vec<Json>, AskError> {
        let DevicesAsked { after, tenant, limit } = asked;
        let here = match is_of_another(tenant.as_deref()) {
            true => Vec::new(),
            false => self.devices_here(after.clone(), limit).await?,
        };
        let Some(others) = self.site.others() else { return Ok(here) };
        let asked = json!({ "after": after, "limit": limit, "here": here, "tenant": tenant });
        match others.operate("devices", asked).await? {
            Json::Array(devices) => Ok(devices),
            _ => Ok(here),
        }
    }

    async fn device(&self, device: &str) -> Result<Json, AskError> {
        let here = match self.device_here(device).await {
            Err(AskError::NotFound(_)) => None,
            here => Some(here?),
        };
        match (self.site.others(), here) {
            (Some(others), here) => others.operate("device", json!({ "device": device, "here": here })).await,
            (None, here) => here.ok_or_else(|| unknown_device(device)),
        }
    }

    /// Those of the schemas, those in the newest records, and those of the sites of a cloud.
    async fn metric_names(&self, tenant: Option<&str>) -> Result<Vec<String>, AskError> {
        let mut names = BTreeSet::new();
        if !is_of_another(tenant) {
            let settings = self.settings.now();
            names.extend(settings.schemas.iter().flat_map(|schema| schema.metrics.keys().cloned()));
            names.extend(self.read(query::metric_names).await?);
        }
        if let Some(others) = self.site.others() {
            match others.operate("cloud_metric_names", json!({ "tenant": tenant })).await {
                Ok(Json::Array(more)) => names.extend(more.iter().filter_map(|name| name.as_str().map(str::to_owned))),
                // It is not one of a cloud.
                Ok(_) | Err(AskError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn quarantine(&self, device: &str, on: bool) -> Result<Json, AskError> {
        let shards = self.front.plane().ok_or(AskError::Unavailable)?.shards.len();
        let name = device.to_string();
        if !self.ask_shard(shard_of(device, shards), move |core| core.gate.quarantine(&name, on)).await? {
            return Err(unknown_device(device));
        }
        let reason = on.then(|| "by an operator".to_string());
        let _ = self.refs.directory.cast(DirectoryMsg::To(device.into(), DeviceMsg::Quarantine(reason)));
        self.device_here(device).await
    }

    async fn window(&self, asked: PanesAsked) -> Result<Vec<Json>, AskError> {
        let PanesAsked { window, key, tenant, start, end, limit } = asked;
        let spec = self.known_window(&window)?;
        let (opened, copies, left_out) = (self.opened, self.copies(), self.site.left_out());
        self.read(move |reader| {
            let wanted = |pane: &Pane| {
                pane.window == spec.name
                    && key.as_ref().is_none_or(|key| pane.key == *key)
                    && tenant.as_deref().is_none_or(|tenant| tenant_of(&spec, &pane.key) == Some(tenant))
                    && start.is_none_or(|start| pane.start >= start)
                    && end.is_none_or(|end| pane.end <= end)
            };
            let mut shares = site_panes::Shares::new(&spec);
            shares.void((opened.origin, opened.incarnation), left_out);
            copies.iter().for_each(|copy| shares.void((copy.origin, copy.incarnation), copy.left_out));
            shares.read(reader, (opened.origin, opened.incarnation), limit, wanted)?;
            for copy in &copies {
                // A copy that is being closed, or is damaged, does not keep the others from answering.
                if let Err(error) = shares.read(&copy.reader, (copy.origin, copy.incarnation), limit, wanted) {
                    tracing::warn!(origin = %copy.origin, ?error, "a copy could not be read");
                }
            }
            Ok(shares.merged(limit).iter().map(shapes::pane).collect())
        })
        .await
    }

    async fn late(&self, name: &str, limit: usize) -> Result<Vec<Json>, AskError> {
        self.known_window(name)?;
        let name = name.to_string();
        self.read(move |reader| {
            let mut found = Vec::new();
            newest(reader, Class::Pane, |row| {
                let late = if row.kind == RecordKind::Late {
                    record::decode::<Vec<LateEvent>>(row.payload).unwrap_or_default()
                } else {
                    Vec::new()
                };
                found.extend(late.iter().rev().filter(|event| *event.window == *name).map(shapes::late));
                found.len() < limit
            })?;
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    async fn alerts(&self, asked: AlertsAsked) -> Result<Vec<Json>, AskError> {
        let AlertsAsked { state, rule, tenant, limit } = asked;
        let state = match &state {
            Some(name) => Some(
                AlertState::from_name(name)
                    .ok_or_else(|| AskError::Invalid("`state` is pending, firing or resolved".into()))?,
            ),
            None => None,
        };
        let settings = self.settings.now();
        let found = self.ask_alerts(move |alerts, _, _| {
            let Some(tenant) = tenant else {
                let filter = AlertFilter { state, rule, key: None, limit };
                return alerts.list(&filter).into_iter().cloned().collect::<Vec<Alert>>();
            };
            let filter = AlertFilter { state, rule, key: None, limit: usize::MAX };
            let is_about = |alert: &&&Alert| tenant_of_alert(&settings, alert) == Some(&tenant);
            alerts.list(&filter).iter().filter(is_about).take(limit).map(|alert| Alert::clone(alert)).collect()
        });
        let mut found = found.await?;
        found.sort_by_key(|alert| std::cmp::Reverse(alert.since));
        Ok(found.iter().take(limit).map(shapes::alert).collect())
    }

    async fn alert_action(&self, id: &str, action: AlertAction, by: &str) -> Result<Json, AskError> {
        let (id, by) = (id.to_string(), by.to_string());
        let done = self.ask_alerts(move |alerts, now, effects| {
            match action {
                AlertAction::Acknowledge => alerts.acknowledge(now, &id, &by, effects),
                AlertAction::Resolve => alerts.resolve(now, &id, &by, effects),
            }
            .map_err(|error| AskError::NotFound(error.to_string()))?;
            alerts.get(&id).map(shapes::alert).ok_or(AskError::Unavailable)
        });
        done.await?
    }

    async fn dead_letters(
        &self,
        reason: Option<String>,
        device: Option<String>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Json>, AskError> {
        self.read(move |reader| {
            let mut found = Vec::new();
            each_dead_letter(reader, after.map_or(0, |after| after + 1), |id, letter| {
                let wanted = reason
                    .as_ref()
                    .is_none_or(|reason| reason == letter.reason.name() || reason == letter.reason.code())
                    && device.as_ref().is_none_or(|device| *device == letter.device);
                if wanted {
                    found.push(shapes::dead_letter(id, &letter));
                }
                found.len() < limit
            })?;
            Ok(found)
        })
        .await
    }

    async fn replay_dead_letters(&self, ids: Option<Vec<u64>>, reason: Option<String>) -> Result<Json, AskError> {
        let letters = self.read(move |reader| {
            let mut found = Vec::new();
            each_dead_letter(reader, 0, |id, letter| {
                let named = ids.as_ref().is_none_or(|ids| ids.contains(&id));
                if named
                    && reason
                        .as_ref()
                        .is_none_or(|reason| reason == letter.reason.name() || reason == letter.reason.code())
                {
                    found.push((id, letter));
                }
                true
            })?;
            Ok(found)
        });
        let letters = letters.await?;
        let (tried, mut replayed, mut events) = (letters.len(), 0u64, 0u64);
        for (id, letter) in letters {
            if let Some(accepted) = self.replay(id, letter).await? {
                replayed += 1;
                events += accepted;
            }
        }
        Ok(json!({ "tried": tried, "replayed": replayed, "events": events, "remaining": tried as u64 - replayed }))
    }

    async fn drop_ranges(&self, limit: usize) -> Result<Vec<Json>, AskError> {
        self.read(move |reader| {
            let mut found = Vec::new();
            newest(reader, Class::State, |row| {
                if row.kind == RecordKind::DropRange
                    && let Ok(range) = record::decode::<DropRange>(row.payload)
                {
                    found.push(json!({ "seq": row.seq.0, "at": row.hlc.wall_ms(), "range": range }));
                }
                found.len() < limit
            })?;
            Ok(found)
        })
        .await
    }

    async fn journal(&self) -> Result<Json, AskError> {
        let usage = self.read(|reader| reader.stats().map_err(unreadable)).await?;
        let classes: serde_json::Map<String, Json> = Class::ALL
            .iter()
            .map(|class| {
                let of = &usage.classes[*class as usize];
                (
                    class.name().into(),
                    json!({
                        "records": of.records,
                        "events": of.events,
                        "bytes": of.bytes,
                        "first_seq": of.first_seq.0,
                        "last_seq": of.last_seq.0,
                        "dropped_records": of.dropped.iter().map(|dropped| dropped.records).sum::<u64>(),
                        "dropped_events": of.dropped.iter().map(|dropped| dropped.events).sum::<u64>(),
                    }),
                )
            })
            .collect();
        Ok(json!({
            "origin": self.opened.origin.to_string(),
            "incarnation": self.opened.incarnation.0,
            "file_bytes": usage.file_bytes,
            "classes": classes,
            "dead_letters": usage.dead_letters.count,
            "in_flight_bytes": self.front.in_flight_bytes(),
        }))
    }

    async fn health(&self) -> Health {
        self.pulse.health(self.env.now())
    }

    fn metrics(&self) -> String {
        self.metrics.in_flight_bytes.set(self.front.in_flight_bytes() as i64);
        if let Ok(usage) = self.reader.stats() {
            self.metrics.store_bytes.set(usage.file_bytes as i64);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Api {
    /// Devices that this node itself knows, by name.
    pub async fn devices_here(&self, after: Option<String>, limit: usize) -> Result<Vec<Json>, AskError> {
        let shards = self.front.plane().ok_or(AskError::Unavailable)?.shards.len();
        let mut found: Vec<(String, Json)> = Vec::new();
        for shard in 0..shards {
            let (after, settings) = (after.clone(), self.settings.now());
            found.extend(
                self.ask_shard(shard, move |core| list_devices(core, &settings, after.as_deref(), limit)).await?,
            );
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found.into_iter().take(limit).map(|(_, json)| json).collect())
    }

    pub async fn device_here(&self, device: &str) -> Result<Json, AskError> {
        let shards = self.front.plane().ok_or(AskError::Unavailable)?.shards.len();
        let (name, settings) = (device.to_string(), self.settings.now());
        let found = self.ask_shard(shard_of(device, shards), move |core| {
            let index = core.gate.find(&name)?;
            Some(device_json(core, &settings, index))
        });
        let mut json = found.await?.ok_or_else(|| unknown_device(device))?;
        let (tx, rx) = oneshot::channel();
        let _ = self.refs.directory.cast(DirectoryMsg::To(device.into(), DeviceMsg::Status(tx)));
        if let (Ok(Ok(status)), Some(fields)) = (self.env.timeout(ASK_TIMEOUT, rx).await, json.as_object_mut()) {
            fields.insert("connected".into(), json!(status.connected));
            fields.insert("sessions".into(), json!(status.row.sessions));
            fields.insert("connected_at".into(), json!(status.row.connected_at.map(Timestamp::as_millis)));
            fields.insert("disconnected_at".into(), json!(status.row.disconnected_at.map(Timestamp::as_millis)));
            fields.insert("quarantine_reason".into(), json!(status.row.quarantined));
        }
        Ok(json)
    }

    /// Reads off the executor. The store closes its file for a moment when it gives way on a full disk: then the reading begins again.
    async fn read<T: Send + 'static>(
        &self,
        f: impl Fn(&Reader) -> Result<T, AskError> + Send + Sync + 'static,
    ) -> Result<T, AskError> {
        let f = Arc::new(f);
        for _ in 0..READ_TRIES {
            let (reader, f) = (self.reader.clone(), f.clone());
            let answer = self.env.unblock(move || f(&reader)).await;
            match answer.unwrap_or_else(|| Err(AskError::Failed("the reader panicked".into()))) {
                Err(AskError::Unavailable) => self.env.sleep(READ_AGAIN_AFTER).await,
                answer => return answer,
            }
        }
        Err(AskError::Unavailable)
    }

    async fn commit(&self, puts: Vec<Put>) -> bool {
        self.commit_work(Work { puts, ..Work::default() }).await
    }

    async fn commit_work(&self, work: Work) -> bool {
        let (tx, rx) = oneshot::channel();
        let unit = Unit::awaited(Class::State, work, tx);
        self.refs.journal.cast(JournalMsg::Append(unit)).is_ok() && matches!(rx.await, Ok(true))
    }

    async fn ask_shard<T: Send + 'static>(
        &self,
        shard: usize,
        question: impl FnOnce(&mut ShardCore) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let plane = self.front.plane().ok_or(AskError::Unavailable)?;
        let (tx, rx) = oneshot::channel();
        let ask = ShardMsg::Ask(Box::new(move |core| {
            let _ = tx.send(question(core));
        }));
        plane.shards[shard].cast(ask).map_err(|_| AskError::Unavailable)?;
        self.env.timeout(ASK_TIMEOUT, rx).await.ok().and_then(Result::ok).ok_or(AskError::Unavailable)
    }

    async fn ask_alerts<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Alerts, Timestamp, &mut Vec<AlertEffect>) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let plane = self.front.plane().ok_or(AskError::Unavailable)?;
        let (tx, rx) = oneshot::channel();
        let ask = AlertMsg::Ask(Box::new(move |alerts, now, effects| {
            let _ = tx.send(question(alerts, now, effects));
        }));
        plane.alerts.cast(ask).map_err(|_| AskError::Unavailable)?;
        self.env.timeout(ASK_TIMEOUT, rx).await.ok().and_then(Result::ok).ok_or(AskError::Unavailable)
    }

    fn known_window(&self, name: &str) -> Result<WindowSpec, AskError> {
        let known = self.settings.now().windows.iter().find(|spec| spec.name == name).cloned();
        known.ok_or_else(|| AskError::NotFound(format!("there is no window named `{name}`")))
    }

    fn copies(&self) -> Vec<Copy> {
        self.site.others().map(|others| others.copies()).unwrap_or_default()
    }

    /// Submits a dead letter again. It goes from the store when everything of it was taken; what is still rejected becomes a
    /// dead letter of its own with the reason of today.
    async fn replay(&self, id: u64, letter: DeadLetter) -> Result<Option<u64>, AskError> {
        let received = self.env.wall();
        let mut decoder = PayloadDecoder::new();
        let device = (!letter.device.is_empty()).then_some(letter.device.as_str());
        if decoder.decode(letter.format, device, &Bytes::from(letter.payload.clone())).is_err() {
            return Ok(None);
        }
        let (receipt, answer) = oneshot::channel();
        self.front.submit(Submission {
            batches: decoder.finish(),
            dead_letters: Vec::new(),
            source: Source { login: letter.login.into(), door: "replay" },
            received,
            credit: self.front.credit(letter.payload.len()).await,
            receipt,
            keeper: None,
        });
        match answer.await {
            Ok(Receipt::Stored { accepted, duplicates, rejected }) => {
                // What was taken must not be replayed again; what was rejected stands in a new letter.
                let work = Work { forget_dead_letters: vec![id], ..Work::default() };
                self.commit_work(work).await;
                Ok((rejected == 0 && accepted + duplicates > 0).then_some(accepted))
            }
            Ok(Receipt::Refused(_)) | Err(_) => Err(AskError::Unavailable),
        }
    }
}

pub(crate) fn unreadable(error: ReadError) -> AskError {
    match error {
        ReadError::Closed => AskError::Unavailable,
        other => AskError::Failed(other.to_string()),
    }
}

fn unknown_device(device: &str) -> AskError {
    AskError::NotFound(format!("the device `{device}` is not known"))
}

/// Whether a question is about a tenant to whom the node's own site does not belong.
fn is_of_another(tenant: Option<&str>) -> bool {
    tenant.is_some_and(|tenant| tenant != DEFAULT_TENANT)
}

fn device_json(core: &ShardCore, settings: &Settings, index: u32) -> Json {
    let device = core.gate.device(index);
    let device_type = device.device_type.and_then(|at| settings.device_types.get(at as usize));
    shapes::device(&device, device_type.map(|spec| spec.name.as_str()))
}

fn list_devices(core: &ShardCore, settings: &Settings, after: Option<&str>, limit: usize) -> Vec<(String, Json)> {
    let mut names: Vec<(&str, u32)> = core.gate.devices().map(|device| (device.name, device.index)).collect();
    names.retain(|(name, _)| after.is_none_or(|after| *name > after));
    names.sort_unstable();
    names.into_iter().take(limit).map(|(name, index)| (name.to_string(), device_json(core, settings, index))).collect()
}

/// Records of a class from the newest on, until `f` says `false`.
pub(crate) fn newest(reader: &Reader, class: Class, mut f: impl FnMut(RecordRef<'_>) -> bool) -> Result<(), AskError> {
    let mut read = 0;
    let scanned = reader.scan_newest(class, Seq(u64::MAX), |row| {
        read += 1;
        if f(row) && read < RECORDS_READ_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    scanned.map_err(unreadable)
}

/// Dead letters from number `from` on, until `f` says `false`.
fn each_dead_letter(reader: &Reader, from: u64, mut f: impl FnMut(u64, DeadLetter) -> bool) -> Result<(), AskError> {
    let scanned = reader.range(Table::DeadLetters, &from.to_be_bytes(), |key, value| {
        let id = key.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
        let Ok(letter) = record::decode::<DeadLetter>(&value) else { return ControlFlow::Continue(()) };
        if f(id, letter) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    scanned.map_err(unreadable)
}

/// Whose sites an alert is about: `None` when its rule, or the window that it goes by, is not there any more.
fn tenant_of_alert<'a>(settings: &Settings, alert: &'a Alert) -> Option<&'a str> {
    let rule = settings.rules.iter().find(|rule| *rule.name == *alert.rule)?;
    let Condition::Window { window, .. } = &rule.when else { return Some(DEFAULT_TENANT) };
    tenant_of(settings.windows.iter().find(|spec| spec.name == *window)?, &alert.key)
}
