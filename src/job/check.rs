//! The rules a job must keep beyond its types: ranges, and keys that need or exclude each other.

use std::path::Path;

use super::spec::{ChunkMethod, Corpus, Embedder, Filter, Generator, Job, Scored};
use super::{MaxFailures, Problem};

/// Columns of the chunks dataset, which a passthrough column would collide with.
const CHUNK_COLUMNS: [&str; 21] = [
    "chunk_id",
    "doc_id",
    "title",
    "ordinal",
    "start",
    "end",
    "text",
    "headings",
    "sentences",
    "tokens",
    "intents",
    "language",
    "key",
    "vector",
    "__invalid",
    "__list",
    "input",
    "position",
    "result",
    "__file",
    "__row",
];

/// Everything wrong with a job that has the right keys and types.
pub fn check(job: &Job) -> Vec<Problem> {
    let mut rules = Rules::default();
    corpus(job, &mut rules);
    models(job, &mut rules);
    questions(job, &mut rules);
    chunk(job, &mut rules);
    indexes(job, &mut rules);
    engine(job, &mut rules);
    rules.problems
}

#[derive(Default)]
struct Rules {
    problems: Vec<Problem>,
}

impl Rules {
    fn require(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            self.problems.push(Problem::new(key, message));
        }
    }

    fn filled(&mut self, key: &str, text: &str) {
        self.require(!text.trim().is_empty(), key, "must not be empty");
    }

    fn at_least_one(&mut self, key: &str, n: usize) {
        self.require(n >= 1, key, "must be at least 1");
    }

    fn share(&mut self, key: &str, x: f32) {
        self.require((0.0..=1.0).contains(&x), key, "must be from 0 to 1");
    }

    fn not_negative(&mut self, key: &str, x: f32) {
        self.require(x >= 0.0 && x.is_finite(), key, "must be 0 or more");
    }
}

fn corpus(job: &Job, rules: &mut Rules) {
    let corpus = &job.corpus;
    rules.filled("corpus.path", &corpus.path);
    rules.filled("corpus.id", &corpus.id);
    rules.filled("corpus.text", &corpus.text);
    for (key, column) in [
        ("corpus.title", &corpus.title),
        ("corpus.intents", &corpus.intents),
        ("corpus.filter", &corpus.filter),
    ] {
        if let Some(column) = column {
            rules.filled(key, column);
        }
    }
    rules.at_least_one("corpus.max_document_bytes", corpus.max_document_bytes);
    passthrough(corpus, rules);
    let output = job.output.path.to_string_lossy();
    rules.filled("output.path", &output);
}

fn passthrough(corpus: &Corpus, rules: &mut Rules) {
    for (i, column) in corpus.passthrough.iter().enumerate() {
        let key = format!("corpus.passthrough[{i}]");
        rules.filled(&key, column);
        rules.require(
            !corpus.passthrough[..i].contains(column),
            &key,
            "is named twice",
        );
        rules.require(
            !CHUNK_COLUMNS.contains(&column.as_str()),
            &key,
            "has the name of a column of the chunks dataset; rename it in the corpus",
        );
    }
}

fn models(job: &Job, rules: &mut Rules) {
    let device = &job.models.device;
    let cuda = device.strip_prefix("cuda:").map(str::parse::<usize>);
    rules.require(
        device == "auto" || device == "cpu" || matches!(cuda, Some(Ok(_))),
        "models.device",
        "must be auto, cpu or cuda:N",
    );
    embedder(&job.models.embedder, rules);
    if let Some(model) = &job.models.generator {
        generator(model, rules);
    }
    if let Some(model) = &job.models.cross_encoder {
        let revision = model.revision.as_deref();
        located("models.cross_encoder", &model.model, revision, rules);
    }
}

fn embedder(model: &Embedder, rules: &mut Rules) {
    located(
        "models.embedder",
        &model.model,
        model.revision.as_deref(),
        rules,
    );
    rules.at_least_one(
        "models.embedder.batch_tokens",
        model.batch_tokens.unwrap_or(1),
    );
    rules.at_least_one("models.embedder.max_tokens", model.max_tokens.unwrap_or(1));
}

fn generator(model: &Generator, rules: &mut Rules) {
    let context = model.context_tokens.unwrap_or(1);
    rules.at_least_one("models.generator.context_tokens", context);
    let shortlist = model.shortlist.unwrap_or(1);
    rules.at_least_one("models.generator.shortlist", shortlist);
    rules.require(
        model.shortlist.is_none() || model.server.is_none(),
        "models.generator.shortlist",
        "is for a model run here, but `models.generator.server` is set",
    );
    rules.at_least_one("models.generator.concurrency", model.concurrency);
    let Some(server) = &model.server else {
        rules.require(
            model.api_key.is_none(),
            "models.generator.api_key",
            "is for a server, but `models.generator.server` is not set",
        );
        return located(
            "models.generator",
            &model.model,
            model.revision.as_deref(),
            rules,
        );
    };
    rules.filled("models.generator.model", &model.model);
    rules.require(
        server.starts_with("http://") || server.starts_with("https://"),
        "models.generator.server",
        "must be an http:// or https:// URL",
    );
    for (key, given) in [
        ("models.generator.file", model.file.is_some()),
        ("models.generator.revision", model.revision.is_some()),
    ] {
        rules.require(
            !given,
            key,
            "names a local model, but `models.generator.server` is set; remove one of them",
        );
    }
}

/// A model is a path that exists, or a hub id pinned to a commit.
fn located(section: &str, model: &str, revision: Option<&str>, rules: &mut Rules) {
    let key = format!("{section}.model");
    rules.filled(&key, model);
    if model.trim().is_empty() || Path::new(model).exists() {
        return;
    }
    let hub_id = model.split('/').count() == 2 && !model.starts_with(['.', '/', '~']);
    if !hub_id {
        // The value may come from the environment, and is not shown.
        return rules.require(false, &key, "names no file or folder that exists");
    }
    match revision {
        None => rules.require(
            false,
            &key,
            &format!(
                "names no file or folder that exists; if it is a hub id, pin it: \
                 set `{section}.revision` to a commit hash"
            ),
        ),
        Some(revision) => rules.require(
            revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit()),
            &format!("{section}.revision"),
            "must be a commit hash of 40 hexadecimal digits, so that the model cannot change",
        ),
    }
}

/// More would need more memory than machines have, and say nothing new.
const MOST_QUERIES: usize = 500;

const MOST_TOPICS: usize = 10_000;

fn questions(job: &Job, rules: &mut Rules) {
    let (intents, expand) = (&job.intents, &job.expand);
    rules.at_least_one("intents.section_tokens", intents.section_tokens);
    rules.not_negative("intents.temperature", intents.temperature);
    rules.share("intents.duplicate_cosine", intents.duplicate_cosine);
    rules.require(
        expand.queries + expand.lists > 0,
        "expand.queries",
        "and `expand.lists` are both 0; one must be above 0 (or set `expand.enabled = false`)",
    );
    rules.require(
        expand.queries <= MOST_QUERIES && expand.lists <= MOST_QUERIES,
        "expand.queries",
        &format!(
            "and `expand.lists` must be at most {MOST_QUERIES}; all of a chunk are written at once"
        ),
    );
    rules.require(
        expand.topics.is_none_or(|topics| topics <= MOST_TOPICS),
        "expand.topics",
        &format!("must be at most {MOST_TOPICS}; a sample of the chunks is held for them"),
    );
    rules.at_least_one("expand.list_tokens", expand.list_tokens);
    rules.not_negative("expand.temperature", expand.temperature);
    rules.share("expand.top_p", expand.top_p);
    rules.require(expand.top_p != 0.0, "expand.top_p", "must be above 0");
    rules.at_least_one("expand.max_tokens", expand.max_tokens);
    rules.at_least_one("expand.passage_tokens", expand.passage_tokens);
    rules.share("expand.keep", expand.keep);
    for (i, example) in expand.examples.iter().enumerate() {
        rules.filled(&format!("expand.examples[{i}].passage"), &example.passage);
        rules.filled(&format!("expand.examples[{i}].question"), &example.question);
    }
    rules.require(
        job.models.cross_encoder.is_some() || !expand.scores().contains(&Scored::CrossEncoder),
        match expand.filter {
            Filter::CrossEncoder => "expand.filter",
            _ => "expand.scores",
        },
        "needs a cross-encoder: add [models.cross_encoder], or choose other scores and another `expand.filter`",
    );
    let of_vectors = matches!(expand.filter, Filter::Cosine | Filter::RoundTrip);
    rules.require(
        job.dense.enabled || !of_vectors || expand.keep >= 1.0,
        "expand.filter",
        "compares vectors, and `dense.enabled` is false; choose `gain`, `relevance` or `combined`",
    );
    let generated = intents.enabled && job.corpus.intents.is_none();
    let present = job.models.generator.is_some();
    rules.require(
        present || !generated,
        "intents.enabled",
        "needs a generator: add [models.generator], or set `intents.enabled = false` \
         (or name a column of given questions in `corpus.intents`)",
    );
    rules.require(
        present || !expand.enabled,
        "expand.enabled",
        "needs a generator: add [models.generator], or set `expand.enabled = false`",
    );
}

fn chunk(job: &Job, rules: &mut Rules) {
    let chunk = &job.chunk;
    rules.at_least_one("chunk.target_tokens", chunk.target_tokens);
    rules.at_least_one("chunk.max_sentences", chunk.max_sentences);
    rules.not_negative("chunk.lambda", chunk.lambda);
    rules.not_negative("chunk.beta", chunk.beta);
    rules.require(
        chunk.method != ChunkMethod::Sliding || chunk.overlap_tokens <= chunk.target_tokens / 2,
        "chunk.overlap_tokens",
        "must be at most half of `chunk.target_tokens`; every token more multiplies the chunks",
    );
    if let Some(cap) = chunk.max_tokens {
        rules.at_least_one("chunk.max_tokens", cap);
        rules.require(
            chunk.target_tokens <= cap || chunk.method == ChunkMethod::Intent,
            "chunk.target_tokens",
            "must not be above `chunk.max_tokens`",
        );
    }
    rules.require(
        chunk.method != ChunkMethod::Intent || job.intents.enabled || job.corpus.intents.is_some(),
        "chunk.method",
        "cuts by questions and there are none: set `intents.enabled = true`, name a column in \
         `corpus.intents`, or choose another, such as `boundary`",
    );
}

/// More would need more open files than a process may have.
const MOST_SHARDS: usize = 1000;

fn indexes(job: &Job, rules: &mut Rules) {
    let (sparse, dense) = (&job.sparse, &job.dense);
    rules.not_negative("sparse.title_weight", sparse.title_weight);
    rules.not_negative("sparse.text_weight", sparse.text_weight);
    rules.not_negative("sparse.queries_weight", sparse.queries_weight);
    rules.require(
        sparse.title_weight + sparse.text_weight + sparse.queries_weight > 0.0,
        "sparse.text_weight",
        "and the other two weights are 0; one must be above 0",
    );
    rules.filled("dense.factory", &dense.factory);
    if let Some(weight) = dense.queries_weight {
        rules.share("dense.queries_weight", weight);
    }
    rules.share("dense.hybrid_weight", dense.hybrid_weight);
    rules.require(
        sparse.enabled || dense.enabled,
        "sparse.enabled",
        "and `dense.enabled` are both false; a job builds at least one index",
    );
    rules.require(
        (1..=MOST_SHARDS).contains(&job.index.shards),
        "index.shards",
        &format!("must be from 1 to {MOST_SHARDS}; a search opens all of them"),
    );
}

/// More than any machine has; starting so many would hang it.
const MOST_THREADS: usize = 1024;

fn engine(job: &Job, rules: &mut Rules) {
    let engine = &job.engine;
    let documents = engine.shard_documents.unwrap_or(usize::MAX);
    rules.at_least_one("engine.shard_documents", documents);
    rules.at_least_one("engine.shard_bytes", engine.shard_bytes);
    rules.require(
        engine.memory_mib >= 64,
        "engine.memory_mib",
        "must be at least 64",
    );
    rules.require(
        engine.threads <= MOST_THREADS,
        "engine.threads",
        &format!("must be at most {MOST_THREADS}; 0 means one per core"),
    );
    rules.at_least_one("engine.cluster_shards", engine.cluster_shards);
    if let Some(url) = &engine.cluster {
        rules.require(
            url.starts_with("df://"),
            "engine.cluster",
            "must be df://HOST:PORT, where `intendex scheduler` listens",
        );
        rules.require(
            cfg!(feature = "cluster"),
            "engine.cluster",
            "is for a program that is built with `--features cluster`",
        );
    }
    if let Some(most) = &engine.max_failures {
        rules.require(
            matches!(most, MaxFailures::Count(_)) || most.share().is_some(),
            "engine.max_failures",
            "must be a number of rows (0, 1, 2, …), or a share of them: a percentage from \"0%\" to \"100%\", \
             or a number from 0 to below 1",
        );
    }
    if let Some(spill) = &engine.spill {
        rules.filled("engine.spill", &spill.to_string_lossy());
    }
}
