//! The steps of the one writer of an output on object storage: what it goes on from, what it publishes, what it removes.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    DESCRIPTION, Files, Mirror, PIECES, REMOVED, RemoteJournal, Sending, State, Wrote,
    fetching::objects_of, is_piece, lease::Lease,
};
use crate::{
    objects::{If, Objects, Version},
    store::{
        Manifest, StoreError,
        generation::{CURRENT, GENERATIONS, JOB, JOURNAL, LOCK, MANIFEST, remove_folder},
        manifest::{self, CHECKSUMS, RUN},
        progress::Header,
        read_json,
    },
};

/// Unfinished builds of other plans that stay, to be taken over, as in a folder.
const MOST_UNFINISHED: usize = 3;

/// Files of a finished generation that are sent between two looks at the lock.
const BATCH: usize = 64;

/// The one writer of an output on object storage.
#[derive(Debug)]
pub struct Writing {
    mirror: Mirror,
    lease: Arc<Lease>,
    current: Mutex<Option<Version>>,
    /// Numbers of unfinished builds.
    unfinished: Vec<u64>,
    /// The newest of them, which the mirror has.
    adopted: Option<Adopted>,
    sending: Mutex<Option<Arc<Sending>>>,
}

/// An unfinished build on the storage. The mirror has it as the folder of the build, or under its number, if the writer was killed
/// there while publishing.
#[derive(Debug)]
struct Adopted {
    number: u64,
    header: Header,
    pieces: usize,
    lines: HashSet<String>,
}

impl Writing {
    /// Becomes the writer, and makes the mirror what the storage has. `building`: the folder of the build.
    pub fn begin(mirror: Mirror, job: Option<&str>, building: &Path) -> Result<Self, StoreError> {
        mirror.check_owner(job)?;
        let lease = Lease::take(&mirror.objects)?;
        if let Some(job) = job {
            // Another's stays, and is found in the mirror.
            mirror
                .objects
                .put_if(JOB, format!("{job}\n").into_bytes(), If::Absent)?;
        }
        let current = mirror.fetch_root()?;
        let unfinished = mirror.mirror_published(&|_| true)?;
        // Who builds nothing goes on from nothing.
        let adopted = match job {
            Some(_) => mirror.adopt(building)?,
            None => None,
        };
        Ok(Self {
            mirror,
            lease: lease.into(),
            current: Mutex::new(current),
            unfinished,
            adopted,
            sending: Mutex::default(),
        })
    }

    /// For a build of this plan in `folder`, whose journal has these lines: fetches what it may take over, and sends what it has
    /// and what is recorded from now on.
    pub fn start(
        &self,
        (plan, folder): (&str, &Path),
        lines: &[String],
        (restart, wrote): (bool, Wrote),
    ) -> Result<Arc<Sending>, StoreError> {
        let same = |adopted: &&Adopted| !restart && adopted.header.plan == plan;
        let adopted = self.adopted.as_ref().filter(same);
        let keep = adopted.map(|adopted| adopted.number);
        self.remove_unfinished(keep, if restart { 0 } else { MOST_UNFINISHED })?;
        let current = self.mirror.current()?;
        if let Some(number) = current
            && self.mirror.state(number, current)? == State::Published
        {
            self.mirror.fetch_generation(number, Files::Datasets)?;
        }
        let number = match keep {
            Some(number) => number,
            None => self.mirror.numbers()?.last().map_or(1, |last| last + 1),
        };
        let none = HashSet::new();
        let sent = adopted.map_or(&none, |adopted| &adopted.lines);
        let pieces = adopted.map_or(0, |adopted| adopted.pieces);
        let remote = self.mirror.generation(number);
        let sending = Sending::start(
            (remote, number),
            folder,
            self.lease.clone(),
            (pieces, wrote),
        );
        let sending = Arc::new(sending);
        sending.already_sent(sent);
        for line in lines.iter().filter(|line| !sent.contains(*line)) {
            sending.line(line)?;
        }
        let mut slot = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(sending.clone());
        Ok(sending)
    }

    pub fn sending(&self) -> Option<Arc<Sending>> {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.clone()
    }

    /// Waits until all that the build has recorded is sent; returns the number of its generation.
    pub fn flush(&self) -> Result<u64, StoreError> {
        let sending = self.sending().ok_or_else(|| {
            let message = "nothing was being sent, so that nothing can be published";
            self.mirror.invalid("", message.into())
        })?;
        sending.finish()?;
        Ok(sending.number)
    }

    /// Sends all that the storage lacks of a finished generation, which has its number in the mirror.
    pub fn complete(&self, number: u64) -> Result<(), StoreError> {
        let folder = self.mirror.local(number);
        let remote = self.mirror.generation(number);
        let sending = self.sending().filter(|sending| sending.number == number);
        let sent = sending.map(|sending| sending.sent()).unwrap_or_default();
        let files = manifest::paths(&folder)?;
        let own = [MANIFEST, RUN].map(str::to_owned);
        let files: HashSet<String> = files.into_iter().chain(own).collect();
        let missing = files.iter().filter(|name| !sent.contains(*name));
        let missing = missing.map(|name| (folder.join(name), name.clone()));
        let missing: Vec<(PathBuf, String)> = missing.collect();
        for batch in missing.chunks(BATCH) {
            self.lease.make_sure()?;
            remote.upload(batch.to_vec())?;
        }
        self.lease.make_sure()?;
        let is_left = |name: &String| !files.contains(name) && name != CHECKSUMS && !is_piece(name);
        let listed = remote.list()?.into_iter().map(|object| object.name);
        remote.remove(&listed.filter(is_left).collect::<Vec<_>>())?;
        let manifest: Manifest = read_json(&folder.join(MANIFEST))?;
        if let Some(difference) = self.mirror.difference(number, &manifest)? {
            let message =
                format!("{difference}; nothing was published, run the same command again");
            return Err(self.mirror.invalid("", message));
        }
        remote.upload(vec![(folder.join(CHECKSUMS), CHECKSUMS.into())])?;
        let local = self.mirror.local(number).with_extension("version");
        let version = remote.look_at(MANIFEST)?.map(|object| object.version);
        fs::write(&local, version.unwrap_or_default()).map_err(StoreError::io(&local))
    }

    /// Publishes: readers see the generation before or this one.
    pub fn point_current_at(&self, number: u64) -> Result<(), StoreError> {
        self.lease.make_sure()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let condition = current.clone().map_or(If::Absent, If::Still);
        let bytes = format!("{number}\n{:016x}\n", rand::random::<u64>()).into_bytes();
        match self.mirror.objects.put_if(CURRENT, bytes, condition)? {
            Some(version) => *current = Some(version),
            None => {
                let message = "another process has changed it meanwhile, and it stays so; look with `intendex generations`, and run the \
                               command again";
                return Err(self.mirror.invalid(CURRENT, message.into()));
            }
        }
        Ok(())
    }

    pub fn remove_journal(&self, number: u64) -> Result<(), StoreError> {
        remove_all(&self.mirror.generation(number).below(PIECES))
    }

    /// Removes unfinished builds but for one and the newest `most` others.
    pub fn remove_unfinished(&self, keep: Option<u64>, most: usize) -> Result<(), StoreError> {
        let others = self
            .unfinished
            .iter()
            .filter(|number| Some(**number) != keep);
        for number in others.rev().skip(most) {
            self.remove(*number)?;
        }
        Ok(())
    }

    /// Removes a generation; returns the bytes it had. It is marked first, and the mark goes last, so that half of it is never taken
    /// for the whole, and nothing that has not been marked for a rest.
    pub fn remove(&self, number: u64) -> Result<u64, StoreError> {
        self.lease.make_sure()?;
        if self.mirror.current()? == Some(number) {
            let message = "is the current generation, and stays".to_owned();
            return Err(self.of_generation(number, message));
        }
        let bytes = self.mirror.bytes(number)?;
        let remote = self.mirror.generation(number);
        remote.put_if(REMOVED, "", If::Absent)?;
        let mut names = remote.list()?;
        names.retain(|object| object.name != REMOVED);
        let names: Vec<String> = names.into_iter().map(|object| object.name).collect();
        remote.remove(&names)?;
        remote.remove(&[REMOVED.to_owned()])?;
        Ok(bytes)
    }

    /// Removes what removals left that were killed; returns its bytes.
    pub fn remove_leftovers(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        let current = self.mirror.current()?;
        for number in self.mirror.numbers()? {
            if self.mirror.state(number, current)? == State::Removed {
                bytes += self.remove(number)?;
            }
        }
        Ok(bytes)
    }

    /// Refuses to go to a generation that is on the storage, but not all of it.
    pub fn check_published(&self, number: u64) -> Result<(), StoreError> {
        let current = self.mirror.current().unwrap_or_default();
        let is_there = self.mirror.numbers()?.contains(&number);
        if !is_there || self.mirror.state(number, current)? == State::Published {
            return Ok(());
        }
        let message =
            "was never published; run its build again, which sends the rest and publishes it";
        Err(self.of_generation(number, message.to_owned()))
    }

    fn of_generation(&self, number: u64, message: String) -> StoreError {
        let name = format!("{GENERATIONS}/{number}");
        self.mirror.invalid(&name, message)
    }

    /// Bytes of unfinished builds.
    pub fn unfinished_bytes(&self) -> Result<u64, StoreError> {
        let numbers = self.unfinished.iter();
        numbers.map(|number| self.mirror.bytes(*number)).sum()
    }
}

impl Mirror {
    /// Refuses what something else or another job has written. It is looked at again under the lock, in the mirror.
    fn check_owner(&self, job: Option<&str>) -> Result<(), StoreError> {
        if let Some((owner, _)) = self.objects.get(JOB)? {
            let owner = String::from_utf8_lossy(&owner).trim().to_owned();
            return match job {
                Some(job) if job != owner => Err(StoreError::OtherJob {
                    path: self.objects.address("").into(),
                    owner,
                    job: job.into(),
                }),
                _ => Ok(()),
            };
        }
        let (folders, names) = self.objects.names()?;
        let is_empty = folders.is_empty() && names.iter().all(|name| name == LOCK);
        match (job, is_empty) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => Err(self.invalid(
                "",
                "holds objects that Intendex did not write; choose an empty path as output.path"
                    .into(),
            )),
            (None, _) => Err(self.invalid("", "no output of `intendex build` is here".into())),
        }
    }

    /// Makes the mirror's unfinished build that of the storage, unless it is the same and further.
    fn adopt(&self, building: &Path) -> Result<Option<Adopted>, StoreError> {
        let Some(journal) = self.newest_journal()? else {
            return Ok(None);
        };
        let RemoteJournal {
            number,
            pieces,
            lines,
        } = journal;
        let header = lines
            .first()
            .and_then(|line| serde_json::from_str(line).ok());
        let header: Header = header.ok_or_else(|| {
            let message =
                "its first line is none of a journal; remove it with the generation".to_owned();
            self.invalid(&format!("{GENERATIONS}/{number}/{PIECES}"), message)
        })?;
        let has_all = |folder: &Path| {
            let own = fs::read_to_string(folder.join(JOURNAL)).unwrap_or_default();
            let own: HashSet<&str> = own.lines().collect();
            lines.iter().all(|line| own.contains(line.as_str()))
        };
        let numbered = self.local(number);
        if !has_all(building) && !has_all(&numbered) {
            remove_folder(&numbered)?;
            remove_folder(building)?;
            let remote = self.generation(number);
            let mut objects = objects_of(&remote, Files::Datasets)?;
            // They are of a publication that was ended, and are made again.
            objects.retain(|object| !DESCRIPTION.contains(&object.name.as_str()));
            self.download(&remote, objects, building)?;
            // Last, as it says that all else is there.
            let journal = building.join(JOURNAL);
            fs::create_dir_all(building).map_err(StoreError::io(building))?;
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(&journal, text).map_err(StoreError::io(&journal))?;
        }
        Ok(Some(Adopted {
            number,
            header,
            pieces,
            lines: lines.into_iter().collect(),
        }))
    }
}

fn remove_all(remote: &Objects) -> Result<(), StoreError> {
    let names = remote.list()?.into_iter().map(|object| object.name);
    Ok(remote.remove(&names.collect::<Vec<_>>())?)
}
