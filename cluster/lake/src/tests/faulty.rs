//! A store that does what it should up to an operation, and then does not.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};

/// What becomes of the operation at which it fails, and of all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not done; later ones are.
    Refused,
    /// Done, and said to have failed; later ones are done.
    Lied,
    /// Not done, and nothing after it: the process died.
    DiedBefore,
    /// Done, and nothing after it.
    DiedAfter,
    /// Done, and writes that are to find nothing in their place take it over, now and later.
    Overwrites,
}

pub const FAULTS: [Fault; 4] = [Fault::Refused, Fault::Lied, Fault::DiedBefore, Fault::DiedAfter];

#[derive(Debug)]
struct Plan {
    at: u64,
    fault: Fault,
    done: AtomicU64,
}

#[derive(Clone, Debug)]
pub struct Faulty {
    store: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

impl Faulty {
    /// Fails at operation number `at`, from 1.
    pub fn new(store: Arc<dyn ObjectStore>, at: u64, fault: Fault) -> Faulty {
        Faulty { store, plan: Arc::new(Plan { at, fault, done: AtomicU64::new(0) }) }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.plan.done.load(Ordering::SeqCst)
    }
}

impl Plan {
    /// Whether the next operation is done, and whether it is said to be.
    fn next(&self) -> (bool, bool) {
        let number = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        match (number.cmp(&self.at), self.fault) {
            (std::cmp::Ordering::Less, _) => (true, true),
            (std::cmp::Ordering::Equal, Fault::Lied | Fault::DiedAfter) => (true, false),
            (std::cmp::Ordering::Equal, Fault::Refused | Fault::DiedBefore) => (false, false),
            (_, Fault::Overwrites) | (std::cmp::Ordering::Greater, Fault::Refused | Fault::Lied) => (true, true),
            _ => (false, false),
        }
    }

    async fn run<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let (done, said) = self.next();
        let result = if done { Some(operation.await) } else { None };
        match result {
            Some(result) if said => result,
            _ => Err(broken()),
        }
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the line went dead".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if self.plan.fault == Fault::Overwrites {
            options.mode = PutMode::Overwrite;
        }
        self.plan.run(self.store.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.plan.run(self.store.put_multipart_opts(location, options)).await?;
        Ok(Box::new(FaultyUpload { upload, plan: self.plan.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.plan.run(self.store.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.run(self.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, plan) = (self.store.clone(), self.plan.clone());
        let remove = move |location: Result<Path>| {
            let (store, plan) = (store.clone(), plan.clone());
            async move {
                let location = location?;
                let one = futures_util::stream::iter([Ok(location.clone())]).boxed();
                plan.run(async { store.delete_stream(one).next().await.unwrap_or(Ok(location)) }).await
            }
        };
        locations.then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.plan.next() {
            (true, true) => self.store.list(prefix),
            _ => futures_util::stream::once(future::ready(Err(broken()))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plan.run(self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plan.run(self.store.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, plan) = (self.upload.put_part(data), self.plan.clone());
        Box::pin(async move { plan.run(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.plan.run(self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.run(self.upload.abort()).await
    }
}
