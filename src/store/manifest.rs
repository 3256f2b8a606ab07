//! manifest.json: what a published index is. run.json: what happened while it was built.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::Path,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Dataset, StoreError, dataset,
    generation::{JOURNAL, MANIFEST},
    machine::Machine,
    names_below,
    progress::Tally,
    read_json, replace,
};
use crate::model::ModelIdentity;

pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of this file's format.
    pub format: u32,
    /// Version of the program that wrote it.
    pub intendex: String,
    /// Name of the job.
    pub job: String,
    /// Fingerprint of everything the datasets depend on: parameters, model files, corpus files, program.
    pub plan: String,
    /// Fingerprint of each stage.
    pub stages: BTreeMap<String, String>,
    /// The job as resolved, without secrets.
    pub parameters: crate::job::Job,
    pub embedder: ModelIdentity,
    pub generator: Option<ModelIdentity>,
    #[serde(default)]
    pub cross_encoder: Option<ModelIdentity>,
    /// Length of a vector.
    pub dim: usize,
    pub datasets: BTreeMap<String, DatasetSummary>,
    pub indexes: Indexes,
    /// What it was merged from, in the order of the documents; none where it was built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Merged>,
    /// Every file of the generation but this one and run.json.
    pub files: Vec<FileSummary>,
}

/// A published index that was merged with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Merged {
    /// Name of the job.
    pub job: String,
    /// Fingerprint of everything its datasets depend on.
    pub plan: String,
    /// Its `corpus.path`.
    pub corpus: String,
    /// How many parts of each dataset are its own, from where those of the index before end.
    pub parts: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetSummary {
    pub parts: usize,
    pub rows: u64,
    pub determinism: Determinism,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Indexes {
    /// Lowest score of a query that the indexes took, by the job's `expand.filter`; null where all are taken, or none is.
    pub query_threshold: Option<f32>,
    pub queries_indexed: u64,
    /// Of all shards together, as the next two.
    pub sparse: Option<IndexSummary>,
    pub dense_text: Option<IndexSummary>,
    pub dense_queries: Option<IndexSummary>,
    /// The index shards, in the order of their documents, below `shards/00000`, `shards/00001` and so on; none where one index of
    /// each kind has all documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<IndexShard>,
}

/// The indexes over the documents of some parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IndexShard {
    /// How many parts of each dataset they are of, from where the shard before ends.
    pub parts: usize,
    pub sparse: Option<IndexSummary>,
    pub dense_text: Option<IndexSummary>,
    pub dense_queries: Option<IndexSummary>,
}

impl Indexes {
    /// Of these shards, in order.
    pub fn of(shards: Vec<IndexShard>, query_threshold: Option<f32>, queries_indexed: u64) -> Self {
        let all = |of: fn(&IndexShard) -> Option<&IndexSummary>| {
            IndexSummary::together(shards.iter().filter_map(of))
        };
        Self {
            query_threshold,
            queries_indexed,
            sparse: all(|shard| shard.sparse.as_ref()),
            dense_text: all(|shard| shard.dense_text.as_ref()),
            dense_queries: all(|shard| shard.dense_queries.as_ref()),
            shards: if shards.len() > 1 { shards } else { Vec::new() },
        }
    }

    /// The shards; the one that has all `parts` of the datasets where no others are listed.
    pub fn shards(&self, parts: usize) -> Vec<IndexShard> {
        if !self.shards.is_empty() {
            return self.shards.clone();
        }
        vec![IndexShard {
            parts,
            sparse: self.sparse.clone(),
            dense_text: self.dense_text.clone(),
            dense_queries: self.dense_queries.clone(),
        }]
    }
}

impl Manifest {
    /// Mean number of queries that the dense index has of a chunk.
    pub fn queries_per_chunk(&self) -> f32 {
        let rows = |index: &Option<IndexSummary>| index.as_ref().map_or(0, |index| index.rows);
        let chunks = rows(&self.indexes.dense_text);
        rows(&self.indexes.dense_queries) as f32 / chunks.max(1) as f32
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IndexSummary {
    pub rows: u64,
    /// `tantivy`, or the FAISS factory string; of several shards each that there is, with a comma between them.
    pub kind: String,
    pub determinism: Determinism,
}

impl IndexSummary {
    /// What the indexes of several shards are together; None where there are none.
    fn together<'a>(shards: impl Iterator<Item = &'a Self>) -> Option<Self> {
        shards.cloned().reduce(|all, shard| Self {
            rows: all.rows + shard.rows,
            kind: match all.kind.split(", ").any(|kind| kind == shard.kind) {
                true => all.kind,
                false => format!("{}, {}", all.kind, shard.kind),
            },
            determinism: match all.determinism.reproducible {
                true => shard.determinism,
                false => all.determinism,
            },
        })
    }
}

/// Whether the same job over the same corpus gives the same bytes, and why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Determinism {
    pub reproducible: bool,
    pub reason: Option<String>,
}

impl Determinism {
    pub fn yes() -> Self {
        Self {
            reproducible: true,
            reason: None,
        }
    }

    pub fn no(reason: &str) -> Self {
        Self {
            reproducible: false,
            reason: Some(reason.into()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileSummary {
    /// Below the generation's folder, with `/`.
    pub path: String,
    pub bytes: u64,
    pub blake3: String,
}

impl FileSummary {
    /// Compares the file below the generation's folder with what is said of it here: its size, and with `hashes` its
    /// contents. The error says how it differs.
    pub fn compare(&self, generation: &Path, hashes: bool) -> Result<(), String> {
        let path = generation.join(&self.path);
        let bytes = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("is missing".into()),
            Err(e) => return Err(e.to_string()),
        };
        if bytes != self.bytes {
            return Err(format!("has {bytes} bytes of {}", self.bytes));
        }
        if hashes && hash_file(&path).map_err(|e| e.to_string())? != self.blake3 {
            return Err("is not as it was written: its hash differs".into());
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub format: u32,
    pub intendex: String,
    /// The git commit that the program was built from; null unless `make build` built it.
    pub revision: Option<String>,
    /// Versions of the libraries that decide what the files look like.
    pub libraries: BTreeMap<String, String>,
    pub job: String,
    /// BLAKE3 of the job file.
    pub job_file: Option<String>,
    /// Unix time in seconds of this process.
    pub started: u64,
    /// Whether it went on from a build that was ended; that one's work is in the stages' tallies, but not in `seconds`.
    #[serde(default)]
    pub resumed: bool,
    pub seconds: f64,
    pub stages: BTreeMap<String, Tally>,
    /// Of the stages that have ever computed anything.
    pub rates: BTreeMap<String, Rate>,
    pub quarantined: u64,
    pub machine: Machine,
}

/// How fast a stage computed; what it took over from earlier builds does not count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Input rows a second.
    pub rows: f64,
    /// Tokens a second.
    pub tokens: f64,
    /// Rows that it was measured on.
    #[serde(default)]
    pub computed: u64,
}

impl Rate {
    pub fn of(tally: &Tally) -> Self {
        let seconds = tally.seconds.max(1e-9);
        Self {
            rows: tally.computed as f64 / seconds,
            tokens: tally.tokens as f64 / seconds,
            computed: tally.computed,
        }
    }
}

/// Versions, as this program was built with them.
pub fn libraries() -> BTreeMap<String, String> {
    const LIBRARIES: [&str; 6] = [
        "candle-core",
        "datafusion",
        "faiss",
        "parquet",
        "tantivy",
        "tokenizers",
    ];
    let packages = include_str!("../../Cargo.lock").split("[[package]]");
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|l| l.strip_prefix(key))?;
        Some(line.trim_matches([' ', '=', '"']).to_owned())
    };
    packages
        .filter_map(|package| Some((value(package, "name")?, value(package, "version")?)))
        .filter(|(name, _)| LIBRARIES.contains(&name.as_str()))
        .collect()
}

impl DatasetSummary {
    /// Counts a dataset from its parts' footers; None if the job has none of it.
    pub fn of(
        dataset: Dataset,
        generation: &Path,
        determinism: Determinism,
    ) -> Result<Option<Self>, StoreError> {
        let parts = dataset.parts(generation)?;
        if parts.is_empty() {
            return Ok(None);
        }
        let rows = parts
            .iter()
            .try_fold(0, |sum, p| dataset::count_rows(p).map(|n| sum + n as u64))?;
        Ok(Some(Self {
            parts: parts.len(),
            rows,
            determinism,
        }))
    }
}

/// Every file below a generation's folder with its size and hash, in order of path.
pub fn files(generation: &Path) -> Result<Vec<FileSummary>, StoreError> {
    let summary = |path: String| {
        let file = generation.join(&path);
        Ok(FileSummary {
            bytes: size(&file)?,
            blake3: hash_file(&file)?,
            path,
        })
    };
    paths(generation)?.into_iter().map(summary).collect()
}

pub const RUN: &str = "run.json";

/// The BLAKE3 of every file of a generation, as `b3sum` writes and checks them.
pub const CHECKSUMS: &str = "CHECKSUMS";

/// Those the manifest has, its own and run.json's.
fn checksums(generation: &Path, manifest: &Manifest) -> Result<String, StoreError> {
    let mut lines = String::new();
    for file in &manifest.files {
        lines += &format!("{}  {}\n", file.blake3, file.path);
    }
    for name in [MANIFEST, RUN] {
        lines += &format!("{}  {name}\n", hash_file(&generation.join(name))?);
    }
    Ok(lines)
}

/// run.json, if it and the manifest are as the checksums say.
pub fn sound_run(generation: &Path, manifest: &Manifest) -> Result<Run, StoreError> {
    let run = read_json(&generation.join(RUN))?;
    let path = generation.join(CHECKSUMS);
    let written = std::fs::read_to_string(&path).map_err(StoreError::io(&path))?;
    match checksums(generation, manifest)? == written {
        true => Ok(run),
        false => Err(StoreError::Invalid {
            path,
            message: "does not agree with manifest.json and run.json".into(),
        }),
    }
}

pub fn write_checksums(generation: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let path = generation.join(CHECKSUMS);
    let lines = checksums(generation, manifest)?;
    replace(&path, |file| {
        file.write_all(lines.as_bytes())
            .map_err(StoreError::io(&path))
    })
}

/// Every file below a generation's folder but those that speak of it, with `/`, in order.
pub fn paths(generation: &Path) -> Result<Vec<String>, StoreError> {
    let own = [MANIFEST, RUN, CHECKSUMS, JOURNAL];
    let mut names = names_below(generation)?;
    names.retain(|name| !own.contains(&name.as_str()));
    Ok(names)
}

fn size(path: &Path) -> Result<u64, StoreError> {
    std::fs::metadata(path)
        .map(|m| m.len())
        .map_err(StoreError::io(path))
}

pub fn hash_file(path: &Path) -> Result<String, StoreError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(StoreError::io(path))?;
    hasher.update_reader(file).map_err(StoreError::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
