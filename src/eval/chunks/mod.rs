//! Compares chunkers at equal mean length, on questions that people asked and with the text that answers them.
//!
//! Every chunker cuts the same documents under the same cap, its one parameter chosen so that the mean chunk has the same
//! number of tokens; the same embedder and the same BM25 rank the chunks; and nothing but a chunk's own text is indexed.

pub mod method;
mod rank;
pub mod report;
pub mod score;
pub mod set;
pub mod span;

use std::path::PathBuf;

use rayon::prelude::*;

use self::method::{Cut, Intents, Remembering, cut_to};
use self::rank::Ranker;
use self::score::{NAMES, Scores};
use self::set::Set;
use crate::chunk::ChunkError;
use crate::eval::retrieval::Retrieval;
use crate::eval::rows::RowsError;
use crate::index::SparseError;
use crate::job::spec::ChunkMethod;
use crate::model::{Embed, ModelError, TextKind, Vectors};
use crate::search::columns::ColumnsError;

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All documents.
    Corpus,
    /// The document that has the answer.
    Document,
}

impl Scope {
    pub const ALL: [Scope; 2] = [Scope::Corpus, Scope::Document];

    pub fn name(self) -> &'static str {
        match self {
            Scope::Corpus => "corpus",
            Scope::Document => "document",
        }
    }
}

/// What is compared.
pub struct Comparison<'a> {
    pub methods: &'a [ChunkMethod],
    /// Mean lengths, in tokens.
    pub lengths: &'a [usize],
    /// Most tokens of any chunk.
    pub cap: usize,
    /// Predicted questions, for the methods that need them.
    pub intents: &'a Intents,
}

/// One method at one length, under one kind of retrieval.
#[derive(Debug, Clone)]
pub struct Cell {
    pub scope: Scope,
    pub retrieval: Retrieval,
    /// The mean length asked for.
    pub length: usize,
    pub method: ChunkMethod,
    pub mean_tokens: f64,
    pub chunks: usize,
    /// The method's parameter: a target length, or λ.
    pub parameter: f64,
    /// Of each question of the set, in order: [`NAMES`].
    pub scores: Vec<[f64; NAMES.len()]>,
}

/// The cells, and which methods have no parameter for which length.
#[derive(Debug, Default)]
pub struct Outcome {
    pub cells: Vec<Cell>,
    pub unreached: Vec<(ChunkMethod, usize)>,
}

/// Every method at every length, under each kind of retrieval, in the corpus and in the document.
pub fn compare(
    set: &Set,
    comparison: &Comparison,
    embedder: &dyn Embed,
) -> Result<Outcome, ChunksError> {
    let questions: Vec<&str> = set.questions.iter().map(|q| q.text.as_str()).collect();
    let questions = embedder.embed(&questions, TextKind::Query)?.vectors;
    let remembering = Remembering::new(embedder);
    let mut outcome = Outcome::default();
    for &length in comparison.lengths {
        for &method in comparison.methods {
            let source = (set, comparison.intents);
            let Some(cut) = cut_to(method, length, comparison.cap, source, &remembering)? else {
                outcome.unreached.push((method, length));
                continue;
            };
            tracing::info!(
                "{} at {length} tokens: {} chunks of {:.1}",
                method.name(),
                cut.pieces.len(),
                cut.mean_tokens
            );
            let texts: Vec<&str> = cut.pieces.iter().map(|p| p.text.as_str()).collect();
            let vectors = embedder.embed(&texts, TextKind::Document)?.vectors;
            for scope in Scope::ALL {
                let scores = scores(set, scope, &cut, &vectors, &questions)?;
                let cell = |retrieval: Retrieval| Cell {
                    scope,
                    retrieval,
                    length,
                    method,
                    mean_tokens: cut.mean_tokens,
                    chunks: cut.pieces.len(),
                    parameter: cut.parameter,
                    scores: scores.iter().map(|of| of[retrieval as usize]).collect(),
                };
                outcome.cells.extend(Retrieval::ALL.map(cell));
            }
        }
    }
    Ok(outcome)
}

/// Of each question, under each kind of retrieval.
type OfQuestion = [[f64; NAMES.len()]; 3];

fn scores(
    set: &Set,
    scope: Scope,
    cut: &Cut,
    vectors: &Vectors,
    questions: &Vectors,
) -> Result<Vec<OfQuestion>, ChunksError> {
    let all: Vec<usize> = (0..cut.pieces.len()).collect();
    // In order of document, as they were cut.
    let parts: Vec<&[usize]> = match scope {
        Scope::Corpus => vec![&all],
        Scope::Document => {
            let document = |piece: &usize| cut.pieces[*piece].span.document;
            all.chunk_by(|a, b| document(a) == document(b)).collect()
        }
    };
    let mut scores = vec![OfQuestion::default(); set.questions.len()];
    for pieces in parts {
        let ranker = Ranker::new(&cut.pieces, pieces, vectors)?;
        let document = cut.pieces[pieces[0]].span.document;
        let asked =
            |q: &usize| scope == Scope::Corpus || set.questions[*q].answers[0].document == document;
        let asked: Vec<usize> = (0..set.questions.len()).filter(asked).collect();
        let scored = asked.par_iter().map(|&q| {
            let question = &set.questions[q];
            let ranked = ranker.rank(&question.text, questions.row(q))?;
            let of = |ranking: Vec<usize>| {
                Scores::of(&ranking, &cut.pieces, &set.documents, question).values()
            };
            Ok(ranked.map(of))
        });
        let scored: Vec<OfQuestion> = scored.collect::<Result<_, ChunksError>>()?;
        for (q, of) in asked.into_iter().zip(scored) {
            scores[q] = of;
        }
    }
    Ok(scores)
}

/// Why chunkers could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ChunksError {
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    #[error("{}: row {row} (counted from 0) is no span of its document, which has {points} code points", path.display())]
    Answer {
        path: PathBuf,
        row: usize,
        points: i64,
    },
    #[error("{}: row {row} (counted from 0) is of the document {document}, which corpus.parquet has not", path.display())]
    NoDocument {
        path: PathBuf,
        row: usize,
        document: String,
    },
    #[error("{}: no question has an answer in these documents (with --half, in that half of them)", .0.display())]
    NoQuestions(PathBuf),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("a folder for the indexes: {0}")]
    Folder(std::io::Error),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sparse(#[from] SparseError),
}
