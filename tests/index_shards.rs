//! Index shards: each opens by itself, and together they rank as the one index.

#[path = "support/answers.rs"]
mod answers;
mod common;
#[path = "support/ranking.rs"]
mod ranking;

use std::fs;
use std::path::{Path, PathBuf};

use answers::{dense_answer, sparse_answer};
use common::{Place, parquet_files, peers, read, texts};
use intendex::index::{CiffReader, DenseIndex, SparseIndex};
use intendex::store::{dataset::each_vector, read_json};
use ranking::{MODES, assert_alike, manifest, verified, write_documents};
use serde_json::{Value, json};

/// A place with a job of ten parts.
fn place() -> Place {
    let place = ranking::place();
    write_documents(&place.path("corpus.parquet"), 0..70);
    place
}

fn build(place: &Place, out: &str, more: &[&str]) -> String {
    ranking::build(place, 0, out, more)
}

fn shards(generation: &Path) -> Vec<PathBuf> {
    let mut shards: Vec<PathBuf> = fs::read_dir(generation.join("shards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    shards.sort();
    shards
}

#[test]
fn shards_rank_as_one_index() {
    let place = place();
    build(&place, "one", &[]);
    let one = place.path("one/generations/1");
    assert!(!one.join("shards").exists());
    assert!(manifest(&one).indexes.shards.is_empty());
    for count in [2, 3, 10] {
        let (several, setting) = (format!("out{count}"), format!("index.shards={count}"));
        build(&place, &several, &[&setting]);
        let generation = place.path(&several).join("generations/1");
        assert_eq!(shards(&generation).len(), count);
        assert!(parquet_files(&one) == parquet_files(&generation));
        verified(&place, &several);
        for mode in MODES {
            assert_alike(&place, "one", &several, &["--mode", mode]);
        }
        assert_alike(
            &place,
            "one",
            &several,
            &["--fusion", "reciprocal", "--by", "document"],
        );
        assert_alike(
            &place,
            "one",
            &several,
            &["--alpha", "0.9", "--mode", "dense"],
        );
    }
}

/// Which queries are closest to their own chunk is decided among all chunks, and whatever the indexes take.
#[test]
fn queries_are_selected_as_for_one_index() {
    let place = place();
    let filter = ["expand.filter=round-trip", "expand.keep=0.6"];
    build(&place, "one", &filter);
    build(
        &place,
        "three",
        &[&filter[..], &["index.shards=3"]].concat(),
    );
    let selection = |out: &str| parquet_files(&place.path(out).join("generations/1/selection"));
    assert!(selection("one") == selection("three"));
    verified(&place, "three");
    for mode in MODES {
        assert_alike(&place, "one", "three", &["--mode", mode]);
    }
}

#[test]
fn each_shard_opens_by_itself() {
    let place = place();
    build(&place, "out", &["index.shards=3"]);
    let generation = place.generation(1);
    let listed = manifest(&generation).indexes.shards;
    assert_eq!(listed.iter().map(|shard| shard.parts).sum::<usize>(), 10);
    let (mut in_sparse, mut in_dense, mut in_ciff) = (Vec::new(), Vec::new(), Vec::new());
    let mut vectors = Vec::new();
    let part = generation.join("vectors/text/part-00000.parquet");
    each_vector(&part, |_, vector| {
        vectors.push(vector.to_vec());
        Ok::<_, intendex::store::StoreError>(())
    })
    .unwrap();
    for (shard, listed) in shards(&generation).iter().zip(&listed) {
        let sparse = SparseIndex::open(&shard.join("sparse")).unwrap();
        assert_eq!(sparse.len(), listed.sparse.as_ref().unwrap().rows);
        in_sparse.extend((0..sparse.len()).map(|row| sparse.ids(row as u32).unwrap().0));
        let path = |name: &str| shard.join("dense").join(name);
        let dense = DenseIndex::open(&path("text.faiss"), &path("text.ids")).unwrap();
        assert_eq!(
            dense.ids().len() as u64,
            listed.dense_text.as_ref().unwrap().rows
        );
        in_dense.extend(dense.ids().iter().map(str::to_owned));
        let mut ciff = CiffReader::open(&shard.join("sparse.ciff.gz")).unwrap();
        while ciff.next_list().unwrap().is_some() {}
        while let Some(document) = ciff.next_document().unwrap() {
            in_ciff.push(document.collection_docid);
        }
        let dense = ["text", "queries"].map(|name| dense_answer(shard, name, &vectors[0]));
        let results = json!({"dense": dense, "sparse": [sparse_answer(shard, "water and energy")]});
        let file = place.path("results.json");
        fs::write(&file, results.to_string()).unwrap();
        peers(&[shard, Path::new("--results"), &file]);
    }
    let chunks = texts(&read(&generation, "chunks"), "chunk_id");
    assert_eq!(
        [in_sparse, in_dense, in_ciff],
        [(); 3].map(|()| chunks.clone())
    );
}

/// Rows are taken over, whatever the shards; an index of as many shards is up to date.
#[test]
fn other_shards_compute_nothing_again() {
    let place = place();
    build(&place, "out", &[]);
    let said = build(&place, "out", &["index.shards=3"]);
    assert!(!said.contains("up to date"), "{said}");
    let run: Value = read_json(&place.generation(2).join("run.json")).unwrap();
    for stage in ["chunks", "queries", "vectors-text", "vectors-queries"] {
        let computed = |what: &str| run["stages"][stage][what].as_u64().unwrap();
        assert_eq!(computed("computed"), 0, "{stage}");
        assert!(computed("reused") > 0, "{stage}");
    }
    let (before, after) = (place.generation(1), place.generation(2));
    assert!(parquet_files(&before) == parquet_files(&after));
    build(&place, "out", &["index.shards=3"]);
    assert_eq!(place.current().as_deref(), Some("2"), "it is up to date");

    // What is new is computed, and the shards are dealt out anew.
    write_documents(&place.path("corpus.parquet"), 5..73);
    build(&place, "out", &["index.shards=3"]);
    build(&place, "anew", &[]);
    verified(&place, "out");
    for mode in MODES {
        assert_alike(&place, "anew", "out", &["--mode", mode]);
    }
}

#[test]
fn there_are_no_more_shards_than_parts() {
    let place = place();
    let said = build(
        &place,
        "out",
        &["index.shards=4", "engine.shard_documents=35"],
    );
    let wanted = "index.shards is 4, but the corpus makes no more than 2 parts with chunks";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(shards(&place.generation(1)).len(), 2);
    verified(&place, "out");
    let said = place.build_expecting(78, &["--set", "index.shards=0"]);
    assert!(
        said.contains("`index.shards` must be from 1 to 1000"),
        "{said}"
    );
}

/// Every kind of FAISS index has shards, which are trained each by itself.
#[test]
fn shards_of_every_kind_are_whole() {
    let place = place();
    for kind in [
        &["dense.factory=HNSW32"][..],
        &["dense.factory=IVF2,SQfp16"],
        &["dense.enabled=false"],
        &["sparse.enabled=false", "expand.enabled=false"],
    ] {
        build(&place, "out", &[kind, &["index.shards=3"]].concat());
        verified(&place, "out");
        let output = place.run(&["search", "out", "water and energy"]);
        assert_eq!(output.status.code(), Some(0), "{kind:?}");
    }
}

#[test]
fn a_search_finds_a_shard_missing() {
    let place = place();
    build(&place, "out", &["index.shards=3"]);
    let shard = place.generation(1).join("shards/00001");
    fs::remove_dir_all(shard.join("dense")).unwrap();
    let output = place.run(&["search", "out", "water"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("shards/00001/dense") && said.contains("is missing"),
        "{said}"
    );
    let output = place.run(&["search", "out", "water", "--mode", "sparse"]);
    assert_eq!(output.status.code(), Some(0));
}
