//! What stands at the end of a file: where its rows are, and the checksums of all of it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use base64ct::{Base64, Encoding as _};
use bytes::{Buf, Bytes, buf::Reader};
use parquet::{
    errors::{ParquetError, Result as Parquet},
    file::{
        metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length},
    },
};

use crate::{
    error::{LakeError, Result},
    manifest::{File, MetricOf, Unit},
    partial::Sums,
    shape::{Columns, METRICS},
    write::{BLOCK, KEY_BLOCKS, KEY_HOURS, KEY_METRICS, KEY_SUMS},
};

pub struct Footer {
    pub path: String,
    pub meta: ParquetMetaData,
    pub columns: Arc<Columns>,
    pub unit: Unit,
    pub bytes: u64,
    pub sums: Sums,
    /// Where the sums of the hours of each row group stand, of those that have some.
    hours: Vec<Option<(u64, u64)>>,
    /// Checksums of the file's blocks.
    blocks: Vec<u32>,
}

impl Footer {
    /// Reads the tail of a file: the bytes from [`File::tail`] on.
    pub fn read(file: &File, tail: Bytes) -> Result<Footer> {
        let damaged = |why: &str| LakeError::damaged(&file.path, why);
        if tail.len() as u64 != file.bytes.saturating_sub(file.tail) || !file.tail.is_multiple_of(BLOCK as u64) {
            return Err(damaged("it has another length"));
        }
        if crc32fast::hash(&tail) != file.tail_crc {
            return Err(damaged("the checksum of its end does not match"));
        }
        let at_end = Pieces { bytes: file.bytes, pieces: vec![(file.tail, tail.clone())] };
        let meta = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&at_end)
            .map_err(LakeError::parquet(&file.path))?;
        let keys = meta.file_metadata().key_value_metadata();
        let key = |name: &str| {
            keys.and_then(|keys| keys.iter().find(|key| key.key == name)?.value.as_deref())
                .ok_or_else(|| damaged("its footer says nothing of its blocks"))
        };
        let metrics: Vec<MetricOf> =
            serde_json::from_str(key(KEY_METRICS)?).map_err(|error| LakeError::damaged(&file.path, error))?;
        let base64 = |text: &str| Base64::decode_vec(text).map_err(|_| damaged("its footer is malformed"));
        let sums = Sums::decode(&base64(key(KEY_SUMS)?)?).unwrap_or_default();
        // Files of earlier versions have none.
        let hours = key(KEY_HOURS).ok().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let blocks = base64(key(KEY_BLOCKS)?)?;
        let (words, rest) = blocks.as_chunks::<4>();
        let mut blocks: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if !rest.is_empty() || blocks.len() as u64 * BLOCK as u64 != file.tail {
            return Err(damaged("its blocks are not all there"));
        }
        blocks.extend(tail.chunks(BLOCK).map(crc32fast::hash));
        let columns = Arc::new(Columns::new(metrics));
        if meta.file_metadata().schema_descr().num_columns() != METRICS + columns.metrics.len() {
            return Err(damaged("it has other columns"));
        }
        Ok(Footer { path: file.path.clone(), meta, columns, unit: file.unit, bytes: file.bytes, sums, hours, blocks })
    }

    /// Where the sums of the hours of a row group stand; `None` when it has none.
    pub fn hours(&self, group: usize) -> Option<Range<u64>> {
        let (at, bytes) = (*self.hours.get(group)?)?;
        let end = at.checked_add(bytes).filter(|end| *end <= self.bytes)?;
        Some(at..end)
    }

    /// Roughly what it takes in memory.
    pub fn weight(&self) -> usize {
        let sums: usize = self.sums.0.iter().flatten().map(|sums| size_of_val(&sums[..])).sum();
        self.meta.memory_size() + self.blocks.len() * 4 + self.hours.len() * 24 + sums + 1024
    }

    pub fn groups(&self) -> usize {
        self.meta.num_row_groups()
    }

    pub fn rows(&self, group: usize) -> usize {
        self.meta.row_group(group).num_rows().max(0) as usize
    }

    pub fn chunk(&self, group: usize, column: usize) -> &ColumnChunkMetaData {
        self.meta.row_group(group).column(column)
    }

    /// The columns of a metric: more than one when it came in different types or units.
    pub fn columns_of(&self, metric: &str) -> Vec<usize> {
        let all = self.columns.metrics.iter().enumerate();
        all.filter(|(_, known)| known.name == metric).map(|(at, _)| METRICS + at).collect()
    }

    /// The bytes of a column of a row group that hold `rows`, as parts of the file: dictionary and pages.
    pub fn parts(&self, group: usize, column: usize, rows: &Range<usize>) -> Vec<Range<u64>> {
        let (start, length) = self.chunk(group, column).byte_range();
        let end = start.saturating_add(length).min(self.bytes);
        let pages = self.pages(group, column);
        let begins = |at: usize| pages.get(at).map_or(end, |page| (page.offset as u64).clamp(start, end));
        let first_row = |at: usize| pages.get(at).map_or(usize::MAX, |page| page.first_row_index.max(0) as usize);
        let from = (0..pages.len()).take_while(|at| first_row(at + 1) <= rows.start).count();
        let to = (0..pages.len()).take_while(|at| first_row(*at) < rows.end).count();
        if from == 0 || begins(0) == start {
            return std::iter::once(start..begins(to).max(start)).collect();
        }
        vec![start..begins(0), begins(from)..begins(to).max(begins(from))]
    }

    pub fn pages(&self, group: usize, column: usize) -> &[parquet::file::page_index::offset_index::PageLocation] {
        let index = self.meta.offset_index().and_then(|index| index.get(group)?.get(column));
        index.map_or(&[], |index| index.page_locations())
    }

    /// The whole blocks around parts of the file.
    pub fn around(&self, part: &Range<u64>) -> Range<u64> {
        let block = BLOCK as u64;
        part.start / block * block..part.end.div_ceil(block).saturating_mul(block).min(self.bytes)
    }

    /// Checks bytes of whole blocks.
    pub fn check(&self, from: u64, bytes: &Bytes, expected: u64) -> Result<()> {
        if bytes.len() as u64 != expected {
            return Err(LakeError::damaged(&self.path, "it is shorter than it was"));
        }
        let first = (from / BLOCK as u64) as usize;
        for (at, block) in bytes.chunks(BLOCK).enumerate() {
            if self.blocks.get(first + at) != Some(&crc32fast::hash(block)) {
                let byte = from + (at * BLOCK) as u64;
                return Err(LakeError::damaged(
                    &self.path,
                    format!("the checksum of its bytes from {byte} on does not match"),
                ));
            }
        }
        Ok(())
    }
}

/// Parts of a file for Parquet's reader.
#[derive(Clone)]
pub struct Pieces {
    pub bytes: u64,
    pub pieces: Vec<(u64, Bytes)>,
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Pieces {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Parquet<Reader<Bytes>> {
        let held = |(from, bytes): &&(u64, Bytes)| (*from..=*from + bytes.len() as u64).contains(&start);
        let (from, bytes) = self.pieces.iter().find(held).ok_or_else(|| beyond(start))?;
        Ok(bytes.slice((start - from) as usize..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Parquet<Bytes> {
        let end = start.checked_add(length as u64).ok_or_else(|| beyond(start))?;
        let held = |(from, bytes): &&(u64, Bytes)| *from <= start && end <= *from + bytes.len() as u64;
        let (from, bytes) = self.pieces.iter().find(held).ok_or_else(|| beyond(start))?;
        let at = (start - from) as usize;
        Ok(bytes.slice(at..at + length))
    }
}

fn beyond(at: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {at} is not among those that were read"))
}

/// Footers that were read lately, up to a weight.
pub struct Footers {
    limit: usize,
    weight: usize,
    turn: u64,
    known: BTreeMap<String, (u64, Arc<Footer>)>,
    /// By the turn in which they were asked for.
    order: BTreeMap<u64, String>,
}

impl Footers {
    pub fn new(limit: usize) -> Footers {
        Footers { limit, weight: 0, turn: 0, known: BTreeMap::new(), order: BTreeMap::new() }
    }

    pub fn find(&mut self, path: &str) -> Option<Arc<Footer>> {
        let (turn, footer) = self.known.get_mut(path)?;
        self.order.remove(turn);
        self.turn += 1;
        *turn = self.turn;
        self.order.insert(self.turn, path.to_owned());
        Some(footer.clone())
    }

    pub fn keep(&mut self, footer: &Arc<Footer>) {
        self.turn += 1;
        if let Some((turn, old)) = self.known.insert(footer.path.clone(), (self.turn, footer.clone())) {
            self.order.remove(&turn);
            self.weight -= old.weight();
        }
        self.order.insert(self.turn, footer.path.clone());
        self.weight += footer.weight();
        while self.weight > self.limit && self.known.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some((_, gone)) = self.known.remove(&oldest) {
                self.weight -= gone.weight();
            }
        }
    }
}
