//! The journal of a run: one line per finished part, appended and synced, so that a killed run knows where it was.
//! Appending keeps the cost of a record independent of how many there are.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{StoreError, memory, mirror::Sending};

/// What one part of a stage, or a whole stage, did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Rows written.
    pub rows: u64,
    /// Input rows the stage computed, and those whose results it took from an earlier build.
    pub computed: u64,
    pub reused: u64,
    /// Rows that went to quarantine.
    pub failed: u64,
    /// Tokens the stage's model read or wrote for the computed rows.
    pub tokens: u64,
    /// Inputs that were cut to fit a model, and the tokens they lost, in reused rows too.
    pub truncated_rows: u64,
    pub truncated_tokens: u64,
    /// Sentences longer than the cap, which were cut at token boundaries.
    pub cut_sentences: u64,
    /// Inputs a stage left alone by its settings (such as documents too long for intents).
    pub skipped: u64,
    /// Documents without intents, which were cut by their paragraphs.
    pub without_intents: u64,
    pub seconds: f64,
    /// Of these, those spent in models.
    #[serde(default)]
    pub model_seconds: f64,
    /// Highest memory of the process meanwhile, mapped files not counted, where the system tells.
    pub peak_memory_bytes: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.rows += other.rows;
        self.computed += other.computed;
        self.reused += other.reused;
        self.failed += other.failed;
        self.tokens += other.tokens;
        self.truncated_rows += other.truncated_rows;
        self.truncated_tokens += other.truncated_tokens;
        self.cut_sentences += other.cut_sentences;
        self.skipped += other.skipped;
        self.without_intents += other.without_intents;
        self.seconds += other.seconds;
        self.model_seconds += other.model_seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
    }
}

/// Measures a piece of work: its time and its memory.
pub struct Meter(Instant);

impl Meter {
    pub fn start() -> Self {
        memory::reset_peak();
        Self(Instant::now())
    }

    pub fn stop(self, tally: &mut Tally) {
        tally.seconds = self.0.elapsed().as_secs_f64();
        tally.peak_memory_bytes = memory::peak_bytes().unwrap_or(0);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    stage: String,
    /// None: the whole stage is done.
    shard: Option<usize>,
    tally: Tally,
}

/// What a journal is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// A run goes on only where this is the same.
    pub plan: String,
    /// Fingerprint of each stage, for the rows that another plan can take over.
    pub stages: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    done: BTreeMap<(String, Option<usize>), Tally>,
    totals: BTreeMap<String, Tally>,
    resumed: bool,
    /// Takes each line to where the output really is.
    sending: Option<Arc<Sending>>,
}

impl Journal {
    /// Starts a journal for the plan, in place of any other.
    pub fn create(path: &Path, header: &Header) -> Result<Self, StoreError> {
        let file = File::create(path).map_err(StoreError::io(path))?;
        let mut journal = Self::empty(path, file);
        journal.append(header)?;
        Ok(journal)
    }

    fn empty(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file,
            done: BTreeMap::new(),
            totals: BTreeMap::new(),
            resumed: false,
            sending: None,
        }
    }

    /// What the journal at `path` is of; None where there is none, or none that can be read.
    pub fn header(path: &Path) -> Option<Header> {
        let text = std::fs::read_to_string(path).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    }

    /// Reads the journal of an interrupted run, if it was for the same plan, without writing to it.
    pub fn read(path: &Path, plan: &str) -> Option<Self> {
        let file = File::open(path).ok()?;
        let (_, lines) = read_lines(&file, plan)?;
        let mut journal = Self::empty(path, file);
        lines.into_iter().for_each(|line| journal.count(line));
        Some(journal)
    }

    /// Of lines that are not in a file here, if they are of this plan.
    pub fn of_lines(lines: &[String], plan: &str) -> Option<Self> {
        let mut file = tempfile::tempfile().ok()?;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        file.write_all(text.as_bytes()).ok()?;
        file.rewind().ok()?;
        let (_, lines) = read_lines(&file, plan)?;
        let mut journal = Self::empty(Path::new(""), file);
        lines.into_iter().for_each(|line| journal.count(line));
        Some(journal)
    }

    /// Opens the journal of an interrupted run, if it was for the same plan. A last line that was cut short by a
    /// crash is dropped.
    pub fn resume(path: &Path, plan: &str) -> Result<Option<Self>, StoreError> {
        let read = File::open(path).ok().and_then(|f| read_lines(&f, plan));
        let Some((whole, lines)) = read else {
            return Ok(None);
        };
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(StoreError::io(path))?;
        file.set_len(whole).map_err(StoreError::io(path))?;
        let mut journal = Self::empty(path, file);
        journal.resumed = !lines.is_empty();
        lines.into_iter().for_each(|line| journal.count(line));
        Ok(Some(journal))
    }

    /// Whether it goes on from an interrupted run that had finished something.
    pub fn was_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether nothing is finished yet.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    pub fn is_done(&self, stage: &str, shard: Option<usize>) -> bool {
        self.done.contains_key(&(stage.to_owned(), shard))
    }

    pub fn record(
        &mut self,
        stage: &str,
        shard: Option<usize>,
        tally: Tally,
    ) -> Result<(), StoreError> {
        let line = Line {
            stage: stage.to_owned(),
            shard,
            tally,
        };
        self.append(&line)?;
        self.count(line);
        Ok(())
    }

    fn count(&mut self, line: Line) {
        let total = self.totals.entry(line.stage.clone()).or_default();
        total.add(&line.tally);
        self.done.insert((line.stage, line.shard), line.tally);
    }

    /// What was recorded of a stage's shard, or of the whole stage at once.
    pub fn tally(&self, stage: &str, shard: Option<usize>) -> Tally {
        let tally = self.done.get(&(stage.to_owned(), shard));
        tally.cloned().unwrap_or_default()
    }

    /// The sum of a stage's records.
    pub fn total(&self, stage: &str) -> Tally {
        self.totals.get(stage).cloned().unwrap_or_default()
    }

    fn append<T: Serialize>(&mut self, value: &T) -> Result<(), StoreError> {
        let invalid = |e: serde_json::Error| StoreError::Invalid {
            path: self.path.clone(),
            message: e.to_string(),
        };
        let line = serde_json::to_string(value).map_err(invalid)?;
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(StoreError::io(&self.path))?;
        match &self.sending {
            Some(sending) => sending.line(&line),
            None => Ok(()),
        }
    }

    /// Its lines so far, the header first.
    pub fn lines(&self) -> Result<Vec<String>, StoreError> {
        let text = std::fs::read_to_string(&self.path).map_err(StoreError::io(&self.path))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Has every line from now on taken to where the output really is.
    pub fn send(&mut self, sending: Arc<Sending>) {
        self.sending = Some(sending);
    }
}

/// The whole lines of a journal of this plan, and how many bytes they and the header take.
fn read_lines(mut file: &File, plan: &str) -> Option<(u64, Vec<Line>)> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].lines();
    let header: Header = serde_json::from_str(lines.next()?).ok()?;
    if header.plan != plan {
        return None;
    }
    let lines: Result<Vec<Line>, _> = lines.map(serde_json::from_str).collect();
    Some((whole as u64, lines.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_after_a_torn_line_and_only_for_the_same_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.ndjson");
        let header = Header {
            plan: "a".into(),
            stages: BTreeMap::new(),
        };
        let mut journal = Journal::create(&path, &header).unwrap();
        journal
            .record(
                "chunks",
                Some(0),
                Tally {
                    rows: 7,
                    ..Tally::default()
                },
            )
            .unwrap();
        drop(journal);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"stage\":\"chu")
            .unwrap();

        assert!(Journal::resume(&path, "b").unwrap().is_none());
        let mut journal = Journal::resume(&path, "a").unwrap().unwrap();
        assert!(journal.is_done("chunks", Some(0)) && !journal.is_done("chunks", Some(1)));
        journal
            .record(
                "chunks",
                Some(1),
                Tally {
                    rows: 5,
                    ..Tally::default()
                },
            )
            .unwrap();
        drop(journal);
        let journal = Journal::resume(&path, "a").unwrap().unwrap();
        assert_eq!(journal.total("chunks").rows, 12);
    }
}
