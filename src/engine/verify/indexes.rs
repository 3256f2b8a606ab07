//! The indexes of a generation, followed along the datasets, part by part. Those of one index shard are open at a time.

use std::vec::IntoIter;

use super::{Finding, Findings, Subject, dense::Dense, expansion, sparse::Sparse};
use crate::store::{
    Dataset, Indexes as Summary,
    index_shards::{self, prefix},
    manifest::IndexShard,
};

const CHECK: &str = "datasets";
/// Of so many sampled rows of a dense index that does not compare all vectors, one may be out of its own reach: that is its
/// recall, not damage.
const RECALL: usize = 100;
/// One of so many sampled chunks may be outranked for its own text: texts of a few common words are by longer ones.
const OUTRANKED: usize = 10;

/// The open indexes, and how many rows of the datasets have passed.
pub struct Indexes {
    pub text: Dense,
    pub queries: Dense,
    pub sparse: Sparse,
    /// The part that the open shard ends before, and the shards that follow, by their prefixes.
    end: usize,
    rest: IntoIter<(String, IndexShard)>,
    sampled: Samples,
    pub selected: u64,
    /// How many topics there are, where they can be read.
    pub topics: Option<u32>,
    /// Rows passed; None once a part could not be read.
    pub documents: Option<u64>,
    pub chunks: u64,
    pub query_rows: u64,
}

/// Rows that looked for themselves, of all shards.
#[derive(Default)]
struct Samples {
    text: Sample,
    queries: Sample,
    sparse: Sample,
}

/// Rows of which some need not find themselves.
#[derive(Default)]
pub struct Sample {
    pub rows: usize,
    pub missed: Vec<Finding>,
}

impl Sample {
    fn finish(self, allowed: impl Fn(usize) -> usize, findings: &mut Findings) {
        if self.missed.len() > allowed(self.rows) {
            self.missed.into_iter().for_each(|f| findings.push(f));
        }
    }
}

impl Indexes {
    /// Opens the first shard; the datasets have so many parts.
    pub fn open(subject: &Subject, parts: usize, findings: &mut Findings) -> Self {
        let shards = subject.manifest.indexes.shards(parts);
        check_shards(subject, &shards, parts, findings);
        let count = shards.len();
        let named = shards.into_iter().enumerate();
        let named = named.map(|(number, shard)| (prefix(number, count), shard));
        let mut rest = named.collect::<Vec<_>>().into_iter();
        let first = rest.next().expect("a generation has an index shard");
        let (text, queries, sparse) = open(subject, &first, findings);
        Self {
            text,
            queries,
            sparse,
            end: first.1.parts,
            rest,
            sampled: Samples::default(),
            selected: 0,
            topics: expansion::topics(subject, findings),
            documents: Some(0),
            chunks: 0,
            query_rows: 0,
        }
    }

    /// Goes on to the shard that has this part.
    pub fn enter(&mut self, subject: &Subject, part: usize, findings: &mut Findings) {
        while part >= self.end
            && let Some(shard) = self.rest.next()
        {
            self.leave(findings);
            self.end += shard.1.parts;
            (self.text, self.queries, self.sparse) = open(subject, &shard, findings);
        }
    }

    fn leave(&mut self, findings: &mut Findings) {
        let sampled = &mut self.sampled;
        self.text.finish(&mut sampled.text, findings);
        self.queries.finish(&mut sampled.queries, findings);
        self.sparse.finish(&mut sampled.sparse, findings);
    }

    pub fn finish(mut self, subject: &Subject, findings: &mut Findings) {
        self.enter(subject, usize::MAX, findings);
        self.leave(findings);
        let Samples {
            text,
            queries,
            sparse,
        } = self.sampled;
        text.finish(|rows| rows / RECALL, findings);
        queries.finish(|rows| rows / RECALL, findings);
        sparse.finish(|rows| rows.div_ceil(OUTRANKED), findings);
        let summary = &subject.manifest.indexes;
        let all_read = self.query_rows == subject.rows(Dataset::Queries);
        if all_read && self.selected != summary.queries_indexed {
            let message = format!(
                "has {} queries that are taken; the manifest says {}",
                self.selected, summary.queries_indexed
            );
            let has_selection = subject
                .manifest
                .datasets
                .contains_key(Dataset::Selection.folder());
            let decided_in = match has_selection {
                true => Dataset::Selection.folder(),
                false => Dataset::Queries.folder(),
            };
            findings.add(decided_in, decided_in, message);
        }
    }
}

fn open(
    subject: &Subject,
    (prefix, shard): &(String, IndexShard),
    findings: &mut Findings,
) -> (Dense, Dense, Sparse) {
    let [text, queries] = [
        ("text", &shard.dense_text),
        ("queries", &shard.dense_queries),
    ]
    .map(|(name, summary)| {
        let name = format!("{prefix}dense/{name}");
        Dense::open(subject, &name, summary.as_ref(), findings)
    });
    let sparse = Sparse::open(subject, prefix, shard.sparse.as_ref(), findings);
    (text, queries, sparse)
}

/// The shards that the manifest lists have all parts and add up to its totals, and there is a folder for each.
fn check_shards(subject: &Subject, shards: &[IndexShard], parts: usize, findings: &mut Findings) {
    let summary = &subject.manifest.indexes;
    let (threshold, queries) = (summary.query_threshold, summary.queries_indexed);
    if shards.len() > 1 && Summary::of(shards.to_vec(), threshold, queries) != *summary {
        let message = "has index shards that do not add up to its indexes";
        findings.add(CHECK, "manifest.json", message);
    }
    let listed: usize = shards.iter().map(|shard| shard.parts).sum();
    if listed != parts {
        let message = format!("has index shards of {listed} parts where there are {parts}");
        findings.add(CHECK, "manifest.json", message);
    }
    match index_shards::folders(subject.generation) {
        Ok(folders) if folders.len() == shards.len() => {}
        Ok(folders) => {
            let (there, listed) = (folders.len(), shards.len());
            let message = format!("has {there} index shards; the manifest says {listed}");
            findings.add(CHECK, index_shards::FOLDER, message);
        }
        Err(error) => findings.add(CHECK, index_shards::FOLDER, error.to_string()),
    }
}
