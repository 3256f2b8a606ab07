//! `intendex merge`: what it publishes is what one build of all documents does.

mod common;
#[path = "support/ranking.rs"]
mod ranking;

use std::fs;

use common::{Place, parquet_files, random_text, row, write_questions};
use intendex::store::read_json;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ranking::{MODES, assert_alike, build, manifest, verified, write_documents};
use serde_json::Value;

/// Two corpora of five parts each, in a folder.
fn place() -> Place {
    let place = ranking::place();
    fs::create_dir(place.path("corpora")).unwrap();
    write_documents(&place.path("corpora/1.parquet"), 0..35);
    write_documents(&place.path("corpora/2.parquet"), 35..70);
    place
}

const FIRST: &str = "corpus.path=corpora/1.parquet";
const SECOND: &str = "corpus.path=corpora/2.parquet";
const BOTH: &str = "corpus.path=corpora/*.parquet";

/// Exit code, stdout and stderr.
fn merge(place: &Place, outputs: &[&str], more: &[&str]) -> (i32, String, String) {
    let output = place.run(&[&["merge"], outputs, more].concat());
    let [out, said] = [output.stdout, output.stderr].map(|t| String::from_utf8(t).unwrap());
    (output.status.code().unwrap(), out, said)
}

#[test]
fn a_merged_index_is_that_of_all_documents() {
    let place = place();
    build(&place, 0, "first", &[FIRST, "index.shards=2"]);
    build(&place, 0, "second", &[SECOND, "name=other"]);
    build(&place, 0, "all", &[BOTH]);
    let (code, out, said) = merge(&place, &["first", "second"], &["--into", "merged"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        out.starts_with("published generation 1 of merged: 70 documents"),
        "{out}"
    );
    let (merged, all) = (
        place.path("merged/generations/1"),
        place.path("all/generations/1"),
    );
    assert!(parquet_files(&merged) == parquet_files(&all));
    let listed = manifest(&merged);
    assert_eq!(listed.indexes.shards.len(), 3);
    assert_eq!(
        listed.indexes.queries_indexed,
        manifest(&all).indexes.queries_indexed
    );
    let jobs: Vec<&str> = listed
        .merged
        .iter()
        .map(|merged| merged.job.as_str())
        .collect();
    assert_eq!(jobs, ["test", "other"]);
    verified(&place, "merged");
    for mode in MODES {
        assert_alike(&place, "all", "merged", &["--mode", mode]);
    }
    // A build of the joined corpus has nothing to compute.
    build(&place, 0, "merged", &[BOTH]);
    let run: Value = read_json(&place.path("merged/generations/2/run.json")).unwrap();
    for stage in ["chunks", "queries", "vectors-text", "vectors-queries"] {
        assert_eq!(run["stages"][stage]["computed"], 0, "{stage}");
    }
    assert_alike(&place, "all", "merged", &[]);
    // What is merged can be merged again, into itself too.
    write_documents(&place.path("corpora/3.parquet"), 70..80);
    build(&place, 0, "third", &["corpus.path=corpora/3.parquet"]);
    build(&place, 0, "all", &[BOTH]);
    let (code, _, said) = merge(&place, &["merged", "third"], &["--into", "merged"]);
    assert_eq!(code, 0, "{said}");
    verified(&place, "merged");
    assert_alike(&place, "all", "merged", &[]);
}

/// Each input has its own topics, and documents that were refused.
#[test]
fn topics_and_quarantines_are_joined() {
    let place = ranking::place();
    for (corpus, numbers) in [("1", 0..12u64), ("2", 12..24)] {
        let text = |i: u64| random_text(&mut ChaCha8Rng::seed_from_u64(i));
        let documents: Vec<_> = numbers.map(|i| (format!("doc-{i}"), text(i))).collect();
        let mut rows: Vec<_> = documents
            .iter()
            .map(|(id, text)| row(id, id, text))
            .collect();
        let refused = format!("refused-{corpus}");
        rows.insert(3, (Some(&refused), None, None));
        write_questions(&place.path(corpus), &rows);
        let corpus_path = format!("corpus.path={corpus}");
        let topics = [
            "expand.lists=1",
            "expand.topics=3",
            "expand.list_tokens=12",
            &corpus_path,
        ];
        build(&place, 1, &format!("out{corpus}"), &topics);
    }
    let (code, _, said) = merge(&place, &["out1", "out2"], &["--into", "out"]);
    assert_eq!(code, 0, "{said}");
    verified(&place, "out");
    let listed = manifest(&place.generation(1));
    assert_eq!(listed.datasets["topics"].rows, 6);
    assert_eq!(listed.datasets["quarantine"].rows, 2);
    let run: Value = read_json(&place.generation(1).join("run.json")).unwrap();
    assert_eq!(
        (&run["quarantined"], &run["stages"]["documents"]["rows"]),
        (&2.into(), &24.into())
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let place = place();
    build(&place, 0, "first", &[FIRST]);
    write_documents(&place.path("corpora/2.parquet"), 34..70);
    build(&place, 0, "second", &[SECOND]);
    let refused = |outputs: &[&str], wanted: &str| {
        let (code, _, said) = merge(&place, outputs, &["--into", "merged"]);
        assert!(code == 2 && said.contains(wanted), "{wanted}: {said}");
        assert!(!place.path("merged").exists());
    };
    refused(
        &["first", "second"],
        "document `doc-34` is in first and in second;",
    );
    refused(
        &["first", "first"],
        "document `doc-00` is in first and in first; 34 more documents",
    );
    for (i, (setting, key)) in [
        ("chunk.target_tokens=25", "chunk.target_tokens"),
        ("sparse.language=french", "sparse.language"),
        ("dense.factory=HNSW32", "dense.factory"),
        ("output.vectors=f16", "output.vectors"),
        ("engine.seed=7", "fingerprint.intents"),
        ("models.embedder.model=other", "embedder"),
    ]
    .iter()
    .enumerate()
    {
        common::tiny::embedder_of(&place.path("other"), "bert.", 7);
        let out = format!("out{i}");
        build(&place, 0, &out, &[SECOND, setting]);
        let wanted = format!("{out}: its {key} is not that of first");
        refused(&["first", &out], &wanted);
    }
    refused(&["first", "nowhere"], "nowhere: no published index here");
    let ids = place.path("second/generations/1/dense/text.ids");
    let text = fs::read_to_string(&ids).unwrap().replacen('d', "e", 1);
    fs::write(&ids, text).unwrap();
    refused(&["first", "second"], "its hash differs");
    assert_eq!(merge(&place, &["first"], &["--into", "merged"]).0, 2);
}

#[test]
fn an_unfinished_build_is_not_removed() {
    let place = place();
    build(&place, 0, "first", &[FIRST]);
    build(&place, 0, "second", &[SECOND]);
    let stopped = [
        "--set",
        "output.path=busy",
        "--set",
        BOTH,
        "--stage",
        "chunks",
    ];
    place.build_expecting(0, &stopped);
    let journal = place.path("busy/generations/building/journal.ndjson");
    let before = fs::read(&journal).unwrap();
    let (code, _, said) = merge(&place, &["first", "second"], &["--into", "busy"]);
    assert!(
        code == 2 && said.contains("busy has an unfinished build"),
        "{said}"
    );
    assert!(fs::read(&journal).unwrap() == before);
}
