//! `intendex search` on a built index.

mod common;

use std::{fs, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use common::{Place, documents, row};
use parquet::arrow::ArrowWriter;

/// An index of chunks alone, one of whose ids has a space.
fn indexed() -> Place {
    let mut rows = documents();
    rows.push(row("two words", "Space", "A document about spring onions."));
    let place = Place::new(&rows);
    let quick = [
        "intents.enabled=false",
        "expand.enabled=false",
        "chunk.method=fixed",
    ];
    let set: Vec<&str> = quick.into_iter().flat_map(|key| ["--set", key]).collect();
    place.build_expecting(0, &set);
    place
}

fn write_queries(place: &Place, queries: &[(&str, &str)]) {
    let (ids, texts): (Vec<&str>, Vec<&str>) = queries.iter().copied().unzip();
    let columns: [(&str, ArrayRef); 2] = [
        ("query_id", Arc::new(StringArray::from(ids))),
        ("text", Arc::new(StringArray::from(texts))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(place.path("queries.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Searches with more flags; what it wrote to stdout and stderr.
fn search(place: &Place, code: i32, flags: &[&str]) -> (String, String) {
    let output = place.run(&[&["search", "out"], flags].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

const QUERIES: [&str; 4] = ["--queries", "queries.parquet", "--mode", "sparse"];

#[test]
fn a_run_that_fails_leaves_the_one_before() {
    let place = indexed();
    fs::write(place.path("run.txt"), "old").unwrap();
    let to_file = [&QUERIES[..], &["--out", "run.txt"]].concat();
    let unharmed = || {
        assert_eq!(fs::read_to_string(place.path("run.txt")).unwrap(), "old");
        let entries = fs::read_dir(place.path("")).unwrap();
        let mut names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        assert!(names.all(|name| !name.ends_with(".tmp")));
    };

    write_queries(&place, &[("q1", "moon"), ("q2", "spring onions")]);
    let (_, said) = search(&place, 2, &to_file);
    for part in [
        "cannot write run.txt",
        "id `two words#0`, a result of query q2",
        "--format json",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    unharmed();

    // Found before there is work to lose: not even the embedder has been looked for.
    write_queries(&place, &[("q1", "moon"), ("q 2", "tides")]);
    let dense = [
        "--queries",
        "queries.parquet",
        "--out",
        "run.txt",
        "--model",
        "nowhere",
    ];
    let (_, said) = search(&place, 2, &dense);
    for part in ["query id `q 2` cannot be in a TREC run", "--format json"] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    unharmed();

    let as_json = [&to_file[..], &["--format", "json"]].concat();
    search(&place, 0, &as_json);
    let written = fs::read_to_string(place.path("run.txt")).unwrap();
    assert_eq!(written.lines().count(), 2);
    assert!(written.contains("\"query_id\":\"q 2\""), "{written}");
}

#[test]
fn results_go_to_streams_too() {
    let place = indexed();
    write_queries(&place, &[("q1", "moon"), ("q2", "bread")]);
    let (plain, _) = search(&place, 0, &QUERIES);
    assert!(plain.starts_with("q1 Q0 tides#"), "{plain}");
    let to_stream = [&QUERIES[..], &["--out", "/dev/stdout"]].concat();
    assert_eq!(search(&place, 0, &to_stream).0, plain);
}

#[test]
fn results_of_several_queries_say_whose_they_are() {
    let place = indexed();
    write_queries(&place, &[("q1", "spring\ntides"), ("q2", "zebra")]);
    let as_text = [&QUERIES[..], &["--format", "text"]].concat();
    let (text, _) = search(&place, 0, &as_text);
    assert!(
        text.starts_with("query q1: spring tides\n1. tides#"),
        "{text}"
    );
    assert!(
        text.ends_with("\nquery q2: zebra\nnothing found\n"),
        "{text}"
    );
    let (text, _) = search(&place, 0, &["spring tides", "--mode", "sparse"]);
    assert!(text.starts_with("1. tides#"), "{text}");
}

#[test]
fn queries_that_would_mislead_are_refused() {
    let place = indexed();
    for (queries, why) in [
        (
            &[("q1", "moon"), ("q2", "tides"), ("q1", "bread")][..],
            "query_id `q1` is in row 0 and again in row 2",
        ),
        (
            &[("q1", "moon"), ("q2", " ")],
            "the text of query `q2` in row 1",
        ),
        (&[], "there are no queries in it"),
    ] {
        write_queries(&place, queries);
        let (_, said) = search(&place, 2, &QUERIES);
        assert!(said.contains(&format!("queries.parquet: {why}")), "{said}");
    }
    let (_, said) = search(&place, 2, &["--queries", "corpus.parquet"]);
    assert!(
        said.contains("there is no column `query_id`; it has: doc_id, title, text"),
        "{said}"
    );
}

#[test]
fn an_embedder_that_has_moved_can_be_named() {
    let place = indexed();
    fs::rename(place.path("bert"), place.path("elsewhere")).unwrap();
    let (_, said) = search(&place, 2, &["moon"]);
    for part in [
        "the embedder of this index, bert, cannot be used",
        "--model",
        "--mode sparse",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    search(&place, 0, &["moon", "--model", "elsewhere"]);
    fs::write(place.path("elsewhere/modules.json"), "[]").unwrap();
    let (_, said) = search(&place, 2, &["moon", "--model", "elsewhere"]);
    assert!(
        said.contains("is not the one that this index was built with"),
        "{said}"
    );
}

#[test]
fn a_damaged_index_is_an_error_or_answers_but_never_a_panics_code() {
    let place = indexed();
    let folder = place.generation(1).join("sparse");
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|e| e != "json"));
    let mut refused = 0;
    for file in files {
        let sound = fs::read(&file).unwrap();
        for place_of_damage in [sound.len() / 50, sound.len() / 2] {
            let mut damaged = sound.clone();
            damaged[place_of_damage] ^= 0xff;
            fs::write(&file, damaged).unwrap();
            let output = place.run(&["search", "out", "spring onions", "--mode", "sparse"]);
            let said = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(matches!(code, Some(0 | 2)), "{}: {said}", file.display());
            refused += usize::from(code == Some(2));
        }
        fs::write(&file, sound).unwrap();
    }
    assert!(refused > 0, "some damage is noticed");
}
