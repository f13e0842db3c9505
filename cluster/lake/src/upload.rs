//! Bytes to the store as they come, in parts when they are many.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, PutOptions, PutPayload, path::Path};

use crate::error::{LakeError, Result};

pub struct Upload {
    store: Arc<dyn ObjectStore>,
    path: String,
    part_bytes: usize,
    waiting: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    pub fn new(store: Arc<dyn ObjectStore>, path: String, part_bytes: usize) -> Upload {
        Upload { store, path, part_bytes, waiting: Vec::new(), parts: None }
    }

    pub async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() >= self.part_bytes {
            let rest = self.waiting.split_off(self.part_bytes);
            let part = std::mem::replace(&mut self.waiting, rest);
            self.part(part).await?;
        }
        Ok(())
    }

    /// The object is there, whole, when this returns without an error.
    pub async fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.waiting);
        if self.parts.is_none() {
            return put(&self.store, &self.path, rest.into()).await;
        }
        if !rest.is_empty() {
            self.part(rest).await?;
        }
        match &mut self.parts {
            Some(parts) => parts.complete().await.map(drop).map_err(LakeError::store(&self.path)),
            None => Ok(()),
        }
    }

    /// Gives back the space of what was sent, as far as the store lets.
    pub async fn abandon(mut self) {
        if let Some(parts) = &mut self.parts {
            let _ = parts.abort().await;
        }
    }

    async fn part(&mut self, bytes: Vec<u8>) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let path = parse(&self.path)?;
                let parts = self.store.put_multipart_opts(&path, Default::default()).await;
                self.parts.insert(parts.map_err(LakeError::store(&self.path))?)
            }
        };
        parts.put_part(PutPayload::from(bytes)).await.map_err(LakeError::store(&self.path))
    }
}

/// Writes an object whole. One that is there already is of the same bytes: names are made of what is in the files.
pub async fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: Bytes) -> Result<()> {
    let payload = PutPayload::from_bytes(bytes);
    store.put_opts(&parse(path)?, payload, PutOptions::default()).await.map(drop).map_err(LakeError::store(path))
}

pub fn parse(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|error| LakeError::store(path)(error.into()))
}
