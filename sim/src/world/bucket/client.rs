//! A store as a program uses it, by the interface that real stores have.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use millpond_core::time::Span;
use millpond_env::Env;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use tokio::sync::oneshot;

use super::{Bucket, broken, objects::Objects};
use crate::world::core::Place;

/// A request that is not answered within this time has failed.
const PATIENCE: Span = Span::from_secs(10);

#[derive(Clone)]
pub(super) struct Client {
    bucket: Bucket,
    /// Who uses it; nobody: what is asked for is done at once.
    user: Option<(Env, Place)>,
}

impl Client {
    pub fn new(bucket: Bucket, user: Option<(Env, Place)>) -> Client {
        Client { bucket, user }
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        writes: bool,
        effect: impl Fn(&mut Objects) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let Some((env, place)) = &self.user else { return effect(&mut self.bucket.state().objects) };
        let (reply, answer) = oneshot::channel();
        self.bucket.send(*place, what, writes, effect, move |said| drop(reply.send(said)));
        let answered = async {
            match answer.await {
                Ok(said) => said,
                // It is lost; nobody tells.
                Err(_) => std::future::pending().await,
            }
        };
        env.timeout(PATIENCE, answered).await.unwrap_or_else(|_| {
            self.bucket.state().stats.unanswered += 1;
            Err(broken("it does not answer"))
        })
    }

    async fn put(&self, path: Path, bytes: Bytes, mode: PutMode) -> Result<PutResult> {
        self.ask("put", true, move |objects| objects.put(&path, bytes.clone(), &mode)).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket")
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(location.clone(), payload.into(), options.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.ask("begin", false, |_| Ok(())).await?;
        Ok(Box::new(Parts { client: self.clone(), path: location.clone(), parts: Arc::default(), begun: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (path, asked) = (location.clone(), options.clone());
        let (meta, bytes) = self.ask("get", false, move |objects| objects.get(&path, &asked)).await?;
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| Error::Generic { store: "bucket", source: Box::new(error) })?,
            None => 0..meta.size,
        };
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        let delete = move |path: Path| {
            let (client, gone) = (client.clone(), path.clone());
            async move {
                let done = client.ask("delete", true, move |objects| {
                    objects.delete(&gone);
                    Ok(())
                });
                done.await.map(|()| path)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let found = client.ask("list", false, move |objects| Ok(objects.list(prefix.as_ref()))).await?;
            Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "list_with_delimiter".to_owned(), implementer: self.to_string() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.ask("copy", true, move |objects| objects.copy(&from, &to, options.mode)).await
    }
}

/// An object that comes in parts. It is there when all of it is.
#[derive(Debug)]
struct Parts {
    client: Client,
    path: Path,
    parts: Arc<Mutex<Vec<Bytes>>>,
    begun: usize,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (client, parts, number, bytes) = (self.client.clone(), self.parts.clone(), self.begun, Bytes::from(data));
        self.begun += 1;
        Box::pin(async move {
            let keep = move |_: &mut Objects| {
                let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
                let count = parts.len().max(number + 1);
                parts.resize_with(count, Bytes::new);
                parts[number] = bytes.clone();
                Ok(())
            };
            client.ask("part", true, keep).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let whole = self.parts.lock().unwrap_or_else(PoisonError::into_inner).concat();
        self.client.put(self.path.clone(), whole.into(), PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
