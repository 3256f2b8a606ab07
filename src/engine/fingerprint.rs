//! Fingerprints: of a stage (its parameters, code version and model files), of a row's input, of a whole plan.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{stage::Stage, topics};
use crate::{expand::topics::Topics, job::Job, model::ModelIdentity, store::schema::KEY_BYTES};

/// Identifies what a row was computed from: stage fingerprint ‖ input.
pub type Key = [u8; KEY_BYTES as usize];

/// Raised whenever a stage's code gives other results for the same input.
const CODE_VERSIONS: [(&str, u32); 8] = [
    ("corpus", 1),
    ("intents", 5),
    ("chunks", 3),
    ("topics", 2),
    ("keywords", 3),
    ("queries", 7),
    ("scores", 1),
    ("vectors", 3),
];

#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprints {
    pub intents: String,
    pub chunks: String,
    /// Of the corpus's topics, which are kept from build to build.
    pub topics: String,
    pub keywords: String,
    pub queries: String,
    pub scores: String,
    /// One for text and queries: both are the same model under the same settings.
    pub vectors: String,
}

/// The embedder, the generator and the cross-encoder.
pub type Identities<'a> = (
    &'a ModelIdentity,
    Option<&'a ModelIdentity>,
    Option<&'a ModelIdentity>,
);

impl Fingerprints {
    /// `on_gpu`: where models of files run, which decides in what numbers.
    pub fn new(job: &Job, (embedder, generator, cross_encoder): Identities, on_gpu: bool) -> Self {
        let seed = job.engine.seed;
        let e = (
            content(embedder),
            &job.models.embedder.parameters(),
            job.models.embedder.numbers(on_gpu),
        );
        let g = (
            generator.map(content),
            job.models
                .generator
                .as_ref()
                .map(|g| (g.context_tokens, g.shortlist, g.numbers(on_gpu))),
        );
        // With intents of the corpus's own, none are predicted.
        let given = job.corpus.intents.is_some();
        Self {
            intents: stage("intents", &(&job.intents, given, &e, &g, seed)),
            chunks: stage("chunks", &(&job.chunk, &e)),
            topics: stage("topics", &(job.expand.topics, job.sparse.language, &e)),
            keywords: stage("keywords", &(job.sparse.language, &e)),
            queries: stage("queries", &(&job.expand.generation(), &g, seed)),
            scores: stage(
                "scores",
                &(&job.expand.scoring(), &g, cross_encoder.map(content)),
            ),
            vectors: stage("vectors", &(&e, job.output.vectors)),
        }
    }

    /// By the stages' names.
    pub fn by_name(&self) -> BTreeMap<String, String> {
        let topics = (topics::STAGE.to_owned(), self.topics.clone());
        Stage::ALL
            .into_iter()
            .map(|stage| (stage.name().to_owned(), self.of(stage).to_owned()))
            .chain([topics])
            .collect()
    }

    pub fn of(&self, stage: Stage) -> &str {
        match stage {
            Stage::Intents => &self.intents,
            Stage::Chunks => &self.chunks,
            Stage::Keywords => &self.keywords,
            Stage::Queries => &self.queries,
            Stage::Scores => &self.scores,
            Stage::TextVectors | Stage::QueryVectors => &self.vectors,
        }
    }

    /// Everything a generation depends on. `slowly`: how a generator writes, which decides the shards.
    pub fn plan(&self, job: &Job, corpus_files: &str, slowly: bool) -> String {
        let parts = (
            &self.by_name(),
            &job.corpus,
            corpus_files,
            &job.expand,
            &job.sparse,
            &job.dense,
            &job.index,
        );
        let shards = (
            job.engine.shard_documents(slowly),
            job.engine.shard_bytes,
            job.output.vectors,
        );
        digest(&(parts, shards, CODE_VERSIONS, env!("CARGO_PKG_VERSION")))
    }
}

/// The files' hashes, in order of name: the same model under another name or path is the same model. A server's
/// files cannot be seen, so its name has to do.
pub fn content(identity: &ModelIdentity) -> Vec<String> {
    match identity.files.as_slice() {
        [] => vec![identity.name.clone()],
        files => files.iter().map(|f| f.blake3.clone()).collect(),
    }
}

fn stage<T: Serialize>(name: &str, parameters: &T) -> String {
    let version = CODE_VERSIONS
        .iter()
        .find(|(stage, _)| *stage == name)
        .map_or(0, |(_, v)| *v);
    digest(&(name, version, parameters))
}

fn digest<T: Serialize>(value: &T) -> String {
    let bytes = serde_json::to_vec(value).expect("parameters are plain data");
    blake3::hash(&bytes).to_hex().to_string()
}

/// The key of a row. Parts are length-prefixed, so that no two inputs run together.
pub fn key<'a>(fingerprint: &str, parts: impl IntoIterator<Item = Option<&'a str>>) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(fingerprint.as_bytes());
    for part in parts {
        let length = part.map_or(u64::MAX, |p| p.len() as u64);
        hasher
            .update(&length.to_le_bytes())
            .update(part.unwrap_or_default().as_bytes());
    }
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..KEY_BYTES as usize]);
    key
}

/// The fingerprint of keywords that are chosen by these topics.
pub fn with_topics(own: &str, topics: &Topics) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(own.as_bytes());
    for topic in &topics.0 {
        let values = topic.centroid.iter();
        values.for_each(|value| _ = hasher.update(&value.to_le_bytes()));
        for (word, weight) in &topic.words {
            let length = word.len() as u64;
            hasher.update(&length.to_le_bytes()).update(word.as_bytes());
            hasher.update(&weight.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The seed of a row's sampling.
pub fn seed(key: &Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fingerprints(corpus: &str) -> Fingerprints {
        fingerprints_of(corpus, "", false)
    }

    fn fingerprints_of(corpus: &str, embedder: &str, on_gpu: bool) -> Fingerprints {
        let job = format!(
            "version = 1\n[corpus]\npath = \"c\"\n{corpus}[output]\npath = \"o\"\n[models.embedder]\nmodel = \".\"\n\
             {embedder}[models.generator]\nmodel = \".\"\n"
        );
        let job = Job::parse(Path::new("job.toml"), &job, &[], &|_| None).unwrap();
        let model = ModelIdentity {
            name: "fake".into(),
            architecture: "fake".into(),
            files: Vec::new(),
        };
        Fingerprints::new(&job, (&model, Some(&model), None), on_gpu)
    }

    #[test]
    fn intents_of_the_corpus_and_predicted_ones_are_not_the_same_stage() {
        let (predicted, given) = (fingerprints(""), fingerprints("intents = \"questions\"\n"));
        assert_ne!(predicted.intents, given.intents);
        assert_eq!(predicted.chunks, given.chunks);
    }

    #[test]
    fn rows_of_other_numbers_are_other_rows() {
        let of = |embedder, on_gpu| fingerprints_of("", embedder, on_gpu);
        let (cpu, gpu) = (of("", false), of("", true));
        assert_ne!(cpu.vectors, gpu.vectors);
        assert_ne!(cpu.queries, gpu.queries);
        assert_eq!(cpu, of("precision = \"f32\"\n", false));
        assert_eq!(of("precision = \"f32\"\n", true).vectors, cpu.vectors);
        assert_eq!(gpu, of("precision = \"f16\"\n", true));
        assert_ne!(cpu.vectors, of("precision = \"int8\"\n", false).vectors);
    }
}
