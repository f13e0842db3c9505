//! What devices report, and what they still have to do.
//!
//! A report is a record of the node it came to, and so on its way to every node of the site; each merges what it has and gets, the last
//! writer wins. The whole of a twin stands in a row of its own, written with the record: records may grow old and go. What a device still
//! has to do is retained where it is at home or listens, and follows what it should be and what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;
use millpond_core::{
    ids::{Origin, Seq},
    limits::DEVICE_NAME_BYTES_MAX,
    record::{self, Hlc, RecordKind},
    time::Timestamp,
};
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{
    documents::Kind,
    replication::Life,
    twin::{Refused, Reported, Stamp, delta},
    wire::Run,
};
use millpond_store::{Append, Put, ReadError, Reader, Table};
use serde_json::json;

use super::{
    documents::told,
    pen::{Job, Reply, Then},
    state::State,
    texts::text_of,
};

/// A twin up to this is said whole in each record, so that the newest one is enough to know it.
const WHOLE_BYTES_MAX: usize = 4 << 10;
/// Rows written, and deltas told, at a time.
const AT_ONCE: usize = 256;

#[derive(Default)]
pub(super) struct Twins {
    by_device: BTreeMap<String, Twin>,
    clock: Hlc,
    reports: u64,
    /// Merged from others since their row was written.
    unwritten: BTreeSet<String>,
    /// May have something else to do now.
    pub due: BTreeSet<String>,
    /// What is retained for each.
    told: BTreeMap<String, Json>,
    /// How many listen in its name.
    pub listening: BTreeMap<String, u32>,
}

#[derive(Default)]
struct Twin {
    /// On disk, here or where it was reported.
    said: Reported,
    /// With the reports that are on their way to disk: later ones stand upon it.
    ahead: Option<Reported>,
    writing: u32,
}

/// What is to be written of a report.
#[derive(Debug, PartialEq)]
pub(super) struct Written {
    pub change: Reported,
    pub whole: Reported,
}

impl Twins {
    pub fn load(reader: &Reader) -> Result<Twins, ReadError> {
        let mut twins = Twins::default();
        reader.range(Table::Twins, b"", |key, value| {
            if let (Ok(device), Ok(said)) = (std::str::from_utf8(key), record::decode::<Reported>(&value)) {
                twins.merge(device, &said);
            }
            ControlFlow::Continue(())
        })?;
        twins.unwritten.clear();
        Ok(twins)
    }

    /// A device reports. Nothing is seen of it before [`saved`](Self::saved). `None` when it says nothing.
    pub fn report(
        &mut self,
        origin: Origin,
        wall_ms: i64,
        device: &str,
        patch: &Json,
    ) -> Result<Option<Written>, Refused> {
        let clock = self.clock.tick(wall_ms);
        let stamp = Stamp { hlc: clock, origin, seq: self.reports + 1 };
        let twin = self.by_device.get(device);
        let mut whole = twin.map(|twin| twin.ahead.as_ref().unwrap_or(&twin.said).clone()).unwrap_or_default();
        whole.report(stamp, patch)?;
        let change = whole.written(stamp);
        if change.is_empty() {
            return Ok(None);
        }
        (self.clock, self.reports) = (clock, self.reports + 1);
        let twin = self.by_device.entry(device.to_owned()).or_default();
        twin.writing += 1;
        twin.ahead = Some(whole.clone());
        Ok(Some(Written { change, whole }))
    }

    /// A report is on disk, or could not be written.
    pub fn saved(&mut self, device: &str, change: &Reported, stored: bool) {
        let Some(twin) = self.by_device.get_mut(device) else { return };
        twin.writing = twin.writing.saturating_sub(1);
        if stored {
            twin.said.merge(change);
            self.due.insert(device.to_owned());
        }
        if twin.writing == 0 {
            twin.ahead = None;
        }
    }

    /// What another node was told.
    pub fn merge(&mut self, device: &str, other: &Reported) {
        let twin = self.by_device.entry(device.to_owned()).or_default();
        if let Some(ahead) = &mut twin.ahead {
            ahead.merge(other);
        }
        self.clock = other.latest().map_or(self.clock, |stamp| self.clock.max(stamp.hlc));
        if twin.said.merge(other) {
            self.unwritten.insert(device.to_owned());
            self.due.insert(device.to_owned());
        }
    }

    pub fn said(&self, device: &str) -> Json {
        self.by_device.get(device).map_or_else(|| json!({}), |twin| twin.said.value())
    }

    fn latest(&self, device: &str) -> Option<Stamp> {
        self.by_device.get(device)?.said.latest()
    }

    fn row(&self, device: &str) -> Put {
        let said = self.by_device.get(device).map(|twin| record::encode(&twin.said).into());
        Put { table: Table::Twins, key: device.as_bytes().to_vec(), value: said }
    }
}

/// What a record says of twins.
pub(super) fn twins_in(kind: RecordKind, payload: &[u8]) -> Vec<(String, Reported)> {
    if kind != RecordKind::Twin {
        return Vec::new();
    }
    record::decode(payload).unwrap_or_default()
}

fn twin_record(device: &str, said: &Reported) -> Append {
    Append {
        kind: RecordKind::Twin,
        hlc: Hlc::default(),
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: record::encode(&[(device, said)]).into(),
    }
}

impl State {
    pub(super) fn report(&mut self, body: &Json, reply: Reply) {
        let wall_ms = self.env.wall().as_millis();
        let refused = |refused: Refused| AskError::Invalid(refused.to_string());
        let device = text_of(body, "device").and_then(checked).map(str::to_owned);
        let reported = device.and_then(|device| {
            let written = self.twins.report(self.me, wall_ms, &device, &body["patch"]).map_err(refused)?;
            Ok((device, written))
        });
        match reported {
            Err(error) => drop(reply.send(Err(error))),
            Ok((_, None)) => drop(reply.send(Ok(json!({})))),
            Ok((device, Some(Written { change, whole }))) => {
                let row: Bytes = record::encode(&whole).into();
                let said = if row.len() <= WHOLE_BYTES_MAX { &whole } else { &change };
                let records = vec![twin_record(&device, said)];
                let put = Put { table: Table::Twins, key: device.as_bytes().to_vec(), value: Some(row) };
                let _ = self.reports.send(Job {
                    records,
                    puts: vec![put],
                    then: Some(Then::Report { device, change, reply }),
                });
            }
        }
    }

    pub(super) fn reported(&mut self, device: &str, change: &Reported, stored: bool, reply: Reply) {
        self.twins.saved(device, change, stored);
        let at = change.latest().map(|stamp| stamp.hlc.wall_ms());
        let answer = json!({ "device_id": device, "reported_at": at });
        let _ = reply.send(if stored { Ok(answer) } else { Err(AskError::Unavailable) });
    }

    pub(super) fn learn_twins(&mut self, run: &Run) {
        for record in &run.records {
            self.merge_twins(twins_in(record.kind, &record.payload));
        }
    }

    pub(super) fn twins_of(&mut self, life: Life, reader: &Reader) {
        let mut found = Vec::new();
        let read = reader.scan(millpond_core::record::Class::State, Seq(1), |row| {
            found.extend(twins_in(row.kind, row.payload));
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::warn!(origin = %life.origin, %error, "what devices reported elsewhere could not be read");
        }
        self.merge_twins(found);
    }

    fn merge_twins(&mut self, found: Vec<(String, Reported)>) {
        for (device, said) in found {
            // The stamp of a report is its writer's; nobody deleted a device before it was registered anew.
            if !self.shelf.documents.is_deleted(&device) {
                self.twins.merge(&device, &said);
            }
        }
    }

    pub(super) fn forget_twin(&mut self, device: &str) {
        if self.twins.by_device.remove(device).is_some() {
            self.twins.unwritten.remove(device);
            let _ = self.files.send(Job::put(self.twins.row(device)));
        }
    }

    pub(super) fn tick_twins(&mut self) {
        let rows: Vec<String> = (0..AT_ONCE).map_while(|_| self.twins.unwritten.pop_first()).collect();
        if !rows.is_empty() {
            let puts = rows.iter().map(|device| self.twins.row(device)).collect();
            let _ = self.reports.send(Job { puts, ..Job::default() });
        }
        let due: Vec<String> = (0..AT_ONCE).map_while(|_| self.twins.due.pop_first()).collect();
        due.into_iter().for_each(|device| self.tell_delta(device));
    }

    /// Retains what a device has to do, where it will look for it; a word that is not on disk yet waits for the next time.
    fn tell_delta(&mut self, device: String) {
        let settled = |kind| self.shelf.documents.is_settled(kind, &device);
        if !settled(Kind::Desired) || !settled(Kind::Registry) {
            self.twins.due.insert(device);
            return;
        }
        let topic = format!("devices/{device}/twin/delta");
        let here = self.homes.of(&device) == Some(self.me) || self.twins.listening.contains_key(&device);
        if !here || self.shelf.documents.is_deleted(&device) {
            if self.twins.told.remove(&device).is_some() {
                self.node.broker.publish(&topic, Bytes::new(), 1, true);
            }
            return;
        }
        let todo = delta(&self.shelf.documents.desired(&device), &self.twins.said(&device));
        let before = self.twins.told.get(&device);
        let nothing = before.is_none() && todo.as_object().is_some_and(serde_json::Map::is_empty);
        if !nothing && before != Some(&todo) {
            self.node.broker.publish(&topic, todo.to_string().into(), 1, true);
            self.twins.told.insert(device, todo);
        }
    }

    pub(super) fn twin_json(&self, body: &Json) -> Result<Json, AskError> {
        let device = text_of(body, "device")?;
        let documents = &self.shelf.documents;
        if documents.is_deleted(device) {
            return Err(AskError::NotFound(format!("{device} was deleted")));
        }
        let (desired, reported) = (documents.desired(device), self.twins.said(device));
        let home = self.homes.of(device);
        let latest = self.twins.latest(device);
        if home.is_none() && latest.is_none() && desired == json!({}) && documents.is_unknown(device) {
            return Err(AskError::NotFound(format!("no device is named `{device}`")));
        }
        let conflicts = self.conflicts();
        let conflicts = conflicts.iter().filter(|conflict| conflict.kind == Kind::Desired && conflict.name == device);
        let conflicts: Vec<Json> = conflicts.map(|conflict| self.conflict_json(conflict)).collect();
        Ok(json!({
            "device_id": device,
            "home": home.map(|home| self.name_of(home)),
            "desired": desired,
            "reported": reported,
            "delta": delta(&desired, &reported),
            "reported_at": latest.map(|stamp| stamp.hlc.wall_ms()),
            "conflicts": conflicts,
        }))
    }

    pub(super) fn set_desired(&mut self, body: &Json, reply: Reply) {
        let device = match text_of(body, "device").and_then(checked) {
            Ok(device) => device,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let edit = self.shelf.documents.set_desired(now, wall_ms, device, &body["patch"]);
        let answer = |state: &State| state.twin_json(body).unwrap_or_default();
        self.edited(edit, (Kind::Desired, device), answer, reply);
    }

    pub(super) fn register(&mut self, body: &Json, reply: Reply) {
        let device = match text_of(body, "device").and_then(checked) {
            Ok(device) => device,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let edit = self.shelf.documents.set_device(now, wall_ms, device, &body["fields"]);
        self.edited(edit, (Kind::Registry, device), |state| state.device_fields(device), reply);
    }

    pub(super) fn delete_device(&mut self, body: &Json, reply: Reply) {
        let device = match text_of(body, "device") {
            Ok(device) => device,
            Err(error) => return drop(reply.send(Err(error))),
        };
        self.newcomers.remove(device);
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        // Whoever is known only by its events can be deleted too.
        if self.shelf.documents.is_unknown(device) && self.homes.of(device).is_some() {
            let _ = self.shelf.documents.set_device(now, wall_ms, device, &json!({}));
        }
        let edit = self.shelf.documents.delete_device(now, wall_ms, device);
        if let Err(refused) = &edit {
            return drop(reply.send(Err(told(refused))));
        }
        self.edited(edit, (Kind::Registry, device), |_| json!({ "device_id": device, "deleted": true }), reply);
    }
}

pub(super) fn checked(device: &str) -> Result<&str, AskError> {
    let bad = device.is_empty()
        || device.len() > DEVICE_NAME_BYTES_MAX
        || device.contains(|c: char| c.is_control() || matches!(c, '+' | '#' | '/'));
    if bad {
        return Err(AskError::Invalid(format!("{device:?} is not the name of a device that could be told something")));
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Origin = Origin([1; 16]);

    fn written(twins: &mut Twins, wall_ms: i64, patch: Json) -> Written {
        twins.report(ME, wall_ms, "press", &patch).expect("fine").expect("it says something")
    }

    #[test]
    fn a_report_is_seen_when_it_is_on_disk() {
        let mut twins = Twins::default();
        let first = written(&mut twins, 1, json!({"a": 1}));
        let second = written(&mut twins, 1, json!({"b": 2}));
        assert_eq!(second.whole.value(), json!({"a": 1, "b": 2}), "the second row holds the first report");
        assert_eq!(twins.said("press"), json!({}));
        twins.saved("press", &first.change, true);
        assert_eq!(twins.said("press"), json!({"a": 1}));
        twins.saved("press", &second.change, true);
        assert_eq!(twins.said("press"), json!({"a": 1, "b": 2}));
        assert!(twins.due.contains("press"));
    }

    #[test]
    fn a_report_that_was_not_written_is_not_built_upon() {
        let mut twins = Twins::default();
        let lost = written(&mut twins, 1, json!({"a": 1}));
        twins.saved("press", &lost.change, false);
        assert_eq!(written(&mut twins, 2, json!({"b": 2})).whole.value(), json!({"b": 2}));
        assert_eq!(twins.said("press"), json!({}));
    }

    #[test]
    fn what_others_were_told_counts_by_its_stamp() {
        let mut other = Twins::default();
        let theirs =
            other.report(Origin([2; 16]), 50, "press", &json!({"a": 2})).expect("fine").expect("says something");
        let mut twins = Twins::default();
        let ours = written(&mut twins, 10, json!({"a": 1, "b": 1}));
        twins.saved("press", &ours.change, true);
        twins.merge("press", &theirs.change);
        assert_eq!(twins.said("press"), json!({"a": 2, "b": 1}));
        // A wall clock that is behind does not make a later report an earlier one.
        let later = written(&mut twins, 11, json!({"a": 3}));
        twins.saved("press", &later.change, true);
        assert_eq!(twins.said("press"), json!({"a": 3, "b": 1}));
    }

    #[test]
    fn records_of_twins_are_read_back_and_others_are_none() {
        let mut twins = Twins::default();
        let report = written(&mut twins, 1, json!({"a": {"b": [1]}}));
        let record = twin_record("press", &report.change);
        assert_eq!(twins_in(record.kind, &record.payload), [("press".to_owned(), report.change)]);
        assert!(twins_in(RecordKind::Homes, &record.payload).is_empty());
        assert!(twins_in(RecordKind::Twin, b"\xff\x00nonsense").is_empty());
    }
}
