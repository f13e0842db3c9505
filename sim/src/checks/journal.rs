//! Reads a node's journal and tables once for all checkers. Nine million events fit: of each only a bit is kept, and its content is
//! held against what the device sent while it passes by.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_core::{
    admission::OnFuture,
    alert::{Alert, Notification},
    batch::{Batch, Run},
    block,
    record::{self, Class, DropRange, DropReason, LeftOut, RecordKind},
    time::{Span, Timestamp},
};
use millpond_store::{Reader, RecordRef, Table, Usage};

use super::{
    alerts_once,
    bits::Bits,
    letters,
    tally::{Tally, stamp},
};
use crate::{
    evidence::{Evidence, NodeEvidence},
    scenario::Fault,
    witness::{Sent, Witness, digest},
    world::core::Instant,
};

/// How far a stamp may be ahead beyond the node's own limit: between its arrival and its commit the clock may be set back.
const FUTURE_SLACK: Span = Span::from_secs(5);
/// Windows that begin this long after the newest reading that was given up hold nothing that was given up.
const AFTER_DROPPED: Span = Span::from_secs(60);
/// Rows of the table `meta` that name records which recovery leaves out.
pub const POISON_PREFIX: &[u8] = b"poison/";

#[derive(Debug, Default)]
pub struct Journal {
    pub events: u64,
    /// By the witness's number of the device.
    pub devices: Vec<Kept>,
    /// Sequence numbers of the records that are there, and the one that the next would get.
    pub records: Bits,
    pub next_seq: u64,
    pub receipts: Vec<DropRange>,
    /// Records that recovery leaves out because they make the windows fail.
    pub poisoned: BTreeSet<u64>,
    /// Devices with events in such records: their windows may have been computed before the record was found to do harm.
    pub poisoned_devices: BTreeSet<u32>,
    /// Events by record, device and number that the node leaves out of its windows, because they count at another one.
    pub left_out: BTreeMap<u64, BTreeSet<(String, u64)>>,
    /// Changes of alerts, in the order of the journal, and alerts as the table has them.
    pub alerts: Vec<Alert>,
    pub alert_table: Vec<Alert>,
    /// Notifications that wait, with the name of their webhook.
    pub outbox: Vec<(String, Notification)>,
    /// Values of metrics that somebody asked for, in the order of the journal.
    pub series: BTreeMap<(u32, String), Vec<(Timestamp, f64)>>,
    pub usage: Usage,
    /// The oldest record of events that is left was committed before this.
    pub oldest_before: Option<Instant>,
    pub altered: Tally,
    pub strangers: Tally,
    pub twice: Tally,
    pub from_future: Tally,
    pub unreadable: Tally,
    pub repeated_records: Tally,
}

/// Of one device, by sequence number.
#[derive(Debug, Default)]
pub struct Kept {
    pub stored: Bits,
    pub letters: Bits,
}

impl Kept {
    pub fn has(&self, seq: u64) -> bool {
        self.stored.contains(seq) || self.letters.contains(seq)
    }
}

impl Journal {
    pub fn read(reader: &Reader, node: &NodeEvidence, evidence: &Evidence) -> Result<Journal, String> {
        let mut journal = Journal { usage: reader.stats().map_err(said)?, ..Journal::default() };
        journal.next_seq = journal.usage.next_seq.0;
        journal.devices.resize_with(evidence.witness.devices.len(), Kept::default);
        journal.series = alerts_once::asked(node, evidence).into_iter().map(|key| (key, Vec::new())).collect();
        letters::read(reader, |device, seq| {
            if let Some(number) = evidence.witness.by_name.get(device).filter(|_| seq < 1 << 32) {
                journal.devices[*number as usize].letters.insert(seq);
            }
        })?;
        journal.read_tables(reader)?;
        let mut decoder = block::Decoder::new();
        for class in Class::ALL {
            let scan = reader.scan(class, millpond_core::ids::Seq(0), |row| {
                if !journal.records.insert(row.seq.0) {
                    journal.repeated_records.add(|| format!("record {}", row.seq.0));
                }
                journal.take(&row, &mut decoder, node, evidence);
                ControlFlow::Continue(())
            });
            scan.map_err(said)?;
        }
        Ok(journal)
    }

    fn take(&mut self, row: &RecordRef<'_>, decoder: &mut block::Decoder, node: &NodeEvidence, evidence: &Evidence) {
        let bad = |error: String| format!("record {} ({:?}): {error}", row.seq.0, row.kind);
        match row.kind {
            RecordKind::Events => match decoder.decode(row.payload) {
                Ok(batch) => self.events(row, &batch, node, &evidence.witness),
                Err(error) => self.unreadable.add(|| bad(error.to_string())),
            },
            RecordKind::DropRange => match DropRange::decode(row.payload) {
                Ok(receipt) => self.receipts.push(receipt),
                Err(error) => self.unreadable.add(|| bad(error.to_string())),
            },
            RecordKind::Alerts => match record::decode::<Vec<Alert>>(row.payload) {
                Ok(alerts) => self.alerts.extend(alerts),
                Err(error) => self.unreadable.add(|| bad(error.to_string())),
            },
            RecordKind::LeftOut => match record::decode::<Vec<LeftOut>>(row.payload) {
                Ok(all) => all.into_iter().for_each(|left| {
                    let events = left.seqs.iter().map(|seq| (left.device.clone(), *seq));
                    self.left_out.entry(left.record).or_default().extend(events);
                }),
                Err(error) => self.unreadable.add(|| bad(error.to_string())),
            },
            RecordKind::Panes | RecordKind::Late | RecordKind::Homes | RecordKind::Twin => {}
        }
    }

    fn events(&mut self, record: &RecordRef<'_>, batch: &Batch, node: &NodeEvidence, witness: &Witness) {
        self.events += batch.rows() as u64;
        let received = Timestamp::from_millis(record.hlc.wall_ms());
        let latest = received.saturating_add(node.config.ingest.future_limit).saturating_add(FUTURE_SLACK);
        let mut first_acked = Sent::NEVER;
        for run in batch.runs() {
            let name = batch.device(run);
            let known = witness.by_name.get(name).copied();
            self.poisoned_devices.extend(known.filter(|_| self.poisoned.contains(&record.seq.0)));
            for row in run.rows() {
                let time = batch.times[row];
                if time > latest {
                    self.from_future.add(|| {
                        let ahead = time.since(received);
                        format!(
                            "{name} at {}, {ahead} ahead of the node's clock, in record {}",
                            stamp(time),
                            record.seq.0
                        )
                    });
                }
                let seq = batch.seq(row);
                let sent = known.zip(seq).and_then(|(number, seq)| sent(witness, number, seq));
                let (Some(number), Some(seq), Some(sent)) = (known, seq, sent) else {
                    self.strangers.add(|| format!("{name} seq {seq:?} in record {}", record.seq.0));
                    continue;
                };
                if !self.devices[number as usize].stored.insert(seq) {
                    self.twice.add(|| format!("{name} seq {seq} at {}, again in record {}", stamp(time), record.seq.0));
                }
                if !is_as_sent(batch, row, sent, node.config.ingest.on_future) {
                    self.altered.add(|| {
                        format!(
                            "{name} seq {seq}, stamped {}, is in record {} as another",
                            stamp(sent.stamp),
                            record.seq.0
                        )
                    });
                }
                first_acked = first_acked.min(sent.acked);
            }
            self.note_series(known, batch, run);
        }
        if self.oldest_before.is_none() && first_acked != Sent::NEVER {
            self.oldest_before = Some(first_acked);
        }
    }

    fn note_series(&mut self, device: Option<u32>, batch: &Batch, run: &Run) {
        let Some(device) = device.filter(|_| !self.series.is_empty()) else { return };
        for ((_, metric), series) in self.series.range_mut((device, String::new())..(device + 1, String::new())) {
            let Some(column) = batch.shape.position(metric) else { continue };
            let value = |row: usize| Some((batch.times[row], batch.columns[column].value(row)?.as_f64()?));
            series.extend(run.rows().filter_map(value));
        }
    }

    fn read_tables(&mut self, reader: &Reader) -> Result<(), String> {
        let poison = reader.range(Table::Meta, POISON_PREFIX, |key, _| {
            let Some(rest) = key.strip_prefix(POISON_PREFIX) else { return ControlFlow::Break(()) };
            self.poisoned.extend(rest.try_into().map(u64::from_be_bytes));
            ControlFlow::Continue(())
        });
        poison.map_err(said)?;
        let alerts = reader.range(Table::Alerts, &[], |_, value| {
            self.alert_table.extend(record::decode::<Alert>(&value).ok());
            ControlFlow::Continue(())
        });
        alerts.map_err(said)?;
        let outbox = reader.range(Table::Outbox, &[], |key, value| {
            let hook = String::from_utf8_lossy(key.split(|byte| *byte == b'/').next().unwrap_or_default());
            self.outbox.extend(record::decode(&value).ok().map(|notification| (hook.into_owned(), notification)));
            ControlFlow::Continue(())
        });
        outbox.map_err(said)
    }

    pub fn letters_ever(&self) -> u64 {
        self.usage.dead_letters.count + self.usage.dead_letters.dropped
    }

    pub fn dropped_events(&self) -> u64 {
        self.receipts.iter().filter(|receipt| receipt.class == Class::Raw).map(|receipt| receipt.events).sum()
    }

    /// Whether records of the class were given up.
    pub fn gave_up(&self, class: Class) -> bool {
        self.receipts.iter().any(|receipt| receipt.class == class)
            || self.usage.class(class).dropped.iter().any(|dropped| dropped.records > 0)
    }

    /// Whether records were lost by damage.
    pub fn was_damaged(&self) -> bool {
        self.receipts.iter().any(|receipt| receipt.reason == DropReason::Damaged)
    }

    pub fn alerts_fired(&self) -> u64 {
        let fired: BTreeSet<&str> =
            self.alerts.iter().filter(|alert| alert.fired.is_some()).map(|alert| &*alert.id).collect();
        fired.len() as u64
    }

    /// Windows that begin after this hold no event that was given up. `None` when none was.
    pub fn horizon(&self, node: &NodeEvidence, witness: &Witness) -> Option<Timestamp> {
        if !self.gave_up(Class::Raw) {
            return None;
        }
        let devices = witness.devices.iter().zip(&self.devices).filter(|(device, _)| device.node == node.name);
        let newest = devices.filter_map(|(device, kept)| {
            let gone = |at: &usize| !kept.has(*at as u64 + 1);
            let last = (0..device.readings.len()).rev().find(|at| gone(at) && device.readings[*at].is_acked())?;
            // What was stored and given up before it was acknowledged is among these.
            (0..=last).filter(gone).map(|at| device.readings[at].stamp).filter(|stamp| self.is_plausible(*stamp)).max()
        });
        Some(newest.max().unwrap_or(Timestamp::MIN).saturating_add(AFTER_DROPPED))
    }

    /// A stamp from far beyond the run's end was rejected, and its dead letter may have given way to newer ones.
    fn is_plausible(&self, stamp: Timestamp) -> bool {
        let newest = Timestamp::from_millis(self.usage.class(Class::Raw).newest_ms);
        self.usage.dead_letters.dropped == 0 || stamp <= newest.saturating_add(Span::from_secs(3600))
    }
}

/// What the device sent under this number.
pub fn sent(witness: &Witness, device: u32, seq: u64) -> Option<&Sent> {
    witness.devices[device as usize].readings.get(usize::try_from(seq).ok()?.checked_sub(1)?)
}

fn is_as_sent(batch: &Batch, row: usize, sent: &Sent, on_future: OnFuture) -> bool {
    let metrics = || {
        let columns = batch.shape.metrics().iter().zip(&batch.columns);
        columns.filter_map(|(metric, column)| Some((&*metric.name, column.value(row)?)))
    };
    let time = batch.times[row];
    if digest(time, metrics()) == sent.digest {
        return true;
    }
    // A stamp from the future may have been replaced by an earlier one, where the configuration wants that.
    on_future == OnFuture::Clamp && sent.stamp > time && digest(sent.stamp, metrics()) == sent.digest
}

/// Whether the disk was taken away after a reading was acknowledged: one that is gone takes along what is on it. A disk that lies is no
/// excuse: nothing is left of a promise that was made on it, and the user is to see that.
pub fn is_excused(node: &NodeEvidence, evidence: &Evidence, acked: Instant) -> bool {
    let of_node = evidence.injections.iter().filter(|injection| injection.fault.node() == Some(&*node.name));
    of_node.into_iter().any(|injection| match &injection.fault {
        Fault::Wipe { down, .. } => acked.0 <= injection.at_ns + down.0.0.max(0) as u64,
        _ => false,
    })
}

fn said(error: millpond_store::ReadError) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
