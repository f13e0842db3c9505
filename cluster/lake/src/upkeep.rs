//! What has to be done from time to time: merging small files, moving old ones, dropping the oldest, sweeping up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::TryStreamExt;
use millpond_core::time::Span;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::{
    error::{LakeError, Result},
    lake::Lake,
    manifest::{Edit, File, KEPT, Manifest, Tier, older_than},
    merge::Plan,
    names,
    upload::parse,
};

/// How long days stay: warm until so long after their end, then cold, and gone so long after their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    pub warm: Span,
    pub cold: Span,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub manifests: u64,
    pub files: u64,
}

/// A day is closed when it ended so long ago: not much of it will come any more, and what is there becomes one file.
const CLOSED: Span = Span::from_secs(6 * 3600);
/// Files of a day that is not closed are merged when there are so many of about the same size.
const MANY: usize = 4;

impl Lake {
    /// Merges small files of the same tenant, day and shape. Returns the newest manifest after the last commit; nothing changes for who
    /// reads. A file is written again only when what is merged with it is as large.
    ///
    /// # Errors
    /// What was merged before is committed; the rest is as it was.
    pub async fn compact(&self, now_ms: i64) -> Result<Arc<Manifest>> {
        let manifest = self.manifest();
        for files in groups(&manifest, |_| true).into_values() {
            let closed = older_than(files[0].day, CLOSED, now_ms);
            let limit = self.inner().options.file_bytes / 2;
            let small: Vec<&File> = files.into_iter().filter(|file| file.bytes < limit).collect();
            let tier = small.first().map_or(Tier::Warm, |file| file.tier);
            for sources in self.batches(choose(small, closed)).await? {
                if sources.len() > 1 {
                    self.replace(sources, tier, now_ms).await?;
                }
            }
        }
        Ok(self.manifest())
    }

    /// Moves days that are old enough into the cold tier, and drops those that are older still; what was dropped is counted in the
    /// manifest. Days of files that somebody else rewrote meanwhile wait for the next time.
    ///
    /// # Errors
    /// What was done before is committed; the rest is as it was.
    pub async fn age(&self, now_ms: i64, lifecycle: Lifecycle) -> Result<Arc<Manifest>> {
        let base = self.known();
        let is_old = |file: &&File| older_than(file.day, lifecycle.cold, now_ms);
        let remove: BTreeSet<String> =
            base.manifest.files.iter().filter(is_old).map(|file| file.path.clone()).collect();
        if !remove.is_empty() {
            self.commit(&base, &Edit { remove, drop: true, ..Edit::default() }, now_ms).await?;
        }
        let manifest = self.manifest();
        let ripe = |file: &File| {
            file.tier == Tier::Warm
                && older_than(file.day, lifecycle.warm, now_ms)
                && !older_than(file.day, lifecycle.cold, now_ms)
        };
        for files in groups(&manifest, ripe).into_values() {
            for sources in self.batches(files).await? {
                self.replace(sources, Tier::Cold, now_ms).await?;
            }
        }
        Ok(self.manifest())
    }

    /// Removes manifests that were replaced longer ago than the grace and are not among the last 64, and files that no manifest names
    /// any more and that nobody can be about to commit.
    ///
    /// # Errors
    /// Some of it may be left; the next sweep finds it.
    pub async fn sweep(&self, now_ms: i64) -> Result<Swept> {
        let newest = self.refresh().await?;
        let mut swept = Swept::default();
        let mut named: BTreeSet<String> = newest.files.iter().map(|file| file.path.clone()).collect();
        let mut oldest = newest.number;
        // A manifest is as old as the one that took its place.
        let mut replaced_at = newest.at_ms;
        let mut gone = Vec::new();
        for number in self.numbers_after(0).await?.into_iter().rev().skip_while(|number| *number >= newest.number) {
            let rests = number + KEPT > newest.number || now_ms - self.inner().options.grace.as_millis() < replaced_at;
            if !rests || !gone.is_empty() {
                gone.push(number);
                continue;
            }
            let (manifest, _) = self.read_manifest(number).await?;
            named.extend(manifest.files.into_iter().map(|file| file.path));
            (oldest, replaced_at) = (number, manifest.at_ms);
        }
        // Oldest first: should it end in the middle, those that are left name files that are still there.
        for number in gone.into_iter().rev() {
            self.remove(&self.inner().store, &names::manifest_path(number)).await?;
            swept.manifests += 1;
        }
        let end = oldest.min((newest.number + 1).saturating_sub(KEPT));
        let mut places = vec![(&self.inner().store, names::EVENTS), (&self.inner().store, names::COLD)];
        places.extend(self.inner().options.cold.as_ref().map(|cold| (cold, names::COLD)));
        for (store, top) in places {
            let objects = store.list(Some(&parse(top)?));
            let paths: Vec<String> = objects
                .map_ok(|object| object.location.to_string())
                .try_filter(|path| {
                    let old = names::number_of_data(path).is_some_and(|number| number < end);
                    std::future::ready(old && !named.contains(path))
                })
                .try_collect()
                .await
                .map_err(LakeError::store(top))?;
            for path in paths {
                self.remove(store, &path).await?;
                swept.files += 1;
            }
        }
        Ok(swept)
    }

    async fn remove(&self, store: &Arc<dyn ObjectStore>, path: &str) -> Result<()> {
        match store.delete(&parse(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(LakeError::store(path)(error)),
        }
    }

    /// Cuts files into lists that fit into the memory for merging together.
    async fn batches<'f>(&self, files: Vec<&'f File>) -> Result<Vec<Vec<&'f File>>> {
        let mut batches: Vec<Vec<&File>> = Vec::new();
        let mut weight = usize::MAX;
        for file in files {
            let more = crate::cursor::Cursor::weight(self, file).await?;
            weight = weight.saturating_add(more);
            match batches.last_mut() {
                Some(batch) if weight <= self.inner().options.merge_bytes || batch.len() < 2 => batch.push(file),
                _ => {
                    batches.push(vec![file]);
                    weight = more;
                }
            }
        }
        Ok(batches)
    }

    /// Puts one file, or as many as needed, in the place of several. Does nothing when one of them is gone meanwhile.
    async fn replace(&self, sources: Vec<&File>, tier: Tier, now_ms: i64) -> Result<()> {
        let options = &self.inner().options;
        let zstd = if tier == Tier::Cold { options.zstd_cold } else { options.zstd_warm };
        let mut number = self.manifest().number + 1;
        let remove: BTreeSet<String> = sources.iter().map(|file| file.path.clone()).collect();
        let plan = Plan { sources, tier, zstd, number, salt: "all".to_owned() };
        let add = self.merge(&plan, &|_| true).await?;
        let edit = Edit { remove, add, ..Edit::default() };
        // Others may commit meanwhile, as long as they leave these files alone.
        while number < plan.number + KEPT {
            let base = self.known();
            let there: BTreeSet<&String> = base.manifest.files.iter().map(|file| &file.path).collect();
            if !edit.remove.iter().all(|path| there.contains(path))
                || self.commit(&base, &edit, now_ms).await?.is_some()
            {
                return Ok(());
            }
            number = number.max(self.manifest().number) + 1;
        }
        Ok(())
    }
}

type Group<'a> = (&'a str, i32, &'a str, Tier);

fn groups(manifest: &Manifest, wanted: impl Fn(&File) -> bool) -> BTreeMap<Group<'_>, Vec<&File>> {
    let mut groups: BTreeMap<Group<'_>, Vec<&File>> = BTreeMap::new();
    for file in manifest.files.iter().filter(|file| wanted(file)) {
        groups.entry((&file.tenant, file.day, &file.shape, file.tier)).or_default().push(file);
    }
    groups
}

/// The files to be merged: the smallest ones, up to the first that is larger than all before it.
fn choose(mut small: Vec<&File>, closed: bool) -> Vec<&File> {
    small.sort_by(|a, b| (a.bytes, &a.path).cmp(&(b.bytes, &b.path)));
    if closed {
        return small;
    }
    let mut before = 0;
    let mut chosen = 0;
    for (at, file) in small.iter().enumerate() {
        if at + 1 >= MANY && before >= file.bytes {
            chosen = at + 1;
        }
        before += file.bytes;
    }
    small.truncate(chosen);
    small
}
