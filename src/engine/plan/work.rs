//! What stages cost: rows, and tokens read and written.

use super::count::Count;
use crate::{
    engine::stage::Stage,
    job::{
        Job,
        spec::{ChunkMethod, Expand},
    },
};

/// Tokens of a question as people and generators write them, its line break included.
const TOKENS_PER_QUESTION: u64 = 14;

/// What a stage costs.
pub struct Work {
    pub compute: u64,
    pub tokens_read: u64,
    pub tokens_written: u64,
    pub estimate: Option<String>,
}

impl Work {
    /// With some rows more, of which each is as much work as the average of `all`.
    pub fn and(mut self, rows: u64, all: &Work) -> Self {
        self.compute += rows;
        self.tokens_read += share(all.tokens_read, rows, all.compute);
        self.tokens_written += share(all.tokens_written, rows, all.compute);
        self
    }

    /// What is left where some rows are done.
    pub fn left(mut self, done: u64) -> Self {
        let left = self.compute.saturating_sub(done);
        self.tokens_read = share(self.tokens_read, left, self.compute);
        self.tokens_written = share(self.tokens_written, left, self.compute);
        self.compute = left;
        self
    }
}

/// Queries in a list, and phrases of a vocabulary, as the 1.5B writes them.
const QUERIES_OF_LIST: u64 = 5;
const PHRASES: u64 = 5;

fn share(total: u64, part: u64, of: u64) -> u64 {
    (total as f64 * part as f64 / of.max(1) as f64) as u64
}

/// Questions the job's chunks get.
pub fn queries(job: &Job, count: &Count) -> u64 {
    match job.expand.enabled {
        true => count.chunks * of_chunk(&job.expand) + count.intents,
        false => 0,
    }
}

/// Queries that are written of a chunk.
fn of_chunk(expand: &Expand) -> u64 {
    let vocabulary = if expand.vocabulary { PHRASES } else { 0 };
    expand.queries as u64 + expand.lists as u64 * QUERIES_OF_LIST + vocabulary
}

/// What a stage does for the documents counted.
pub fn work(stage: Stage, job: &Job, count: &Count) -> Work {
    let chunks_basis = || match job.chunk.method {
        ChunkMethod::Intent => {
            Some("chunks: as many as β and λ favour at a relevance of 0.5".into())
        }
        method => method
            .reads_sentences()
            .then(|| "chunks: of `chunk.target_tokens` each".into()),
    };
    let questions = queries(job, count);
    let (compute, tokens_read, tokens_written, estimate) = match stage {
        Stage::Intents => {
            let basis = format!(
                "{TOKENS_PER_QUESTION} tokens a question; read: tokens of the embedder, prompt not counted"
            );
            let written = count.intents * TOKENS_PER_QUESTION;
            (count.documents, count.intent_tokens, written, Some(basis))
        }
        Stage::Chunks => (count.documents, count.tokens, 0, None),
        // Its sentences and its phrases, which are as long again twice.
        Stage::Keywords => (count.chunks, 3 * count.chunk_tokens, 0, chunks_basis()),
        Stage::Queries => {
            let expand = &job.expand;
            let written = count.chunks * of_chunk(expand) * TOKENS_PER_QUESTION;
            let prompts = [expand.queries > 0, expand.lists > 0, expand.vocabulary];
            let prompts = prompts.into_iter().filter(|asked| *asked).count() as u64;
            let basis = format!(
                "{TOKENS_PER_QUESTION} tokens a query and {QUERIES_OF_LIST} queries a list, repeats not taken off; read: the \
                 chunk for each kind of query, examples not counted"
            );
            (
                count.chunks,
                count.chunk_tokens * prompts,
                written,
                Some(basis),
            )
        }
        Stage::Scores => {
            let basis = format!(
                "{TOKENS_PER_QUESTION} tokens a query; a chunk is read once for all of its queries"
            );
            let read = count.chunk_tokens + 2 * questions * TOKENS_PER_QUESTION;
            (questions, read, 0, Some(basis))
        }
        Stage::TextVectors => (count.chunks, count.embedded_tokens, 0, chunks_basis()),
        Stage::QueryVectors => {
            let basis = format!("{TOKENS_PER_QUESTION} tokens a question");
            (questions, questions * TOKENS_PER_QUESTION, 0, Some(basis))
        }
    };
    Work {
        compute,
        tokens_read,
        tokens_written,
        estimate,
    }
}
