//! Writes a generation and its answers for tests/peers.py, which reads them with FAISS's and Tantivy's own Python
//! packages.

#[path = "support/answers.rs"]
mod answers;
mod common;
#[path = "support/generation.rs"]
mod generation;

use std::path::Path;

use answers::{dense_answer, sparse_answer};
use generation::WordEmbedder;
use serde_json::{Value, json};

const QUERIES: [&str; 3] = [
    "when do cats hunt at dusk",
    "puppy food, puppy!",
    "the moon over the sea",
];

#[test]
fn faiss_and_tantivy_answer_as_we_do() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let embedder = WordEmbedder::new();
    generation::write(&dir, &embedder);
    let dense: Vec<Value> = ["text", "queries"]
        .iter()
        .flat_map(|name| QUERIES.map(|query| dense_answer(&dir, name, &embedder.vector(query))))
        .collect();
    let sparse = QUERIES.map(|query| sparse_answer(&dir, query));
    let results = json!({"dense": dense, "sparse": sparse});
    let path = dir.join("results.json");
    std::fs::write(&path, results.to_string()).unwrap();
    common::peers(&[&dir, Path::new("--results"), &path]);
}
