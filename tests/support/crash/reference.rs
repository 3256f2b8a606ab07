//! What an uninterrupted build publishes, and how long it takes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{copy, kept, start};
use crate::common::{Place, parquet_files, random_text, row, write_corpus, write_queries};

/// A build that stopped when its stages were done.
pub const PREPARED: &str = "prepared";
/// A published index of an older corpus.
pub const PREVIOUS: &str = "previous";
const UPDATED: &str = "updated";
const UNINTERRUPTED: &str = "reference";
const MODES: [&str; 3] = ["hybrid", "sparse", "dense"];
const QUERIES: [&str; 4] = [
    "why does the tide change",
    "energy of a cell",
    "how people use water in the city",
    "law and method",
];

pub struct Reference {
    /// A build from nothing, and one that can take most rows over.
    pub fresh: Uninterrupted,
    pub update: Uninterrupted,
}

pub struct Uninterrupted {
    files: Vec<(PathBuf, Vec<u8>)>,
    answers: Vec<String>,
    /// Until the first stage is done.
    pub start: Duration,
    pub whole: Duration,
}

/// A corpus of twelve small shards, with tiny models.
pub fn place(documents: usize) -> Place {
    let place = Place::new(&[]);
    write_documents(&place, documents, 0);
    let shard = documents.div_ceil(12);
    place.write_job(&format!(
        "[engine]\nshard_documents = {shard}\n[expand]\ntopics = 0\nqueries = 1\nmax_tokens = 12\n"
    ));
    place
}

/// Every fourth document has another text in another edition.
fn write_documents(place: &Place, documents: usize, edition: u64) {
    let documents = (0..documents as u64).map(|i| {
        let seed = i + if i % 4 == 0 { edition * 1000 } else { 0 };
        let text = random_text(&mut ChaCha8Rng::seed_from_u64(seed));
        [format!("doc-{i:03}"), format!("Title {i}"), text]
    });
    let documents: Vec<[String; 3]> = documents.collect();
    let rows: Vec<_> = documents
        .iter()
        .map(|[id, title, text]| row(id, title, text))
        .collect();
    write_corpus(&place.path("corpus.parquet"), &rows);
}

impl Reference {
    pub fn build(documents: usize) -> (Place, Self) {
        let place = place(documents);
        write_queries(&place.path("queries.parquet"), &QUERIES);
        place.build_expecting(0, &["--set", &format!("output.path={PREVIOUS}")]);
        write_documents(&place, documents, 1);
        let prepared = format!("output.path={PREPARED}");
        place.build_expecting(0, &["--set", &prepared, "--stage", "vectors-queries"]);
        copy(&place, PREVIOUS, UPDATED);
        let reference = Self {
            fresh: Uninterrupted::build(&place, UNINTERRUPTED, 1),
            update: Uninterrupted::build(&place, UPDATED, 2),
        };
        reference.assert_alike();
        (place, reference)
    }

    /// An update publishes what a build from nothing does.
    fn assert_alike(&self) {
        for ((name, bytes), (other, updated)) in self.fresh.files.iter().zip(&self.update.files) {
            assert_eq!(name, other);
            assert!(bytes == updated, "an update differs: {}", name.display());
        }
    }

    /// Panics unless an output has published the same.
    pub fn compare(&self, place: &Place, output: &str, number: u64) {
        let expected = match number {
            1 => &self.fresh,
            _ => &self.update,
        };
        let files = comparable(place, output, number);
        let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&files), names(&expected.files), "{output}");
        for ((name, bytes), (_, expected)) in files.iter().zip(&expected.files) {
            assert!(bytes == expected, "{output}: {} differs", name.display());
        }
        assert_eq!(answers(place, output), expected.answers, "{output}");
    }
}

impl Uninterrupted {
    fn build(place: &Place, output: &str, number: u64) -> Self {
        let (start, whole) = timed(place, output);
        Self {
            files: comparable(place, output, number),
            answers: answers(place, output),
            start,
            whole,
        }
    }
}

/// Builds without interruption: the time until the first stage is done, and the whole.
fn timed(place: &Place, output: &str) -> (Duration, Duration) {
    let begin = Instant::now();
    let log = place.path("reference.log");
    let mut child = start(place, output, &[], &log);
    let building = place.path(output).join("generations/building");
    let mut started = None;
    let status = loop {
        if started.is_none() && kept::journal(&building).is_some_and(|lines| !lines.is_empty()) {
            started = Some(begin.elapsed());
        }
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let said = fs::read_to_string(log).unwrap();
    assert!(status.success(), "{status}: {said}");
    let whole = begin.elapsed();
    (started.unwrap_or(whole), whole)
}

/// The datasets, and what else depends on them alone: the flat dense indexes, the postings.
fn comparable(place: &Place, output: &str, number: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let generation = place.path(output).join(format!("generations/{number}"));
    let mut files = parquet_files(&generation);
    for name in [
        "dense/text.faiss",
        "dense/text.ids",
        "dense/queries.faiss",
        "dense/queries.ids",
        "sparse.ciff.gz",
    ] {
        files.push((name.into(), fs::read(generation.join(name)).unwrap()));
    }
    assert!(files.len() > 5);
    files
}

/// What each mode answers to the queries, as JSON.
fn answers(place: &Place, output: &str) -> Vec<String> {
    let ask = |mode| {
        let answer = place.run(&[
            "search",
            output,
            "--queries",
            "queries.parquet",
            "--format",
            "json",
            "-k",
            "5",
            "--mode",
            mode,
        ]);
        let said = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(0), "{mode}: {said}");
        let answer = String::from_utf8(answer.stdout).unwrap();
        assert_eq!(answer.lines().count(), QUERIES.len());
        answer
    };
    MODES.into_iter().map(ask).collect()
}
