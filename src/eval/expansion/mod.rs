//! What generated queries do for retrieval: from one index that holds all of them, chunks are ranked with subsets and forms of
//! them, for questions that people asked.
//!
//! A variant differs from the default, which is what `search` does, in one thing: which queries are indexed, how a sparse or a
//! dense score is made of them, or how the two lists become one. The same chunks, vectors and depths serve all.

mod batch;
pub mod embedding;
pub mod expanded;
#[cfg(test)]
mod fake;
pub mod filters;
pub mod labelled;
mod rank;
pub mod report;
pub mod sample;
mod selection;
pub mod set;
pub mod variant;

use std::path::PathBuf;

use rayon::prelude::*;

use self::embedding::Embedding;
use self::expanded::Expanded;
use self::rank::Ranker;
use self::set::{Question, Set};
use self::variant::Plan;
use super::files::FileError;
use super::retrieval::Retrieval;
use super::rows::RowsError;
use crate::index::SparseError;
use crate::model::{Embed, ModelError, TextKind, Vectors};
use crate::search::columns::ColumnsError;
use crate::store::StoreError;

/// Questions of which the cosines are held at once by a thread; every vector is read once for all of them.
const BATCH: usize = 16;

/// One variant under one kind of retrieval.
#[derive(Debug)]
pub struct Cell {
    /// Index of the variant.
    pub variant: usize,
    pub retrieval: Retrieval,
    /// Of each question of the set, in order.
    pub values: Vec<f64>,
}

pub struct Outcome {
    pub plan: Plan,
    pub cells: Vec<Cell>,
}

impl Outcome {
    /// Index of a cell; None of a retrieval that the variant is not measured under.
    pub fn position(&self, variant: usize, retrieval: Retrieval) -> Option<usize> {
        let is_it = |cell: &Cell| (cell.variant, cell.retrieval) == (variant, retrieval);
        self.cells.iter().position(is_it)
    }

    /// Of a baseline, which is measured under all that is compared to it.
    fn cell(&self, variant: usize, retrieval: Retrieval) -> &Cell {
        let at = self.position(variant, retrieval);
        &self.cells[at.expect("a baseline is measured")]
    }
}

/// Every variant, under the kinds of retrieval that it concerns.
pub fn measure(
    expanded: &Expanded,
    embedding: &Embedding,
    set: &Set,
    embedder: &dyn Embed,
) -> Result<Outcome, ExpansionError> {
    let plan = Plan::of(expanded);
    let ranker = Ranker::new(expanded, &plan)?;
    let texts: Vec<&str> = set.questions.iter().map(|q| q.text.as_str()).collect();
    let vectors = embedder
        .embed(&texts, TextKind::Query)?
        .vectors
        .of_unit_length();
    let questions: Vec<usize> = (0..set.questions.len()).collect();
    let batches = questions.par_chunks(BATCH).map(|batch| {
        let asked = batch.iter().map(|&q| &set.questions[q]).collect();
        values(&ranker, embedding, asked, (&vectors, batch[0]))
    });
    let batches: Vec<Vec<OfQuestion>> = batches.collect::<Result<_, _>>()?;
    let values: Vec<OfQuestion> = batches.into_iter().flatten().collect();
    let variants = plan.variants.iter().enumerate();
    let cells = variants.flat_map(|(variant, of)| {
        let cell = |(place, retrieval): (usize, &Retrieval)| Cell {
            variant,
            retrieval: *retrieval,
            values: values.iter().map(|of| of[variant][place]).collect(),
        };
        of.retrievals
            .iter()
            .enumerate()
            .map(cell)
            .collect::<Vec<_>>()
    });
    let cells = cells.collect();
    drop(ranker);
    Ok(Outcome { plan, cells })
}

/// Of each variant, under each of its kinds of retrieval.
type OfQuestion = Vec<Vec<f64>>;

/// Of questions whose vectors begin at row `first`.
fn values(
    ranker: &Ranker,
    embedding: &Embedding,
    questions: Vec<&Question>,
    (vectors, first): (&Vectors, usize),
) -> Result<Vec<OfQuestion>, ExpansionError> {
    let rows: Vec<&[f32]> = (first..first + questions.len())
        .map(|q| vectors.row(q))
        .collect();
    let cosines = embedding.cosines(&rows);
    let both = questions.iter().zip(&cosines);
    both.map(|(question, cosines)| ranker.values(question, cosines))
        .collect()
}

/// Why queries could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ExpansionError {
    #[error("{}: there are no rows in it (with --half, in that half of the documents)", .0.display())]
    NoRows(PathBuf),
    #[error("{}: query {query} is of the chunk {chunk}, which is not among the chunks", path.display())]
    NoChunk {
        path: PathBuf,
        query: String,
        chunk: String,
    },
    #[error("{}: there is no vector of {id}", path.display())]
    NoVector { path: PathBuf, id: String },
    #[error("{}: its vectors have {found} numbers, the embedder's {wanted}; name the embedder of the index with --model", path.display())]
    Dimensions {
        path: PathBuf,
        found: usize,
        wanted: usize,
    },
    #[error("{}: row {row} (counted from 0) is no span", path.display())]
    Answer { path: PathBuf, row: usize },
    #[error("{}: there is no question {question}, of which it is said what is right", path.display())]
    NoQuestion { path: PathBuf, question: String },
    #[error("{}: it has no question to measure by (with --half, in that half)", .0.display())]
    NoQuestions(PathBuf),
    #[error("a folder for the indexes: {0}")]
    Folder(std::io::Error),
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sparse(#[from] SparseError),
}
