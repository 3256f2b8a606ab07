//! Building a sparse index on all cores, in bounded memory.
//!
//! The chunks are cut, in order, into parts of some megabytes of text. A part is indexed by one thread as a segment of its
//! own; every [`FAN_IN`] neighbouring parts are merged into one on the way, so that a billion chunks need no more open
//! files than a million; and the end merges what there is, in order, into the one segment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tantivy::directory::MmapDirectory;
use tantivy::indexer::merge_indices;
use tantivy::schema::{Field, Schema};
use tantivy::{Index, TantivyDocument, TantivyError};
use tempfile::TempDir;

use super::{SparseDocument, SparseError, SparseSummary, in_dir, schema};
use crate::index::analyzer;
use crate::job::spec::SparseLanguage;

/// Text of a part. A thread takes some four times as much memory for it.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Neighbouring parts that are merged into one.
pub(super) const FAN_IN: usize = 16;
/// What Tantivy sizes the table of a part's terms by.
const TABLE_BYTES: usize = 32 << 20;

/// Writes a sparse index.
pub struct SparseWriter {
    dir: PathBuf,
    schema: Schema,
    part: Vec<TantivyDocument>,
    part_text: usize,
    part_bytes: usize,
    parts: usize,
    documents: u64,
    // Before the folder that its threads write to: fields are dropped in this order.
    threads: Threads,
    parts_dir: TempDir,
}

impl SparseWriter {
    /// Starts an index in the folder `dir`, which is created and must be empty. Parts are kept beside it meanwhile.
    pub fn create(dir: &Path, language: SparseLanguage) -> Result<Self, SparseError> {
        Self::with_parts(dir, language, PART_BYTES, FAN_IN)
    }

    pub(super) fn with_parts(
        dir: &Path,
        language: SparseLanguage,
        part_bytes: usize,
        fan_in: usize,
    ) -> Result<Self, SparseError> {
        let file = |source| SparseError::File {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(file)?;
        if std::fs::read_dir(dir).map_err(file)?.next().is_some() {
            return Err(SparseError::NotEmpty {
                path: dir.to_owned(),
            });
        }
        let beside = dir.parent().unwrap_or(dir);
        let parts_dir = tempfile::Builder::new()
            .prefix(".sparse-")
            .tempdir_in(beside)
            .map_err(file)?;
        let schema = schema(language);
        let threads = Threads::start(Parts {
            dir: parts_dir.path().to_owned(),
            schema: schema.clone(),
            fan_in,
            done: Mutex::default(),
            failure: Mutex::default(),
        });
        Ok(Self {
            dir: dir.to_owned(),
            schema,
            part: Vec::new(),
            part_text: 0,
            part_bytes,
            parts: 0,
            documents: 0,
            threads: threads.map_err(file)?,
            parts_dir,
        })
    }

    /// Adds the next chunk.
    pub fn add(&mut self, chunk: SparseDocument<'_>) -> Result<(), SparseError> {
        let ids = [("chunk_id", chunk.chunk_id), ("doc_id", chunk.doc_id)];
        let texts = [("text", chunk.text)]
            .into_iter()
            .chain(chunk.title.map(|title| ("title", title)));
        let queries = chunk.queries.iter().map(|query| ("queries", *query));
        let mut document = TantivyDocument::new();
        for (name, value) in ids.into_iter().chain(texts).chain(queries) {
            document.add_text(self.field(name)?, value);
            self.part_text += value.len();
        }
        self.part.push(document);
        self.documents += 1;
        if self.part_text > self.part_bytes {
            self.send()?;
        }
        Ok(())
    }

    fn field(&self, name: &str) -> Result<Field, SparseError> {
        self.schema.get_field(name).map_err(in_dir(&self.dir))
    }

    /// Hands the part to a thread; waits while all have one and the next lies ready.
    fn send(&mut self) -> Result<(), SparseError> {
        let part = std::mem::take(&mut self.part);
        self.threads
            .index(self.parts, part)
            .map_err(in_dir(&self.dir))?;
        self.parts += 1;
        self.part_text = 0;
        Ok(())
    }

    /// Writes the one segment and `meta.json`.
    pub fn finish(mut self) -> Result<SparseSummary, SparseError> {
        if !self.part.is_empty() || self.parts == 0 {
            self.send()?;
        }
        let Self {
            dir,
            threads,
            parts_dir,
            documents,
            ..
        } = self;
        let parts = threads.finish().map_err(in_dir(&dir))?;
        let target = MmapDirectory::open(&dir).map_err(|e| in_dir(&dir)(e.into()))?;
        merge_indices(&parts, target).map_err(in_dir(&dir))?;
        drop(parts);
        let file = |source| SparseError::File {
            path: dir.clone(),
            source,
        };
        parts_dir.close().map_err(file)?;
        share_meta(&dir).map_err(file)?;
        Ok(SparseSummary { documents })
    }
}

/// Tantivy writes its `.json` files for their owner alone; a published index is read by others too, so they get
/// the permissions of the segment's files.
fn share_meta(dir: &Path) -> std::io::Result<()> {
    let files = std::fs::read_dir(dir)?.map(|file| file.map(|file| file.path()));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let (meta, segment): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|path| path.extension().is_some_and(|e| e == "json"));
    if let Some(ordinary) = segment.first() {
        let permissions = std::fs::metadata(ordinary)?.permissions();
        for path in meta {
            std::fs::set_permissions(path, permissions.clone())?;
        }
    }
    Ok(())
}

/// A part's number and its documents.
type Part = (usize, Vec<TantivyDocument>);

/// As many threads as rayon has; they end when the writer does, whatever its end.
struct Threads {
    /// Nothing once all parts have been sent.
    sender: Option<SyncSender<Part>>,
    threads: Vec<JoinHandle<()>>,
    parts: Arc<Parts>,
}

impl Threads {
    fn start(parts: Parts) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let parts = Arc::new(parts);
        let spawn = |_| {
            let (receiver, parts) = (receiver.clone(), parts.clone());
            std::thread::Builder::new()
                .name("sparse".into())
                .spawn(move || parts.work(&receiver))
        };
        let threads = (0..rayon::current_num_threads()).map(spawn);
        Ok(Self {
            threads: threads.collect::<Result<_, _>>()?,
            sender: Some(sender),
            parts,
        })
    }

    fn index(&self, number: usize, documents: Vec<TantivyDocument>) -> Result<(), TantivyError> {
        // Nobody listens when all threads have failed, which the next line tells.
        let sender = self.sender.as_ref().expect("parts are sent before the end");
        let _ = sender.send((number, documents));
        lock(&self.parts.failure).take().map_or(Ok(()), Err)
    }

    /// The parts in order, when all are there.
    fn finish(mut self) -> Result<Vec<Index>, TantivyError> {
        drop(self.sender.take());
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        if let Some(failure) = lock(&self.parts.failure).take() {
            return Err(failure);
        }
        Ok(std::mem::take(&mut *lock(&self.parts.done))
            .into_values()
            .map(|part| part.index)
            .collect())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.sender.take());
        for thread in self.threads.drain(..) {
            // The writer is given up: why, it has told.
            let _ = thread.join();
        }
    }
}

/// What the threads share.
struct Parts {
    dir: PathBuf,
    schema: Schema,
    fan_in: usize,
    /// By the number of the first part in it.
    done: Mutex<BTreeMap<usize, Done>>,
    failure: Mutex<Option<TantivyError>>,
}

struct Done {
    /// How many parts are in it: a power of the fan-in.
    parts: usize,
    index: Index,
    folder: PathBuf,
}

impl Parts {
    fn work(&self, receiver: &Mutex<Receiver<Part>>) {
        loop {
            let next = lock(receiver).recv();
            let Ok((number, documents)) = next else {
                return;
            };
            if let Err(error) = self.index(number, documents) {
                lock(&self.failure).get_or_insert(error);
                return;
            }
        }
    }

    /// Indexes a part, and merges the groups that it completes.
    fn index(&self, number: usize, documents: Vec<TantivyDocument>) -> Result<(), TantivyError> {
        let (folder, directory) = self.folder(number, 1)?;
        let mut writer = Index::builder()
            .schema(self.schema.clone())
            .tokenizers(analyzer::tokenizers())
            .single_segment_index_writer(directory, TABLE_BYTES)?;
        for document in documents {
            writer.add_document(document)?;
        }
        let index = writer.finalize()?;
        let mut first = number;
        let mut done = Done {
            parts: 1,
            index,
            folder,
        };
        while let Some(group) = self.group(&mut first, done) {
            let parts = group.len() * group[0].parts;
            let indexes: Vec<Index> = group.iter().map(|done| done.index.clone()).collect();
            let (folder, directory) = self.folder(first, parts)?;
            let index = merge_indices(&indexes, directory)?;
            drop(indexes);
            for part in group {
                drop(part.index);
                std::fs::remove_dir_all(part.folder)?;
            }
            done = Done {
                parts,
                index,
                folder,
            };
        }
        Ok(())
    }

    /// Puts down what was made, from part `first` on. If it completes a group, the group is taken up and `first` is where
    /// it begins.
    fn group(&self, first: &mut usize, made: Done) -> Option<Vec<Done>> {
        let parts = made.parts;
        let start = *first / (parts * self.fan_in) * (parts * self.fan_in);
        let numbers = (0..self.fan_in).map(|i| start + i * parts);
        let mut done = lock(&self.done);
        done.insert(*first, made);
        let there = |number| done.get(&number).is_some_and(|d| d.parts == parts);
        if !numbers.clone().all(there) {
            return None;
        }
        *first = start;
        Some(numbers.filter_map(|number| done.remove(&number)).collect())
    }

    fn folder(&self, first: usize, parts: usize) -> Result<(PathBuf, MmapDirectory), TantivyError> {
        let folder = self.dir.join(format!("{first}-{parts}"));
        std::fs::create_dir(&folder)?;
        let directory = MmapDirectory::open(&folder)?;
        Ok((folder, directory))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
