//! Moves events into the lake, once, and keeps the lake in order.
//!
//! An event is moved when its node has said that nothing of it will be left out any more, and when everything that it said until then has come:
//! then what counts of a record is known for good. A node that nobody has heard of for a day says nothing more; what it left out later is
//! taken out of the lake again.
//!
//! Which records are in the lake its manifest says, and nobody else. So a question finds each record on one side of the border: in the lake
//! when the manifest has it, in the copies otherwise.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, OnceLock, Weak},
};

use async_trait::async_trait;
use millpond_actors::config::CloudSettings;
use millpond_core::{
    block::Decoder,
    ids::{RecordId, Seq},
    planted::{self, Bug},
    record::{self, Class, LeftOut, RecordKind},
    time::Span,
};
use millpond_env::Env;
use millpond_lake::{Lake, LakeError, Lifecycle, Manifest, Piece, Remains, Source, Taken};
use millpond_proto::{RangeSet, replication::Life, wire::Record};
use millpond_store::{ReadError, Reader};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::{Mutex, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Cloud, Consumer, Inner, site::SiteMsg};

/// Events and bytes of blocks that are moved with one manifest.
const EVENTS_MAX: usize = 100_000;
const BYTES_MAX: usize = 8 << 20;
/// Records of one life that are moved together.
const RECORDS_MAX: u64 = 65_536;
/// How often small files are merged, old ones moved, and what nobody needs removed.
const UPKEEP_EVERY: Span = Span::from_secs(600);
/// After an error of the store nothing is tried for so long.
const PAUSE: Span = Span::from_secs(5);

/// A node that starts waits so long for the store, and goes on without it.
const LOOK: Span = Span::from_secs(5);

/// A life of a site, as the archive needs it.
pub(super) struct Archivable {
    pub life: Life,
    pub reader: Reader,
    /// Events that are here and will not be left out any more.
    pub sure: RangeSet,
}

pub struct Archive {
    env: Env,
    settings: CloudSettings,
    lake: Lake,
    /// The cloud that this is the archive of; it holds the archive.
    cloud: OnceLock<Weak<Inner>>,
    measures: Measures,
    /// One change of the lake at a time.
    writing: Mutex<()>,
    ended: CancellationToken,
}

struct Measures {
    events: IntCounter,
    unreadable: IntCounter,
    failures: IntCounter,
    rows: IntGauge,
    bytes: IntGauge,
    files: IntGauge,
}

/// What was read for one manifest.
#[derive(Default)]
struct Load {
    pieces: Vec<Piece>,
    taken: Vec<Taken>,
    events: usize,
    bytes: usize,
    unreadable: u64,
}

impl Load {
    fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }
}

impl Archive {
    pub(super) fn new(
        env: Env,
        settings: CloudSettings,
        lake: Lake,
        registry: &Registry,
    ) -> Result<Archive, prometheus::Error> {
        let measures = Measures::new(registry)?;
        let (cloud, writing, ended) = (OnceLock::new(), Mutex::new(()), CancellationToken::new());
        Ok(Archive { env, settings, lake, cloud, measures, writing, ended })
    }

    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    fn cloud(&self) -> Result<Cloud, String> {
        let cloud = self.cloud.get().ok_or("the cloud is starting")?;
        Ok(Cloud(cloud.upgrade().ok_or("the cloud is stopping")?))
    }

    /// Works until it is stopped.
    pub(super) async fn run(self: Arc<Self>, cloud: Cloud) {
        let _ = self.cloud.set(cloud.downgrade());
        drop(cloud);
        while let Err(error) = self.look_again().await {
            self.failed("the archive could not be looked at", &error.to_string());
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return,
                () = self.env.sleep(PAUSE) => {}
            }
        }
        let mut kept_at = self.env.now();
        loop {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return,
                () = self.env.sleep(self.settings.archive_every) => {}
            }
            if let Err(why) = self.move_all().await {
                self.failed("events could not be archived", &why);
                self.env.sleep(PAUSE).await;
                continue;
            }
            if self.env.now().since(kept_at) >= UPKEEP_EVERY {
                kept_at = self.env.now();
                if let Err(why) = self.keep_in_order().await {
                    self.failed("the archive could not be kept in order", &why);
                }
            }
        }
    }

    /// Looks at the store when that was not done when the node started.
    async fn look_again(&self) -> Result<(), LakeError> {
        if !self.lake.is_read() {
            self.lake.refresh().await?;
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.ended.cancel();
    }

    fn failed(&self, what: &str, why: &str) {
        self.measures.failures.inc();
        tracing::warn!(why, "{what}; it is tried again");
    }

    /// Moves everything that can be moved.
    ///
    /// # Errors
    /// In words, when the store or a copy could not be read or written. What was moved before stays.
    pub async fn move_all(&self) -> Result<(), String> {
        let cloud = &self.cloud()?;
        let _writing = self.writing.lock().await;
        let mut manifest = self.lake.refresh().await.map_err(|error| error.to_string())?;
        loop {
            let mut load = Load::default();
            let mut lives: Vec<(String, Life)> = Vec::new();
            for (site, _) in cloud.0.shelf.all() {
                let Some(archivable) = archivable(cloud, &site).await else { continue };
                for life in archivable {
                    if load.is_full() || self.ended.is_cancelled() {
                        break;
                    }
                    lives.push((site.clone(), life.life));
                    load = self.read(&manifest, &site, life, load).await?;
                }
            }
            if load.taken.is_empty() {
                self.tell_sites(cloud, &manifest, &lives).await;
                self.show(&manifest);
                return Ok(());
            }
            let now_ms = self.env.wall().as_millis();
            let events = load.events as u64;
            if planted::is(Bug::ReleaseBeforeManifest) {
                release(cloud, &load.taken).await;
            }
            manifest = self.lake.append(&load.pieces, &load.taken, now_ms).await.map_err(|error| error.to_string())?;
            self.measures.events.inc_by(events);
            self.measures.unreadable.inc_by(load.unreadable);
            self.tell_sites(cloud, &manifest, &lives).await;
            if self.ended.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn read(&self, manifest: &Manifest, site: &str, life: Archivable, mut load: Load) -> Result<Load, String> {
        let Archivable { life, reader, sure } = life;
        let source = source_of(site, life);
        let nothing = RangeSet::default();
        let taken = manifest.ledger.of(&source).unwrap_or(&nothing);
        let wanted: Vec<(u64, u64)> = sure.iter().flat_map(|(first, last)| taken.gaps(first, last)).collect();
        if wanted.is_empty() {
            return Ok(load);
        }
        let tenant: Arc<str> = self.settings.site(site).tenant.into();
        let read = self.env.unblock(move || {
            read_life(&reader, life, &source.site, &tenant, &wanted, &mut load)?;
            Ok::<_, ReadError>(load)
        });
        read.await.ok_or("the node is stopping")?.map_err(|error| error.to_string())
    }

    /// What is in the lake need not stay in the copies for ever.
    async fn tell_sites(&self, cloud: &Cloud, manifest: &Manifest, lives: &[(String, Life)]) {
        for (site, life) in lives {
            let Some(taken) = manifest.ledger.of(&source_of(site, *life)) else { continue };
            if let Some(actor) = cloud.site(site).await {
                let _ = actor.cast(SiteMsg::Archived(*life, Seq(taken.prefix_end())));
            }
        }
    }

    async fn keep_in_order(&self) -> Result<(), String> {
        let _writing = self.writing.lock().await;
        let now_ms = self.env.wall().as_millis();
        let lifecycle = Lifecycle { warm: self.settings.warm, cold: self.settings.cold };
        self.lake.compact(now_ms).await.map_err(|error| error.to_string())?;
        let manifest = self.lake.age(now_ms, lifecycle).await.map_err(|error| error.to_string())?;
        self.lake.sweep(now_ms).await.map_err(|error| error.to_string())?;
        self.show(&manifest);
        Ok(())
    }

    /// Moves what can be moved, and puts the lake in order, now.
    ///
    /// # Errors
    /// In words, when the store could not be read or written.
    pub async fn now(&self) -> Result<Arc<Manifest>, String> {
        self.move_all().await?;
        self.keep_in_order().await?;
        Ok(self.lake.manifest())
    }

    /// Forgets the events of a device: those in the lake, those in the copies that can be moved there, and those that come of it from
    /// before. Returns how many rows of it are left in files that nobody reads any more until they are swept away, and in which.
    ///
    /// # Errors
    /// In words, when the store could not be read or written, or something of the device is left where it counts: repeat the call.
    pub async fn forget(&self, tenant: &str, device: &str) -> Result<Vec<Remains>, String> {
        let cloud = &self.cloud()?;
        self.move_all().await?;
        for (site, _) in cloud.0.shelf.all() {
            if self.settings.site(&site).tenant != tenant {
                continue;
            }
            let (reply, purged) = oneshot::channel();
            if let Some(actor) = cloud.site(&site).await {
                let _ = actor.cast(SiteMsg::Purge(reply));
                // It is done when nobody has the other end any more.
                let _ = purged.await;
            }
        }
        let _writing = self.writing.lock().await;
        let now_ms = self.env.wall().as_millis();
        self.lake.forget(tenant, device, now_ms).await.map_err(|error| error.to_string())?;
        let remains = self.lake.prove_forgotten(device).await.map_err(|error| error.to_string())?;
        match remains.iter().find(|remains| remains.counts) {
            Some(left) => Err(format!("{} still has {} rows of {device}", left.path, left.rows)),
            None => Ok(remains),
        }
    }

    fn show(&self, manifest: &Manifest) {
        self.measures.rows.set(manifest.rows() as i64);
        self.measures.bytes.set(manifest.bytes() as i64);
        self.measures.files.set(manifest.files.len() as i64);
    }
}

/// Events that were moved already and are left out only now.
#[async_trait]
impl Consumer for Archive {
    async fn apply(&self, site: &str, life: Life, records: &[Record]) {
        let late: Vec<LeftOut> = records
            .iter()
            .filter(|record| record.kind == RecordKind::LeftOut)
            .flat_map(|record| record::decode::<Vec<LeftOut>>(&record.payload).unwrap_or_default())
            .collect();
        if late.is_empty() {
            return;
        }
        let source = source_of(site, life);
        loop {
            let done = {
                let _writing = self.writing.lock().await;
                self.take_out(&source, life, &late).await
            };
            let Err(why) = done else { return };
            self.failed("what a site left out could not be taken out of the archive", &why);
            if self.ended.is_cancelled() {
                return;
            }
            self.env.sleep(PAUSE).await;
        }
    }
}

impl Archive {
    async fn take_out(&self, source: &Source, life: Life, late: &[LeftOut]) -> Result<(), String> {
        let manifest = self.lake.refresh().await.map_err(|error| error.to_string())?;
        let events: Vec<millpond_lake::LeftOut> = late
            .iter()
            .filter(|left| manifest.ledger.has(source, left.record))
            .map(|left| millpond_lake::LeftOut {
                site: source.site.clone(),
                record: RecordId { origin: life.origin, incarnation: life.incarnation, seq: Seq(left.record) },
                device: left.device.as_str().into(),
                seqs: left.seqs.clone(),
            })
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        let now_ms = self.env.wall().as_millis();
        self.lake.leave_out(&events, now_ms).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Looks at the store, as long as a node that starts can wait for that: what sites deliver needs no archive.
///
/// # Errors
/// When something there is damaged, or of a later version.
pub(super) async fn look(env: &Env, lake: &Lake) -> Result<(), LakeError> {
    let why = match env.timeout(LOOK, lake.refresh()).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error @ LakeError::Store { .. })) => error.to_string(),
        Ok(Err(error)) => return Err(error),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::warn!(why, "the archive could not be looked at; the node starts without it, and tries again");
    Ok(())
}

pub(super) fn source_of(site: &str, life: Life) -> Source {
    Source { site: site.into(), origin: life.origin, incarnation: life.incarnation }
}

/// As one who takes for granted that it will be there.
async fn release(cloud: &Cloud, taken: &[Taken]) {
    for taken in taken {
        let life = Life { origin: taken.origin, incarnation: taken.incarnation };
        if let Some(actor) = cloud.site(&taken.site).await {
            let _ = actor.cast(SiteMsg::Archived(life, Seq(taken.last)));
        }
    }
}

async fn archivable(cloud: &Cloud, site: &str) -> Option<Vec<Archivable>> {
    let (reply, answer) = oneshot::channel();
    cloud.site(site).await?.cast(SiteMsg::ToArchive(reply)).ok()?;
    answer.await.ok()
}

fn read_life(
    reader: &Reader,
    life: Life,
    site: &Arc<str>,
    tenant: &Arc<str>,
    wanted: &[(u64, u64)],
    load: &mut Load,
) -> Result<(), ReadError> {
    let first_of_all = wanted.first().map_or(1, |(first, _)| *first);
    let mut left_out: BTreeMap<u64, Vec<(Arc<str>, Vec<u64>)>> = BTreeMap::new();
    reader.scan(Class::State, Seq(first_of_all), |row| {
        if row.kind == RecordKind::LeftOut {
            for left in record::decode::<Vec<LeftOut>>(row.payload).unwrap_or_default() {
                left_out.entry(left.record).or_default().push((left.device.as_str().into(), left.seqs));
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut decoder = Decoder::new();
    let (origin, incarnation) = (life.origin, life.incarnation);
    for (first, last) in wanted.iter().copied() {
        if load.is_full() {
            break;
        }
        let mut through = last.min(first.saturating_add(RECORDS_MAX - 1));
        reader.scan(Class::Raw, Seq(first), |row| {
            if row.seq.0 > through {
                return ControlFlow::Break(());
            }
            if load.is_full() {
                through = row.seq.0 - 1;
                return ControlFlow::Break(());
            }
            load.bytes += row.payload.len();
            match decoder.decode(row.payload) {
                Ok(batch) => {
                    load.events += batch.rows();
                    let record = RecordId { origin, incarnation, seq: row.seq };
                    let left_out = left_out.get(&row.seq.0).cloned().unwrap_or_default();
                    load.pieces.push(Piece { tenant: tenant.clone(), site: site.clone(), record, batch, left_out });
                }
                // It stays in the copy for whoever can make something of it.
                Err(error) => {
                    tracing::warn!(%site, %origin, record = row.seq.0, %error, "events cannot be read, and are not archived");
                    load.unreadable += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        if first <= through {
            load.taken.push(Taken { site: site.clone(), origin, incarnation, first, last: through });
        }
    }
    Ok(())
}

impl Measures {
    fn new(registry: &Registry) -> Result<Measures, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Measures {
            events: counter("millpond_lake_events_total", "Events that were moved into the archive")?,
            unreadable: counter("millpond_lake_unreadable_records_total", "Records whose events cannot be read")?,
            failures: counter("millpond_lake_failures_total", "Times that the archive could not be written or read")?,
            rows: gauge("millpond_lake_rows", "Events in the archive")?,
            bytes: gauge("millpond_lake_bytes", "Bytes of the archive's files")?,
            files: gauge("millpond_lake_files", "Files of the archive")?,
        })
    }
}
