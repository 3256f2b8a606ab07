//! What cannot be built ends with an error that names the file and the remedy, and publishes nothing.

mod common;

use std::fs;

use common::{Place, documents, read, row, write_corpus};

fn refused(place: &Place, code: i32, more: &[&str], words: &[&str]) {
    let said = place.build_expecting(code, more);
    for word in words {
        assert!(said.contains(word), "`{word}` is missing from: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(place.current(), None, "something was published");
}

#[test]
fn a_missing_column() {
    let place = Place::new(&documents());
    refused(
        &place,
        2,
        &["--set", "corpus.text=body"],
        &["corpus.parquet", "body", "text"],
    );
}

#[test]
fn a_truncated_parquet_file() {
    let place = Place::new(&documents());
    let path = place.path("corpus.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(&place, 2, &[], &["corpus.parquet"]);
}

#[test]
fn a_corpus_without_rows_or_files() {
    let place = Place::new(&[]);
    refused(&place, 2, &[], &["corpus.parquet"]);
    refused(
        &place,
        2,
        &["--set", "corpus.path=nowhere/*.parquet"],
        &["nowhere"],
    );
}

#[test]
fn a_corpus_of_bad_rows_alone() {
    let place = Place::new(&[(Some("a"), None, None)]);
    refused(&place, 2, &[], &["no document is left"]);
}

#[test]
fn a_wrong_model_folder() {
    let place = Place::new(&documents());
    refused(&place, 2, &["--set", "models.embedder.model=out"], &["out"]);
    fs::create_dir(place.path("empty")).unwrap();
    refused(
        &place,
        2,
        &["--set", "models.embedder.model=empty"],
        &["empty", "config.json"],
    );
}

#[test]
fn a_truncated_model() {
    let place = Place::new(&documents());
    for file in ["bert/model.safetensors", "qwen2.gguf"] {
        let path = place.path(file);
        let whole = fs::read(&path).unwrap();
        for part in [0, 7, whole.len() / 2] {
            fs::write(&path, &whole[..part]).unwrap();
            refused(&place, 2, &[], &[file.rsplit('/').next().unwrap()]);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn an_output_of_another_job_or_of_nobody() {
    let place = Place::new(&documents());
    fs::create_dir(place.path("thesis")).unwrap();
    fs::write(place.path("thesis/chapter1.tex"), "x").unwrap();
    refused(&place, 2, &["--set", "output.path=thesis"], &["thesis"]);
    place.build_expecting(0, &[]);
    let said = place.build_expecting(2, &["--set", "name=news"]);
    assert!(said.contains("test") && said.contains("news"), "{said}");
    assert_eq!(place.current().as_deref(), Some("1"));
}

#[test]
fn a_bad_job_file_ends_with_78() {
    let place = Place::new(&documents());
    place.write_job("[expand]\nquerys = 3\n");
    refused(&place, 78, &[], &["job.toml", "querys", "queries"]);
}

#[test]
fn a_failed_build_leaves_the_published_index() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let path = place.path("corpus.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    place.build_expecting(2, &[]);
    assert_eq!(place.current().as_deref(), Some("1"));
    let output = place.run(&["search", "out", "tides", "--mode", "sparse"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn long_lines_and_long_documents() {
    let line = "word ".repeat(20_000);
    let unbroken = "x".repeat(100_000);
    let long = "The tide comes in twice a day. ".repeat(20 * 1024 * 1024 / 31);
    let rows = [
        row("line", "", &line),
        row("unbroken", "", &unbroken),
        row("ok", "", "A short text."),
        row("long", "", &long),
    ];
    let place = Place::new(&[]);
    write_corpus(&place.path("corpus.parquet"), &rows);
    place.write_job("[intents]\nenabled = false\n[expand]\nenabled = false\n[chunk]\nmethod = \"fixed\"\n[corpus_limit]\n".replace("[corpus_limit]\n", "").as_str());
    place.build_expecting(
        1,
        &[
            "--set",
            "corpus.max_document_bytes=10000000",
            "--set",
            "dense.factory=Flat",
        ],
    );
    let quarantine = read(&place.generation(1), "quarantine");
    assert_eq!(common::texts(&quarantine, "id"), ["long"]);
    let chunks = read(&place.generation(1), "chunks");
    let ids = common::texts(&chunks, "doc_id");
    assert!(
        ["line", "unbroken", "ok"]
            .iter()
            .all(|id| ids.iter().any(|i| i == id))
    );
}
