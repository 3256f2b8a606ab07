//! The output folder: the generation being built, and the atomic step that publishes it.
//!
//! A generation's journal is removed last, after `CURRENT` points at the generation. So a journal in a numbered
//! folder says that its writer was killed while publishing, and the next one knows what is left to do; a generation
//! without a journal that is newer than `CURRENT` was rolled back from, and stays so.

mod building;
mod history;
mod lock;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

pub use history::{Generation, Removed};

use super::{
    Manifest, StoreError,
    manifest::{self, Run},
    mirror::{Files, Mirror, Writing, address_of, folder_of},
    progress::{Header, Journal},
    read_json, rename, replace,
};

pub(super) const GENERATIONS: &str = "generations";
pub(super) const CURRENT: &str = "CURRENT";
pub(super) const JOB: &str = "JOB";
pub(super) const LOCK: &str = "LOCK";
const BUILDING: &str = "building";
/// Unfinished builds of other plans, newest first. Several, so that one mistaken build in between loses nothing.
const ABANDONED: [&str; 3] = ["abandoned", "abandoned-2", "abandoned-3"];
pub(super) const JOURNAL: &str = "journal.ndjson";
pub(super) const MANIFEST: &str = "manifest.json";

/// An output folder, or the mirror of an output on object storage.
#[derive(Debug)]
pub struct Output {
    root: PathBuf,
    /// Where it really is, if that is on object storage.
    address: Option<String>,
    /// The connection to there, where one was needed.
    mirror: Option<Mirror>,
    /// The generation that a reader has fetched, whatever is published meanwhile.
    fetched: Option<u64>,
    /// For the one that may write what it mirrors.
    writing: Option<Writing>,
}

/// A published generation.
#[derive(Debug, Clone)]
pub struct Published {
    pub number: u64,
    pub folder: PathBuf,
    pub manifest: Manifest,
    mirror: Option<Mirror>,
}

/// What an ended build left.
#[derive(Debug)]
pub enum Unfinished {
    /// Its plan is the one asked for.
    This(Journal),
    Other,
}

impl Published {
    /// What happened while it was built.
    pub fn run(&self) -> Result<Run, StoreError> {
        read_json(&self.folder.join(manifest::RUN))
    }

    /// The first file that is missing or cut, and how it differs.
    pub fn difference(&self) -> Result<Option<String>, StoreError> {
        if let Some(mirror) = &self.mirror {
            return mirror.difference(self.number, &self.manifest);
        }
        Ok(self.manifest.files.iter().find_map(|file| {
            let difference = file.compare(&self.folder, false).err()?;
            let path = self.folder.join(&file.path);
            Some(format!("{} {difference}", path.display()))
        }))
    }
}

/// The only writer of an output folder. The operating system releases the lock when the process ends, however it
/// ends.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    _lock: File,
}

/// The generation that a writer is building.
#[derive(Debug)]
pub struct Building {
    output: Output,
    _lock: File,
    plan: String,
    restart: bool,
    pub journal: Journal,
}

impl Output {
    /// The output at a path or an address, as this machine has it.
    pub fn new(output: &Path) -> Self {
        Self {
            root: folder_of(output),
            address: address_of(output).map(str::to_owned),
            mirror: None,
            fetched: None,
            writing: None,
        }
    }

    /// For readers: with the files of the published generation, if there is one, fetched from where the output is.
    pub fn fetch(output: &Path, files: Files) -> Result<Self, StoreError> {
        Self::with_mirror(output, |mirror| mirror.fetch(files))
    }

    /// With every file of a generation read again from where the output is; of the current one if none is named.
    pub fn fetch_anew(output: &Path, generation: Option<u64>) -> Result<Self, StoreError> {
        Self::with_mirror(output, |mirror| mirror.fetch_anew(generation))
    }

    /// With what describes its generations.
    pub fn fetch_descriptions(output: &Path) -> Result<Self, StoreError> {
        Self::with_mirror(output, |mirror| mirror.fetch_descriptions().map(|()| None))
    }

    fn with_mirror(
        output: &Path,
        fetch: impl FnOnce(&Mirror) -> Result<Option<u64>, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut here = Self::new(output);
        here.fetched = here.connect()?.map_or(Ok(None), fetch)?;
        Ok(here)
    }

    fn connect(&mut self) -> Result<Option<&Mirror>, StoreError> {
        if let Some(address) = &self.address {
            self.mirror = Some(Mirror::new(address, &self.root)?);
        }
        Ok(self.mirror.as_ref())
    }

    /// Where the output really is, for messages.
    fn place(&self) -> PathBuf {
        let address = self.address.as_ref();
        address.map_or_else(|| self.root.clone(), PathBuf::from)
    }

    /// The published generation's number and folder.
    pub fn current(&self) -> Result<(u64, PathBuf), StoreError> {
        let number = match self.fetched {
            Some(number) => number,
            None => self.number()?.ok_or_else(|| self.nothing_published())?,
        };
        Ok((number, self.folder(number)))
    }

    fn nothing_published(&self) -> StoreError {
        let is_whole = |number: &u64| !self.folder(*number).join(JOURNAL).exists();
        // A mirror may have more than what it mirrors, which has been removed.
        let is_output = self.root.join(JOB).exists();
        let numbers = self.generations().unwrap_or_default().into_iter();
        let newest = numbers.rev().find(is_whole).filter(|_| is_output);
        let message = match newest {
            Some(newest) => format!(
                "CURRENT is missing; `intendex rollback --to {newest}` makes the newest generation current"
            ),
            None if self.address.is_some() => {
                "no published index here; run `intendex build` first, or check the name of the bucket and the path".into()
            }
            None => "no published index here; run `intendex build` first".into(),
        };
        StoreError::Invalid {
            path: self.place(),
            message,
        }
    }

    /// The published generation, if there is one and it can be read. A warning says where there should be one.
    pub fn published(&self) -> Result<Option<Published>, StoreError> {
        let number = match self.fetched {
            Some(number) => Some(number),
            None => self.number()?,
        };
        let Some(number) = number else {
            if let Some(newest) = self.generations().ok().and_then(|mut all| all.pop()) {
                tracing::warn!(
                    "{}: CURRENT is missing, so nothing is taken over from the generations that are here; \
                     `intendex rollback --to {newest}` makes the newest current",
                    self.place().display()
                );
            }
            return Ok(None);
        };
        let folder = self.folder(number);
        match read_json(&folder.join(MANIFEST)) {
            Ok(manifest) => Ok(Some(self.generation(number, manifest))),
            Err(error) => {
                tracing::warn!(
                    "{error}; nothing is taken over from this generation; `intendex generations` lists others, and \
                     `intendex rollback --to N` makes one current"
                );
                Ok(None)
            }
        }
    }

    /// The published generation; there must be one, and its manifest must be as it was written.
    pub fn published_whole(&self) -> Result<Published, StoreError> {
        let (number, folder) = self.current()?;
        Ok(self.generation(number, read_json(&folder.join(MANIFEST))?))
    }

    fn generation(&self, number: u64, manifest: Manifest) -> Published {
        Published {
            number,
            folder: self.folder(number),
            manifest,
            mirror: self.mirror.clone(),
        }
    }

    /// A build that was ended before it was published, but not before it had finished something.
    pub fn unfinished(&self, plan: &str) -> Option<Unfinished> {
        let (header, journal) = match self.mirror.as_ref().filter(|_| self.writing.is_none()) {
            None => {
                let path = self.folder_named(BUILDING).join(JOURNAL);
                let header = Journal::header(&path)?;
                let journal = Journal::read(&path, &header.plan)?;
                (header, journal)
            }
            // A reader's mirror need not have it.
            Some(mirror) => {
                let lines = mirror.newest_journal().ok()??.lines;
                let header: Header = serde_json::from_str(lines.first()?).ok()?;
                let journal = Journal::of_lines(&lines, &header.plan)?;
                (header, journal)
            }
        };
        if journal.is_empty() {
            return None;
        }
        Some(match header.plan == plan {
            true => Unfinished::This(journal),
            false => Unfinished::Other,
        })
    }

    /// Whether a build of this plan has left something that the next one goes on with or publishes.
    pub fn is_unpublished(&self, plan: &str) -> bool {
        let finished = self.number().is_ok_and(|current| {
            let newest = self.generations().ok().and_then(|mut all| all.pop());
            newest > current && newest.is_some_and(|newest| self.is_of(newest, plan))
        });
        finished || matches!(self.unfinished(plan), Some(Unfinished::This(_)))
    }

    /// Whether a generation still has its journal, and was built by this plan.
    fn is_of(&self, number: u64, plan: &str) -> bool {
        let journal = self.folder(number).join(JOURNAL);
        Journal::header(&journal).is_some_and(|header| header.plan == plan)
    }

    /// The number in `CURRENT`; None before the first publication.
    fn number(&self) -> Result<Option<u64>, StoreError> {
        let path = self.root.join(CURRENT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io(&path)(e)),
        };
        let number = text.trim().parse().map_err(|_| StoreError::Invalid {
            message: format!(
                "`{}` is not a generation's number; `intendex rollback --to N` writes one",
                text.trim()
            ),
            path,
        })?;
        Ok(Some(number))
    }

    /// Folder of a generation, be it there or not.
    pub fn folder(&self, number: u64) -> PathBuf {
        self.folder_named(&number.to_string())
    }

    fn folder_named(&self, name: &str) -> PathBuf {
        self.root.join(GENERATIONS).join(name)
    }

    /// Numbers of the generations, in order.
    fn generations(&self) -> Result<Vec<u64>, StoreError> {
        let folder = self.root.join(GENERATIONS);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
            let name = entry.map_err(StoreError::io(&folder))?.file_name();
            numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Publishes a generation: readers see the old one or this one, never a part of either.
    fn point_current_at(&self, number: u64) -> Result<u64, StoreError> {
        if let Some(writing) = &self.writing {
            writing.point_current_at(number)?;
        }
        let path = self.root.join(CURRENT);
        replace(&path, |file| {
            writeln!(file, "{number}").map_err(StoreError::io(&path))
        })?;
        // It is published; the next writer removes what is left.
        if let Err(error) = self.remove_journal(number) {
            tracing::warn!("{error}");
        }
        Ok(number)
    }

    /// Removes unfinished builds, but for one that has been published.
    fn remove_abandoned(&self, published: Option<u64>) -> Result<(), StoreError> {
        if let Some(writing) = &self.writing {
            writing.remove_unfinished(published, 0)?;
        }
        ABANDONED
            .iter()
            .try_for_each(|name| remove_folder(&self.folder_named(name)))
    }

    fn remove_journal(&self, number: u64) -> Result<(), StoreError> {
        if let Some(writing) = &self.writing {
            writing.remove_journal(number)?;
        }
        let journal = self.folder(number).join(JOURNAL);
        match fs::remove_file(&journal) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&journal)(e)),
            _ => Ok(()),
        }
    }
}

impl Writer {
    pub fn published(&self) -> Result<Option<Published>, StoreError> {
        self.output.published()
    }

    /// Opens the generation being built: the interrupted one if it was for the same plan (and `restart` is off), else
    /// an empty one. What an interrupted run of another plan computed is kept aside, to be taken over.
    pub fn open(self, header: Header, restart: bool) -> Result<Building, StoreError> {
        let folder = self.output.folder_named(BUILDING);
        let journal_path = folder.join(JOURNAL);
        let resumed = match restart {
            true => None,
            false => Journal::resume(&journal_path, &header.plan)?,
        };
        let journal = match resumed {
            Some(journal) => journal,
            None => {
                if restart {
                    self.output.remove_abandoned(None)?;
                }
                self.set_aside(&folder, restart)?;
                fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
                Journal::create(&journal_path, &header)?
            }
        };
        Ok(Building {
            output: self.output,
            _lock: self._lock,
            plan: header.plan,
            restart,
            journal,
        })
    }

    fn set_aside(&self, folder: &Path, restart: bool) -> Result<(), StoreError> {
        if !folder.exists() {
            return Ok(());
        }
        if restart || !has_work(folder) || Journal::header(&folder.join(JOURNAL)).is_none() {
            return remove_folder(folder);
        }
        tracing::warn!(
            "the unfinished build was of another plan: the job, its models or its corpus have changed since; \
             a new one begins, and takes over the rows that are the same"
        );
        let places = ABANDONED.map(|name| self.output.folder_named(name));
        remove_folder(&places[places.len() - 1])?;
        for pair in places.windows(2).rev() {
            if pair[0].exists() {
                rename(&pair[0], &pair[1])?;
            }
        }
        rename(folder, &places[0])
    }
}

/// Whether a generation being built holds more than its journal.
fn has_work(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| entries.count() > 1)
}

/// Removes a folder, if it is there.
pub fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(folder)(e)),
        _ => Ok(()),
    }
}
