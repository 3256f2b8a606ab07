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

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Dataset, Manifest, StoreError, generation::remove_folder, manifest, progress::Header};
use crate::objects::{If, Object, Objects, Version, is_address};
use lease::Lease;
pub use sending::{Sending, Wrote};

/// Variable with the folder of all mirrors.
const CACHE: &str = "INTENDEX_CACHE";

const GENERATIONS: &str = "generations";
const JOURNAL: &str = "journal";
/// The journal in the mirror.
const LOCAL_JOURNAL: &str = "journal.ndjson";
const CURRENT: &str = "CURRENT";
const JOB: &str = "JOB";
const LOCK: &str = "LOCK";
const MANIFEST: &str = "manifest.json";
/// Written last: a generation that has it is whole.
const CHECKSUMS: &str = "CHECKSUMS";

/// Unfinished builds of other plans that stay, to be taken over, as in a folder.
const MOST_UNFINISHED: usize = 3;

/// Files of a finished generation that are sent between two looks at the lock.
const BATCH: usize = 64;

/// Bytes that are fetched without a word.
const QUIET: u64 = 1 << 20;

/// What of a generation is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// What says what it is: manifest.json, run.json, CHECKSUMS.
    Description,
    /// What a search reads.
    Search,
    /// All but the indexes.
    Datasets,
    All,
}

impl Files {
    fn wants(self, name: &str) -> bool {
        let is_description = [MANIFEST, manifest::RUN, CHECKSUMS].contains(&name);
        let of = |dataset: &Dataset| name.starts_with(&format!("{}/", dataset.folder()));
        match self {
            Files::Description => is_description,
            Files::Search => {
                let read = [
                    Dataset::Chunks,
                    Dataset::Queries,
                    Dataset::Scores,
                    Dataset::Selection,
                ];
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

/// An output on object storage.
#[derive(Debug, Clone)]
pub struct Mirror {
    objects: Objects,
    folder: PathBuf,
}

/// The generation that is current, and the version of `CURRENT`.
type Current = Option<(u64, Version)>;

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

    fn current(&self) -> Result<Current, StoreError> {
        let Some((bytes, version)) = self.objects.get(CURRENT)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        // The second line makes each writing of it another.
        let first = text.lines().next().unwrap_or_default().trim();
        let number = first.parse().map_err(|_| {
            let message = format!("`{first}` is not a generation's number");
            self.invalid(CURRENT, message)
        })?;
        Ok(Some((number, version)))
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

    /// Writes the small files of the output's root as they are on the storage.
    fn fetch_root(&self) -> Result<Current, StoreError> {
        let current = self.current()?;
        fs::create_dir_all(self.folder.join(GENERATIONS)).map_err(StoreError::io(&self.folder))?;
        let number = current
            .as_ref()
            .map(|(number, _)| format!("{number}\n").into_bytes());
        self.write_root(CURRENT, number.as_deref())?;
        let job = self.objects.get(JOB)?.map(|(bytes, _)| bytes);
        self.write_root(JOB, job.as_deref())?;
        Ok(current)
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

    /// For a reader: fetches what it wants of a generation, the current one if none is named. None: nothing is published.
    pub fn fetch(&self, number: Option<u64>, files: Files) -> Result<Option<u64>, StoreError> {
        let current = self.fetch_root()?.map(|(number, _)| number);
        let Some(number) = number.or(current) else {
            return Ok(None);
        };
        self.fetch_generation(number, files)?;
        Ok(Some(number))
    }

    /// Fetches every object of a generation again, whatever the mirror has, and removes what is no object. Each file is replaced, so
    /// that who has it open reads on.
    pub fn fetch_anew(&self, number: Option<u64>) -> Result<Option<u64>, StoreError> {
        let current = self.fetch_root()?.map(|(number, _)| number);
        let Some(number) = number.or(current) else {
            return Ok(None);
        };
        self.forget_another(number)?;
        let (remote, local) = (self.generation(number), self.local(number));
        let is_journal = |object: &Object| object.name.starts_with(&format!("{JOURNAL}/"));
        let objects = remote
            .list()?
            .into_iter()
            .filter(|object| !is_journal(object));
        let files: Vec<(Object, PathBuf)> = objects
            .map(|object| {
                let path = local.join(&object.name);
                (object, path)
            })
            .collect();
        let names: HashSet<String> = files
            .iter()
            .map(|(object, _)| object.name.clone())
            .collect();
        remote.download(files)?;
        for name in super::files_below(&local)? {
            if !names.contains(&name) {
                let path = local.join(&name);
                fs::remove_file(&path).map_err(StoreError::io(&path))?;
            }
        }
        Ok(Some(number))
    }

    fn fetch_generation(&self, number: u64, files: Files) -> Result<(), StoreError> {
        self.forget_another(number)?;
        let remote = self.generation(number);
        let is_wanted = |object: &Object| {
            files.wants(&object.name) && !object.name.starts_with(&format!("{JOURNAL}/"))
        };
        let objects = match files {
            Files::Description => {
                let named = [MANIFEST, manifest::RUN, CHECKSUMS];
                let found = named.iter().map(|name| remote.look_at(name));
                found
                    .filter_map(Result::transpose)
                    .collect::<Result<_, _>>()?
            }
            _ => remote.list()?,
        };
        let wanted = objects.into_iter().filter(is_wanted);
        self.download(&remote, wanted, &self.local(number))
    }

    /// Downloads what the folder does not have in this size.
    fn download(
        &self,
        remote: &Objects,
        objects: impl Iterator<Item = Object>,
        folder: &Path,
    ) -> Result<(), StoreError> {
        let missing = |(object, path): &(Object, PathBuf)| {
            fs::metadata(path).map_or(true, |metadata| metadata.len() != object.bytes)
        };
        let files = objects.map(|object| {
            let path = folder.join(&object.name);
            (object, path)
        });
        let files: Vec<(Object, PathBuf)> = files.filter(missing).collect();
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
        Ok(remote.download(files)?)
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
            Err(_) => local.join(LOCAL_JOURNAL).exists(),
        };
        if is_another {
            remove_folder(&local)?;
        }
        fs::write(&known, found.version).map_err(StoreError::io(&known))
    }

    /// For `intendex generations`: what says what they are, of all.
    pub fn fetch_descriptions(&self) -> Result<(), StoreError> {
        self.fetch_root()?;
        self.mirror_published(&|folder| !folder.join(LOCAL_JOURNAL).exists())
            .map(|_| ())
    }

    /// Makes the mirror's numbered folders those of the generations that are published; returns the numbers of those that are
    /// not, in order. Of folders whose generation is gone, those go that may.
    fn mirror_published(&self, may_go: &dyn Fn(&Path) -> bool) -> Result<Vec<u64>, StoreError> {
        let current = self.current()?.map(|(number, _)| number);
        let (mut published, mut unfinished) = (HashSet::new(), Vec::new());
        for number in self.numbers()? {
            if current != Some(number) && self.has(number, &first_piece())? {
                unfinished.push(number);
            } else if self.has(number, MANIFEST)? {
                self.fetch_generation(number, Files::Description)?;
                // All that is left of a writer killed behind its last step.
                let _ = fs::remove_file(self.local(number).join(LOCAL_JOURNAL));
                published.insert(number);
            }
        }
        let folder = self.folder.join(GENERATIONS);
        for entry in fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
            let path = entry.map_err(StoreError::io(&folder))?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let gone = number.filter(|number| !published.contains(number));
            // That of a writer killed in publication stays: see `Adopted`.
            if gone.is_some_and(|number| !unfinished.contains(&number)) && may_go(&path) {
                remove_folder(&path)?;
                let _ = fs::remove_file(path.with_extension("version"));
            }
        }
        Ok(unfinished)
    }

    fn has(&self, number: u64, name: &str) -> Result<bool, StoreError> {
        Ok(self.generation(number).look_at(name)?.is_some())
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

    /// The journal of the newest unfinished build: its number, its pieces and its lines.
    pub fn newest_journal(&self) -> Result<Option<(u64, usize, Vec<String>)>, StoreError> {
        let current = self.current()?.map(|(number, _)| number);
        for number in self.numbers()?.into_iter().rev() {
            if current != Some(number)
                && let Some((pieces, lines)) = self.journal(number)?
            {
                return Ok(Some((number, pieces, lines)));
            }
        }
        Ok(None)
    }

    fn journal(&self, number: u64) -> Result<Option<(usize, Vec<String>)>, StoreError> {
        let journal = self.generation(number).below(JOURNAL);
        let (mut pieces, mut lines) = (0, Vec::new());
        while let Some((bytes, _)) = journal.get(&sending::piece(pieces))? {
            let text = String::from_utf8_lossy(&bytes);
            // The first line names the writer.
            lines.extend(text.lines().skip(1).map(str::to_owned));
            pieces += 1;
        }
        Ok((pieces > 0).then_some((pieces, lines)))
    }

    fn remove_below(&self, remote: &Objects) -> Result<(), StoreError> {
        let names = remote.list()?.into_iter().map(|object| object.name);
        Ok(remote.remove(&names.collect::<Vec<_>>())?)
    }
}

/// The object that says of a generation that it is being built or published.
fn first_piece() -> String {
    format!("{JOURNAL}/{}", sending::piece(0))
}

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
        let current = mirror.fetch_root()?.map(|(_, version)| version);
        let unfinished = mirror.mirror_published(&|_| true)?;
        let adopted = mirror.adopt(building)?;
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
        if let Some((current, _)) = self.mirror.current()?
            && self.mirror.has(current, MANIFEST)?
        {
            self.mirror.fetch_generation(current, Files::Datasets)?;
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
        let files = super::files_below(&folder)?;
        let is_file = |name: &String| ![CHECKSUMS, LOCAL_JOURNAL].contains(&name.as_str());
        let files: HashSet<String> = files.into_iter().filter(is_file).collect();
        let missing = files.iter().filter(|name| !sent.contains(*name));
        let missing = missing.map(|name| (folder.join(name), name.clone()));
        let missing: Vec<(PathBuf, String)> = missing.collect();
        for batch in missing.chunks(BATCH) {
            self.lease.make_sure()?;
            remote.upload(batch.to_vec())?;
        }
        self.lease.make_sure()?;
        let is_left = |name: &String| {
            !files.contains(name) && name != CHECKSUMS && !name.starts_with(&format!("{JOURNAL}/"))
        };
        let listed = remote.list()?.into_iter().map(|object| object.name);
        remote.remove(&listed.filter(is_left).collect::<Vec<_>>())?;
        let manifest: Manifest = super::read_json(&folder.join(MANIFEST))?;
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
        let journal = self.mirror.generation(number).below(JOURNAL);
        self.mirror.remove_below(&journal)
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

    /// Removes a generation; returns the bytes it had. First goes what makes it one, and then what makes it an unfinished one, so that
    /// half of it is never taken for the whole.
    pub fn remove(&self, number: u64) -> Result<u64, StoreError> {
        self.lease.make_sure()?;
        if self
            .mirror
            .current()?
            .is_some_and(|(current, _)| current == number)
        {
            let message = "is the current generation, and stays".to_owned();
            return Err(self
                .mirror
                .invalid(&format!("{GENERATIONS}/{number}"), message));
        }
        let bytes = self.mirror.bytes(number)?;
        let remote = self.mirror.generation(number);
        for first in [MANIFEST.to_owned(), first_piece()] {
            remote.remove(&[first])?;
        }
        self.mirror.remove_below(&remote)?;
        Ok(bytes)
    }

    /// Removes what removals left that were killed; returns its bytes.
    pub fn remove_leftovers(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        let current = self.mirror.current()?.map(|(number, _)| number);
        let numbers = self.mirror.numbers()?.into_iter();
        // The current one without its manifest is damaged, and for `verify` and a new build.
        for number in numbers.filter(|number| current != Some(*number)) {
            if !self.mirror.has(number, MANIFEST)? && !self.mirror.has(number, &first_piece())? {
                bytes += self.remove(number)?;
            }
        }
        Ok(bytes)
    }

    /// Refuses to go to a generation of which the storage has not all.
    pub fn check_published(&self, number: u64) -> Result<(), StoreError> {
        let is_whole = self.mirror.has(number, CHECKSUMS)?;
        let is_current = self
            .mirror
            .current()?
            .is_some_and(|(current, _)| current == number);
        if is_whole && (is_current || !self.mirror.has(number, &first_piece())?) {
            return Ok(());
        }
        let message =
            "was never published; run its build again, which sends the rest and publishes it"
                .to_owned();
        Err(self
            .mirror
            .invalid(&format!("{GENERATIONS}/{number}"), message))
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
        let Some((number, pieces, lines)) = self.newest_journal()? else {
            return Ok(None);
        };
        let header = lines
            .first()
            .and_then(|line| serde_json::from_str(line).ok());
        let header: Header = header.ok_or_else(|| {
            let message =
                "its first line is none of a journal; remove it with the generation".to_owned();
            self.invalid(&format!("{GENERATIONS}/{number}/{JOURNAL}"), message)
        })?;
        let has_all = |folder: &Path| {
            let own = fs::read_to_string(folder.join(LOCAL_JOURNAL)).unwrap_or_default();
            let own: HashSet<&str> = own.lines().collect();
            lines.iter().all(|line| own.contains(line.as_str()))
        };
        let numbered = self.local(number);
        if !has_all(building) && !has_all(&numbered) {
            remove_folder(&numbered)?;
            remove_folder(building)?;
            let remote = self.generation(number);
            // The rest is of a publication that was ended, and is made again.
            let is_dataset = |object: &Object| {
                Files::Datasets.wants(&object.name) && !Files::Description.wants(&object.name)
            };
            let objects = remote.list()?.into_iter().filter(is_dataset);
            self.download(&remote, objects, building)?;
            // Last, as it says that all else is there.
            let journal = building.join(LOCAL_JOURNAL);
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
