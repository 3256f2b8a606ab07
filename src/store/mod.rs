//! Where side effects live: the output folder, its generations, the files of a generation and their hashes.
//!
//! ```text
//! out/  LOCK  JOB  CURRENT                 the published generation's number
//!       generations/<n>/                   published: never changed again
//!       generations/building/              the run in progress: parts, then indexes, then manifest.json
//!       generations/removed-<n>/           being removed
//! ```

pub mod dataset;
pub mod generation;
pub mod index_shards;
pub mod machine;
pub mod manifest;
mod memory;
mod mirror;
pub mod progress;
pub mod quarantine;
pub mod schema;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

pub use dataset::Dataset;
pub use generation::{Building, Generation, Output, Removed, Writer};
pub use manifest::{Indexes, Manifest};
pub use mirror::{Files, Sending, Wrote, address_of, folder_of};

use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Invalid { path: PathBuf, message: String },
    #[error("{}: {source}", path.display())]
    Parquet {
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
    #[error("{}: another process is writing here ({holder}); wait for it, or stop it", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error(
        "{}: this output belongs to the job `{owner}`, not to `{job}`; choose another output.path, or set name = \"{owner}\" in the job file if it is the same job",
        path.display()
    )]
    OtherJob {
        path: PathBuf,
        owner: String,
        job: String,
    },
}

/// What to do about a full disk.
pub const FREE_SPACE: &str =
    "; free some space and run the same command: it continues where it stopped";

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => FREE_SPACE,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose an output.path that can be written"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; choose an output.path that is a folder, or none yet"
        }
        _ => "",
    }
}

impl StoreError {
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// A full disk inside a Parquet write arrives wrapped; unwrap it, so that its remedy is told.
    pub fn parquet(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> StoreError + '_ {
        move |source| {
            let path = path.to_owned();
            match source {
                parquet::errors::ParquetError::External(inner) => {
                    match inner.downcast::<io::Error>() {
                        Ok(source) => StoreError::Io {
                            path,
                            source: *source,
                        },
                        Err(inner) => StoreError::Parquet {
                            path,
                            source: parquet::errors::ParquetError::External(inner),
                        },
                    }
                }
                source => StoreError::Parquet { path, source },
            }
        }
    }
}

/// Writes `path` as a whole: to a temporary name beside it, synced, then renamed.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let temporary = temporary_name(path);
    let mut file = File::create(&temporary).map_err(StoreError::io(&temporary))?;
    write(&mut file)?;
    file.sync_all().map_err(StoreError::io(&temporary))?;
    rename(&temporary, path)
}

pub fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    replace(path, |file| {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| StoreError::Invalid {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        bytes.push(b'\n');
        file.write_all(&bytes).map_err(StoreError::io(path))
    })
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| StoreError::Invalid {
        path: path.to_owned(),
        message: format!("not as Intendex writes it: {e}"),
    })
}

/// Renames within a folder and syncs the folder, so that the new name survives a power cut.
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(StoreError::io(to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(StoreError::io(folder))
}

/// Syncs every file and folder below `folder`: what other libraries have written there survives a power cut.
pub fn sync_tree(folder: &Path) -> Result<(), StoreError> {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry.map_err(|e| StoreError::Invalid {
            path: folder.to_owned(),
            message: e.to_string(),
        })?;
        let path = entry.path();
        File::open(path)
            .and_then(|f| f.sync_all())
            .map_err(StoreError::io(path))?;
    }
    Ok(())
}

/// Names of all files below a folder, with `/`, in order.
pub fn names_below(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|e| StoreError::Invalid {
            path: folder.to_owned(),
            message: e.to_string(),
        })?;
        let name = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let name = name.to_string_lossy();
        if entry.file_type().is_file() {
            names.push(name.replace(std::path::MAIN_SEPARATOR, "/"));
        }
    }
    Ok(names)
}

const TEMPORARY: &str = ".tmp";

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

/// Removes what killed processes left below `folder`: files that have not been given their own names.
pub fn remove_temporary(folder: &Path) -> Result<(), StoreError> {
    for name in names_below(folder)? {
        if name.ends_with(TEMPORARY) {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
    }
    Ok(())
}
