//! One column of a row group, read from the bytes that were fetched for it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use millpond_core::value::{Value, ValueType};
use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::{ByteArray, DataType},
    errors::{ParquetError, Result as Parquet},
    file::reader::SerializedPageReader,
};

use crate::{
    error::{LakeError, Result},
    footer::{Footer, Pieces},
};

/// Values that are there, in the order of their rows.
#[derive(Debug)]
pub enum Cells {
    Bool(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

pub struct ChunkReader {
    path: String,
    reader: ColumnReader,
    optional: bool,
    levels: Vec<i16>,
    cells: Cells,
}

impl ChunkReader {
    /// `pieces` must hold the column's dictionary and the pages of all rows that will be read.
    pub fn open(footer: &Footer, group: usize, column: usize, pieces: Vec<(u64, Bytes)>) -> Result<ChunkReader> {
        let chunk = footer.chunk(group, column);
        let pages = footer.pages(group, column).to_vec();
        let pieces = Arc::new(Pieces { bytes: footer.bytes, pieces });
        let pages = SerializedPageReader::new(pieces, chunk, footer.rows(group), Some(pages))
            .map_err(LakeError::parquet(&footer.path))?;
        let reader = get_column_reader(chunk.column_descr_ptr(), Box::new(pages));
        let cells = match &reader {
            ColumnReader::BoolColumnReader(_) => Cells::Bool(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Cells::I32(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Cells::I64(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Cells::F64(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Cells::Bytes(Vec::new()),
            _ => return Err(LakeError::damaged(&footer.path, "it has a column of a type that is not written")),
        };
        let optional = chunk.column_descr().max_def_level() > 0;
        Ok(ChunkReader { path: footer.path.clone(), reader, optional, levels: Vec::new(), cells })
    }

    pub fn skip(&mut self, rows: usize) -> Result<()> {
        fn skip<T: DataType>(reader: &mut ColumnReaderImpl<T>, rows: usize) -> Parquet<usize> {
            reader.skip_records(rows)
        }
        let skipped = match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => skip(reader, rows),
            ColumnReader::Int32ColumnReader(reader) => skip(reader, rows),
            ColumnReader::Int64ColumnReader(reader) => skip(reader, rows),
            ColumnReader::DoubleColumnReader(reader) => skip(reader, rows),
            ColumnReader::ByteArrayColumnReader(reader) => skip(reader, rows),
            _ => Err(ParquetError::General("not a column of ours".to_owned())),
        };
        match skipped.map_err(LakeError::parquet(&self.path))? {
            all if all == rows => Ok(()),
            _ => Err(LakeError::damaged(&self.path, "it has fewer rows than it says")),
        }
    }

    /// The next rows: their values, and for each row 1 or 0, whether it has one; no numbers when all have.
    pub fn read(&mut self, rows: usize) -> Result<(&Cells, Option<&[i16]>)> {
        fn read<T: DataType>(
            reader: &mut ColumnReaderImpl<T>,
            rows: usize,
            levels: Option<&mut Vec<i16>>,
            values: &mut Vec<T::T>,
        ) -> Parquet<usize> {
            values.clear();
            values.reserve(rows);
            Ok(reader.read_records(rows, levels, None, values)?.0)
        }
        self.levels.clear();
        let levels = self.optional.then_some(&mut self.levels);
        let got = match (&mut self.reader, &mut self.cells) {
            (ColumnReader::BoolColumnReader(reader), Cells::Bool(values)) => read(reader, rows, levels, values),
            (ColumnReader::Int32ColumnReader(reader), Cells::I32(values)) => read(reader, rows, levels, values),
            (ColumnReader::Int64ColumnReader(reader), Cells::I64(values)) => read(reader, rows, levels, values),
            (ColumnReader::DoubleColumnReader(reader), Cells::F64(values)) => read(reader, rows, levels, values),
            (ColumnReader::ByteArrayColumnReader(reader), Cells::Bytes(values)) => read(reader, rows, levels, values),
            _ => Err(ParquetError::General("not a column of ours".to_owned())),
        };
        match got.map_err(LakeError::parquet(&self.path))? {
            all if all == rows => {}
            _ => return Err(LakeError::damaged(&self.path, "it has fewer rows than it says")),
        }
        let some_missing = self.optional && self.cells.len() < rows;
        Ok((&self.cells, some_missing.then_some(&self.levels[..])))
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Cells {
    pub fn len(&self) -> usize {
        match self {
            Cells::Bool(values) => values.len(),
            Cells::I32(values) => values.len(),
            Cells::I64(values) => values.len(),
            Cells::F64(values) => values.len(),
            Cells::Bytes(values) => values.len(),
        }
    }

    /// The value at a place, as that of a metric of this type; `None` when it is not of that type.
    pub fn value(&self, at: usize, value_type: ValueType) -> Option<Value<'_>> {
        Some(match (self, value_type) {
            (Cells::F64(values), ValueType::F64) => Value::F64(values[at]),
            (Cells::I64(values), ValueType::I64) => Value::I64(values[at]),
            (Cells::Bool(values), ValueType::Bool) => Value::Bool(values[at]),
            (Cells::Bytes(values), ValueType::Text) => Value::Text(std::str::from_utf8(values[at].data()).ok()?),
            (Cells::Bytes(values), ValueType::Bytes) => Value::Bytes(values[at].data()),
            _ => return None,
        })
    }

    pub fn as_i64(&self) -> Option<&[i64]> {
        match self {
            Cells::I64(values) => Some(values),
            _ => None,
        }
    }

    pub fn as_bytes(&self) -> Option<&[ByteArray]> {
        match self {
            Cells::Bytes(values) => Some(values),
            _ => None,
        }
    }
}

/// Joins ranges of pages that are of interest, of a column with `rows` rows, to the rows from the first to the last of them.
pub fn rows_of_pages(starts: &[i64], rows: usize, wanted: impl Fn(usize) -> bool) -> Range<usize> {
    let pages = starts.len();
    let Some(first) = (0..pages).find(|page| wanted(*page)) else { return 0..0 };
    let last = (first..pages).rev().find(|page| wanted(*page)).unwrap_or(first);
    let start = |page: usize| starts.get(page).map_or(rows, |row| (*row).max(0) as usize).min(rows);
    start(first)..start(last + 1)
}
