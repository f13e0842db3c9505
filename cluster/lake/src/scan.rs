//! All rows, for who has to see each of them.

use std::{collections::BTreeSet, sync::Arc};

use millpond_core::{
    time::Timestamp,
    value::{Quality, Value},
};

use crate::{
    cursor::Cursor,
    error::Result,
    lake::Lake,
    manifest::{File, Manifest, MetricOf, Source},
};

/// Which rows to see; what is not said is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
}

/// One event as the lake has it.
pub struct Row<'a> {
    pub tenant: &'a str,
    pub device: &'a str,
    pub time: Timestamp,
    pub seq: Option<u64>,
    pub source: &'a Source,
    pub record: u64,
    pub quality: Quality,
    cursor: &'a Cursor,
}

impl<'a> Row<'a> {
    /// Its metrics, by name; those that it does not have are not there.
    pub fn cells(&self) -> impl Iterator<Item = (&'a MetricOf, Value<'a>)> + use<'a> {
        let cursor = self.cursor;
        let metrics = cursor.columns().metrics.iter().enumerate();
        metrics.filter_map(move |(at, metric)| Some((metric, cursor.cell(at)?)))
    }
}

impl Lake {
    /// Calls `see` with each row, file by file; within a file by device and time.
    ///
    /// # Errors
    /// When a file can not be read; rows of those before it were seen.
    pub async fn scan(
        &self,
        manifest: &Manifest,
        filter: &Filter,
        see: &mut (dyn FnMut(&Row<'_>) + Send),
    ) -> Result<()> {
        let wanted = |file: &&File| {
            let device = filter.device.as_deref();
            filter.tenant.as_deref().is_none_or(|tenant| *tenant == *file.tenant)
                && filter.start.is_none_or(|start| file.max_time >= start)
                && filter.end.is_none_or(|end| file.min_time < end)
                && device.is_none_or(|name| Manifest::may_hold(file, name, manifest.place_of(&file.tenant, name)))
        };
        for file in manifest.files.iter().filter(wanted) {
            let mut cursor = Cursor::open(self, file).await?;
            while let Some(head) = cursor.head() {
                let time = Timestamp(head.time);
                let inside = filter.start.is_none_or(|start| time >= start) && filter.end.is_none_or(|end| time < end);
                if inside && filter.device.as_deref().is_none_or(|device| device == head.device) {
                    see(&Row {
                        tenant: &cursor.file.tenant,
                        device: head.device,
                        time,
                        seq: head.seq,
                        source: head.source,
                        record: head.record,
                        quality: head.quality,
                        cursor: &cursor,
                    });
                }
                cursor.step();
                if cursor.is_dry() {
                    cursor.fill().await?;
                }
            }
        }
        Ok(())
    }

    /// The devices of a tenant, by name. The manifest knows them, unless there are too many: then files are read.
    ///
    /// # Errors
    /// When a file has to be read and can not be.
    pub async fn devices(&self, manifest: &Manifest, tenant: &str) -> Result<BTreeSet<Arc<str>>> {
        let mut devices = BTreeSet::new();
        for file in manifest.files.iter().filter(|file| *file.tenant == *tenant) {
            if let Some(names) = manifest.devices_of(file) {
                devices.extend(names.cloned());
                continue;
            }
            let mut cursor = Cursor::open(self, file).await?;
            while let Some(head) = cursor.head() {
                if !devices.contains(head.device) {
                    devices.insert(head.device.into());
                }
                cursor.step();
                if cursor.is_dry() {
                    cursor.fill().await?;
                }
            }
        }
        Ok(devices)
    }
}
