//! The indexes over one set of chunks: sparse (Tantivy, also exported as CIFF) and dense (FAISS).

pub mod analyzer;
pub mod ciff;
pub mod dense;
pub mod ids;
pub mod sparse;

pub use ciff::{CiffError, CiffReader, CiffSummary, export_ciff};
pub use dense::{DenseError, DenseIndex, DenseShards, DenseSummary, DenseWriter};
pub use ids::Ids;
pub use sparse::{
    SparseDocument, SparseError, SparseHit, SparseIndex, SparseShards, SparseSummary,
    SparseWeights, SparseWriter,
};
