//! All rows, for who has to see each of them.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use millpond_core::{
    time::Timestamp,
    value::{Quality, Value},
};

use crate::{
    cursor::Cursor,
    error::Result,
    footer::Footer,
    lake::Lake,
    manifest::{File, Manifest, MetricOf, Source},
    series,
};

/// Which rows to see; what is not said is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub tenant: Option<String>,
    pub device: Option<String>,
    /// Files without it are passed over; rows without it are not.
    pub metric: Option<String>,
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

/// Rows for who takes some at a time.
pub struct Scan {
    lake: Lake,
    filter: Filter,
    files: VecDeque<File>,
    cursor: Option<Cursor>,
}

impl Scan {
    /// Calls `see` with some more rows, maybe with none; `false` when there are no more.
    ///
    /// # Errors
    /// When a file can not be read.
    pub async fn some(&mut self, see: &mut (dyn FnMut(&Row<'_>) + Send)) -> Result<bool> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => {
                let Some(file) = self.files.pop_front() else { return Ok(false) };
                let filter = &self.filter;
                self.cursor
                    .insert(Cursor::open_where(&self.lake, &file, |footer, group| filter.wants(footer, group)).await?)
            }
        };
        while let Some(head) = cursor.head() {
            let time = Timestamp(head.time);
            if self.filter.is_inside(time, head.device) {
                see(&Row {
                    tenant: &cursor.file.tenant,
                    device: head.device,
                    time,
                    seq: head.seq,
                    source: head.source,
                    record: head.record,
                    quality: head.quality,
                    cursor,
                });
            }
            cursor.step();
        }
        match cursor.is_dry() {
            true => cursor.fill().await?,
            false => self.cursor = None,
        }
        Ok(true)
    }
}

impl Filter {
    fn is_inside(&self, time: Timestamp, device: &str) -> bool {
        self.start.is_none_or(|start| time >= start)
            && self.end.is_none_or(|end| time < end)
            && self.device.as_deref().is_none_or(|wanted| wanted == device)
    }

    /// Whether a row group may have a row that is asked for.
    fn wants(&self, footer: &Footer, group: usize) -> bool {
        let in_time = series::times_of(footer, group).is_none_or(|(first, last)| {
            self.start.is_none_or(|start| last >= start.0) && self.end.is_none_or(|end| first < end.0)
        });
        in_time && self.device.as_deref().is_none_or(|device| series::holds(footer, group, device).is_some())
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
        let mut rows = self.rows(manifest, filter.clone());
        while rows.some(see).await? {}
        Ok(())
    }

    /// Each row, file by file; within a file by device and time.
    pub fn rows(&self, manifest: &Manifest, filter: Filter) -> Scan {
        let wanted = |file: &&File| {
            let (device, metric) = (filter.device.as_deref(), filter.metric.as_deref());
            let columns = manifest.shapes.get(&file.shape);
            filter.tenant.as_deref().is_none_or(|tenant| *tenant == *file.tenant)
                && filter.start.is_none_or(|start| file.max_time >= start)
                && filter.end.is_none_or(|end| file.min_time < end)
                && device.is_none_or(|name| Manifest::may_hold(file, name, manifest.place_of(&file.tenant, name)))
                && metric.is_none_or(|name| columns.is_none_or(|columns| columns.iter().any(|it| it.name == name)))
        };
        let files = manifest.files.iter().filter(wanted).cloned().collect();
        Scan { lake: self.clone(), filter, files, cursor: None }
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
