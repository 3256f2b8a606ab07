//! The corpus: Parquet files read through DataFusion, and the importer that makes such a file from documents.

mod columns;
pub mod error;
mod files;
mod filter;
pub mod import;
mod judge;
mod reader;
mod scan;
mod schema;
mod session;
mod source;
mod strings;
mod table;

pub use error::CorpusError;
pub use files::{CorpusFile, corpus_fingerprint};
pub use judge::{CorpusBatch, Position, Rejected};
pub use scan::{CorpusScan, open};
pub use session::{select, session, url};
