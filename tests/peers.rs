//! Writes a generation and its answers for tests/peers.py, which reads them with FAISS's and Tantivy's own Python
//! packages.

mod common;
#[path = "support/generation.rs"]
mod generation;

use std::path::Path;

use generation::WordEmbedder;
use intendex::index::{DenseIndex, SparseIndex, SparseWeights};
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

fn dense_answer(dir: &Path, name: &str, vector: &[f32]) -> Value {
    let path = |extension| dir.join(format!("dense/{name}.{extension}"));
    let index = DenseIndex::open(&path("faiss"), &path("ids")).unwrap();
    let hits = index.search(vector, 4).unwrap();
    let ids: Vec<_> = hits
        .iter()
        .map(|hit| index.ids().get(hit.row).unwrap())
        .collect();
    let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
    json!({"index": name, "vector": vector, "ids": ids, "scores": scores})
}

fn sparse_answer(dir: &Path, query: &str) -> Value {
    let index = SparseIndex::open(&dir.join("sparse")).unwrap();
    let weights = SparseWeights {
        title: 0.0,
        text: 1.0,
        queries: 0.0,
    };
    let hits = index.search(query, 10, weights).unwrap();
    assert!(!hits.is_empty());
    let ids: Vec<String> = hits
        .iter()
        .map(|hit| index.ids(hit.row).unwrap().0)
        .collect();
    let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
    json!({"terms": index.terms(query), "ids": ids, "scores": scores})
}
