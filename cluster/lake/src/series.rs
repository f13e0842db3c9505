//! One metric of one device: which parts of which files have it, and their values.

use std::ops::Range;

use millpond_core::time::Timestamp;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::{
    column::{ChunkReader, rows_of_pages},
    error::{LakeError, Result},
    footer::Footer,
    lake::Lake,
    manifest::{File, Manifest},
    shape::{DEVICE, SEQ, TIME},
};

/// What a query asks for: `start` is in, `end` is not. Without a tenant the device is looked for among all of them.
#[derive(Clone, Debug)]
pub struct Series {
    pub tenant: Option<String>,
    pub device: String,
    pub metric: String,
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Series {
    /// The files that may have something of it, day by day.
    pub(crate) fn files<'m>(&self, manifest: &'m Manifest) -> Vec<Vec<&'m File>> {
        let mut days: std::collections::BTreeMap<i32, Vec<&File>> = std::collections::BTreeMap::new();
        let mut place: Option<(&str, Option<u64>)> = None;
        for file in &manifest.files {
            let of_tenant = self.tenant.as_deref().is_none_or(|tenant| *tenant == *file.tenant);
            let in_time = file.min_time < self.end && file.max_time >= self.start;
            let columns = manifest.shapes.get(&file.shape);
            let has_metric = columns.is_none_or(|columns| columns.iter().any(|column| column.name == self.metric));
            if !(of_tenant && in_time && has_metric) {
                continue;
            }
            if place.is_none_or(|(tenant, _)| *tenant != *file.tenant) {
                place = Some((&file.tenant, manifest.place_of(&file.tenant, &self.device)));
            }
            if Manifest::may_hold(file, &self.device, place.and_then(|(_, place)| place)) {
                days.entry(file.day).or_default().push(file);
            }
        }
        days.into_values().collect()
    }
}

/// Consecutive rows of the device in a row group, with their times and one column of values.
pub(crate) struct Found {
    pub times: Vec<i64>,
    pub seqs: Vec<Option<u64>>,
    pub column: usize,
    pub values: ChunkReader,
    /// Rows of which all but those in time are left out.
    pub inside: Range<usize>,
}

impl Lake {
    /// What a file has of the series. `wants_seqs` says whether to read the device's own numbers.
    pub(crate) async fn find(
        &self,
        file: &File,
        footer: &Footer,
        series: &Series,
        wants_seqs: bool,
    ) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (group, whole) in groups_of(footer, series) {
            let rows = self.rows_of_series(file, footer, group, whole, series).await?;
            found.extend(self.values(file, footer, group, rows, series, wants_seqs).await?);
        }
        Ok(found)
    }

    /// The rows of a row group that are the device's and may be in time; `whole` when all are the device's.
    pub(crate) async fn rows_of_series(
        &self,
        file: &File,
        footer: &Footer,
        group: usize,
        whole: bool,
        series: &Series,
    ) -> Result<Range<usize>> {
        match whole {
            true => Ok(self.in_time(footer, group, series)),
            false => self.of_device(file, footer, group, &series.device).await,
        }
    }

    /// Times and values of rows of the device, once for each column of the metric.
    pub(crate) async fn values(
        &self,
        file: &File,
        footer: &Footer,
        group: usize,
        rows: Range<usize>,
        series: &Series,
        wants_seqs: bool,
    ) -> Result<Vec<Found>> {
        let columns = footer.columns_of(&series.metric);
        let mut found = Vec::new();
        if columns.is_empty() || rows.is_empty() {
            return Ok(found);
        }
        let mut wanted = vec![TIME];
        wants_seqs.then(|| wanted.push(SEQ));
        wanted.extend(&columns);
        let mut chunks = self.chunks(file, footer, group, &wanted, &rows).await?.into_iter();
        let mut times = Vec::new();
        let mut seqs = Vec::new();
        if let Some(mut chunk) = chunks.next() {
            times = read_times(footer, &mut chunk, rows.len())?;
        }
        if wants_seqs && let Some(mut chunk) = chunks.next() {
            seqs = read_seqs(&mut chunk, rows.len())?;
        }
        let inside =
            times.partition_point(|time| *time < series.start.0)..times.partition_point(|time| *time < series.end.0);
        for (column, values) in columns.iter().zip(chunks) {
            let (times, seqs) = (times.clone(), seqs.clone());
            found.push(Found { times, seqs, column: *column, values, inside: inside.clone() });
        }
        Ok(found)
    }

    /// Readers of columns, at the first of `rows`.
    pub(crate) async fn chunks(
        &self,
        file: &File,
        footer: &Footer,
        group: usize,
        columns: &[usize],
        rows: &Range<usize>,
    ) -> Result<Vec<ChunkReader>> {
        let parts: Vec<_> = columns.iter().map(|column| footer.parts(group, *column, rows)).collect();
        let flat: Vec<_> = parts.iter().flatten().cloned().collect();
        let mut pieces = self.read(file.tier, footer, &flat).await?.into_iter();
        let mut chunks = Vec::new();
        for (column, parts) in columns.iter().zip(&parts) {
            let pieces = pieces.by_ref().take(parts.len()).collect();
            let mut chunk = ChunkReader::open(footer, group, *column, pieces)?;
            chunk.skip(rows.start)?;
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Rows of a row group of one device whose pages have something in time.
    fn in_time(&self, footer: &Footer, group: usize, series: &Series) -> Range<usize> {
        let rows = footer.rows(group);
        let Some(ColumnIndexMetaData::INT64(index)) = index_of(footer, group, TIME) else { return 0..rows };
        let unit = footer.unit.nanos();
        let nanos = |time: Option<&i64>| time.map(|time| time.saturating_mul(unit));
        let in_time = |page: usize| {
            nanos(index.min_value(page)).is_none_or(|min| min < series.end.0)
                && nanos(index.max_value(page)).is_none_or(|max| max >= series.start.0)
        };
        rows_of_pages(&starts(footer, group, TIME), rows, in_time)
    }

    /// Rows of a device in a row group of several: they stand together.
    async fn of_device(&self, file: &File, footer: &Footer, group: usize, device: &str) -> Result<Range<usize>> {
        let all = footer.rows(group);
        let pages = match index_of(footer, group, DEVICE) {
            Some(ColumnIndexMetaData::BYTE_ARRAY(index)) => {
                rows_of_pages(&starts(footer, group, DEVICE), all, |page| {
                    index.min_value(page).is_none_or(|min| min <= device.as_bytes())
                        && index.max_value(page).is_none_or(|max| max >= device.as_bytes())
                })
            }
            _ => 0..all,
        };
        if pages.is_empty() {
            return Ok(pages);
        }
        let mut chunks = self.chunks(file, footer, group, &[DEVICE], &pages).await?;
        let Some(chunk) = chunks.first_mut() else { return Ok(0..0) };
        let (cells, _) = chunk.read(pages.len())?;
        let names = cells.as_bytes().ok_or_else(|| LakeError::damaged(&footer.path, "devices are no text"))?;
        let before = names.partition_point(|name| name.data() < device.as_bytes());
        let until = names.partition_point(|name| name.data() <= device.as_bytes());
        Ok(pages.start + before..pages.start + until)
    }
}

/// The row groups of a file that may have something of the series, and whether they have no other device.
pub(crate) fn groups_of(footer: &Footer, series: &Series) -> impl Iterator<Item = (usize, bool)> {
    let has_metric = !footer.columns_of(&series.metric).is_empty();
    let groups = if has_metric { footer.groups() } else { 0 };
    (0..groups).filter_map(|group| Some((group, holds(footer, group, &series.device)?)))
}

/// Whether a row group may have the device: `Some(true)` when it has no other.
pub(crate) fn holds(footer: &Footer, group: usize, device: &str) -> Option<bool> {
    let statistics = footer.chunk(group, DEVICE).statistics();
    let (Some(min), Some(max)) = (
        statistics.and_then(|statistics| statistics.min_bytes_opt()),
        statistics.and_then(|statistics| statistics.max_bytes_opt()),
    ) else {
        return Some(false);
    };
    let device = device.as_bytes();
    (min <= device && device <= max).then(|| min == max)
}

/// First and last time of a row group, in nanoseconds.
pub(crate) fn times_of(footer: &Footer, group: usize) -> Option<(i64, i64)> {
    match footer.chunk(group, TIME).statistics()? {
        parquet::file::statistics::Statistics::Int64(times) => {
            let unit = footer.unit.nanos();
            Some((times.min_opt()?.checked_mul(unit)?, times.max_opt()?.checked_mul(unit)?))
        }
        _ => None,
    }
}

fn index_of(footer: &Footer, group: usize, column: usize) -> Option<&ColumnIndexMetaData> {
    footer.meta.column_index()?.get(group)?.get(column)
}

fn starts(footer: &Footer, group: usize, column: usize) -> Vec<i64> {
    footer.pages(group, column).iter().map(|page| page.first_row_index).collect()
}

pub(crate) fn read_times(footer: &Footer, chunk: &mut ChunkReader, rows: usize) -> Result<Vec<i64>> {
    let unit = footer.unit.nanos();
    let (cells, _) = chunk.read(rows)?;
    let times = cells.as_i64().ok_or_else(|| LakeError::damaged(&footer.path, "times are no numbers"))?;
    Ok(times.iter().map(|time| time.wrapping_mul(unit)).collect())
}

pub(crate) fn read_seqs(chunk: &mut ChunkReader, rows: usize) -> Result<Vec<Option<u64>>> {
    let path = chunk.path().to_owned();
    let (cells, levels) = chunk.read(rows)?;
    let numbers = cells.as_i64().ok_or_else(|| LakeError::damaged(&path, "numbers of devices are no numbers"))?;
    let mut numbers = numbers.iter().map(|number| *number as u64);
    Ok(match levels {
        None => numbers.map(Some).collect(),
        Some(levels) => levels.iter().map(|level| (*level > 0).then(|| numbers.next()).flatten()).collect(),
    })
}
