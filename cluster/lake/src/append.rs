//! Records of sites into files, each exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use millpond_core::{
    batch::Batch,
    ids::{Incarnation, Origin, RecordId},
    map::FixedMap,
    ranges::RangeSet,
    time::Timestamp,
};

use crate::{
    error::{LakeError, Result},
    lake::{ATTEMPTS, Known, Lake, hash_of},
    manifest::{Edit, KEPT, Manifest, NewFile, Source, Tier, Unit},
    names,
    rows::Head,
    shape::{Columns, KnownShapes},
    upload,
    write::{Cut, FileWriter, Finished},
};

/// The events of one record.
#[derive(Clone, Debug)]
pub struct Piece {
    pub tenant: Arc<str>,
    pub site: Arc<str>,
    pub record: RecordId,
    pub batch: Batch,
    /// Devices and their own numbers of events that count elsewhere.
    pub left_out: Vec<(Arc<str>, Vec<u64>)>,
}

/// Records of events `first..=last` of a source: those that are among the pieces, and those that there are not, for whatever reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub site: Arc<str>,
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub first: u64,
    pub last: u64,
}

impl Taken {
    fn source(&self) -> Source {
        Source { site: self.site.clone(), origin: self.origin, incarnation: self.incarnation }
    }
}

impl Lake {
    /// Moves the events of `pieces` into the lake and notes `taken` in the ledger, in one commit. What the ledger has already is passed
    /// over, so that a call may be repeated, also by somebody who does not know how far the last one came.
    ///
    /// # Errors
    /// Nothing was taken when a piece stands in no range or twice. After an error of the store it may or may not have been: repeat the call.
    pub async fn append(&self, pieces: &[Piece], taken: &[Taken], now_ms: i64) -> Result<Arc<Manifest>> {
        check(pieces, taken)?;
        let mut written: Option<(Wanted, Vec<NewFile>)> = None;
        for _ in 0..ATTEMPTS {
            let base = self.known();
            let wanted = Wanted::of(&base.manifest, pieces, taken);
            if wanted.take.is_empty() {
                return Ok(base.manifest);
            }
            // Files that were written for an earlier manifest serve as long as they would be the same.
            let files = match written.take() {
                Some((before, files)) if before == wanted => files,
                _ => self.write_pieces(&base, pieces, &wanted).await?,
            };
            let edit = Edit { add: files.clone(), take: wanted.take.clone(), ..Edit::default() };
            if let Some(manifest) = self.commit(&base, &edit, now_ms).await? {
                return Ok(manifest);
            }
            // Old files may be swept away before they are committed.
            let oldest = self.known().manifest.number.saturating_sub(KEPT / 2);
            let stale = |file: &NewFile| names::number_of_data(&file.path) < Some(oldest);
            written = (!files.iter().any(stale)).then_some((wanted, files));
        }
        Err(LakeError::Contended { attempts: ATTEMPTS })
    }

    async fn write_pieces(&self, base: &Known, pieces: &[Piece], wanted: &Wanted) -> Result<Vec<NewFile>> {
        let number = base.manifest.number + 1;
        let mut files = Vec::new();
        for ((tenant, day, shape), part) in parts_of(pieces, wanted) {
            let path = |id: &str| names::data_path(names::EVENTS, &tenant, day, &shape, number, id);
            let cut = self.inner().options.cut;
            let unwritable = |error| LakeError::Unwritable { path: path("…"), why: format!("{error}") };
            let (finished, bytes) = part.write(pieces, self.inner().options.zstd_warm, cut).map_err(unwritable)?;
            let path = path(&hash_of(&bytes));
            upload::put(&self.inner().store, &path, bytes).await?;
            files.push(finished.into_file(path, Tier::Warm, tenant, day));
        }
        Ok(files)
    }
}

fn check(pieces: &[Piece], taken: &[Taken]) -> Result<()> {
    let mut ranges: BTreeMap<Source, RangeSet> = BTreeMap::new();
    taken.iter().for_each(|taken| ranges.entry(taken.source()).or_default().insert(taken.first, taken.last));
    let mut seen = BTreeSet::new();
    for piece in pieces {
        let (site, source) = (piece.site.to_string(), Source::of(&piece.site, &piece.record));
        if !ranges.get(&source).is_some_and(|ranges| ranges.contains(piece.record.seq.0)) {
            return Err(LakeError::NotTaken { site, record: piece.record });
        }
        if !seen.insert((&piece.site, piece.record)) {
            return Err(LakeError::Twice { site, record: piece.record });
        }
    }
    Ok(())
}

/// What of a call is to be done on top of a manifest.
#[derive(PartialEq)]
struct Wanted {
    take: Vec<(Source, u64, u64)>,
    pieces: Vec<bool>,
    /// Until when events of devices are not wanted.
    forgotten: BTreeMap<(Arc<str>, Arc<str>), Timestamp>,
}

impl Wanted {
    fn of(manifest: &Manifest, pieces: &[Piece], taken: &[Taken]) -> Wanted {
        let mut missing: BTreeMap<Source, RangeSet> = BTreeMap::new();
        for taken in taken {
            let source = taken.source();
            let gaps = manifest.ledger.gaps(&source, taken.first, taken.last);
            let missing = missing.entry(source).or_default();
            gaps.into_iter().for_each(|(first, last)| missing.insert(first, last));
        }
        let new = |piece: &Piece| !manifest.ledger.has(&Source::of(&piece.site, &piece.record), piece.record.seq.0);
        let tenants: BTreeSet<&Arc<str>> = pieces.iter().map(|piece| &piece.tenant).collect();
        let concerned = manifest.forgotten.iter().filter(|stone| tenants.contains(&stone.tenant));
        let range = |(source, ranges): (&Source, &RangeSet)| {
            ranges.iter().map(|(first, last)| (source.clone(), first, last)).collect::<Vec<_>>()
        };
        Wanted {
            take: missing.iter().flat_map(range).collect(),
            pieces: pieces.iter().map(new).collect(),
            forgotten: concerned.map(|stone| ((stone.tenant.clone(), stone.device.clone()), stone.until)).collect(),
        }
    }
}

/// The rows of one file to be.
struct Part {
    columns: Arc<Columns>,
    unit: Unit,
    /// For each piece that has rows here the places of the file's metrics in its batch.
    orders: FixedMap<u32, Arc<[usize]>>,
    devices: Arc<Devices>,
    rows: Vec<Row>,
}

struct Row {
    device: u32,
    piece: u32,
    row: u32,
    time: i64,
}

/// Names in order, so that numbers compare as names do.
struct Devices(Vec<Arc<str>>);

fn parts_of(pieces: &[Piece], wanted: &Wanted) -> BTreeMap<(Arc<str>, i32, String), Part> {
    let chosen = || pieces.iter().enumerate().filter(|(at, _)| wanted.pieces[*at]);
    let names: BTreeSet<&str> =
        chosen().flat_map(|(_, piece)| piece.batch.runs().iter().map(|run| piece.batch.device(run))).collect();
    let ranks: FixedMap<&str, u32> = names.iter().zip(0..).map(|(name, rank)| (*name, rank)).collect();
    let devices = Arc::new(Devices(names.iter().map(|name| Arc::from(*name)).collect()));
    let mut shapes = KnownShapes::default();
    let mut parts: BTreeMap<(Arc<str>, i32, String), Part> = BTreeMap::new();
    for (at, piece) in chosen() {
        let (columns, order) = shapes.of(&piece.batch.shape);
        for run in piece.batch.runs() {
            let device = piece.batch.device(run);
            let rank = ranks[device];
            let left_out: BTreeSet<u64> = piece
                .left_out
                .iter()
                .filter(|(of, _)| **of == *device)
                .flat_map(|(_, seqs)| seqs.iter().copied())
                .collect();
            let key = (piece.tenant.clone(), devices.0[rank as usize].clone());
            let forgotten = wanted.forgotten.get(&key).copied();
            let mut open: Option<(i32, &mut Part)> = None;
            for row in run.rows() {
                let time = piece.batch.times[row];
                let counts_elsewhere = piece.batch.seq(row).is_some_and(|seq| left_out.contains(&seq));
                if counts_elsewhere || forgotten.is_some_and(|until| time <= until) {
                    continue;
                }
                let day = names::day_of(time.0);
                let part = match open.take() {
                    Some((of, part)) if of == day => part,
                    _ => parts.entry((piece.tenant.clone(), day, columns.id.clone())).or_insert_with(|| Part {
                        columns: columns.clone(),
                        unit: Unit::Ms,
                        orders: FixedMap::default(),
                        devices: devices.clone(),
                        rows: Vec::new(),
                    }),
                };
                part.unit = part.unit.max(Unit::of(time.0));
                part.orders.entry(at as u32).or_insert_with(|| order.clone());
                part.rows.push(Row { device: rank, piece: at as u32, row: row as u32, time: time.0 });
                open = Some((day, part));
            }
        }
    }
    parts
}

impl Part {
    fn write(mut self, pieces: &[Piece], zstd: i32, cut: Cut) -> parquet::errors::Result<(Finished, Bytes)> {
        let sources: Vec<Source> = pieces.iter().map(|piece| Source::of(&piece.site, &piece.record)).collect();
        let key = |row: &Row| {
            let piece = &pieces[row.piece as usize];
            let seq = piece.batch.seq(row.row as usize);
            (row.device, row.time, seq, &sources[row.piece as usize], piece.record.seq, row.row)
        };
        self.rows
            .sort_unstable_by(|a, b| (a.device, a.time).cmp(&(b.device, b.time)).then_with(|| key(a).cmp(&key(b))));
        let mut writer = FileWriter::new(self.columns, self.unit, zstd, cut)?;
        let mut last: Option<(u32, &[usize])> = None;
        for row in &self.rows {
            let (piece, at) = (&pieces[row.piece as usize], row.row as usize);
            let order = match last {
                Some((piece, order)) if piece == row.piece => order,
                _ => &self.orders[&row.piece],
            };
            last = Some((row.piece, order));
            let head = Head {
                device: &self.devices.0[row.device as usize],
                time: row.time,
                seq: piece.batch.seq(at),
                source: &sources[row.piece as usize],
                record: piece.record.seq.0,
                quality: piece.batch.quality_of(at),
            };
            writer.push(&head, |column| piece.batch.columns[order[column]].value(at))?;
        }
        writer.finish()
    }
}
