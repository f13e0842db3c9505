//! Each event that the cloud has taken counts once: in the lake, when the manifest's ledger has its record, or else in the copy. What was
//! left out counts in neither.
//!
//! The lake is read as it is in its object store at the end, by its own reader, and held against the journals of the site and the copies.
//! Beside it stands what the cloud's node answered when it was asked for readings over both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_cluster::cloud::account_of;
use millpond_core::record::{Class, Track};
use millpond_lake::{Filter, Manifest, Source};
use millpond_proto::RangeSet;

use super::Delivered;
use crate::{
    checks::{
        site::{Book, Reading, short},
        tally::{Findings, Tally, at},
    },
    evidence::{Evidence, Life, NodeEvidence},
    scenario::Fault,
    world::{bucket::at_once, clock::EPOCH, core::Instant},
};

/// What is settled is in the lake so long after it came, while the store is well: a round of the archive, and its pause after an error.
const MOVES_MS: i64 = 60_000;

/// What a cloud has archived.
pub struct Archived {
    manifest: Arc<Manifest>,
    /// Rows of readings by record and device, with how often each is there.
    rows: BTreeMap<(String, Life), BTreeMap<(u64, Reading), u32>>,
}

impl Archived {
    /// Reads all of the lake; `None` when the node has none.
    pub fn read(cloud: &NodeEvidence, evidence: &Evidence) -> Result<Option<Archived>, String> {
        let Some(archive) = &cloud.lake else { return Ok(None) };
        let lake = archive.lake.as_ref().map_err(|why| format!("the lake cannot be opened: {why}"))?;
        let (manifest, by_name) = (lake.manifest(), &evidence.witness.by_name);
        let mut rows: BTreeMap<(String, Life), BTreeMap<(u64, Reading), u32>> = BTreeMap::new();
        let (filter, mut counted) = (Filter::default(), 0);
        let scanned = at_once(lake.scan(&manifest, &filter, &mut |row| {
            counted += 1;
            let Some((device, seq)) = by_name.get(row.device).zip(row.seq) else { return };
            let source = (row.source.site.to_string(), (row.source.origin, row.source.incarnation));
            *rows.entry(source).or_default().entry((row.record, (*device, seq))).or_default() += 1;
        }));
        scanned.map_err(|error| format!("the lake cannot be read: {error}"))?;
        if counted != manifest.rows() {
            return Err(format!("the lake has {counted} rows, and its manifest says {}", manifest.rows()));
        }
        Ok(Some(Archived { manifest, rows }))
    }

    pub fn rows(&self) -> u64 {
        self.manifest.rows()
    }

    /// Numbers of records of events that count in the lake.
    pub fn ledger(&self, site: &str, (origin, incarnation): Life) -> RangeSet {
        let source = Source { site: site.into(), origin, incarnation };
        self.manifest.ledger.of(&source).cloned().unwrap_or_default()
    }

    /// Rows of a site: life, record, reading, and how often it is there.
    pub fn rows_of_site<'a>(&'a self, site: &'a str) -> impl Iterator<Item = (Life, u64, Reading, u32)> + 'a {
        let of_site = self.rows.iter().filter(move |((of, _), _)| of == site);
        of_site.flat_map(|((_, life), rows)| {
            rows.iter().map(|((record, reading), count)| (*life, *record, *reading, *count))
        })
    }

    /// Rows of a life: record, reading, and how often it is there.
    pub fn rows_of(&self, site: &str, life: Life) -> impl Iterator<Item = (u64, Reading, u32)> {
        let rows = self.rows.get(&(site.to_owned(), life)).into_iter().flatten();
        rows.map(|((record, reading), count)| (*record, *reading, *count))
    }

    fn has(&self, site: &str, life: Life, record: u64, reading: Reading) -> bool {
        let rows = self.rows.get(&(site.to_owned(), life));
        rows.is_some_and(|rows| rows.contains_key(&(record, reading)))
    }
}

#[derive(Default)]
struct Tallies {
    twice: Tally,
    uncovered: Tally,
    missing: Tally,
    left_out: Tally,
    made_up: Tally,
    behind: Tally,
}

pub fn check(delivered: &Delivered<'_>, said: &mut Findings) {
    let Some(lake) = &delivered.lake else { return };
    let mut tallies = Tallies::default();
    for life in lives(delivered, lake) {
        let ledger = lake.ledger(delivered.name, life);
        rows(delivered, lake, life, &ledger, &mut tallies);
        let journal = delivered.site.journals.get(&life).map(|(_, journal)| journal);
        let copy = delivered.copies.get(&life).map(|copy| &copy.book);
        // Each of both may have given up what the other one has.
        let only_copied = |reading: &Reading| journal.is_none_or(|journal| !journal.readings.contains_key(reading));
        if let Some(journal) = journal {
            contents((delivered, lake), life, &ledger, journal, |_| true, &mut tallies);
        }
        if let Some(copy) = copy {
            contents((delivered, lake), life, &ledger, copy, only_copied, &mut tallies);
        }
        is_moved(delivered, life, &ledger, &mut tallies);
    }
    let of = delivered.name;
    said.tell(&tallies.twice, &format!("readings of {of} are in the lake more than once"));
    said.tell(&tallies.uncovered, &format!("readings of {of} are in the lake, and its ledger has not their records"));
    said.tell(&tallies.missing, &format!("readings of {of} are not in the lake, whose ledger has their records"));
    said.tell(&tallies.left_out, &format!("readings that {of} left out are in the lake"));
    said.tell(&tallies.made_up, &format!("readings in the lake were written by nobody in {of}"));
    said.tell(&tallies.behind, &format!("records of {of} are settled and were not moved into the lake"));
    counted(delivered, said);
}

fn lives(delivered: &Delivered<'_>, lake: &Archived) -> BTreeSet<Life> {
    let copied = delivered.copies.keys().copied();
    let archived = lake.manifest.ledger.iter().filter(|(source, _)| *source.site == *delivered.name);
    let rows = lake.rows.keys().filter(|(site, _)| site == delivered.name).map(|(_, life)| *life);
    copied.chain(archived.map(|(source, _)| (source.origin, source.incarnation))).chain(rows).collect()
}

/// Each row is there once, in a record that the ledger has, and was measured.
fn rows(delivered: &Delivered<'_>, lake: &Archived, life: Life, ledger: &RangeSet, tallies: &mut Tallies) {
    let devices = &delivered.site.evidence.witness.devices;
    let journal = delivered.site.journals.get(&life).map(|(_, journal)| journal);
    for (record, reading, count) in lake.rows_of(delivered.name, life) {
        let words = || words(delivered, life, record, reading);
        if count > 1 {
            tallies.twice.add(words);
        }
        if !ledger.contains(record) {
            tallies.uncovered.add(words);
        }
        let is_strange = journal.is_some_and(|journal| {
            !journal.gave_up(Class::Raw, record) && journal.readings.get(&reading) != Some(&record)
        });
        if is_strange || devices[reading.0 as usize].readings.len() < reading.1 as usize {
            tallies.made_up.add(words);
        }
    }
}

/// What the ledger covers is there, but for what was left out.
fn contents(
    (delivered, lake): (&Delivered<'_>, &Archived),
    life: Life,
    ledger: &RangeSet,
    book: &Book,
    is_asked: impl Fn(&Reading) -> bool,
    tallies: &mut Tallies,
) {
    let archived = book.readings.iter().filter(|(_, record)| ledger.contains(**record));
    for (reading, record) in archived.filter(|(reading, _)| is_asked(reading)) {
        let is_there = lake.has(delivered.name, life, *record, *reading);
        let is_left_out = book.left_out.contains(&(*record, *reading));
        let words = || words(delivered, life, *record, *reading);
        match (is_there, is_left_out) {
            (false, false) => tallies.missing.add(words),
            (true, true) if !says_late(delivered, life, book) => tallies.left_out.add(words),
            _ => {}
        }
    }
}

/// Whether the node left something out so late that the archive may not know of it.
fn says_late(delivered: &Delivered<'_>, life: Life, book: &Book) -> bool {
    book.records.values().any(|row| row.leaves_out && delivered.is_on_its_way(life, row.said_ms))
}

/// What has settled is moved in time.
fn is_moved(delivered: &Delivered<'_>, life: Life, ledger: &RangeSet, tallies: &mut Tallies) {
    let Some(copy) = delivered.copies.get(&life) else { return };
    let Ok(account) = account_of(&copy.reader) else { return };
    let moves_ms = MOVES_MS + 2 * delivered.cloud.config.cloud.archive_every.as_millis();
    let until = delivered.until - moves_ms;
    let covered = copy.held.track(Track::Raw);
    let records = copy.book.records.iter().filter(|(_, row)| row.class == Class::Raw);
    for (seq, row) in records.filter(|(seq, _)| **seq <= account.settled.0 && covered.contains(**seq)) {
        let came = delivered.cloud.true_ms(row.written_ms);
        if came < until && healed_ms(delivered) < until && !ledger.contains(*seq) {
            tallies.behind.add(|| format!("record {seq} of {}", short(life)));
        }
    }
}

/// When everything was well, in ms since 1970.
fn healed_ms(delivered: &Delivered<'_>) -> i64 {
    EPOCH.as_millis() + (delivered.site.evidence.ended.0.0 / 1_000_000) as i64
}

/// What the node answered is what stands on both sides of the border.
fn counted(delivered: &Delivered<'_>, said: &mut Findings) {
    let evidence = delivered.site.evidence;
    let (mut wrong, mut silent) = (Tally::default(), Tally::default());
    let mut held: BTreeMap<u32, u64> = BTreeMap::new();
    for (reading, counts) in delivered.counts() {
        *held.entry(reading.0).or_default() += counts;
    }
    let changed = changed_at(delivered);
    let asked = evidence.witness.counted.iter().filter(|asked| asked.node == delivered.cloud.name);
    for asked in asked
        .filter(|asked| delivered.site.members.iter().any(|member| is_of(evidence, asked.device, &member.node.name)))
    {
        let name = &evidence.witness.devices[asked.device as usize].name;
        let wanted = held.get(&asked.device).copied().unwrap_or_default();
        match &asked.answer {
            Ok(_) if changed >= asked.at => {}
            Ok(answer) if *answer == wanted => {}
            Ok(answer) => wrong.add(|| format!("{answer} of {name} at {}, and {wanted} are there", at(asked.at))),
            Err(why) if is_well(delivered, asked.at) => silent.add(|| format!("{name} at {}: {why}", at(asked.at))),
            Err(_) => {}
        }
    }
    let of = delivered.name;
    said.tell(&wrong, &format!("questions for readings of {of} were answered with other numbers than there are"));
    said.tell(&silent, &format!("questions for readings of {of} were not answered"));
}

fn is_of(evidence: &Evidence, device: u32, node: &str) -> bool {
    evidence.witness.devices[device as usize].node == node
}

/// When something came last that changes how often readings count.
fn changed_at(delivered: &Delivered<'_>) -> Instant {
    let rows = delivered.copies.values().flat_map(|copy| copy.book.records.values());
    let counts = rows.filter(|row| row.class == Class::Raw || row.leaves_out);
    let last = counts.map(|row| delivered.cloud.true_ms(row.written_ms)).max().unwrap_or_default();
    // A record has the time before it was committed.
    Instant(((last - EPOCH.as_millis()).max(0) as u64 + 1_000) * 1_000_000)
}

/// Whether the node was up for the last minute before.
fn is_well(delivered: &Delivered<'_>, asked: Instant) -> bool {
    let began = asked.0.saturating_sub(60_000_000_000);
    let up = delivered.cloud.up.iter().any(|(from, to)| from.0 <= began && asked < *to);
    let is_down = |fault: &Fault| matches!(fault, Fault::Wipe { node, .. } if *node == delivered.cloud.name);
    up && !delivered.site.evidence.injections.iter().any(|one| is_down(&one.fault) && one.at_ns > began)
}

fn words(delivered: &Delivered<'_>, life: Life, record: u64, reading: Reading) -> String {
    let device = &delivered.site.evidence.witness.devices[reading.0 as usize];
    format!("{} seq {} in record {record} of {}", device.name, reading.1, short(life))
}
