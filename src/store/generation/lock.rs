//! Who may write an output folder: one process at a time, for one job.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
};

use super::{BUILDING, GENERATIONS, JOB, LOCK, Output, Writer};
use crate::store::{StoreError, machine::host, mirror::Writing, replace};

impl Output {
    /// Takes the lock for a job of this name, which owns the folder from now on.
    pub fn lock(mut self, job: &str) -> Result<Writer, StoreError> {
        if self.address.is_none() {
            self.check_owner(job)?;
        }
        let lock = self.take_lock()?;
        self.begin_writing(Some(job))?;
        self.check_owner(job)?;
        self.number()?;
        let owner = self.root.join(JOB);
        replace(&owner, |file| {
            writeln!(file, "{job}").map_err(StoreError::io(&owner))
        })?;
        self.writer(lock)
    }

    /// Takes the lock of a folder that a build has begun, whatever the job.
    pub fn lock_existing(mut self) -> Result<Writer, StoreError> {
        if self.address.is_none() && !self.root.join(JOB).exists() {
            return Err(StoreError::Invalid {
                path: self.root,
                message: "no output of `intendex build` is here".into(),
            });
        }
        let lock = self.take_lock()?;
        self.begin_writing(None)?;
        self.writer(lock)
    }

    /// Takes the lock where the output really is, too.
    fn begin_writing(&mut self, job: Option<&str>) -> Result<(), StoreError> {
        let building = self.folder_named(BUILDING);
        if let Some(mirror) = self.connect()?.cloned() {
            self.writing = Some(Writing::begin(mirror, job, &building)?);
        }
        Ok(())
    }

    /// A journal in the published generation is all that is left of a writer killed behind its last step. A damaged
    /// `CURRENT` is no reason to refuse: going back to a generation mends it.
    fn writer(self, lock: File) -> Result<Writer, StoreError> {
        if let Ok(Some(number)) = self.number() {
            self.remove_journal(number)?;
        }
        Ok(Writer {
            output: self,
            _lock: lock,
        })
    }

    /// Refuses a folder that holds something else, or the output of a job of another name.
    pub fn check_owner(&self, job: &str) -> Result<(), StoreError> {
        match fs::read_to_string(self.root.join(JOB)) {
            Ok(owner) if owner.trim() == job => Ok(()),
            Ok(owner) => Err(StoreError::OtherJob {
                path: self.place(),
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
            if ![LOCK, GENERATIONS, "JOB.tmp"].contains(&name.to_string_lossy().as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_lock(&self) -> Result<File, StoreError> {
        let folder = self.root.join(GENERATIONS);
        fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
        let path = self.root.join(LOCK);
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
                    path: self.place(),
                    holder: holder.trim().into(),
                });
            }
        }
        let host = host().unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "pid {} on {}", std::process::id(), host))
            .map_err(StoreError::io(&path))?;
        Ok(file)
    }
}
