//! Builds of one corpus in several forms, whose rankings are compared.

#![allow(dead_code)]

use std::{ops::Range, path::Path};

use intendex::store::{Manifest, read_json};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::common::{Place, Row, random_text, row, write_queries, write_questions};

pub const MODES: [&str; 3] = ["sparse", "dense", "hybrid"];

/// Documents of which every third has the text of another, so that many scores are equal.
pub fn write_documents(path: &Path, numbers: Range<u64>) {
    let text = |i: u64| random_text(&mut ChaCha8Rng::seed_from_u64(i));
    let document = |i: u64| {
        let like = if i.is_multiple_of(3) { i % 7 } else { i };
        [format!("doc-{i:02}"), text(i % 5 + 900), text(like)]
    };
    let documents: Vec<[String; 3]> = numbers.map(document).collect();
    let rows: Vec<Row> = documents
        .iter()
        .map(|[id, title, text]| row(id, title, text))
        .collect();
    write_questions(path, &rows);
}

/// A place with queries, and a job with parts of seven documents.
pub fn place() -> Place {
    let place = Place::new(&[]);
    place.write_job(
        "[engine]\nshard_documents = 7\n[chunk]\nmethod = \"fixed\"\ntarget_tokens = 24\n\
         [expand]\nlists = 0\nqueries = 1\nmax_tokens = 12\n",
    );
    let text = |i: u64| random_text(&mut ChaCha8Rng::seed_from_u64(i * 13));
    let queries: Vec<String> = (0..60).map(text).collect();
    write_queries(&place.path("queries.parquet"), &queries);
    place
}

/// Builds `out` from documents that bring their questions.
pub fn build(place: &Place, code: i32, out: &str, more: &[&str]) -> String {
    let output = format!("output.path={out}");
    let settings = ["corpus.intents=questions", &output];
    let settings = settings.iter().chain(more).flat_map(|set| ["--set", set]);
    place.build_expecting(code, &settings.collect::<Vec<_>>())
}

/// The ids and scores of each query's results.
pub fn search(place: &Place, out: &str, more: &[&str]) -> Vec<Vec<(String, f64)>> {
    let queries = [
        "search",
        out,
        "--queries",
        "queries.parquet",
        "--format",
        "json",
        "-k",
        "40",
    ];
    let output = place.run(&[&queries, more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let results = |line: &str| -> Vec<(String, f64)> {
        let line: Value = serde_json::from_str(line).unwrap();
        let results = line["results"].as_array().unwrap().iter();
        let result = |r: &Value| {
            (
                r["chunk_id"].as_str().unwrap().to_owned(),
                r["score"].as_f64().unwrap(),
            )
        };
        results.map(result).collect()
    };
    lines.lines().map(results).collect()
}

/// Both outputs answer every query with the same chunks in the same order, with the same scores.
pub fn assert_alike(place: &Place, one: &str, several: &str, how: &[&str]) {
    let (one, several) = (search(place, one, how), search(place, several, how));
    assert_eq!(one.len(), several.len());
    for (query, (one, several)) in one.iter().zip(&several).enumerate() {
        assert!(!one.is_empty(), "{how:?}, query {query}");
        let ids = |found: &[(String, f64)]| -> Vec<String> {
            found.iter().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(
            ids(one),
            ids(several),
            "{how:?}, query {query}: {one:?} {several:?}"
        );
        for ((id, score), (_, other)) in one.iter().zip(several) {
            assert!(
                (score - other).abs() <= 1e-5,
                "{how:?}, {query}, {id}: {score} {other}"
            );
        }
    }
}

pub fn verified(place: &Place, out: &str) {
    let output = place.run(&["verify", out, "--sample", "all"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

pub fn manifest(generation: &Path) -> Manifest {
    read_json(&generation.join("manifest.json")).unwrap()
}
