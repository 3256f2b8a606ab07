//! Sends what a build has finished while it goes on: the parts first, then the journal's lines that speak of them. What is finished
//! while a piece of the journal is on its way goes together with the next one.

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use serde::Deserialize;

use super::{PIECES, lease::Lease};
use crate::{
    objects::{If, ObjectError, Objects},
    store::{StoreError, names_below},
};

/// The files, below the generation, that a line of the journal speaks of, by its stage and shard; folders stand for all that is in
/// them. None: the line is not sent, and another machine does this work again.
pub type Wrote = fn(&str, Option<usize>) -> Option<Vec<PathBuf>>;

/// Name of a piece of the journal.
pub fn piece(number: usize) -> String {
    format!("{number:08}.ndjson")
}

/// What of a line says whose it is; a header has no stage.
#[derive(Deserialize)]
struct Of {
    stage: Option<String>,
    shard: Option<usize>,
}

/// A line, and the files that it speaks of.
type Recorded = (String, Vec<PathBuf>);

pub struct Sending {
    pub number: u64,
    remote: Objects,
    wrote: Wrote,
    lease: Arc<Lease>,
    lines: Mutex<Option<mpsc::Sender<Recorded>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<Mutex<State>>,
    folder: PathBuf,
}

#[derive(Default)]
struct State {
    /// Files of lines that are on the storage.
    sent: HashSet<String>,
    failure: Option<ObjectError>,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} on its way", self.number)
    }
}

impl Sending {
    pub fn start(
        (remote, number): (Objects, u64),
        folder: &Path,
        lease: Arc<Lease>,
        (pieces, wrote): (usize, Wrote),
    ) -> Self {
        let (lines, received) = mpsc::channel();
        let state = Arc::new(Mutex::new(State::default()));
        let post = Post {
            lease: lease.clone(),
            remote: remote.clone(),
            folder: folder.to_owned(),
            writer: format!("{{\"writer\":{}}}\n", rand::random::<u64>()),
            pieces,
        };
        let shared = state.clone();
        let thread = thread::Builder::new()
            .name("sending".into())
            .spawn(move || post.run(&received, &shared));
        let (thread, failure) = match thread {
            Ok(thread) => (Some(thread), None),
            Err(error) => (None, Some(ObjectError::told("a thread", error.to_string()))),
        };
        lock(&state).failure = failure;
        Self {
            number,
            remote,
            wrote,
            lease,
            lines: Mutex::new(Some(lines)),
            thread: Mutex::new(thread),
            state,
            folder: folder.to_owned(),
        }
    }

    /// Takes a line of the journal, to be sent with its files.
    pub fn line(&self, line: &str) -> Result<(), StoreError> {
        self.lease.check()?;
        if let Some(failure) = lock(&self.state).failure.clone() {
            return Err(failure.into());
        }
        if let Some(files) = self.files(line)
            && let Some(lines) = &*lock(&self.lines)
        {
            // The receiver is gone only if it has failed, which the next line tells.
            let _ = lines.send((line.to_owned(), files));
        }
        Ok(())
    }

    fn files(&self, line: &str) -> Option<Vec<PathBuf>> {
        let of: Of = serde_json::from_str(line).ok()?;
        match of.stage {
            Some(stage) => (self.wrote)(&stage, of.shard),
            None => Some(Vec::new()),
        }
    }

    /// Says which lines an earlier process has sent.
    pub fn already_sent(&self, lines: &HashSet<String>) {
        let files = lines.iter().filter_map(|line| self.files(line)).flatten();
        let names = files.flat_map(|file| names(&self.folder, &file).unwrap_or_default());
        let names: Vec<String> = names.collect();
        lock(&self.state).sent.extend(names);
    }

    /// Waits until all is sent. No line may follow.
    pub fn finish(&self) -> Result<(), StoreError> {
        drop(lock(&self.lines).take());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        self.lease.check()?;
        match lock(&self.state).failure.clone() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Of the generation.
    pub fn address(&self) -> String {
        self.remote.address("")
    }

    /// Sends files of the generation now, those that are not sent yet; returns the generation's address.
    pub fn offer(&self, files: &[PathBuf]) -> Result<String, StoreError> {
        self.lease.check()?;
        let name = |file: &PathBuf| {
            let name = file.strip_prefix(&self.folder).unwrap_or(file);
            (file.clone(), name.to_string_lossy().into_owned())
        };
        let files = files.iter().filter(|file| file.exists()).map(name);
        let missing: Vec<_> = {
            let state = lock(&self.state);
            files
                .filter(|(_, name)| !state.sent.contains(name))
                .collect()
        };
        let names: Vec<String> = missing.iter().map(|(_, name)| name.clone()).collect();
        self.remote.upload(missing)?;
        lock(&self.state).sent.extend(names);
        Ok(self.address())
    }

    /// Names of the files that are sent.
    pub fn sent(&self) -> HashSet<String> {
        lock(&self.state).sent.clone()
    }
}

/// A build that fails leaves on the storage what it has done.
impl Drop for Sending {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!("{error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of a file, or of all files in a folder, those that are there.
fn names(generation: &Path, file: &Path) -> Result<Vec<String>, StoreError> {
    let path = generation.join(file);
    let below = match path.is_dir() {
        true => names_below(&path)?,
        false if path.exists() => vec![String::new()],
        false => Vec::new(),
    };
    let name = |name: String| {
        file.join(name)
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned()
    };
    Ok(below.into_iter().map(name).collect())
}

struct Post {
    lease: Arc<Lease>,
    remote: Objects,
    folder: PathBuf,
    writer: String,
    pieces: usize,
}

impl Post {
    fn run(mut self, lines: &mpsc::Receiver<Recorded>, state: &Mutex<State>) {
        while let Ok(first) = lines.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(lines.try_iter()).collect();
            match self.send(&batch) {
                Ok(names) => lock(state).sent.extend(names),
                Err(error) => {
                    let address = self.remote.address("");
                    let told = |error: StoreError| match error {
                        StoreError::Objects(error) => error,
                        other => ObjectError::told(&address, other.to_string()),
                    };
                    lock(state).failure = Some(told(error));
                    return;
                }
            }
        }
    }

    fn send(&mut self, batch: &[Recorded]) -> Result<Vec<String>, StoreError> {
        let mut sent = Vec::new();
        for file in batch.iter().flat_map(|(_, files)| files) {
            sent.extend(names(&self.folder, file)?);
        }
        let files = sent
            .iter()
            .map(|name| (self.folder.join(name), name.clone()));
        self.lease.check()?;
        self.remote.upload(files.collect())?;
        self.lease.check()?;
        let lines = batch.iter().map(|(line, _)| format!("{line}\n"));
        let text = self.writer.clone() + &lines.collect::<String>();
        let name = format!("{PIECES}/{}", piece(self.pieces));
        if self
            .remote
            .put_if(&name, text.into_bytes(), If::Absent)?
            .is_none()
        {
            return Err(StoreError::Invalid {
                path: self.remote.address(&name).into(),
                message: "another process writes here; this one stops, and the other goes on with what was done here".into(),
            });
        }
        self.pieces += 1;
        Ok(sent)
    }
}
