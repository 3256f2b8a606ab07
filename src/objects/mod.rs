//! Object storage: what `s3://`, `gs://` and `az://` addresses name, through `object_store`.
//!
//! Credentials and endpoints come from the variables that those services' own tools read (`AWS_…`, `GOOGLE_…`, `AZURE_…`), or from
//! the machine's role. They are never part of an address, and no message shows one. Requests that fail are sent again by
//! `object_store`, ten times, with growing pauses, and here for minutes, once the server has ever answered.
//!
//! The program works on threads of its own and waits here for answers: [`wait`] runs what is asynchronous.

mod client;
mod error;
mod file;
mod transfer;

use std::{
    ops::Range,
    sync::{OnceLock, mpsc},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion, path::Path,
};

use client::Client;
pub use error::ObjectError;
pub use file::ObjectFile;

/// Small objects that are read at once.
const READS_AT_ONCE: usize = 16;

const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// Whether this is an address, and not a path. One of another service is refused when it is opened.
pub fn is_address(text: &str) -> bool {
    let is_scheme =
        |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    text.split_once("://")
        .is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// A folder on object storage: a bucket, and what the names of its objects begin with.
#[derive(Debug, Clone)]
pub struct Objects {
    client: Client,
    /// `s3://bucket`
    bucket: String,
    /// Without a slash at either end; may be empty.
    folder: String,
}

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Below the folder that was listed.
    pub name: String,
    pub bytes: u64,
    /// Changes when the object does: its tag, or `@` and the time where the service gives none.
    pub version: String,
}

/// What a later write can ask to be still there.
pub type Version = UpdateVersion;

/// When an object is written.
#[derive(Debug, Clone)]
pub enum If {
    Absent,
    Still(Version),
}

/// Runs something asynchronous on the threads of this module, and waits for it. It may be called from anywhere.
pub fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime().spawn(async move {
        let _ = sender.send(work.await);
    });
    // Without an answer it has panicked, and said so.
    receiver
        .recv()
        .expect("a request to object storage panicked")
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            // Some of them wait for a disk, and the lock's beat must not.
            .worker_threads(8)
            .thread_name("objects")
            .enable_all()
            .build()
            .expect("no thread can be started")
    })
}

impl Objects {
    /// The folder at an address such as `s3://bucket/some/folder`. Nothing is read yet.
    pub fn open(address: &str) -> Result<Self, ObjectError> {
        let (scheme, rest) = address.split_once("://").unwrap_or_default();
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        if !SCHEMES.contains(&scheme) || bucket.is_empty() {
            return Err(ObjectError::told(
                address,
                "an address is s3://, gs:// or az://, a bucket or container, and a path in it",
            ));
        }
        if bucket.contains(['@', ':']) {
            return Err(ObjectError::told(
                &format!("{scheme}://…"),
                "credentials and accounts do not belong in an address, which is shown and written down; set the variables of the \
                 service's tools (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME, …)",
            ));
        }
        let bucket = format!("{scheme}://{bucket}");
        let folder = folder.trim_matches('/').to_owned();
        Path::parse(&folder).map_err(|error| ObjectError::told(address, error.to_string()))?;
        Ok(Self {
            client: Client::of(&bucket)?,
            bucket,
            folder,
        })
    }

    /// The address of an object in it, or of itself where the name is empty.
    pub fn address(&self, name: &str) -> String {
        let parts = [&self.bucket, self.folder.as_str(), name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }

    fn path(&self, name: &str) -> Result<Path, ObjectError> {
        let full = format!("{}/{name}", self.folder);
        let failed = |error: object_store::path::Error| {
            ObjectError::told(&self.address(name), error.to_string())
        };
        Path::parse(full.trim_matches('/')).map_err(failed)
    }

    fn failed(&self, name: &str) -> impl FnOnce(object_store::Error) -> ObjectError + use<> {
        let address = self.address(name);
        move |error| ObjectError::new(&address, &error)
    }

    /// The same, for requests whose failure is nothing to wait for.
    pub fn once(&self) -> Self {
        let mut own = self.clone();
        own.client.is_patient = false;
        own
    }

    /// A part of an object that must still be the one that was listed.
    async fn read_part(&self, object: &Object, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let path = self.path(&object.name)?;
        let read = || async {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                // A version that is a time is no tag.
                if_match: (!object.version.starts_with('@'))
                    .then(|| format!("\"{}\"", object.version)),
                ..GetOptions::default()
            };
            let read = async {
                let got = self.client.store.get_opts(&path, options).await?;
                got.bytes().await
            };
            read.await.map_err(self.failed(&object.name))
        };
        self.client.patiently(read).await
    }

    /// A folder in it.
    pub fn below(&self, name: &str) -> Self {
        let folder = format!("{}/{name}", self.folder);
        Self {
            folder: folder.trim_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// Waits for work that may be tried again.
    fn patiently<T: Send + 'static, F: Future<Output = Result<T, ObjectError>> + Send>(
        &self,
        work: impl Fn(Self) -> F + Send + Sync + 'static,
    ) -> Result<T, ObjectError> {
        let own = self.clone();
        wait(async move { own.client.patiently(|| work(own.clone())).await })
    }

    /// An object's bytes and version; None: there is none.
    pub fn get(&self, name: &str) -> Result<Option<(Bytes, Version)>, ObjectError> {
        let name = name.to_owned();
        self.patiently(move |own| {
            let name = name.clone();
            async move { own.read(&name).await }
        })
    }

    /// Some of the objects that there are, whole, in the order of their names here; several at once.
    pub fn get_all(&self, names: Vec<String>) -> Result<Vec<Bytes>, ObjectError> {
        let own = self.clone();
        let get = move |name: String| {
            let own = own.clone();
            async move {
                let found = own.client.patiently(|| own.read(&name)).await?;
                let gone =
                    || ObjectError::told(&own.address(&name), "is gone; run the command again");
                found.map(|(bytes, _)| bytes).ok_or_else(gone)
            }
        };
        let read = stream::iter(names.into_iter().map(get)).buffered(READS_AT_ONCE);
        wait(read.try_collect())
    }

    async fn read(&self, name: &str) -> Result<Option<(Bytes, Version)>, ObjectError> {
        let path = self.path(name)?;
        let read = async {
            let got = self.client.store.get(&path).await?;
            let version = Version {
                e_tag: got.meta.e_tag.clone(),
                version: got.meta.version.clone(),
            };
            Ok((got.bytes().await?, version))
        };
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name)(error)),
        }
    }

    /// What a listing would say of one object; None: there is none.
    pub fn look_at(&self, name: &str) -> Result<Option<Object>, ObjectError> {
        let name = name.to_owned();
        self.patiently(move |own| {
            let name = name.clone();
            async move {
                match own.client.store.head(&own.path(&name)?).await {
                    Ok(meta) => Ok(Some(object(name, &meta))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(own.failed(&name)(error)),
                }
            }
        })
    }

    /// Writes an object whole, under a condition. None: it does not hold, and nothing was written. The bytes must be the writer's
    /// alone: finding them there already, it knows that a request was carried out whose answer was lost. So it may be sent again.
    pub fn put_if(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        condition: If,
    ) -> Result<Option<Version>, ObjectError> {
        let (name, bytes) = (name.to_owned(), bytes.into());
        self.patiently(move |own| {
            let (name, bytes, condition) = (name.clone(), bytes.clone(), condition.clone());
            async move { own.write_if(&name, &bytes, &condition).await }
        })
    }

    async fn write_if(
        &self,
        name: &str,
        bytes: &Bytes,
        condition: &If,
    ) -> Result<Option<Version>, ObjectError> {
        let path = self.path(name)?;
        let mode = match condition {
            If::Absent => PutMode::Create,
            If::Still(version) => PutMode::Update(version.clone()),
        };
        // Google serves public objects an hour long as they were.
        let attributes = [(Attribute::CacheControl, "no-store")];
        let options = PutOptions {
            mode,
            attributes: Attributes::from_iter(attributes),
            ..PutOptions::default()
        };
        let put = self
            .client
            .store
            .put_opts(&path, bytes.clone().into(), options);
        match put.await {
            Ok(put) => {
                return Ok(Some(Version {
                    e_tag: put.e_tag,
                    version: put.version,
                }));
            }
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {}
            Err(object_store::Error::NotFound { .. }) if matches!(condition, If::Still(_)) => {}
            Err(error) => return Err(self.failed(name)(error)),
        }
        let there = self.read(name).await?;
        let own = there.filter(|(there, _)| there == bytes);
        Ok(own.map(|(_, version)| version))
    }

    /// All objects below, in order of their names, which is that of their bytes.
    pub fn list(&self) -> Result<Vec<Object>, ObjectError> {
        let mut objects = self.patiently(|own| async move {
            let prefix = own.path("")?;
            let listed = own.client.store.list(Some(&prefix)).map_ok(|meta| {
                let name = meta.location.prefix_match(&prefix).map(|parts| {
                    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                    parts.join("/")
                });
                object(name.unwrap_or_default(), &meta)
            });
            let listed = listed.try_collect::<Vec<Object>>().await;
            listed.map_err(own.failed(""))
        })?;
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(without_folders(objects))
    }

    /// Names of the folders directly below, and of the objects.
    pub fn names(&self) -> Result<(Vec<String>, Vec<String>), ObjectError> {
        self.patiently(|own| async move {
            let prefix = own.path("")?;
            let listed = own.client.store.list_with_delimiter(Some(&prefix)).await;
            let listed = listed.map_err(own.failed(""))?;
            let last = |path: &Path| path.filename().unwrap_or_default().to_owned();
            let folders = listed.common_prefixes.iter().map(last).collect();
            let below = listed.objects.iter().filter(|meta| meta.location != prefix);
            let objects = below.map(|meta| last(&meta.location));
            Ok((folders, objects.collect()))
        })
    }

    /// Removes objects; one that is gone already is no error.
    pub fn remove(&self, names: &[String]) -> Result<(), ObjectError> {
        let paths = names.iter().map(|name| self.path(name));
        let paths: Vec<Path> = paths.collect::<Result<_, _>>()?;
        self.patiently(move |own| {
            let paths = stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            async move {
                let mut removed = own.client.store.delete_stream(paths);
                while let Some(result) = removed.next().await {
                    match result {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(own.failed("")(error)),
                    }
                }
                Ok(())
            }
        })
    }
}

/// Without the empty objects that some tools make for folders; of objects in order.
fn without_folders(objects: Vec<Object>) -> Vec<Object> {
    let names: Vec<String> = objects.iter().map(|object| object.name.clone()).collect();
    let is_folder = |object: &Object| {
        let folder = format!("{}/", object.name);
        let behind = names.partition_point(|name| *name < folder);
        let has_some = names
            .get(behind)
            .is_some_and(|name| name.starts_with(&folder));
        object.name.is_empty() || (object.bytes == 0 && has_some)
    };
    objects
        .into_iter()
        .filter(|object| !is_folder(object))
        .collect()
}

fn object(name: String, meta: &object_store::ObjectMeta) -> Object {
    // Azure's listings have no quotes, its answers have.
    let tag = meta
        .e_tag
        .as_ref()
        .map(|tag| tag.trim_matches('"').to_owned());
    Object {
        name,
        bytes: meta.size,
        version: tag.unwrap_or_else(|| format!("@{}", meta.last_modified.to_rfc3339())),
    }
}
