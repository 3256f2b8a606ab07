//! What a build would do, without doing it: the corpus is read, cut where that needs no generator, and counted.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use futures::StreamExt;
use rayon::prelude::*;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{
    EngineError,
    build::{needs_generator, stages},
    fingerprint::Fingerprints,
    ingest,
    models::Models,
    stage::Stage,
};
use crate::{
    corpus::{self, CorpusBatch, CorpusScan},
    intent::question_count,
    job::{
        Job,
        spec::{self, ChunkMethod},
    },
    model::{Embed, ModelError},
    store::{Manifest, Output, read_json},
    text,
};

/// Tokens of a question as people and generators write them, its line break included.
const TOKENS_PER_QUESTION: u64 = 14;

/// A chunk's usual best cosine to an intent, which decides how long the paper's objective makes chunks.
const USUAL_RELEVANCE: f32 = 0.5;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub fingerprint: String,
    /// Whether the published index was built by this very plan.
    pub up_to_date: bool,
    pub stages: Vec<StagePlan>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    pub stage: &'static str,
    /// Rows the stage writes.
    pub rows: u64,
    /// Tokens its model reads.
    pub tokens_read: u64,
    /// Tokens its model writes.
    pub tokens_written: u64,
    /// None: the figures are exact, but for the room that a long title takes in a chunk.
    pub estimate: Option<String>,
    /// Why the stage runs.
    pub reason: String,
}

/// What a scan of the corpus finds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Count {
    documents: u64,
    rejected: u64,
    /// In tokens of the embedder.
    tokens: u64,
    /// Of the documents the generator will read.
    intent_documents: u64,
    intent_tokens: u64,
    intents: u64,
    chunks: u64,
    /// Tokens of titles that are embedded with chunks are not counted.
    chunk_tokens: u64,
}

impl Count {
    fn plus(mut self, other: Count) -> Count {
        self.documents += other.documents;
        self.rejected += other.rejected;
        self.tokens += other.tokens;
        self.intent_documents += other.intent_documents;
        self.intent_tokens += other.intent_tokens;
        self.intents += other.intents;
        self.chunks += other.chunks;
        self.chunk_tokens += other.chunk_tokens;
        self
    }
}

pub fn plan(job: &Job) -> Result<Plan, EngineError> {
    let models = Models::find(&job.models, needs_generator(job))?;
    let fingerprints =
        Fingerprints::new(job, models.embedder_identity(), models.generator_identity());
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let ctx = corpus::session(&job.engine, &std::env::temp_dir())?;
    let scan = runtime.block_on(corpus::open(&ctx, &job.corpus))?;
    let fingerprint = fingerprints.plan(job, &scan.fingerprint());
    let count = runtime.block_on(count(job, &scan, &*models.embedder()?))?;
    let output = Output::new(&job.output.path);
    let published = output
        .current()
        .ok()
        .and_then(|(_, f)| read_json::<Manifest>(&f.join("manifest.json")).ok());
    let reasons = Reasons {
        fingerprints: fingerprints.by_name(),
        published: published.as_ref(),
    };
    let mut plans = vec![StagePlan {
        stage: ingest::STAGE,
        rows: count.documents,
        tokens_read: 0,
        tokens_written: 0,
        estimate: (count.rejected > 0)
            .then(|| format!("{} further rows go to quarantine", count.rejected)),
        reason: reasons.of(ingest::STAGE),
    }];
    plans.extend(
        stages(job)
            .into_iter()
            .map(|stage| stage_plan(stage, job, &count, &reasons)),
    );
    let up_to_date = published.is_some_and(|m| m.plan == fingerprint);
    Ok(Plan {
        fingerprint,
        up_to_date,
        stages: plans,
    })
}

struct Reasons<'a> {
    fingerprints: BTreeMap<String, String>,
    published: Option<&'a Manifest>,
}

impl Reasons<'_> {
    fn of(&self, stage: &str) -> String {
        match self.published {
            None => "nothing is published yet".into(),
            Some(manifest) if manifest.stages.get(stage) != self.fingerprints.get(stage) => {
                "its parameters or model files have changed since the published index".into()
            }
            Some(_) => "as in the published index; a build computes it anew".into(),
        }
    }
}

fn stage_plan(stage: Stage, job: &Job, count: &Count, reasons: &Reasons) -> StagePlan {
    let cut_by_intents = job.chunk.method == ChunkMethod::Intent;
    let chunks_basis = "chunks: as many as β and λ favour at a relevance of 0.5";
    let queries = count.chunks * job.expand.queries as u64 + count.intents;
    let (rows, tokens_read, tokens_written, estimate) = match stage {
        Stage::Intents => {
            let basis = format!(
                "{TOKENS_PER_QUESTION} tokens a question; read: tokens of the embedder, prompt not counted"
            );
            (
                count.intents,
                count.intent_tokens,
                count.intents * TOKENS_PER_QUESTION,
                Some(basis),
            )
        }
        Stage::Chunks => (
            count.chunks,
            count.tokens,
            0,
            cut_by_intents.then(|| chunks_basis.into()),
        ),
        Stage::Queries => {
            let written = count.chunks * job.expand.queries as u64 * TOKENS_PER_QUESTION;
            let basis = format!(
                "{TOKENS_PER_QUESTION} tokens a question, repeats not taken off; scoring reads each query twice"
            );
            (
                queries,
                count.chunk_tokens + 2 * queries * TOKENS_PER_QUESTION,
                written,
                Some(basis),
            )
        }
        Stage::TextVectors => (
            count.chunks,
            count.chunk_tokens,
            0,
            cut_by_intents.then(|| chunks_basis.into()),
        ),
        Stage::QueryVectors => (
            queries,
            queries * TOKENS_PER_QUESTION,
            0,
            Some(format!("{TOKENS_PER_QUESTION} tokens a question")),
        ),
    };
    StagePlan {
        stage: stage.name(),
        rows,
        tokens_read,
        tokens_written,
        estimate,
        reason: reasons.of(stage.name()),
    }
}

async fn count(job: &Job, scan: &CorpusScan, embedder: &dyn Embed) -> Result<Count, EngineError> {
    let mut batches = std::pin::pin!(scan.stream().await?);
    let mut total = Count::default();
    while let Some(batch) = batches.next().await {
        let CorpusBatch {
            documents,
            rejected,
            ..
        } = batch?;
        total = total.plus(count_batch(job, &documents, embedder)?);
        total.rejected += rejected.len() as u64;
    }
    Ok(total)
}

fn count_batch(job: &Job, batch: &RecordBatch, embedder: &dyn Embed) -> Result<Count, EngineError> {
    let Some(texts) = batch
        .column_by_name("text")
        .and_then(|c| c.as_string_opt::<i32>())
    else {
        return Ok(Count::default());
    };
    let given = job
        .corpus
        .intents
        .as_ref()
        .and_then(|_| batch.column_by_name("intents"));
    let rows = (0..batch.num_rows()).into_par_iter();
    let counts = rows.map(|i| {
        count_document(
            job,
            texts.value(i),
            given.and_then(|g| given_at(g, i)),
            embedder,
        )
    });
    Ok(counts.try_reduce(Count::default, |a, b| Ok(a.plus(b)))?)
}

fn given_at(column: &ArrayRef, i: usize) -> Option<u64> {
    let lists = column.as_list_opt::<i32>()?;
    lists.is_valid(i).then(|| lists.value_length(i) as u64)
}

fn count_document(
    job: &Job,
    text: &str,
    given: Option<u64>,
    embedder: &dyn Embed,
) -> Result<Count, ModelError> {
    let sentences = text::analyse(text).sentences.len();
    let tokens = embedder.token_offsets(text)?.len() as u64;
    let long = text.chars().nth(job.intents.max_document_chars).is_some();
    let asked = given.is_none() && job.intents.enabled && job.corpus.intents.is_none() && !long;
    let intents = if asked {
        question_count(sentences) as u64
    } else {
        given.unwrap_or(0)
    };
    let (chunks, chunk_tokens) = match job.chunk.method {
        ChunkMethod::Intent if intents > 0 => (
            sentences.div_ceil(favoured_length(&job.chunk)) as u64,
            tokens,
        ),
        _ => match crate::chunk::chunk(text, &[], &job.chunk, embedder) {
            Ok(cut) => (
                cut.chunks.len() as u64,
                cut.chunks.iter().map(|c| c.tokens as u64).sum(),
            ),
            // The build puts this document into quarantine, with the reason.
            Err(_) => (0, 0),
        },
    };
    Ok(Count {
        documents: 1,
        rejected: 0,
        tokens,
        intent_documents: u64::from(asked),
        intent_tokens: if asked { tokens } else { 0 },
        intents,
        chunks,
        chunk_tokens,
    })
}

/// Sentences n that maximise (R − λn² − β)/n, the objective per sentence.
fn favoured_length(settings: &spec::Chunk) -> usize {
    let surplus = (settings.beta - USUAL_RELEVANCE).max(0.0);
    let n = (surplus / settings.lambda.max(1e-6)).sqrt().round() as usize;
    n.clamp(1, settings.max_sentences)
}
