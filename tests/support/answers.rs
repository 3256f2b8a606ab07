//! What our readers answer from an index, as tests/peers.py reads it.

use std::path::Path;

use intendex::index::{DenseIndex, SparseIndex, SparseWeights};
use serde_json::{Value, json};

pub fn dense_answer(dir: &Path, name: &str, vector: &[f32]) -> Value {
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

pub fn sparse_answer(dir: &Path, query: &str) -> Value {
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
