//! What cannot be built ends with an error that names the file and the remedy, and publishes nothing.

mod common;

use std::{fs, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use common::{Place, documents, read, row, texts, write_bytes, write_corpus};
use parquet::arrow::ArrowWriter;

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
fn a_column_of_the_wrong_type() {
    let place = Place::new(&documents());
    let ids = Int64Array::from(vec![1, 2]);
    let batch = RecordBatch::try_from_iter([
        ("doc_id", Arc::new(ids.clone()) as ArrayRef),
        ("title", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("text", Arc::new(ids)),
    ])
    .unwrap();
    let file = fs::File::create(place.path("corpus.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    refused(&place, 2, &[], &["corpus.parquet", "text", "Int64"]);
}

#[test]
fn a_text_that_is_not_utf8() {
    let place = Place::new(&documents());
    let rows: [(&str, &[u8]); 2] = [("good", b"A good text."), ("bad", b"caf\xe9")];
    write_bytes(&place.path("corpus.parquet"), &rows);
    let job = fs::read_to_string(place.path("job.toml")).unwrap();
    fs::write(
        place.path("job.toml"),
        job.replace("title = \"title\"\n", ""),
    )
    .unwrap();
    place.build_expecting(1, &[]);
    let quarantine = read(&place.generation(1), "quarantine");
    assert_eq!(texts(&quarantine, "id"), ["bad"]);
    assert!(texts(&quarantine, "reason")[0].contains("UTF-8"));
    let documents = read(&place.generation(1), "documents");
    assert_eq!(texts(&documents, "doc_id"), ["good"]);
}

#[test]
fn a_precision_that_the_device_has_not() {
    let place = Place::new(&documents());
    let set = ["models.device=cpu", "models.embedder.precision=f16"];
    let set = set.map(|s| ["--set", s]).concat();
    let words = [
        "device cpu: f16 is not for it",
        "models.embedder.precision",
        "\"int8\"",
    ];
    refused(&place, 2, &set, &words);
    assert!(!place.path("out/generations").exists(), "it was begun");
}

#[test]
fn a_generator_of_another_architecture() {
    let place = Place::new(&documents());
    let path = place.path("qwen2.gguf");
    let mut bytes = fs::read(&path).unwrap();
    let found = bytes.windows(5).position(|w| w == b"qwen2").unwrap();
    bytes[found..found + 5].copy_from_slice(b"mamba");
    fs::write(&path, bytes).unwrap();
    refused(&place, 2, &[], &["qwen2.gguf", "mamba", "qwen2"]);
}

/// Its vectors are not finite, whatever the text.
#[test]
fn a_model_that_fails_for_every_text() {
    let place = Place::new(&documents());
    let path = place.path("bert/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    refused(
        &place,
        2,
        &[
            "--set",
            "intents.enabled=false",
            "--set",
            "chunk.method=paragraph",
        ],
        &[
            "stage keywords failed for every row",
            "quarantine",
            "--from keywords",
        ],
    );
}

#[test]
fn more_threads_than_any_machine_has() {
    let place = Place::new(&documents());
    let threads = ["--set", "engine.threads=100000"];
    refused(&place, 78, &threads, &["engine.threads", "at most 1024"]);
}

#[test]
fn a_factory_that_faiss_does_not_know() {
    let place = Place::new(&documents());
    let bogus = ["--set", "dense.factory=bogus"];
    refused(&place, 2, &bogus, &["dense.factory", "bogus"]);
    assert!(
        !place.path("out").exists(),
        "it was found only after work had been done"
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
fn more_failures_than_the_job_allows() {
    let mut rows = documents();
    rows.extend([(Some("a"), None, None), (Some("b"), None, Some(" "))]);
    let place = Place::new(&rows);
    for limit in ["1", "0", "30%", "0.33"] {
        let set = format!("engine.max_failures={limit}");
        let allows = if limit == "0" { "allows 0" } else { "allows 1" };
        refused(
            &place,
            2,
            &["--set", &set],
            &["2 rows have failed", allows, "quarantine"],
        );
    }
    place.build_expecting(1, &["--set", "engine.max_failures=34%"]);
}

#[test]
fn a_wrong_model_folder() {
    let place = Place::new(&documents());
    let missing = &["--set", "models.embedder.model=nowhere"];
    refused(&place, 78, missing, &["job.toml", "models.embedder.model"]);
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
    let megabytes = |n: usize| "The tide comes in twice a day. ".repeat(n * 1024 * 1024 / 31);
    let (long, longer) = (megabytes(20), megabytes(21));
    let rows = [
        row("line", "", &line),
        row("unbroken", "", &unbroken),
        row("ok", "", "A short text."),
        row("long", "", &long),
        row("longer", "", &longer),
    ];
    let place = Place::new(&[]);
    write_corpus(&place.path("corpus.parquet"), &rows);
    place.write_job(
        "[intents]\nenabled = false\n[expand]\nenabled = false\n[chunk]\nmethod = \"fixed\"\n[dense]\nenabled = false\n",
    );
    let limit = format!("corpus.max_document_bytes={}", long.len());
    place.build_expecting(1, &["--set", &limit]);
    let quarantine = read(&place.generation(1), "quarantine");
    assert_eq!(texts(&quarantine, "id"), ["longer"]);
    let chunks = texts(&read(&place.generation(1), "chunks"), "doc_id");
    let of = |id: &str| chunks.iter().filter(|c| *c == id).count();
    assert!(of("line") > 100 && of("unbroken") >= 1 && of("ok") == 1);
    assert!(of("long") > 20_000, "{}", of("long"));
}
