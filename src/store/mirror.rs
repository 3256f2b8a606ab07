//! An output on object storage, and the folder on this machine that mirrors it.
//!
//! ```text
//! s3://bucket/out/  LOCK  JOB  CURRENT
//!                   generations/<n>/                        as in a folder
//!                   generations/<n>/journal/00000000.ndjson  only while it is built or published
//! ```
//!
//! Libraries need files: Tantivy and FAISS map them, DataFusion sorts beside them. So a build works in its mirror, as in any output
//! folder, and sends every part to the storage once it is whole, and behind it the journal's line. The storage is what counts: the
//! next build, on whatever machine, goes on from there, and fetches what its own mirror lacks. A reader fetches the files it reads.
//!
//! An object cannot be renamed, and nothing can be appended to it. So a generation has its number from its first part on, and its
//! journal comes in pieces, each of which must not be there yet: of two writers one fails. `CURRENT` is replaced on the condition
//! that it is what it was.

mod fetching;
mod lease;
mod sending;
mod writing;

use std::path::{Path, PathBuf};

use super::{
    Dataset, Manifest, StoreError,
    generation::{CURRENT, GENERATIONS, MANIFEST},
    manifest::{CHECKSUMS, RUN},
};
use crate::objects::{Objects, Version, is_address};
pub use sending::{Sending, Wrote};
pub use writing::Writing;

/// Variable with the folder of all mirrors.
const CACHE: &str = "INTENDEX_CACHE";

/// Folder of the journal's pieces, which are there while a generation is being built or published.
const PIECES: &str = "journal";

/// Object that says of a generation that it is being removed.
const REMOVED: &str = "REMOVED";

/// What says what a generation is.
const DESCRIPTION: [&str; 3] = [MANIFEST, RUN, CHECKSUMS];

/// What of a generation is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// [`DESCRIPTION`].
    Description,
    /// What a search reads.
    Search,
    /// All but the indexes.
    Datasets,
    All,
}

impl Files {
    fn wants(self, name: &str) -> bool {
        let is_description = DESCRIPTION.contains(&name);
        let of = |dataset: &Dataset| name.starts_with(&format!("{}/", dataset.folder()));
        match self {
            Files::Description => is_description,
            Files::Search => {
                let read = [Dataset::Chunks, Dataset::Queries, Dataset::Selection];
                let is_dataset = Dataset::ALL.iter().any(of);
                read.iter().any(of) || (!is_dataset && !name.ends_with(".ciff.gz"))
            }
            Files::Datasets => is_description || Dataset::ALL.iter().any(of),
            Files::All => true,
        }
    }
}

/// Where an output's files are on this machine: the output itself, or the mirror of an address.
pub fn folder_of(output: &Path) -> PathBuf {
    let Some(address) = address_of(output) else {
        return output.to_owned();
    };
    let hash = blake3::hash(address.as_bytes()).to_hex();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let readable: String = address.chars().take(60).map(plain).collect();
    cache()
        .join("outputs")
        .join(format!("{readable}-{}", &hash[..8]))
}

/// The address, without a slash at its end, if the output is on object storage.
pub fn address_of(output: &Path) -> Option<&str> {
    let text = output.to_str().filter(|text| is_address(text))?;
    Some(text.trim_end_matches('/'))
}

fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let of_user = || {
        let caches = named("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| Some(Path::new(&named("HOME")?).join(".cache")));
        caches.unwrap_or_else(std::env::temp_dir).join("intendex")
    };
    named(CACHE).map_or_else(of_user, PathBuf::from)
}

/// What a generation on the storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Published,
    /// Being built or published, or its writer has ended.
    Unfinished,
    /// Its removal has begun.
    Removed,
    /// Without its manifest.
    Damaged,
}

/// An output on object storage.
#[derive(Debug, Clone)]
pub struct Mirror {
    objects: Objects,
    folder: PathBuf,
}

impl Mirror {
    pub fn new(address: &str, folder: &Path) -> Result<Self, StoreError> {
        // Objects of a corpus may have one in their names; what stands behind an output's may be a signature.
        if let Some((plain, _)) = address.split_once('?') {
            return Err(StoreError::Invalid {
                path: plain.into(),
                message: "the address of an output ends before a `?`; credentials have variables of their own".into(),
            });
        }
        Ok(Self {
            objects: Objects::open(address)?,
            folder: folder.to_owned(),
        })
    }

    fn generation(&self, number: u64) -> Objects {
        self.objects.below(&format!("{GENERATIONS}/{number}"))
    }

    fn local(&self, number: u64) -> PathBuf {
        self.folder.join(GENERATIONS).join(number.to_string())
    }

    fn invalid(&self, name: &str, message: String) -> StoreError {
        StoreError::Invalid {
            path: self.objects.address(name).into(),
            message,
        }
    }

    /// What `CURRENT` has in its first line, the second being there to make each writing another; and its version.
    fn current_text(&self) -> Result<Option<(String, Version)>, StoreError> {
        let current = self.objects.get(CURRENT)?;
        Ok(current.map(|(bytes, version)| {
            let text = String::from_utf8_lossy(&bytes);
            let first = text.lines().next().unwrap_or_default();
            (first.trim().to_owned(), version)
        }))
    }

    /// The number in `CURRENT`; None before the first publication.
    fn current(&self) -> Result<Option<u64>, StoreError> {
        let Some((text, _)) = self.current_text()? else {
            return Ok(None);
        };
        let number = text.parse().map_err(|_| {
            let remedy = "`intendex rollback --to N` writes one";
            self.invalid(
                CURRENT,
                format!("`{text}` is not a generation's number; {remedy}"),
            )
        })?;
        Ok(Some(number))
    }

    /// Numbers of all generations there are, in order, whatever their state.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let (folders, _) = self.objects.below(GENERATIONS).names()?;
        let mut numbers: Vec<u64> = folders
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The state of a generation, which is not unfinished if it is the current one.
    fn state(&self, number: u64, current: Option<u64>) -> Result<State, StoreError> {
        let remote = self.generation(number);
        let (_, names) = remote.names()?;
        let has = |name: &str| names.iter().any(|own| own == name);
        let is_current = current == Some(number);
        Ok(if has(REMOVED) {
            State::Removed
        } else if !is_current && remote.look_at(&first_piece())?.is_some() {
            State::Unfinished
        } else if has(MANIFEST) {
            State::Published
        } else {
            State::Damaged
        })
    }

    /// Bytes of a generation's objects.
    pub fn bytes(&self, number: u64) -> Result<u64, StoreError> {
        let listed = self.generation(number).list()?;
        Ok(listed.iter().map(|object| object.bytes).sum())
    }

    /// The first file of a manifest that the storage has not in its size, and how it differs.
    pub fn difference(
        &self,
        number: u64,
        manifest: &Manifest,
    ) -> Result<Option<String>, StoreError> {
        let remote = self.generation(number);
        let listed = remote.list()?;
        let found = |name: &str| {
            let place = listed.binary_search_by(|object| object.name.as_str().cmp(name));
            place.ok().map(|place| listed[place].bytes)
        };
        Ok(manifest.files.iter().find_map(|file| {
            let difference = match found(&file.path) {
                None => "is missing".to_owned(),
                Some(bytes) if bytes == file.bytes => return None,
                Some(bytes) => format!("has {bytes} bytes of {}", file.bytes),
            };
            Some(format!("{} {difference}", remote.address(&file.path)))
        }))
    }

    /// The journal of the newest unfinished build.
    pub fn newest_journal(&self) -> Result<Option<RemoteJournal>, StoreError> {
        let current = self.current().unwrap_or_default();
        for number in self.numbers()?.into_iter().rev() {
            if self.state(number, current)? == State::Unfinished {
                return self.journal(number).map(Some);
            }
        }
        Ok(None)
    }

    fn journal(&self, number: u64) -> Result<RemoteJournal, StoreError> {
        let remote = self.generation(number).below(PIECES);
        let listed = remote.list()?;
        let names = (0..).map(sending::piece).zip(&listed);
        let names = names.take_while(|(piece, object)| object.name == *piece);
        let names: Vec<String> = names.map(|(piece, _)| piece).collect();
        let pieces = names.len();
        let mut lines = Vec::new();
        for bytes in remote.get_all(names)? {
            let text = String::from_utf8_lossy(&bytes);
            // The first line names the writer.
            lines.extend(text.lines().skip(1).map(str::to_owned));
        }
        Ok(RemoteJournal {
            number,
            pieces,
            lines,
        })
    }
}

/// The journal of an unfinished build on the storage.
#[derive(Debug)]
pub struct RemoteJournal {
    number: u64,
    pieces: usize,
    pub lines: Vec<String>,
}

/// The object that says of a generation that it is being built or published.
fn first_piece() -> String {
    format!("{PIECES}/{}", sending::piece(0))
}

fn is_piece(name: &str) -> bool {
    name.starts_with(&format!("{PIECES}/"))
}
