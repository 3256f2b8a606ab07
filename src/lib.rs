//! Intendex reads a corpus from Parquet and publishes a search index: documents cut where a reader's
//! predicted questions change, each chunk expanded with the questions it answers, and two indexes over the
//! same chunks, sparse (Tantivy) and dense (FAISS).
//!
//! A module is a noun of the job; ARCHITECTURE.md gives their order: data flows down it, and nothing calls back up.

pub mod chunk;
pub mod cli;
pub mod corpus;
pub mod engine;
pub mod eval;
pub mod expand;
pub mod index;
pub mod intent;
pub mod job;
pub mod model;
pub mod objects;
pub mod report;
pub mod search;
pub mod store;
pub mod text;

/// Says on stderr, which the test harness does not capture here, that a test had nothing to test with.
#[cfg(test)]
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
