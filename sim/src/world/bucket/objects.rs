//! What a store holds, and what its operations do.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use object_store::{CopyMode, Error, GetOptions, ObjectMeta, PutMode, PutResult, Result, UpdateVersion, path::Path};

/// By path. Nothing here looks at a clock: objects have the age of 1970.
#[derive(Default)]
pub(super) struct Objects {
    held: BTreeMap<Path, Object>,
    /// Objects that were written so far: each version has a tag of its own.
    written: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    tag: u64,
}

impl Objects {
    pub fn put(&mut self, path: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let known = self.held.get(path);
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if known.is_some() => return Err(exists(path)),
            PutMode::Create => {}
            PutMode::Update(UpdateVersion { e_tag, .. }) => {
                if known.map(|object| tag(object.tag)) != *e_tag {
                    return Err(Error::Precondition { path: path.to_string(), source: "it is another one".into() });
                }
            }
        }
        self.written += 1;
        self.held.insert(path.clone(), Object { bytes, tag: self.written });
        Ok(PutResult { e_tag: Some(tag(self.written)), version: None, extensions: Default::default() })
    }

    /// The object whole, with what is said of it.
    pub fn get(&self, path: &Path, options: &GetOptions) -> Result<(ObjectMeta, Bytes)> {
        let object = self.held.get(path).ok_or_else(|| missing(path))?;
        let meta = meta(path, object);
        options.check_preconditions(&meta)?;
        Ok((meta, object.bytes.clone()))
    }

    pub fn delete(&mut self, path: &Path) {
        self.held.remove(path);
    }

    /// What lies below a folder, in the order of paths.
    pub fn list(&self, prefix: Option<&Path>) -> Vec<ObjectMeta> {
        let from = prefix.map_or(Bound::Unbounded, Bound::Excluded);
        let below = |(path, _): &(&Path, &Object)| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
        let listed = self.held.range((from, Bound::Unbounded));
        listed.filter(below).map(|(path, object)| meta(path, object)).collect()
    }

    pub fn copy(&mut self, from: &Path, to: &Path, mode: CopyMode) -> Result<()> {
        let bytes = self.held.get(from).ok_or_else(|| missing(from))?.bytes.clone();
        let mode = if mode == CopyMode::Create { PutMode::Create } else { PutMode::Overwrite };
        self.put(to, bytes, &mode).map(drop)
    }
}

fn meta(path: &Path, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: object.bytes.len() as u64,
        e_tag: Some(tag(object.tag)),
        version: None,
    }
}

fn tag(number: u64) -> String {
    format!("\"{number}\"")
}

fn missing(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "there is no such object".into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "there is such an object".into() }
}
