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

mod lease;
mod sending;
mod writing;

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{
    Dataset, Manifest, StoreError,
    generation::{CURRENT, GENERATIONS, JOB, JOURNAL, MANIFEST, remove_folder},
    manifest::{CHECKSUMS, RUN},
    names_below,
};
use crate::objects::{Object, Objects, Version, is_address};
pub use sending::{Sending, Wrote};
pub use writing::Writing;

/// Variable with the folder of all mirrors.
const CACHE: &str = "INTENDEX_CACHE";

/// Folder of the journal's pieces, which are there while a generation is being built or published.
const PIECES: &str = "journal";

/// Object that says of a generation that it is being removed.
const REMOVED: &str = "REMOVED";

/// File of the mirror that is locked while a generation is fetched.
const FETCHING: &str = "FETCHING";

/// Bytes that are fetched without a word.
const QUIET: u64 = 1 << 20;

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

    /// Writes the small files of the output's root as they are on the storage; a damaged `CURRENT` too, as rolling back mends it.
    /// Returns the version of `CURRENT`.
    fn fetch_root(&self) -> Result<Option<Version>, StoreError> {
        let current = self.current_text()?;
        fs::create_dir_all(self.folder.join(GENERATIONS)).map_err(StoreError::io(&self.folder))?;
        let line = current.as_ref().map(|(text, _)| format!("{text}\n"));
        self.write_root(CURRENT, line.as_ref().map(String::as_bytes))?;
        let job = self.objects.get(JOB)?.map(|(bytes, _)| bytes);
        self.write_root(JOB, job.as_deref())?;
        Ok(current.map(|(_, version)| version))
    }

    /// Several readers may write the same at once, so that each has a temporary name of its own.
    fn write_root(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        let Some(bytes) = bytes else {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&path)(e)),
                _ => Ok(()),
            };
        };
        let temporary = tempfile::NamedTempFile::new_in(&self.folder);
        let mut temporary = temporary.map_err(StoreError::io(&path))?;
        std::io::Write::write_all(&mut temporary, bytes).map_err(StoreError::io(&path))?;
        let kept = temporary.persist(&path);
        kept.map(|_| ())
            .map_err(|error| StoreError::io(&path)(error.error))
    }

    /// For a reader: fetches what it wants of the current generation. None: nothing is published.
    pub fn fetch(&self, files: Files) -> Result<Option<u64>, StoreError> {
        self.fetch_root()?;
        let Some(number) = self.current()? else {
            return Ok(None);
        };
        if self.fetch_generation(number, files)? {
            self.forget_removed()?;
        }
        Ok(Some(number))
    }

    /// Removes the mirrors of published generations that are on the storage no more.
    fn forget_removed(&self) -> Result<(), StoreError> {
        let there: HashSet<u64> = self.numbers()?.into_iter().collect();
        self.forget_others(&|number, folder| {
            !there.contains(&number) && !folder.join(JOURNAL).exists()
        })
    }

    /// Removes the numbered folders that may go.
    fn forget_others(&self, may_go: &dyn Fn(u64, &Path) -> bool) -> Result<(), StoreError> {
        let folder = self.folder.join(GENERATIONS);
        for entry in fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
            let path = entry.map_err(StoreError::io(&folder))?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if number.is_some_and(|number| may_go(number, &path)) {
                remove_folder(&path)?;
                let _ = fs::remove_file(path.with_extension("version"));
            }
        }
        Ok(())
    }

    /// Fetches every object of a generation again, whatever the mirror has, and removes what is no object. Each file is replaced, so
    /// that who has it open reads on.
    pub fn fetch_anew(&self, number: Option<u64>) -> Result<Option<u64>, StoreError> {
        self.fetch_root()?;
        let number = match number {
            Some(number) => number,
            None => match self.current()? {
                Some(current) => current,
                None => return Ok(None),
            },
        };
        let _turn = self.turn()?;
        self.forget_another(number)?;
        let (remote, local) = (self.generation(number), self.local(number));
        let objects = objects_of(&remote, Files::All)?;
        let names: HashSet<String> = objects.iter().map(|object| object.name.clone()).collect();
        remote.download(into(objects, &local))?;
        for name in names_below(&local)? {
            if !names.contains(&name) {
                let path = local.join(&name);
                fs::remove_file(&path).map_err(StoreError::io(&path))?;
            }
        }
        Ok(Some(number))
    }

    /// Returns whether anything was not here yet.
    fn fetch_generation(&self, number: u64, files: Files) -> Result<bool, StoreError> {
        let _turn = self.turn()?;
        self.forget_another(number)?;
        let remote = self.generation(number);
        let objects = objects_of(&remote, files)?;
        self.download(&remote, objects, &self.local(number))
    }

    /// One process at a time fetches: the next finds what the one before it has fetched, and nothing is removed while it comes.
    fn turn(&self) -> Result<File, StoreError> {
        let path = self.folder.join(GENERATIONS).join(FETCHING);
        let failed = |error| StoreError::io(&path)(error);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            tracing::info!(
                "another process fetches into {}; waiting for it",
                self.folder.display()
            );
        }
        file.lock().map_err(failed)?;
        Ok(file)
    }

    /// Downloads what the folder does not have in this size; returns whether there was any.
    fn download(
        &self,
        remote: &Objects,
        objects: Vec<Object>,
        folder: &Path,
    ) -> Result<bool, StoreError> {
        let mut files = into(objects, folder);
        files.retain(|(object, path)| {
            fs::metadata(path).map_or(true, |metadata| metadata.len() != object.bytes)
        });
        if !files.is_empty() {
            let bytes: u64 = files.iter().map(|(object, _)| object.bytes).sum();
            let (count, megabytes) = (files.len(), bytes.div_ceil(1_000_000));
            let (from, to) = (remote.address(""), folder.display());
            match bytes < QUIET {
                true => tracing::debug!("fetching {count} files of {from} into {to}"),
                false => {
                    tracing::info!("fetching {count} files, {megabytes} MB, of {from} into {to}")
                }
            }
        }
        let is_some = !files.is_empty();
        remote.download(files)?;
        Ok(is_some)
    }

    /// Removes the mirror of a generation that is another one by now: the output was removed and built again. A published
    /// generation never changes, so that its manifest's version stands for it.
    fn forget_another(&self, number: u64) -> Result<(), StoreError> {
        let found = self.generation(number).look_at(MANIFEST)?;
        let Some(found) = found else {
            let message = "there is no such generation, or gc has removed it; `intendex generations` lists those there are";
            return Err(self.invalid(&format!("{GENERATIONS}/{number}"), message.into()));
        };
        let local = self.local(number);
        let known = local.with_extension("version");
        let is_another = match fs::read_to_string(&known) {
            Ok(version) if version == found.version => return Ok(()),
            Ok(_) => true,
            // Either nothing of it is here yet, or what a build had finished, and another has finished in its place.
            Err(_) => local.join(JOURNAL).exists(),
        };
        if is_another {
            remove_folder(&local)?;
        }
        fs::write(&known, found.version).map_err(StoreError::io(&known))
    }

    /// For `intendex generations`: what says what they are, of all.
    pub fn fetch_descriptions(&self) -> Result<(), StoreError> {
        self.fetch_root()?;
        self.mirror_published(&|folder| !folder.join(JOURNAL).exists())
            .map(|_| ())
    }

    /// Makes the mirror's numbered folders those of the generations that are published; returns the numbers of those that are
    /// not, in order. Of folders whose generation is gone, those go that may.
    fn mirror_published(&self, may_go: &dyn Fn(&Path) -> bool) -> Result<Vec<u64>, StoreError> {
        // A damaged one is found in the mirror.
        let current = self.current().unwrap_or_default();
        let (mut published, mut unfinished) = (HashSet::new(), Vec::new());
        for number in self.numbers()? {
            match self.state(number, current)? {
                State::Published => {
                    self.fetch_generation(number, Files::Description)?;
                    // All that is left of a writer killed behind its last step.
                    let _ = fs::remove_file(self.local(number).join(JOURNAL));
                    published.insert(number);
                }
                State::Unfinished => unfinished.push(number),
                State::Removed | State::Damaged => {}
            }
        }
        // That of a writer killed in publication stays: see `Adopted`.
        self.forget_others(&|number, folder| {
            !published.contains(&number) && !unfinished.contains(&number) && may_go(folder)
        })?;
        Ok(unfinished)
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

/// A generation's objects that are wanted.
fn objects_of(remote: &Objects, files: Files) -> Result<Vec<Object>, StoreError> {
    if files == Files::Description {
        let found = DESCRIPTION.iter().map(|name| remote.look_at(name));
        return Ok(found
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?);
    }
    let mut objects = remote.list()?;
    objects.retain(|object| files.wants(&object.name) && !is_piece(&object.name));
    Ok(objects)
}

/// Where objects go in a folder.
fn into(objects: Vec<Object>, folder: &Path) -> Vec<(Object, PathBuf)> {
    let place = |object: Object| {
        let path = folder.join(&object.name);
        (object, path)
    };
    objects.into_iter().map(place).collect()
}
