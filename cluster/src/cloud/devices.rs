//! Which devices the sites have: those that nodes said to be at home with them, and those of which events are archived.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use millpond_actors::query;
use millpond_core::{
    ids::Seq,
    record::{self, Class, Home, RecordKind},
};
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{replication::Life, wire::Record};
use millpond_store::ReadError;
use serde_json::json;

use super::{Cloud, Consumer};
use crate::sites::Shelf;

/// By site.
#[derive(Default)]
pub(super) struct Devices(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl Devices {
    /// With what sites said before. Blocks.
    pub fn open(shelf: &Shelf) -> Result<Devices, ReadError> {
        let devices = Devices::default();
        for (site, lives) in shelf.all() {
            for (_, open) in lives {
                open.reader.scan(Class::State, Seq(0), |row| {
                    devices.learn(&site, row.kind, row.payload);
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(devices)
    }

    fn learn(&self, site: &str, kind: RecordKind, payload: &[u8]) {
        if kind != RecordKind::Homes {
            return;
        }
        let homes = record::decode::<Vec<Home>>(payload).unwrap_or_default();
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sites.entry(site.to_owned()).or_default();
        known.extend(homes.into_iter().map(|home| home.device));
    }

    /// The sites of each device of some sites.
    fn of(&self, is_asked: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<String>> {
        let sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (site, devices) in sites.iter().filter(|(site, _)| is_asked(site)) {
            for device in devices {
                found.entry(device.clone()).or_default().push(site.clone());
            }
        }
        found
    }
}

#[async_trait]
impl Consumer for Devices {
    async fn apply(&self, site: &str, _: Life, records: &[Record]) {
        records.iter().for_each(|record| self.learn(site, record.kind, &record.payload));
    }
}

impl Cloud {
    /// The devices of the sites of a tenant, or of all, by name: name, tenant, and sites as far as they are known. Those of which everything was
    /// forgotten are not among them.
    ///
    /// # Errors
    /// When a file of the archive has to be read and can not be.
    pub(crate) async fn devices(&self, tenant: Option<&str>) -> Result<Vec<Json>, AskError> {
        let tenants = match tenant {
            Some(tenant) => BTreeSet::from([tenant.to_owned()]),
            None => self.0.shelf.all().into_iter().map(|(site, _)| self.0.settings.site(&site).tenant).collect(),
        };
        let border = self.border()?;
        let mut rows = Vec::new();
        for tenant in tenants {
            let mut devices = self.0.devices.of(|site| self.0.settings.site(site).tenant == tenant);
            if let Some((lake, manifest)) = &border {
                for stone in manifest.forgotten.iter().filter(|stone| *stone.tenant == *tenant) {
                    devices.remove(&*stone.device);
                }
                let archived = lake.devices(manifest, &tenant).await;
                let archived =
                    archived.map_err(|error| AskError::Failed(format!("the archive cannot be read: {error}")))?;
                for device in archived {
                    devices.entry((*device).to_owned()).or_default();
                }
            }
            let row = |(device, sites)| json!({ "device_id": device, "tenant": tenant, "sites": sites });
            rows.extend(devices.into_iter().map(row));
        }
        rows.sort_by(|a, b| a["device_id"].as_str().cmp(&b["device_id"].as_str()));
        Ok(rows)
    }

    /// Names of the metrics of a tenant's devices: those in the archive, and those in the newest records.
    ///
    /// # Errors
    /// When a copy cannot be read.
    pub(crate) async fn metric_names(&self, tenant: &str) -> Result<BTreeSet<String>, AskError> {
        let border = self.border()?;
        let journals = self.journals(tenant, border.as_ref().map(|(_, manifest)| &**manifest));
        let read = move || {
            let mut names = journals.iter().map(|(_, journal)| query::metric_names(&journal.reader));
            names.try_fold(BTreeSet::new(), |mut all, names| {
                all.extend(names?);
                Ok(all)
            })
        };
        let mut names = self.0.env.unblock(read).await.unwrap_or(Err(AskError::Unavailable))?;
        if let Some((_, manifest)) = &border {
            let files = manifest.files.iter().filter(|file| *file.tenant == *tenant);
            let columns = files.filter_map(|file| manifest.shapes.get(&file.shape)).flatten();
            names.extend(columns.map(|column| column.name.clone()));
        }
        Ok(names)
    }
}
