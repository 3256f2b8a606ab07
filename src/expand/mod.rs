//! Expansion: what a chunk is about, the queries that it answers, and how well it answers them.

pub mod filter;
pub mod keywords;
pub mod prompt;
pub mod queries;
pub mod scores;
pub mod sketch;
pub mod topics;
