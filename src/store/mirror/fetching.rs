//! What comes from the storage into the mirror, and what goes from there when the storage has it no more.

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{DESCRIPTION, Files, Mirror, State, is_piece};
use crate::{
    objects::{Object, Objects, Version},
    store::{
        StoreError,
        generation::{CURRENT, GENERATIONS, JOB, JOURNAL, MANIFEST, remove_folder},
        names_below,
    },
};

/// File of the mirror that is locked while a generation is fetched.
const FETCHING: &str = "FETCHING";

/// Bytes that are fetched without a word.
const QUIET: u64 = 1 << 20;

impl Mirror {
    /// Writes the small files of the output's root as they are on the storage; a damaged `CURRENT` too, as rolling back mends it.
    /// Returns the version of `CURRENT`.
    pub(super) fn fetch_root(&self) -> Result<Option<Version>, StoreError> {
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
        if self.fetch_generation(number, files)?
            && let Err(error) = self.forget_removed()
        {
            tracing::warn!("copies of generations that are gone stay here: {error}");
        }
        Ok(Some(number))
    }

    /// Removes the mirrors of published generations that are on the storage no more.
    fn forget_removed(&self) -> Result<(), StoreError> {
        let there: HashSet<u64> = self.numbers()?.into_iter().collect();
        let _turn = self.turn()?;
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
        let version = self.version(number)?;
        let _turn = self.turn()?;
        self.forget_another(number, version)?;
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

    /// Returns whether anything was not here yet. Who lacks nothing waits for nobody.
    pub(super) fn fetch_generation(&self, number: u64, files: Files) -> Result<bool, StoreError> {
        let (remote, local) = (self.generation(number), self.local(number));
        let version = self.version(number)?;
        let objects = objects_of(&remote, files)?;
        if self.has(number, &version) && missing(objects.clone(), &local).is_empty() {
            return Ok(false);
        }
        let _turn = self.turn()?;
        self.forget_another(number, version)?;
        self.download(&remote, objects, &local)
    }

    /// One process at a time fetches: the next finds what the one before it has fetched, and nothing is removed while it comes.
    fn turn(&self) -> Result<File, StoreError> {
        let path = self.folder.join(GENERATIONS).join(FETCHING);
        let failed = |error| StoreError::io(&path)(error);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let folder = self.folder.display();
                tracing::info!("another process fetches into {folder}; waiting for it");
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => {
                // Each file comes under a name of its own: at worst it comes twice.
                tracing::warn!("{} cannot be locked: {error}", path.display());
            }
        }
        Ok(file)
    }

    /// Downloads what the folder does not have in this size; returns whether there was any.
    pub(super) fn download(
        &self,
        remote: &Objects,
        objects: Vec<Object>,
        folder: &Path,
    ) -> Result<bool, StoreError> {
        let files = missing(objects, folder);
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

    /// What stands for a generation that is published, which never changes: its manifest's version.
    fn version(&self, number: u64) -> Result<String, StoreError> {
        let found = self.generation(number).look_at(MANIFEST)?;
        let none = || {
            let message = "there is no such generation, or gc has removed it; `intendex generations` lists those there are";
            self.invalid(&format!("{GENERATIONS}/{number}"), message.into())
        };
        Ok(found.ok_or_else(none)?.version)
    }

    /// Whether the mirror's folder is of the generation in this version.
    fn has(&self, number: u64, version: &str) -> bool {
        let known = fs::read_to_string(self.local(number).with_extension("version"));
        known.is_ok_and(|known| known == version)
    }

    /// Removes the mirror of a generation that is another one by now: the output was removed and built again.
    fn forget_another(&self, number: u64, version: String) -> Result<(), StoreError> {
        if self.has(number, &version) {
            return Ok(());
        }
        let local = self.local(number);
        let known = local.with_extension("version");
        // Without a version either nothing of it is here yet, or what a build had finished, and another has finished in its place.
        if known.exists() || local.join(JOURNAL).exists() {
            remove_folder(&local)?;
        }
        fs::write(&known, version).map_err(StoreError::io(&known))
    }

    /// For `intendex generations`: what says what they are, of all.
    pub fn fetch_descriptions(&self) -> Result<(), StoreError> {
        self.fetch_root()?;
        self.mirror_published(&|folder| !folder.join(JOURNAL).exists())
            .map(|_| ())
    }

    /// Makes the mirror's numbered folders those of the generations that are published; returns the numbers of those that are
    /// not, in order. Of folders whose generation is gone, those go that may.
    pub(super) fn mirror_published(
        &self,
        may_go: &dyn Fn(&Path) -> bool,
    ) -> Result<Vec<u64>, StoreError> {
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
}

/// A generation's objects that are wanted.
pub(super) fn objects_of(remote: &Objects, files: Files) -> Result<Vec<Object>, StoreError> {
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

/// Those of the objects that a folder does not have in their size, and where they go.
fn missing(objects: Vec<Object>, folder: &Path) -> Vec<(Object, PathBuf)> {
    let mut files = into(objects, folder);
    files.retain(|(object, path)| {
        fs::metadata(path).map_or(true, |metadata| metadata.len() != object.bytes)
    });
    files
}
