//! All rows of a file in their order, some at a time.

use std::{collections::VecDeque, sync::Arc};

use millpond_core::{
    ids::{Incarnation, Origin},
    value::{Quality, Value},
};
use parquet::data_type::ByteArray;

use crate::{
    column::{Cells, ChunkReader},
    error::{LakeError, Result},
    footer::Footer,
    lake::Lake,
    manifest::{File, Source},
    rows::{Head, Rows},
    series,
    shape::{self, METRICS},
};

/// Rows that are decoded at a time.
const ROWS: usize = 4 << 10;

pub(crate) struct Cursor {
    lake: Lake,
    pub file: File,
    footer: Arc<Footer>,
    /// Row groups that are still to be read.
    groups: VecDeque<usize>,
    /// Readers of all columns of the row group, and how many of its rows they have still to give.
    chunks: Vec<ChunkReader>,
    left: usize,
    rows: Rows,
    at: usize,
}

impl Cursor {
    /// Stands at the first row.
    pub async fn open(lake: &Lake, file: &File) -> Result<Cursor> {
        Cursor::open_where(lake, file, |_, _| true).await
    }

    /// Passes over row groups that nobody wants.
    pub async fn open_where(
        lake: &Lake,
        file: &File,
        wanted: impl Fn(&Footer, usize) -> bool + Send,
    ) -> Result<Cursor> {
        let footer = lake.footer(file).await?;
        let rows = Rows::of(&footer.columns);
        let groups = (0..footer.groups()).filter(|group| wanted(&footer, *group)).collect();
        let mut cursor =
            Cursor { lake: lake.clone(), file: file.clone(), footer, groups, chunks: Vec::new(), left: 0, rows, at: 0 };
        cursor.fill().await?;
        Ok(cursor)
    }

    pub fn columns(&self) -> &Arc<shape::Columns> {
        &self.footer.columns
    }

    /// The row that is next; `None` at the end.
    pub fn head(&self) -> Option<Head<'_>> {
        (self.at < self.rows.len()).then(|| self.rows.head(self.at))
    }

    pub fn cell(&self, column: usize) -> Option<Value<'_>> {
        self.rows.metrics[column].value(self.at)
    }

    /// Whether the next row is not there yet, but more can be read.
    pub fn is_dry(&self) -> bool {
        self.at >= self.rows.len() && (self.left > 0 || !self.groups.is_empty())
    }

    /// Goes on to the next row; when the cursor is dry after that [`Cursor::fill`] has to be called.
    pub fn step(&mut self) {
        self.at += 1;
    }

    /// What a cursor on a file takes in memory at most, about.
    pub async fn weight(lake: &Lake, file: &File) -> Result<usize> {
        let footer = lake.footer(file).await?;
        let packed =
            footer.meta.row_groups().iter().map(|group| group.compressed_size().max(0) as usize).max().unwrap_or(0);
        // Pages and dictionaries of all columns, unpacked, and the rows.
        Ok(packed + footer.columns.metrics.len() * (256 << 10) + ROWS * (64 + 24 * footer.columns.metrics.len()))
    }

    pub async fn fill(&mut self) -> Result<()> {
        if self.at < self.rows.len() {
            return Ok(());
        }
        self.rows.clear();
        self.at = 0;
        while self.left == 0 {
            let Some(group) = self.groups.pop_front() else { return Ok(()) };
            let all = self.footer.rows(group);
            let columns: Vec<usize> = (0..METRICS + self.footer.columns.metrics.len()).collect();
            self.chunks = Vec::new();
            self.chunks = self.lake.chunks(&self.file, &self.footer, group, &columns, &(0..all)).await?;
            self.left = all;
        }
        let rows = self.left.min(ROWS);
        self.decode(rows)?;
        self.left -= rows;
        Ok(())
    }

    fn decode(&mut self, rows: usize) -> Result<()> {
        let (footer, into) = (self.footer.clone(), &mut self.rows);
        let wrong = || LakeError::damaged(&footer.path, "a column is of another type");
        let (fixed, metrics) = self.chunks.split_at_mut(METRICS);
        let mut devices: Option<ByteArray> = None;
        for name in text_of(&mut fixed[shape::DEVICE], rows).ok_or_else(wrong)?? {
            let same = devices.as_ref() == Some(&name);
            let place = match into.device.last() {
                Some(place) if same => *place,
                _ => {
                    let text = std::str::from_utf8(name.data()).map_err(|_| wrong())?;
                    into.place_of_device(name.data(), || text.into())
                }
            };
            into.device.push(place);
            devices = Some(name);
        }
        into.time = series::read_times(&footer, &mut fixed[shape::TIME], rows)?;
        into.seq = series::read_seqs(&mut fixed[shape::SEQ], rows)?;
        let sites = text_of(&mut fixed[shape::SITE], rows).ok_or_else(wrong)??;
        let origins = text_of(&mut fixed[shape::ORIGIN], rows).ok_or_else(wrong)??;
        let incarnations = match fixed[shape::INCARNATION].read(rows)?.0 {
            Cells::I32(values) => values.clone(),
            _ => return Err(wrong()),
        };
        for row in 0..rows {
            let same = row > 0
                && sites[row] == sites[row - 1]
                && origins[row] == origins[row - 1]
                && incarnations[row] == incarnations[row - 1];
            let place = match into.source.last() {
                Some(place) if same => *place,
                _ => {
                    let text =
                        |bytes: &ByteArray| std::str::from_utf8(bytes.data()).map(str::to_owned).map_err(|_| wrong());
                    let origin = Origin::from_hex(&text(&origins[row])?).ok_or_else(wrong)?;
                    let incarnation = Incarnation(incarnations[row] as u32);
                    into.place_of_source(&Source { site: text(&sites[row])?.into(), origin, incarnation })
                }
            };
            into.source.push(place);
        }
        let records = fixed[shape::RECORD].read(rows)?.0;
        into.record = records.as_i64().ok_or_else(wrong)?.iter().map(|record| *record as u64).collect();
        let (qualities, levels) = fixed[shape::QUALITY].read(rows)?;
        let mut said = qualities.as_bytes().ok_or_else(wrong)?.iter();
        for row in 0..rows {
            let there = levels.map_or(qualities.len() > 0, |levels| levels[row] > 0);
            let quality = match there.then(|| said.next()).flatten() {
                Some(text) => shape::quality_of(text.data()).ok_or_else(wrong)?,
                None => Quality::Good,
            };
            into.quality.push(quality);
        }
        for (column, chunk) in metrics.iter_mut().enumerate() {
            let value_type = footer.columns.metrics[column].value_type;
            let (cells, levels) = chunk.read(rows)?;
            let mut next = 0;
            for row in 0..rows {
                let there = levels.map_or(cells.len() > 0, |levels| levels[row] > 0);
                let value = if there { Some(cells.value(next, value_type).ok_or_else(wrong)?) } else { None };
                next += usize::from(there);
                into.cell(column, value);
            }
        }
        Ok(())
    }
}

fn text_of(chunk: &mut ChunkReader, rows: usize) -> Option<Result<Vec<ByteArray>>> {
    match chunk.read(rows) {
        Ok((cells, _)) => cells.as_bytes().map(|texts| Ok(texts.to_vec())),
        Err(error) => Some(Err(error)),
    }
}
