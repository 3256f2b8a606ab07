//! The generations there are: listing them, going back to one, removing old ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use walkdir::WalkDir;

use super::{
    ABANDONED, BUILDING, CURRENT, GENERATIONS, JOB, JOURNAL, MANIFEST, Output, Writer, has_work,
};
use crate::store::{
    Dataset, Manifest, StoreError,
    manifest::{self, Run},
    read_json, rename,
};

/// What a generation is called from the moment its removal begins.
const REMOVED: &str = "removed-";

/// A numbered generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    pub number: u64,
    /// Whether `CURRENT` points at it.
    pub current: bool,
    /// False: its writer was killed before `CURRENT` pointed at it.
    pub published: bool,
    /// When its build ended, in Unix seconds; None where run.json cannot be read.
    pub built: Option<u64>,
    /// None where the manifest cannot be read.
    pub documents: Option<u64>,
    pub chunks: Option<u64>,
    pub bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    pub generations: Vec<u64>,
    /// Those, and what a killed removal had left.
    pub bytes: u64,
    /// Bytes of unfinished builds, which stay.
    pub unfinished: u64,
}

impl Output {
    /// All generations, oldest first.
    pub fn history(&self) -> Result<Vec<Generation>, StoreError> {
        let is_mirror_of_nothing = self.mirror.is_some() && !self.root.join(JOB).exists();
        if is_mirror_of_nothing || !self.root.join(GENERATIONS).is_dir() {
            return Err(StoreError::Invalid {
                path: self.place(),
                message: "no output of `intendex build` is here".into(),
            });
        }
        let numbers = self.generations()?;
        // A damaged CURRENT points at none, and this list says what it can be pointed at.
        let current = match self.number() {
            Ok(Some(number)) if !numbers.contains(&number) => {
                tracing::warn!("{}", self.points_nowhere(number));
                None
            }
            Ok(current) => current,
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        };
        let numbers = numbers.into_iter();
        Ok(numbers.map(|n| self.describe(n, current)).collect())
    }

    fn points_nowhere(&self, number: u64) -> StoreError {
        StoreError::Invalid {
            path: self.place().join(CURRENT),
            message: format!(
                "names generation {number}, which is not here; `intendex rollback --to N` points it at one that is"
            ),
        }
    }

    /// Says as much as can be read: a damaged generation has its place in the list all the same.
    fn describe(&self, number: u64, current: Option<u64>) -> Generation {
        let folder = self.folder(number);
        let manifest: Option<Manifest> = read_json(&folder.join(MANIFEST)).ok();
        let run: Option<Run> = read_json(&folder.join(manifest::RUN)).ok();
        let rows = |dataset: Dataset| {
            let datasets = &manifest.as_ref()?.datasets;
            Some(datasets.get(dataset.folder())?.rows)
        };
        let current = current == Some(number);
        Generation {
            number,
            current,
            published: current || !folder.join(JOURNAL).exists(),
            built: run.map(|run| run.started + run.seconds as u64),
            documents: rows(Dataset::Documents),
            chunks: rows(Dataset::Chunks),
            bytes: self.bytes(number),
        }
    }

    /// As far as they can be seen.
    fn bytes(&self, number: u64) -> u64 {
        match &self.mirror {
            Some(mirror) => mirror.bytes(number).unwrap_or_else(|error| {
                tracing::warn!("{error}");
                0
            }),
            None => bytes(&self.folder(number)),
        }
    }
}

impl Writer {
    /// Points `CURRENT` at a generation, by default at the newest published one before the current.
    pub fn roll_back(&self, to: Option<u64>) -> Result<u64, StoreError> {
        let target = match to {
            Some(number) => number,
            None => self.newest_before(self.output.current()?.0)?,
        };
        let manifest = self.output.folder(target).join(MANIFEST);
        if let Some(writing) = &self.output.writing {
            writing.check_published(target)?;
        }
        if !manifest.exists() {
            return Err(self.invalid(format!("there is no generation {target}")));
        }
        let published = self.output.generation(target, read_json(&manifest)?);
        if let Some(difference) = published.difference()? {
            tracing::warn!("{difference}; `intendex verify` checks the rest");
        }
        self.output.point_current_at(target)
    }

    fn newest_before(&self, current: u64) -> Result<u64, StoreError> {
        let mut older = self.output.generations()?;
        older.retain(|n| {
            let folder = self.output.folder(*n);
            *n < current && folder.join(MANIFEST).exists() && !folder.join(JOURNAL).exists()
        });
        let none = || self.invalid(format!("there is no generation before {current}"));
        older.pop().ok_or_else(none)
    }

    fn invalid(&self, message: String) -> StoreError {
        StoreError::Invalid {
            path: self.output.place(),
            message: format!("{message}; `intendex generations` lists those there are"),
        }
    }

    /// Removes all but the `keep` newest generations and the current one. Each is renamed first, so that no half of
    /// one is ever left under its number.
    pub fn remove_old(&self, keep: usize) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        for leftover in self.leftovers()? {
            removed.bytes += remove(&leftover)?;
        }
        if let Some(writing) = &self.output.writing {
            removed.bytes += writing.remove_leftovers()?;
        }
        let numbers = self.output.generations()?;
        let current = self.output.number()?;
        if current.is_none() && !numbers.is_empty() {
            let message = "CURRENT is missing, so what is to stay cannot be told; `intendex rollback --to N` writes it";
            return Err(self.invalid(message.into()));
        }
        if let Some(number) = current.filter(|number| !numbers.contains(number)) {
            return Err(self.output.points_nowhere(number));
        }
        let old = numbers.len().saturating_sub(keep.max(1));
        for number in numbers.into_iter().take(old) {
            if current != Some(number) {
                removed.bytes += self.remove_generation(number)?;
                removed.generations.push(number);
            }
        }
        removed.unfinished = self.unfinished_bytes()?;
        Ok(removed)
    }

    /// Returns the bytes it held where the output really is.
    fn remove_generation(&self, number: u64) -> Result<u64, StoreError> {
        let there = self.output.writing.as_ref();
        let there = there.map(|writing| writing.remove(number)).transpose()?;
        let hidden = self.output.folder_named(&format!("{REMOVED}{number}"));
        rename(&self.output.folder(number), &hidden)?;
        let here = remove(&hidden)?;
        Ok(there.unwrap_or(here))
    }

    fn unfinished_bytes(&self) -> Result<u64, StoreError> {
        if let Some(writing) = &self.output.writing {
            return writing.unfinished_bytes();
        }
        let folders = ABANDONED.into_iter().chain([BUILDING]);
        let folders = folders.map(|name| self.output.folder_named(name));
        Ok(folders.filter(|f| has_work(f)).map(|f| bytes(&f)).sum())
    }

    /// What a removal left that was killed.
    fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.output.root.join(GENERATIONS);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
            let entry = entry.map_err(StoreError::io(&folder))?;
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

/// Returns the bytes it held.
fn remove(folder: &Path) -> Result<u64, StoreError> {
    let held = bytes(folder);
    fs::remove_dir_all(folder).map_err(StoreError::io(folder))?;
    Ok(held)
}

/// Bytes of the files below a folder that can be seen.
fn bytes(folder: &Path) -> u64 {
    let entries = WalkDir::new(folder).into_iter().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok());
    files.filter(|m| m.is_file()).map(|m| m.len()).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        job::Job,
        model::ModelIdentity,
        store::{
            manifest::{FORMAT, Indexes},
            progress::Header,
            replace_json,
        },
    };

    const JOB: &str = "version = 1\n[corpus]\npath = \"c\"\n[output]\npath = \"o\"\n[models.embedder]\nmodel = \".\"\n\
                       [intents]\nenabled = false\n[expand]\nenabled = false\n[chunk]\nmethod = \"fixed\"\n";

    pub fn write_manifest(folder: &Path, plan: &str) {
        let manifest = Manifest {
            format: FORMAT,
            intendex: "0".into(),
            job: "docs".into(),
            plan: plan.into(),
            stages: BTreeMap::new(),
            parameters: Job::parse(Path::new("job.toml"), JOB, &[], &|_| None).unwrap(),
            embedder: ModelIdentity {
                name: "fake".into(),
                architecture: "fake".into(),
                files: Vec::new(),
            },
            generator: None,
            cross_encoder: None,
            dim: 1,
            datasets: BTreeMap::new(),
            indexes: Indexes::of(Vec::new(), None, 0),
            merged: Vec::new(),
            files: Vec::new(),
        };
        replace_json(&folder.join(MANIFEST), &manifest).unwrap();
    }

    fn header(n: u64) -> Header {
        Header {
            plan: n.to_string(),
            stages: BTreeMap::new(),
        }
    }

    /// An output with `count` generations, each with a file of 10 bytes.
    fn output(root: &Path, count: u64) -> Writer {
        for n in 1..=count {
            let writer = Output::new(root).lock("docs").unwrap();
            let building = writer.open(header(n), false).unwrap();
            write_manifest(&building.folder(), &n.to_string());
            fs::write(building.folder().join("x"), "0123456789").unwrap();
            assert_eq!(building.publish().unwrap(), n);
        }
        Output::new(root).lock_existing().unwrap()
    }

    fn numbers(writer: &Writer) -> Vec<u64> {
        writer.output.generations().unwrap()
    }

    #[test]
    fn removal_keeps_the_newest_and_the_current() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let writer = output(&root, 5);
        assert_eq!(writer.roll_back(Some(2)).unwrap(), 2);
        let removed = writer.remove_old(2).unwrap();
        assert_eq!(removed.generations, [1, 3]);
        assert!(removed.bytes > 20);
        assert_eq!(numbers(&writer), [2, 4, 5]);
        assert_eq!(writer.remove_old(9).unwrap(), Removed::default());
        assert_eq!(writer.remove_old(0).unwrap().generations, [4]);
        assert_eq!(numbers(&writer), [2, 5]);
    }

    #[test]
    fn what_a_killed_removal_left_is_no_generation_and_goes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let writer = output(&root, 2);
        let hidden = writer.output.folder_named("removed-1");
        rename(&writer.output.folder(1), &hidden).unwrap();
        assert_eq!(numbers(&writer), [2]);
        assert!(writer.roll_back(None).is_err());
        let removed = writer.remove_old(2).unwrap();
        assert!(removed.generations.is_empty() && removed.bytes > 10);
        assert!(!hidden.exists());
    }

    #[test]
    fn rolls_back_to_what_is_whole_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let writer = output(&root, 4);
        fs::remove_file(writer.output.folder(3).join(MANIFEST)).unwrap();
        fs::write(writer.output.folder(2).join(JOURNAL), "").unwrap();
        for missing in [3, 7] {
            let error = writer.roll_back(Some(missing)).unwrap_err().to_string();
            assert!(
                error.contains(&format!("no generation {missing}")),
                "{error}"
            );
        }
        assert_eq!(writer.output.current().unwrap().0, 4);
        // 3 has no manifest, and 2 was never published.
        assert_eq!(writer.roll_back(None).unwrap(), 1);
        assert!(writer.roll_back(None).is_err());
        // Back again.
        assert_eq!(writer.roll_back(Some(4)).unwrap(), 4);
    }

    #[test]
    fn the_list_says_what_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        assert!(Output::new(&root).history().is_err());
        let writer = output(&root, 2);
        fs::remove_file(writer.output.folder(1).join(MANIFEST)).unwrap();
        let list = writer.output.history().unwrap();
        let seen: Vec<_> = list.iter().map(|g| (g.number, g.current)).collect();
        assert_eq!(seen, [(1, false), (2, true)]);
        assert_eq!((list[0].bytes, list[0].documents), (10, None));
    }
}
