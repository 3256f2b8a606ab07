//! The output folder: who may write it, the generation being built, and the atomic step that publishes it.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    Manifest, StoreError,
    manifest::Run,
    progress::{Header, Journal},
    read_json, rename, replace,
};

const GENERATIONS: &str = "generations";
const BUILDING: &str = "building";
const ABANDONED: &str = "abandoned";
const JOURNAL: &str = "journal.ndjson";

/// An output folder.
#[derive(Debug)]
pub struct Output {
    root: PathBuf,
}

/// A published generation.
#[derive(Debug, Clone)]
pub struct Published {
    pub number: u64,
    pub folder: PathBuf,
    pub manifest: Manifest,
}

impl Published {
    /// What happened while it was built.
    pub fn run(&self) -> Result<Run, StoreError> {
        read_json(&self.folder.join("run.json"))
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
    pub journal: Journal,
}

impl Output {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The published generation's number and folder.
    pub fn current(&self) -> Result<(u64, PathBuf), StoreError> {
        let path = self.root.join("CURRENT");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let message = "no published index here; run `intendex build` first".to_owned();
                return Err(StoreError::Invalid {
                    path: self.root.clone(),
                    message,
                });
            }
            Err(e) => return Err(StoreError::io(&path)(e)),
        };
        let number = text.trim().parse().map_err(|_| StoreError::Invalid {
            path: path.clone(),
            message: format!("`{}` is not a generation's number", text.trim()),
        })?;
        Ok((number, self.generation(number)))
    }

    /// The folder of a finished generation, whether it is there or not.
    pub fn generation(&self, number: u64) -> PathBuf {
        self.root.join(GENERATIONS).join(number.to_string())
    }

    /// The published generation, if there is one and it can be read.
    pub fn published(&self) -> Option<Published> {
        let (number, folder) = self.current().ok()?;
        let manifest = read_json(&folder.join("manifest.json")).ok()?;
        Some(Published {
            number,
            folder,
            manifest,
        })
    }

    /// Takes the lock for a job of this name, which owns the folder from now on.
    pub fn lock(self, job: &str) -> Result<Writer, StoreError> {
        self.check_owner(job)?;
        let folder = self.root.join(GENERATIONS);
        fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
        let lock = self.take_lock()?;
        let owner = self.root.join("JOB");
        replace(&owner, |file| {
            writeln!(file, "{job}").map_err(StoreError::io(&owner))
        })?;
        Ok(Writer {
            output: self,
            _lock: lock,
        })
    }

    /// Refuses a folder that holds something else, or the output of a job of another name.
    fn check_owner(&self, job: &str) -> Result<(), StoreError> {
        match fs::read_to_string(self.root.join("JOB")) {
            Ok(owner) if owner.trim() == job => Ok(()),
            Ok(owner) => Err(StoreError::OtherJob {
                path: self.root.clone(),
                owner: owner.trim().into(),
                job: job.into(),
            }),
            Err(_) if self.is_empty()? => Ok(()),
            Err(_) => Err(StoreError::Invalid {
                path: self.root.clone(),
                message: "holds files that Intendex did not write; choose an empty or new folder as output.path".into(),
            }),
        }
    }

    /// Nothing here but what a run killed in its first moments leaves.
    fn is_empty(&self) -> Result<bool, StoreError> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(StoreError::io(&self.root))?,
        };
        for entry in entries {
            let name = entry.map_err(StoreError::io(&self.root))?.file_name();
            if !["LOCK", GENERATIONS, "JOB.tmp"].contains(&name.to_string_lossy().as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("LOCK");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(StoreError::io(&path)(e)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::Locked {
                    path: self.root.clone(),
                    holder: holder.trim().into(),
                });
            }
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "pid {} on {}", std::process::id(), host.trim()))
            .map_err(StoreError::io(&path))?;
        Ok(file)
    }

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
}

impl Writer {
    pub fn published(&self) -> Option<Published> {
        self.output.published()
    }

    /// Opens the generation being built: the interrupted one if it was for the same plan (and `restart` is off), else
    /// an empty one. What an interrupted run of another plan computed is kept aside, to be taken over.
    pub fn open(self, header: Header, restart: bool) -> Result<Building, StoreError> {
        let folder = self.output.root.join(GENERATIONS).join(BUILDING);
        let journal_path = folder.join(JOURNAL);
        let resumed = if restart {
            None
        } else {
            Journal::resume(&journal_path, &header.plan)?
        };
        let journal = match resumed {
            Some(journal) => journal,
            None => {
                self.set_aside(&folder, restart)?;
                fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
                Journal::create(&journal_path, &header)?
            }
        };
        Ok(Building {
            output: self.output,
            _lock: self._lock,
            plan: header.plan,
            journal,
        })
    }

    fn set_aside(&self, folder: &Path, restart: bool) -> Result<(), StoreError> {
        if !folder.exists() {
            return Ok(());
        }
        if !restart && Journal::header(&folder.join(JOURNAL)).is_some() {
            let aside = self.output.root.join(GENERATIONS).join(ABANDONED);
            remove_folder(&aside)?;
            return rename(folder, &aside);
        }
        remove_folder(folder)
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(folder)(e)),
        _ => Ok(()),
    }
}

impl Building {
    /// Folder of the generation being built.
    pub fn folder(&self) -> PathBuf {
        self.output.root.join(GENERATIONS).join(BUILDING)
    }

    /// What an interrupted run of another plan left, and its stages' fingerprints.
    pub fn abandoned(&self) -> Option<(PathBuf, Header)> {
        let folder = self.output.root.join(GENERATIONS).join(ABANDONED);
        let header = Journal::header(&folder.join(JOURNAL))?;
        Some((folder, header))
    }

    /// A run killed between naming its generation and pointing `CURRENT` at it left nothing else to do.
    pub fn publish_finished(&self) -> Result<Option<u64>, StoreError> {
        let current = self.output.current().map_or(0, |(number, _)| number);
        let Some(&last) = self.output.generations()?.last() else {
            return Ok(None);
        };
        if last <= current {
            return Ok(None);
        }
        let manifest = self
            .output
            .root
            .join(GENERATIONS)
            .join(last.to_string())
            .join("manifest.json");
        match read_json::<Manifest>(&manifest) {
            Ok(manifest) if manifest.plan == self.plan => self.point_current_at(last).map(Some),
            _ => Ok(None),
        }
    }

    /// Gives the finished generation its number and points `CURRENT` at it. Readers see the old generation or the
    /// new one, never a part of either.
    pub fn publish(self) -> Result<u64, StoreError> {
        let number = self.output.generations()?.last().map_or(1, |last| last + 1);
        let folder = self.output.root.join(GENERATIONS).join(number.to_string());
        rename(&self.folder(), &folder)?;
        // Only now: without its journal, a finished generation that is not yet named would be thrown away.
        let journal = folder.join(JOURNAL);
        fs::remove_file(&journal).map_err(StoreError::io(&journal))?;
        self.point_current_at(number)?;
        remove_folder(&self.output.root.join(GENERATIONS).join(ABANDONED))?;
        Ok(number)
    }

    fn point_current_at(&self, number: u64) -> Result<u64, StoreError> {
        let path = self.output.root.join("CURRENT");
        replace(&path, |file| {
            writeln!(file, "{number}").map_err(StoreError::io(&path))
        })?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            plan: "p".into(),
            stages: Default::default(),
        }
    }

    #[test]
    fn a_second_writer_and_another_job_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let first = Output::new(&root)
            .lock("docs")
            .unwrap()
            .open(header(), false)
            .unwrap();
        let second = Output::new(&root).lock("docs").unwrap_err();
        assert!(
            matches!(&second, StoreError::Locked { holder, .. } if holder.starts_with("pid ")),
            "{second}"
        );
        drop(first);
        let other = Output::new(&root).lock("news").unwrap_err();
        assert!(
            other.to_string().contains("belongs to the job `docs`"),
            "{other}"
        );
    }

    #[test]
    fn a_folder_of_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = Output::new(folder.path()).lock("docs").unwrap_err();
        assert!(error.to_string().contains("did not write"), "{error}");
    }

    #[test]
    fn nothing_is_published_until_publish_and_then_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let building = Output::new(&root)
            .lock("docs")
            .unwrap()
            .open(header(), false)
            .unwrap();
        fs::write(building.folder().join("x"), "1").unwrap();
        assert!(Output::new(&root).current().is_err());
        assert_eq!(building.publish().unwrap(), 1);
        let (number, path) = Output::new(&root).current().unwrap();
        assert_eq!(
            (number, fs::read_to_string(path.join("x")).unwrap().as_str()),
            (1, "1")
        );
        assert!(!path.join("journal.ndjson").exists());
    }
}
