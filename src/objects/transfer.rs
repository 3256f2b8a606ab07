//! Files up and down: large ones in parts, several files at once.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, WriteMultipart};

use super::{Object, ObjectError, Objects, wait};

/// Files on their way at once.
const AT_ONCE: usize = 4;

/// Parts of one file on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Bytes of a part; smaller files go in one request. All parts on their way, and those being filled, take 160 MiB.
const PART: u64 = 8 << 20;

/// Amazon's limit is 10,000, so that the parts of files above 70 GiB are larger.
const MOST_PARTS: u64 = 9_000;

impl Objects {
    /// Writes files as objects of these names. An object is there whole or not at all. A server may be away for a while: a build has
    /// hours behind it.
    pub fn upload(&self, files: Vec<(PathBuf, String)>) -> Result<(), ObjectError> {
        let objects = self.clone();
        let send = move |(file, name): (PathBuf, String)| {
            let objects = objects.clone();
            async move {
                let work = || upload(objects.clone(), file.clone(), name.clone());
                objects.client.patiently(work).await
            }
        };
        some_at_once(files.into_iter().map(send))
    }

    /// Reads objects into files, each under a temporary name in its folder until it is whole. The folders are made.
    pub fn download(&self, files: Vec<(Object, PathBuf)>) -> Result<(), ObjectError> {
        let objects = self.clone();
        let fetch = move |(object, file)| download(objects.clone(), object, file);
        some_at_once(files.into_iter().map(fetch))
    }

    /// The object at this very address, fetched into a file that goes when it is closed.
    pub fn open_file(&self) -> Result<File, ObjectError> {
        let address = self.address("");
        let local = |error: std::io::Error| {
            ObjectError::told(&address, format!("cannot be fetched: {error}"))
        };
        let object = self.look_at("")?;
        let object = object.ok_or_else(|| ObjectError::told(&address, "not there"))?;
        let folder = tempfile::tempdir().map_err(local)?;
        let path = folder.path().join("object");
        self.download(vec![(object, path.clone())])?;
        File::open(&path).map_err(local)
    }
}

fn some_at_once<F>(transfers: impl Iterator<Item = F> + Send + 'static) -> Result<(), ObjectError>
where
    F: Future<Output = Result<(), ObjectError>> + Send + 'static,
{
    let transfers = stream::iter(transfers).buffer_unordered(AT_ONCE);
    wait(transfers.try_for_each(|()| async { Ok(()) }))
}

async fn upload(objects: Objects, file: PathBuf, name: String) -> Result<(), ObjectError> {
    let path = objects.path(&name)?;
    let local =
        |error: std::io::Error| ObjectError::told(&file.display().to_string(), error.to_string());
    let mut open = File::open(&file).map_err(local)?;
    let bytes = open.metadata().map_err(local)?.len();
    if bytes <= PART {
        let mut whole = Vec::with_capacity(bytes as usize);
        open.read_to_end(&mut whole).map_err(local)?;
        let put = objects.client.store.put(&path, whole.into()).await;
        return put.map(|_| ()).map_err(objects.failed(&name));
    }
    let part = PART.max(bytes.div_ceil(MOST_PARTS)) as usize;
    let begun = objects.client.store.put_multipart(&path).await;
    let begun = begun.map_err(objects.failed(&name))?;
    let mut writer = WriteMultipart::new_with_chunk_size(begun, part);
    let mut buffer = vec![0; part];
    loop {
        let waited = writer.wait_for_capacity(PARTS_AT_ONCE).await;
        let read = match waited {
            Ok(()) => read_full(&mut open, &mut buffer).map_err(local),
            Err(error) => Err(of_parts(objects.failed(&name)(error))),
        };
        match read {
            Ok(0) => break,
            Ok(read) => writer.write(&buffer[..read]),
            Err(error) => {
                // What stays of it costs money; if even this fails, the bucket's rule for unfinished uploads removes it.
                let _ = writer.abort().await;
                return Err(error);
            }
        }
    }
    let finished = writer.finish().await;
    let failed = objects.failed(&name);
    finished
        .map(|_| ())
        .map_err(|error| of_parts(failed(error)))
}

/// That there is no such upload may come of an earlier answer that was lost: the object may be there, and the file is sent again.
fn of_parts(error: ObjectError) -> ObjectError {
    if !error.is_absence {
        return error;
    }
    let message = "the service does not know the upload of this file, or not any more";
    let mut error = ObjectError::told(&error.address, message);
    error.may_pass = true;
    error
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

async fn download(objects: Objects, object: Object, file: PathBuf) -> Result<(), ObjectError> {
    let local = |error: std::io::Error| {
        let full = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                "; free some space, or name another folder by INTENDEX_CACHE"
            }
            _ => "",
        };
        ObjectError::told(&file.display().to_string(), format!("{error}{full}"))
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(local)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".")
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(local)?;
    let ranges = (0..object.bytes.div_ceil(PART)).map(|n| {
        let range = n * PART..((n + 1) * PART).min(object.bytes);
        let (objects, object) = (objects.clone(), object.clone());
        async move { objects.read_part(&object, range).await }
    });
    let mut parts = stream::iter(ranges).buffered(PARTS_AT_ONCE);
    while let Some(part) = parts.next().await {
        temporary.write_all(&part?).map_err(local)?;
    }
    let written = temporary
        .as_file_mut()
        .seek(SeekFrom::End(0))
        .map_err(local)?;
    if written != object.bytes {
        let message = format!(
            "{written} bytes of {} came; run the command again",
            object.bytes
        );
        return Err(ObjectError::told(&objects.address(&object.name), message));
    }
    temporary.as_file().sync_all().map_err(local)?;
    temporary
        .persist(&file)
        .map_err(|error| local(error.error))?;
    Ok(())
}
