//! The lake: a store, what is known of it, and how it goes from one manifest to the next.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use millpond_core::time::Span;
use object_store::{Error as StoreError, GetOptions, ObjectStore, PutMode, PutPayload};

use crate::{
    error::{LakeError, Result},
    footer::{Footer, Footers},
    manifest::{Edit, File, Manifest, Tier},
    names,
    upload::parse,
    write::Cut,
};

/// How a lake is kept. What may differ from run to run, because nothing of it is needed to read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where cold files are; beside the others when not said.
    pub cold: Option<Arc<dyn ObjectStore>>,
    /// Memory for the footers of files.
    pub footers: usize,
    /// How large files become by merging.
    pub file_bytes: u64,
    /// Memory that merging takes for its inputs, about.
    pub merge_bytes: usize,
    /// Levels of zstd for files that are warm and cold.
    pub zstd_warm: i32,
    pub zstd_cold: i32,
    /// How long a manifest is kept after another has taken its place, at least.
    pub grace: Span,
    #[doc(hidden)]
    pub cut: Cut,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cold: None,
            footers: 32 << 20,
            file_bytes: 128 << 20,
            merge_bytes: 48 << 20,
            zstd_warm: 3,
            zstd_cold: 12,
            grace: Span::from_secs(3600),
            cut: Cut::default(),
        }
    }
}

/// A handle on the archive; clones are the same handle.
#[derive(Clone)]
pub struct Lake(Arc<Inner>);

pub(crate) struct Inner {
    pub store: Arc<dyn ObjectStore>,
    pub options: Options,
    known: Mutex<Known>,
    /// The store was looked at.
    read: AtomicBool,
    /// The store keeps what is there.
    proven: AtomicBool,
    footers: Mutex<Footers>,
}

#[derive(Clone)]
pub(crate) struct Known {
    pub manifest: Arc<Manifest>,
    /// Of its bytes.
    pub hash: String,
}

const PROOF: &[u8] = b"Nobody may write here again: so the store is known to keep what is there.\n";

/// How often a writer begins again because another came first.
pub(crate) const ATTEMPTS: u32 = 32;

impl Lake {
    /// Finds the newest manifest; where there is none the lake is empty.
    ///
    /// # Errors
    /// When the store can not be read, or the newest manifest is damaged: an older one would be a lie.
    pub async fn open(store: Arc<dyn ObjectStore>, options: Options) -> Result<Lake> {
        let lake = Lake::unread(store, options);
        lake.refresh().await?;
        Ok(lake)
    }

    /// A handle that knows nothing yet: its manifest is that of an empty lake until it was [refreshed](Lake::refresh).
    pub fn unread(store: Arc<dyn ObjectStore>, options: Options) -> Lake {
        let known = Mutex::new(Known { manifest: Arc::new(Manifest::empty()), hash: String::new() });
        let (read, proven) = (AtomicBool::new(false), AtomicBool::new(false));
        let footers = Mutex::new(Footers::new(options.footers));
        Lake(Arc::new(Inner { store, options, known, read, proven, footers }))
    }

    /// Whether the store was looked at, so that the manifest that is known is one of it.
    pub fn is_read(&self) -> bool {
        self.0.read.load(Ordering::Acquire)
    }

    /// The newest manifest that is known here.
    pub fn manifest(&self) -> Arc<Manifest> {
        self.known().manifest
    }

    /// Looks for a newer manifest.
    ///
    /// # Errors
    /// When the store can not be read; what was known stays.
    pub async fn refresh(&self) -> Result<Arc<Manifest>> {
        let known = self.known().manifest.number;
        if let Some(newest) = self.numbers_after(known).await?.last() {
            let (manifest, hash) = self.read_manifest(*newest).await?;
            self.learn(manifest.into(), hash);
        }
        self.0.read.store(true, Ordering::Release);
        Ok(self.manifest())
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn known(&self) -> Known {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, manifest: Arc<Manifest>, hash: String) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if manifest.number > known.manifest.number {
            *known = Known { manifest, hash };
        }
    }

    /// Numbers of the manifests after `number` in the store, in order.
    pub(crate) async fn numbers_after(&self, number: u64) -> Result<Vec<u64>> {
        let folder = parse(names::MANIFESTS)?;
        let after = parse(&names::manifest_path(number))?;
        let found: Vec<_> = self
            .0
            .store
            .list_with_offset(Some(&folder), &after)
            .try_collect()
            .await
            .map_err(LakeError::store(names::MANIFESTS))?;
        let mut numbers: Vec<u64> =
            found.iter().filter_map(|object| names::number_of_manifest(object.location.as_ref())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) async fn read_manifest(&self, number: u64) -> Result<(Manifest, String)> {
        let path = names::manifest_path(number);
        let bytes = self.get(&self.0.store, &path).await?;
        Ok((Manifest::decode(&path, &bytes)?, hash_of(&bytes)))
    }

    pub(crate) async fn get(&self, store: &Arc<dyn ObjectStore>, path: &str) -> Result<Bytes> {
        let found = store.get_opts(&parse(path)?, GetOptions::default()).await.map_err(LakeError::store(path))?;
        found.bytes().await.map_err(LakeError::store(path))
    }

    /// Two writers are kept apart by a write that must not find anything in its place. There are stores that do it all the same.
    async fn prove(&self) -> Result<()> {
        if self.0.proven.load(Ordering::Acquire) {
            return Ok(());
        }
        let place = parse(names::PROOF)?;
        // Once it is there every further one has to be refused.
        for _ in 0..2 {
            let payload = PutPayload::from_static(PROOF);
            match self.0.store.put_opts(&place, payload, PutMode::Create.into()).await {
                Ok(_) => {}
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                    self.0.proven.store(true, Ordering::Release);
                    return Ok(());
                }
                Err(StoreError::NotImplemented { .. }) => break,
                Err(error) => return Err(LakeError::store(names::PROOF)(error)),
            }
        }
        Err(LakeError::Overwrites)
    }

    /// Commits an edit on top of `base`: the new manifest, or `None` when another writer was faster or the edit does not hold any more.
    /// What is newest is known after that.
    pub(crate) async fn commit(&self, base: &Known, edit: &Edit, now_ms: i64) -> Result<Option<Arc<Manifest>>> {
        let Some(next) = edit.apply(&base.manifest, &base.hash, now_ms) else {
            self.refresh().await?;
            return Ok(None);
        };
        self.prove().await?;
        let (number, path, bytes) = (next.number, next.path(), Bytes::from(next.encode()));
        let hash = hash_of(&bytes);
        let (place, payload) = (parse(&path)?, PutPayload::from_bytes(bytes.clone()));
        if let Err(error) = self.0.store.put_opts(&place, payload, PutMode::Create.into()).await {
            // It may have been done all the same, now or when it was tried before: then the bytes are ours.
            let came_first = matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. });
            match self.get(&self.0.store, &path).await {
                Ok(found) if found == bytes => {}
                Ok(_) => {
                    self.refresh().await?;
                    return Ok(None);
                }
                Err(unread) if came_first => return Err(unread),
                Err(_) => return Err(LakeError::store(path)(error)),
            }
        }
        // A writer that slept for very long may have found the place of a manifest that was swept away. Then nobody will build on his.
        if let Some(newest) = self.numbers_after(number).await?.last() {
            let (newest, newest_hash) = self.read_manifest(*newest).await?;
            let built_upon = newest.before.contains(&(number, hash.clone()));
            self.learn(newest.into(), newest_hash);
            return Ok(built_upon.then(|| self.manifest()));
        }
        let next = Arc::new(next);
        self.learn(next.clone(), hash);
        Ok(Some(next))
    }

    pub(crate) fn store_of(&self, tier: Tier) -> &Arc<dyn ObjectStore> {
        match (&self.0.options.cold, tier) {
            (Some(cold), Tier::Cold) => cold,
            _ => &self.0.store,
        }
    }

    pub(crate) async fn footer(&self, file: &File) -> Result<Arc<Footer>> {
        let footers = || self.0.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = footers().find(&file.path) {
            return Ok(known);
        }
        let tail = self
            .store_of(file.tier)
            .get_ranges(&parse(&file.path)?, std::slice::from_ref(&(file.tail..file.bytes)))
            .await;
        let mut tail = tail.map_err(LakeError::store(&file.path))?;
        let footer = Arc::new(Footer::read(file, tail.pop().unwrap_or_default())?);
        footers().keep(&footer);
        Ok(footer)
    }

    /// Parts of a file, checked.
    pub(crate) async fn read(&self, tier: Tier, footer: &Footer, parts: &[Range<u64>]) -> Result<Vec<(u64, Bytes)>> {
        let around: Vec<Range<u64>> = parts.iter().map(|part| footer.around(part)).collect();
        let found = self.store_of(tier).get_ranges(&parse(&footer.path)?, &around).await;
        let found = found.map_err(LakeError::store(&footer.path))?;
        let mut pieces = Vec::new();
        for ((part, around), bytes) in parts.iter().zip(around).zip(found) {
            footer.check(around.start, &bytes, around.end - around.start)?;
            let at = (part.start - around.start) as usize;
            pieces.push((part.start, bytes.slice(at..at + (part.end - part.start) as usize)));
        }
        Ok(pieces)
    }
}

pub(crate) fn hash_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}
