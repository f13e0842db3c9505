//! Events that do not count, and devices that are forgotten: files are written anew without them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_core::{ids::RecordId, time::Timestamp};

use crate::{
    error::{LakeError, Result},
    lake::{ATTEMPTS, Lake, hash_of},
    manifest::{Edit, File, KEPT, Manifest, NewFile, Source, Tombstone},
    merge::Plan,
    names,
    rows::Head,
};

/// Events of a record that is in the lake already, that count elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub site: Arc<str>,
    pub record: RecordId,
    pub device: Arc<str>,
    /// The device's own numbers.
    pub seqs: Vec<u64>,
}

/// What a device still has in the files of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    pub path: String,
    pub rows: u64,
    /// Whether the newest manifest names the file; others are there until they are swept away.
    pub counts: bool,
}

type Marks = BTreeMap<(Source, u64), BTreeMap<Arc<str>, BTreeSet<u64>>>;

impl Lake {
    /// Takes events out. Those that are not there are passed over.
    ///
    /// # Errors
    /// Nothing was taken out, or all of it: repeat the call.
    pub async fn leave_out(&self, events: &[LeftOut], now_ms: i64) -> Result<Arc<Manifest>> {
        let mut marks = Marks::new();
        for event in events {
            let record = (Source::of(&event.site, &event.record), event.record.seq.0);
            marks.entry(record).or_default().entry(event.device.clone()).or_default().extend(&event.seqs);
        }
        let may_hold = |manifest: &Manifest, file: &File| {
            marks.iter().any(|((source, record), devices)| {
                let in_span = file.spans.as_ref().is_none_or(|spans| {
                    spans.iter().any(|span| span.source == *source && (span.first..=span.last).contains(record))
                });
                let place = |device: &str| manifest.place_of(&file.tenant, device);
                in_span && devices.keys().any(|device| Manifest::may_hold(file, device, place(device)))
            })
        };
        let gone = |head: &Head<'_>| {
            let key = (head.source.clone(), head.record);
            let seqs = marks.get(&key).and_then(|devices| devices.get(head.device));
            head.seq.is_some_and(|seq| seqs.is_some_and(|seqs| seqs.contains(&seq)))
        };
        self.rewrite(&may_hold, &gone, None, &hash_of(format!("{marks:?}").as_bytes()), now_ms).await
    }

    /// Removes all events of a device up to now, and keeps those out that come later and are not younger. What was written of it before is
    /// in the store until it is swept away.
    ///
    /// # Errors
    /// All is as it was, or all is done: repeat the call.
    pub async fn forget(&self, tenant: &str, device: &str, now_ms: i64) -> Result<Arc<Manifest>> {
        let until = Timestamp::from_millis(now_ms);
        let stone = Tombstone { tenant: tenant.into(), device: device.into(), until };
        let may_hold = |manifest: &Manifest, file: &File| {
            let place = || manifest.place_of(tenant, device);
            *file.tenant == *tenant && file.min_time <= until && Manifest::may_hold(file, device, place())
        };
        let gone = |head: &Head<'_>| *head.device == *device && head.time <= until.0;
        let salt = hash_of(format!("{stone:?}").as_bytes());
        self.rewrite(&may_hold, &gone, Some(stone), &salt, now_ms).await
    }

    /// Every file with events of the device, among those of all manifests that are kept. Reads all of them. Files that no manifest names, as
    /// a writer that died leaves them, are not read: a sweep removes them.
    ///
    /// # Errors
    /// When a file can not be read.
    pub async fn prove_forgotten(&self, device: &str) -> Result<Vec<Remains>> {
        let newest = self.refresh().await?;
        let counts: BTreeSet<&str> = newest.files.iter().map(|file| file.path.as_str()).collect();
        let mut files: BTreeMap<String, File> = BTreeMap::new();
        for number in self.numbers_after(0).await? {
            let (manifest, _) = self.read_manifest(number).await?;
            files.extend(manifest.files.into_iter().map(|file| (file.path.clone(), file)));
        }
        let mut remains = Vec::new();
        for (path, file) in files {
            let rows = self.rows_of(&file, device).await?;
            if rows > 0 {
                remains.push(Remains { counts: counts.contains(path.as_str()), path, rows });
            }
        }
        Ok(remains)
    }

    async fn rows_of(&self, file: &File, device: &str) -> Result<u64> {
        let mut cursor = crate::cursor::Cursor::open(self, file).await?;
        let mut rows = 0;
        while let Some(head) = cursor.head() {
            rows += u64::from(*head.device == *device);
            cursor.step();
            if cursor.is_dry() {
                cursor.fill().await?;
            }
        }
        Ok(rows)
    }

    /// Writes the files anew that `may_hold` something of what is `gone`. When others commit in between, what they did to files that are
    /// done already, and files that they brought in, is done again.
    async fn rewrite(
        &self,
        may_hold: &(dyn Fn(&Manifest, &File) -> bool + Sync),
        gone: &(dyn Fn(&Head<'_>) -> bool + Sync),
        stone: Option<Tombstone>,
        salt: &str,
        now_ms: i64,
    ) -> Result<Arc<Manifest>> {
        let mut done: BTreeMap<String, Option<Vec<NewFile>>> = BTreeMap::new();
        for _ in 0..ATTEMPTS {
            let base = self.known();
            let number = base.manifest.number + 1;
            let mut edit = Edit::default();
            if let Some(stone) = &stone {
                let known = base.manifest.forgotten_until(&stone.tenant, &stone.device);
                if known.is_none_or(|until| until < stone.until) {
                    edit.forget.push(stone.clone());
                }
            }
            done.retain(|_, made| {
                let stale = |file: &NewFile| names::number_of_data(&file.path).is_some_and(|of| of + KEPT / 2 < number);
                !made.iter().flatten().any(stale)
            });
            for file in base.manifest.files.iter().filter(|file| may_hold(&base.manifest, file)) {
                if !done.contains_key(&file.path) {
                    let made = self.without(file, gone, number, salt).await?;
                    done.insert(file.path.clone(), made);
                }
                if let Some(Some(made)) = done.get(&file.path) {
                    edit.remove.insert(file.path.clone());
                    edit.add.extend(made.iter().cloned());
                }
            }
            if edit.is_empty() {
                return Ok(base.manifest);
            }
            if let Some(manifest) = self.commit(&base, &edit, now_ms).await? {
                return Ok(manifest);
            }
        }
        Err(LakeError::Contended { attempts: ATTEMPTS })
    }

    /// What takes the place of a file; `None` when it has nothing of what is gone.
    async fn without(
        &self,
        file: &File,
        gone: &(dyn Fn(&Head<'_>) -> bool + Sync),
        number: u64,
        salt: &str,
    ) -> Result<Option<Vec<NewFile>>> {
        let options = &self.inner().options;
        let zstd = if file.tier == crate::Tier::Cold { options.zstd_cold } else { options.zstd_warm };
        let plan = Plan { sources: vec![file], tier: file.tier, zstd, number, salt: salt.to_owned() };
        let mut cursor = crate::cursor::Cursor::open(self, file).await?;
        let mut some = false;
        while let Some(head) = cursor.head() {
            some |= gone(&head);
            cursor.step();
            if some {
                break;
            }
            if cursor.is_dry() {
                cursor.fill().await?;
            }
        }
        drop(cursor);
        if !some {
            return Ok(None);
        }
        self.merge(&plan, &|head: &Head<'_>| !gone(head)).await.map(Some)
    }
}
