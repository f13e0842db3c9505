//! Sorted rows in, the bytes of a Parquet file out, row group by row group.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use millpond_core::{
    batch::{Arena, Column, ColumnValues},
    value::Value,
};
use parquet::{
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::{ParquetError, Result},
    file::{metadata::KeyValue, writer::SerializedFileWriter},
};

use crate::{
    hours::{self, hours_of, sums_of},
    manifest::{NewFile, Source, Tier, Unit},
    partial::Sums,
    rows::{Head, Rows},
    shape::{self, Columns, METRICS},
};

/// Keys of the footer. The first is for people and other programs, the others for readers of this crate.
pub const KEY_METRICS: &str = "millpond.metrics";
pub const KEY_BLOCKS: &str = "millpond.blocks";
pub const KEY_SUMS: &str = "millpond.sums";
pub const KEY_HOURS: &str = "millpond.hours";

/// How files are cut. A row group ends at the first device after `rows`, and anyhow at `rows_max`, or at so many bytes of text.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub rows: usize,
    pub rows_max: usize,
    pub heap_max: usize,
    pub page_rows: usize,
    /// Bytes of a part of an upload: S3 takes no smaller ones than 5 MiB, and some stores want all of one size.
    pub part: usize,
}

impl Default for Cut {
    fn default() -> Cut {
        Cut { rows: 64 << 10, rows_max: 256 << 10, heap_max: 16 << 20, page_rows: 16 << 10, part: 8 << 20 }
    }
}

/// Files are checked in blocks of so many bytes.
pub const BLOCK: usize = 64 << 10;

pub struct FileWriter {
    columns: Arc<Columns>,
    unit: Unit,
    cut: Cut,
    zstd: i32,
    /// Opened with the first row group, whose rows say which encodings pay.
    parquet: Option<SerializedFileWriter<Sink>>,
    sink: Sink,
    rows: Rows,
    sums: Sums,
    /// Where the sums of the hours of each row group stand: from, and how many bytes.
    hours: Vec<Option<(u64, u64)>>,
    seen: Seen,
    values: Scratch,
}

#[derive(Default)]
struct Seen {
    rows: u64,
    times: Option<(i64, i64)>,
    devices: BTreeSet<Arc<str>>,
    spans: BTreeMap<Source, (u64, u64)>,
}

/// What is known of a file that was written.
pub struct Finished {
    pub columns: Arc<Columns>,
    unit: Unit,
    seen: Seen,
    bytes: u64,
    tail: u64,
    tail_crc: u32,
}

impl FileWriter {
    pub fn new(columns: Arc<Columns>, unit: Unit, zstd: i32, cut: Cut) -> Result<FileWriter> {
        Ok(FileWriter {
            rows: Rows::of(&columns),
            columns,
            unit,
            cut,
            zstd,
            parquet: None,
            sink: Sink::default(),
            sums: Sums::default(),
            hours: Vec::new(),
            seen: Seen::default(),
            values: Scratch::default(),
        })
    }

    /// Appends a row; rows must come in the order of their heads. `cell` gives its value for each column of metrics.
    pub fn push<'v>(&mut self, head: &Head<'_>, cell: impl Fn(usize) -> Option<Value<'v>>) -> Result<()> {
        let rows = self.rows.len();
        let other_device = rows > 0 && **self.rows.device_name(rows - 1) != *head.device;
        let full = rows >= self.cut.rows_max || self.rows.heap >= self.cut.heap_max;
        if full || (other_device && rows >= self.cut.rows) {
            self.end_group()?;
        }
        self.rows.push(head);
        for column in 0..self.columns.metrics.len() {
            self.rows.cell(column, cell(column));
        }
        Ok(())
    }

    /// The bytes that are ready.
    pub fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.sink.lock().ready).into()
    }

    /// Bytes of the row groups that are complete.
    pub fn bytes_written(&self) -> u64 {
        self.sink.lock().total
    }

    /// The rest of the file's bytes are there to take after this.
    pub fn finish(mut self) -> Result<(Finished, Bytes)> {
        self.end_group()?;
        let mut parquet = self.open()?;
        let (tail, blocks) = self.sink.seal();
        let base64 = |bytes: &[u8]| Base64::encode_string(bytes);
        let blocks: Vec<u8> = blocks.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        for (key, value) in [
            (KEY_METRICS, json(serde_json::to_string(&self.columns.metrics))),
            (KEY_BLOCKS, base64(&blocks)),
            (KEY_SUMS, base64(&self.sums.encode())),
            (KEY_HOURS, json(serde_json::to_string(&self.hours))),
        ] {
            parquet.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        parquet.finish()?;
        let rest = self.take_bytes();
        let state = self.sink.lock();
        let (bytes, tail_crc) = (state.total, state.block.clone().finalize());
        drop(state);
        Ok((Finished { columns: self.columns, unit: self.unit, seen: self.seen, bytes, tail, tail_crc }, rest))
    }

    fn end_group(&mut self) -> Result<()> {
        if self.rows.len() == 0 {
            return Ok(());
        }
        let mut parquet = self.open()?;
        let rows = &self.rows;
        self.seen.note(rows);
        self.sums.0.push(sums_of(rows));
        let mut group = parquet.next_row_group()?;
        let mut column = 0;
        while let Some(mut writer) = group.next_column()? {
            match column {
                0..METRICS => self.values.write_fixed(column, rows, self.unit, writer.untyped())?,
                _ => self.values.write_metric(&rows.metrics[column - METRICS], writer.untyped())?,
            }
            writer.close()?;
            column += 1;
        }
        group.close()?;
        self.hours.push(match hours_of(rows) {
            Some(hours) => {
                let (at, bytes) = (parquet.bytes_written() as u64, hours::encode(&hours)?);
                parquet.write_all(&bytes)?;
                Some((at, bytes.len() as u64))
            }
            None => None,
        });
        self.parquet = Some(parquet);
        self.rows.clear();
        Ok(())
    }

    fn open(&mut self) -> Result<SerializedFileWriter<Sink>> {
        if let Some(open) = self.parquet.take() {
            return Ok(open);
        }
        let repeats: Vec<bool> = self.rows.metrics.iter().map(repeats).collect();
        let properties = self.columns.properties(self.zstd, self.cut.page_rows, &repeats)?;
        SerializedFileWriter::new(self.sink.clone(), self.columns.schema(self.unit)?, properties)
    }
}

impl Seen {
    fn note(&mut self, rows: &Rows) {
        self.rows += rows.len() as u64;
        for row in 0..rows.len() {
            let time = rows.time[row];
            self.times = Some(self.times.map_or((time, time), |(min, max)| (min.min(time), max.max(time))));
            if row == 0 || rows.device[row] != rows.device[row - 1] {
                self.devices.insert(rows.device_name(row).clone());
            }
        }
        let mut spans: Vec<Option<(u64, u64)>> = vec![None; rows.sources().len()];
        for (source, record) in rows.source.iter().zip(&rows.record) {
            let span = spans[*source as usize].get_or_insert((*record, *record));
            *span = (span.0.min(*record), span.1.max(*record));
        }
        for (source, span) in rows.sources().iter().zip(spans) {
            if let Some((first, last)) = span {
                let known = self.spans.entry(source.clone()).or_insert((first, last));
                *known = (known.0.min(first), known.1.max(last));
            }
        }
    }
}

impl Finished {
    pub fn into_file(self, path: String, tier: Tier, tenant: Arc<str>, day: i32) -> NewFile {
        let (min_time, max_time) = self.seen.times.unwrap_or_default();
        NewFile {
            path,
            tier,
            tenant,
            day,
            shape: self.columns.id.clone(),
            metrics: self.columns.metrics.clone(),
            unit: self.unit,
            rows: self.seen.rows,
            bytes: self.bytes,
            tail: self.tail,
            tail_crc: self.tail_crc,
            min_time,
            max_time,
            devices: self.seen.devices,
            spans: self.seen.spans,
        }
    }
}

/// Values that are looked at to choose an encoding.
const SAMPLE: usize = 64 << 10;

/// Whether a dictionary of the numbers and places in it take less than the numbers by themselves, which compress to some five bytes when
/// they have many digits.
fn repeats(column: &Column) -> bool {
    let ColumnValues::F64(values) = &column.values else { return true };
    let mut bits: Vec<u64> = values.iter().take(SAMPLE).map(|value| value.to_bits()).collect();
    let all = bits.len();
    bits.sort_unstable();
    bits.dedup();
    let place_bits = usize::BITS as usize - bits.len().leading_zeros() as usize;
    bits.len() * 8 + all * place_bits / 8 < all * 5
}

/// Memory that is used again for each column.
#[derive(Default)]
struct Scratch {
    levels: Vec<i16>,
    numbers: Vec<i64>,
    doubles: Vec<f64>,
}

impl Scratch {
    fn write_fixed(&mut self, column: usize, rows: &Rows, unit: Unit, writer: &mut ColumnWriter<'_>) -> Result<()> {
        let all = 0..rows.len();
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        self.levels.clear();
        self.numbers.clear();
        match column {
            shape::DEVICE => {
                let mut names: Vec<ByteArray> = Vec::with_capacity(rows.len());
                for row in all {
                    let same = row > 0 && rows.device[row] == rows.device[row - 1];
                    names.push(if same { names[row - 1].clone() } else { text(rows.device_name(row)) });
                }
                write_bytes(writer, &names, None)
            }
            shape::TIME => {
                self.numbers.extend(rows.time.iter().map(|time| time / unit.nanos()));
                write_i64(writer, &self.numbers, None)
            }
            shape::SEQ => {
                self.levels.extend(rows.seq.iter().map(|seq| i16::from(seq.is_some())));
                self.numbers.extend(rows.seq.iter().flatten().map(|seq| *seq as i64));
                write_i64(writer, &self.numbers, Some(&self.levels))
            }
            shape::SITE | shape::ORIGIN => {
                let name = |source: &Source| match column {
                    shape::SITE => text(&source.site),
                    _ => text(&source.origin.to_string()),
                };
                let names: Vec<ByteArray> = rows.sources().iter().map(name).collect();
                let values: Vec<ByteArray> = rows.source.iter().map(|source| names[*source as usize].clone()).collect();
                write_bytes(writer, &values, None)
            }
            shape::INCARNATION => {
                let values: Vec<i32> = all.map(|row| rows.source_of(row).incarnation.0 as i32).collect();
                match writer {
                    ColumnWriter::Int32ColumnWriter(writer) => writer.write_batch(&values, None, None).map(drop),
                    _ => Err(mismatch()),
                }
            }
            shape::RECORD => {
                self.numbers.extend(rows.record.iter().map(|record| *record as i64));
                write_i64(writer, &self.numbers, None)
            }
            _ => {
                let texts = || rows.quality.iter().map(|quality| shape::quality_text(*quality));
                self.levels.extend(texts().map(|text| i16::from(text.is_some())));
                let values: Vec<ByteArray> = texts().flatten().map(text).collect();
                write_bytes(writer, &values, Some(&self.levels))
            }
        }
    }

    fn write_metric(&mut self, column: &Column, writer: &mut ColumnWriter<'_>) -> Result<()> {
        let rows = column.values.len();
        self.levels.clear();
        match &column.present {
            None => self.levels.resize(rows, 1),
            Some(present) => self.levels.extend(present.iter().map(|present| i16::from(*present))),
        }
        let levels = Some(&self.levels[..]);
        let present = |row: &usize| column.is_present(*row);
        match &column.values {
            ColumnValues::F64(values) => {
                self.doubles.clear();
                match &column.present {
                    None => self.doubles.extend_from_slice(values),
                    Some(_) => self.doubles.extend((0..rows).filter(present).map(|row| values[row])),
                }
                match writer {
                    ColumnWriter::DoubleColumnWriter(writer) => {
                        writer.write_batch(&self.doubles, levels, None).map(drop)
                    }
                    _ => Err(mismatch()),
                }
            }
            ColumnValues::I64(values) => {
                self.numbers.clear();
                self.numbers.extend((0..rows).filter(present).map(|row| values[row]));
                write_i64(writer, &self.numbers, levels)
            }
            ColumnValues::Bool(values) => {
                let values: Vec<bool> = (0..rows).filter(present).map(|row| values[row]).collect();
                match writer {
                    ColumnWriter::BoolColumnWriter(writer) => writer.write_batch(&values, levels, None).map(drop),
                    _ => Err(mismatch()),
                }
            }
            ColumnValues::Text(values) | ColumnValues::Bytes(values) => {
                write_bytes(writer, &shared(values, (0..rows).filter(present)), levels)
            }
        }
    }
}

/// Values that point into one copy of the arena.
fn shared(arena: &Arena, rows: impl Iterator<Item = usize>) -> Vec<ByteArray> {
    let bytes = Bytes::copy_from_slice(&arena.bytes);
    let start = |row: usize| if row == 0 { 0 } else { arena.ends[row - 1] as usize };
    rows.map(|row| ByteArray::from(bytes.slice(start(row)..arena.ends[row] as usize))).collect()
}

fn write_i64(writer: &mut ColumnWriter<'_>, values: &[i64], levels: Option<&[i16]>) -> Result<()> {
    match writer {
        ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(values, levels, None).map(drop),
        _ => Err(mismatch()),
    }
}

fn write_bytes(writer: &mut ColumnWriter<'_>, values: &[ByteArray], levels: Option<&[i16]>) -> Result<()> {
    match writer {
        ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(values, levels, None).map(drop),
        _ => Err(mismatch()),
    }
}

fn mismatch() -> ParquetError {
    ParquetError::General("a column of another type".to_owned())
}

/// Where Parquet's writer writes to: bytes that wait to be taken, and checksums of all of them.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Stream>>);

#[derive(Default)]
struct Stream {
    ready: Vec<u8>,
    total: u64,
    blocks: Vec<u32>,
    /// Of the bytes of the open block.
    block: crc32fast::Hasher,
    /// From here on all is one block: the tail.
    sealed: bool,
}

impl Sink {
    fn lock(&self) -> std::sync::MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the tail begins, and the checksums of the blocks before it.
    fn seal(&self) -> (u64, Vec<u32>) {
        let mut stream = self.lock();
        stream.sealed = true;
        ((stream.blocks.len() * BLOCK) as u64, stream.blocks.clone())
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.lock();
        stream.ready.extend_from_slice(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = if stream.sealed { rest.len() } else { BLOCK - (stream.total as usize % BLOCK) };
            let (now, later) = rest.split_at(room.min(rest.len()));
            stream.block.update(now);
            stream.total += now.len() as u64;
            if !stream.sealed && stream.total.is_multiple_of(BLOCK as u64) {
                let block = std::mem::take(&mut stream.block);
                stream.blocks.push(block.finalize());
            }
            rest = later;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
