//! `intendex verify`: passes what a build publishes, and finds every injected fault.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch,
    UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Float32Type, UInt64Type};
use common::{Place, Row, documents, row, write_questions};
use intendex::engine::verify::{Options, Sample, verify};
use intendex::store::dataset::{PartWriter, read_part};
use intendex::store::manifest::{DatasetSummary, files, write_checksums};
use intendex::store::{Dataset, Manifest, quarantine, read_json, replace_json};

/// Documents, two of them refused, so that there is a quarantine; in several shards.
fn rows() -> Vec<Row<'static>> {
    let mut rows = documents();
    rows.push((Some("no-text"), Some("t"), None));
    rows.push(row(
        "salt",
        "Salt",
        "Salt is a mineral. Sea water is salty. Salt keeps food.",
    ));
    rows.push((Some("blank"), None, Some(" \n ")));
    rows
}

const SHARDS: &[&str] = &["--set", "engine.shard_documents=3"];
const BUILT: &[&str] = &[
    "--set",
    "engine.shard_documents=3",
    "--set",
    "corpus.intents=questions",
];

/// An index whose documents have several chunks and bring their questions, as the tiny generator predicts none.
fn built() -> Place {
    let place = Place::new(&rows());
    write_questions(&place.path("corpus.parquet"), &rows());
    place.write_job(
        "[chunk]\nmethod = \"fixed\"\ntarget_tokens = 40\noverlap_tokens = 8\n[expand]\nkeep = 0.8\n",
    );
    place.build_expecting(1, BUILT);
    place
}

/// The same in index shards.
fn built_sharded() -> Place {
    let place = built();
    fs::remove_dir_all(place.path("out")).unwrap();
    place.build_expecting(1, &[BUILT, &["--set", "index.shards=2"]].concat());
    place
}

/// Exit code and stdout.
fn check(place: &Place, out: &str, more: &[&str]) -> (i32, String) {
    let output = place.run(&[&["verify", out, "--sample", "all"], more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("error:"), "{said}");
    let found = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), found)
}

/// Copies the output folder; the copy's generation.
fn copy(place: &Place, name: &str) -> PathBuf {
    let (from, to) = (place.path("out"), place.path(name));
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    for entry in walkdir::WalkDir::new(&from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(&from).unwrap());
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(target).unwrap(),
            false => fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
    to.join("generations/1")
}

/// Makes the manifest agree with the files again, so that only the cross-checks are left to find the fault.
fn forge(generation: &Path) {
    let path = generation.join("manifest.json");
    let mut manifest: Manifest = read_json(&path).unwrap();
    manifest.files = files(generation).unwrap();
    for dataset in Dataset::ALL {
        let name = dataset.folder();
        if let Some(old) = manifest.datasets.get(name) {
            let new = DatasetSummary::of(dataset, generation, old.determinism.clone()).unwrap();
            manifest.datasets.insert(name.to_owned(), new.unwrap());
        }
    }
    replace_json(&path, &manifest).unwrap();
    write_checksums(generation, &manifest).unwrap();
}

/// Rewrites the first part of a dataset.
fn edit(generation: &Path, dataset: Dataset, change: impl FnOnce(RecordBatch) -> RecordBatch) {
    let path = dataset.part(generation, 0);
    let batches: Vec<RecordBatch> = read_part(&path).unwrap().map(Result::unwrap).collect();
    let whole = concat_batches(&batches[0].schema(), &batches).unwrap();
    let changed = change(whole);
    let mut writer = PartWriter::create(&path, changed.schema()).unwrap();
    writer.write(&changed).unwrap();
    writer.finish().unwrap();
}

fn pick(batch: &RecordBatch, order: impl IntoIterator<Item = usize>) -> RecordBatch {
    let order = UInt64Array::from_iter_values(order.into_iter().map(|i| i as u64));
    take_record_batch(batch, &order).unwrap()
}

fn without(batch: RecordBatch, row: usize) -> RecordBatch {
    pick(&batch, (0..batch.num_rows()).filter(|i| *i != row))
}

fn last(batch: &RecordBatch) -> usize {
    batch.num_rows() - 1
}

fn replaced(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of(name).unwrap()] = column;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

/// The column `name` with its first two rows exchanged, the other columns as they are.
fn swapped(batch: &RecordBatch, name: &str) -> RecordBatch {
    let order = [1, 0].into_iter().chain(2..batch.num_rows());
    let other = pick(batch, order);
    replaced(batch, name, other.column_by_name(name).unwrap().clone())
}

fn with_vectors(batch: &RecordBatch, change: impl FnOnce(&mut Vec<f32>)) -> RecordBatch {
    with_vectors_of(batch, "vector", change)
}

fn scaled(batch: &RecordBatch, name: &str, factor: f32) -> RecordBatch {
    with_vectors_of(batch, name, |values| {
        values.iter_mut().for_each(|x| *x *= factor)
    })
}

fn with_vectors_of(
    batch: &RecordBatch,
    name: &str,
    change: impl FnOnce(&mut Vec<f32>),
) -> RecordBatch {
    let old = batch.column_by_name(name).unwrap().as_fixed_size_list();
    let mut values = old.values().as_primitive::<Float32Type>().values().to_vec();
    change(&mut values);
    let arrow::datatypes::DataType::FixedSizeList(item, size) = old.data_type() else {
        panic!()
    };
    let values = Arc::new(Float32Array::from(values));
    let vectors = FixedSizeListArray::new(item.clone(), *size, values, None);
    replaced(batch, name, Arc::new(vectors))
}

fn plus(batch: &RecordBatch, name: &str, number: f32) -> ArrayRef {
    let column = batch.column_by_name(name).unwrap();
    let old = column.as_primitive::<Float32Type>();
    Arc::new(
        old.iter()
            .map(|x| x.map(|x| x + number))
            .collect::<Float32Array>(),
    )
}

fn edit_lines(path: &Path, change: impl FnOnce(&mut Vec<&str>)) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}

fn segment_file(generation: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(generation.join("sparse")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let found = paths.find(|path| path.extension().is_some_and(|e| e == ending));
    found.unwrap_or_else(|| panic!("no .{ending}"))
}

#[test]
fn what_a_build_publishes_is_whole() {
    let place = built();
    let (code, said) = check(&place, "out", &[]);
    assert_eq!((code, said.lines().count()), (0, 1), "{said}");
    assert!(
        said.contains("nothing is wrong") && said.contains("with the model"),
        "{said}"
    );
    let (code, said) = check(&place, "out", &["--format", "json", "--generation", "1"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, report["findings"].as_array().unwrap().len()), (0, 0));
    assert_eq!(report["sample"], report["chunks"]);
    assert_eq!(report["documents"], 5);

    let missing = place.run(&["verify", "out", "--generation", "7"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn every_kind_of_index_is_whole() {
    let place = Place::new(&rows());
    let kinds: [&[&str]; 7] = [
        &[
            "chunk.method=sliding",
            "chunk.target_tokens=12",
            "chunk.overlap_tokens=6",
        ],
        &["output.vectors=f16"],
        &["dense.factory=HNSW8"],
        &["dense.factory=IVF2,SQfp16"],
        &["sparse.enabled=false", "expand.keep=0.3"],
        &["dense.enabled=false", "expand.enabled=false"],
        &[
            "models.embedder.normalize=false",
            "intents.enabled=false",
            "chunk.method=fixed",
        ],
    ];
    for (i, kind) in kinds.iter().enumerate() {
        let settings: Vec<&str> = kind.iter().flat_map(|set| ["--set", set]).collect();
        place.build_expecting(1, &[SHARDS, &settings].concat());
        let number = (i + 1).to_string();
        let (code, said) = check(&place, "out", &["--generation", &number]);
        assert_eq!(code, 0, "{kind:?}: {said}");
    }
}

#[test]
fn a_flipped_byte_in_any_file_is_found() {
    let place = built();
    let generation = copy(&place, "copy");
    let mut flipped = 0;
    for entry in walkdir::WalkDir::new(&generation).sort_by_file_name() {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let (path, whole) = (entry.path(), fs::read(entry.path()).unwrap());
        let mut bytes = whole.clone();
        match bytes.len() {
            0 => bytes.push(1),
            n => bytes[n / 2] ^= 0xff,
        }
        fs::write(path, bytes).unwrap();
        let (code, said) = check(&place, "copy", &["--no-model"]);
        fs::write(path, whole).unwrap();
        let name = path
            .strip_prefix(&generation)
            .unwrap()
            .display()
            .to_string();
        assert_eq!(code, 1, "{name}: {said}");
        assert!(
            said.lines().any(|line| line.contains(&name)),
            "{name}: {said}"
        );
        assert!(said.lines().count() < 10, "{name}: {said}");
        flipped += 1;
    }
    assert!(flipped > 20);
    let (code, said) = check(&place, "copy", &[]);
    assert_eq!(code, 0, "{said}");
}

/// A fault, and what a line of the report has to say.
type Fault = (&'static str, fn(&Path), &'static str);

const DROPPED: &[Fault] = &[
    (
        "document",
        |g| edit(g, Dataset::Documents, |b| without(b, 0)),
        "chunks/part-00000.parquet: row 0 is of `tides`",
    ),
    (
        "last document",
        |g| {
            edit(g, Dataset::Documents, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "`unicode`, which is not there",
    ),
    (
        "intent",
        |g| edit(g, Dataset::Intents, |b| without(b, 0)),
        "the intents of `tides` are not numbered",
    ),
    (
        "last intent",
        |g| {
            edit(g, Dataset::Intents, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "which the document does not have",
    ),
    (
        "chunk",
        |g| edit(g, Dataset::Chunks, |b| without(b, 0)),
        "chunks/part-00000.parquet",
    ),
    (
        "last chunk",
        |g| {
            edit(g, Dataset::Chunks, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "chunks/part-00000.parquet",
    ),
    (
        "query",
        |g| edit(g, Dataset::Queries, |b| without(b, 0)),
        "queries/part-00000.parquet",
    ),
    (
        "last query",
        |g| {
            edit(g, Dataset::Queries, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "vectors/queries/part-00000.parquet",
    ),
    (
        "text vector",
        |g| edit(g, Dataset::TextVectors, |b| without(b, 0)),
        "vectors/text/part-00000.parquet: `tides#0` is missing",
    ),
    (
        "last text vector",
        |g| {
            edit(g, Dataset::TextVectors, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "vectors/text/part-00000.parquet",
    ),
    (
        "query vector",
        |g| edit(g, Dataset::QueryVectors, |b| without(b, 0)),
        "vectors/queries/part-00000.parquet: `tides#0?0` is missing",
    ),
    (
        "part",
        |g| fs::remove_file(Dataset::Queries.part(g, 1)).unwrap(),
        "queries/part-00001.parquet",
    ),
    (
        "line of text.ids",
        |g| {
            edit_lines(&g.join("dense/text.ids"), |l| {
                l.remove(0);
            })
        },
        "dense/text.ids",
    ),
    (
        "line of queries.ids",
        |g| {
            edit_lines(&g.join("dense/queries.ids"), |l| {
                l.remove(1);
            })
        },
        "dense/queries.ids",
    ),
    (
        "index of texts",
        |g| fs::remove_file(g.join("dense/text.faiss")).unwrap(),
        "dense/text.faiss: is missing",
    ),
    (
        "CIFF",
        |g| fs::remove_file(g.join("sparse.ciff.gz")).unwrap(),
        "sparse.ciff.gz: is missing",
    ),
    (
        "outcome",
        |g| edit(g, Dataset::ChunkOutcomes, |b| without(b, 0)),
        "outcomes/chunks/part-00000.parquet: `tides` is missing before row 0",
    ),
    (
        "sparse index",
        |g| fs::remove_dir_all(g.join("sparse")).unwrap(),
        "sparse: is missing",
    ),
    (
        "terms",
        |g| fs::remove_file(segment_file(g, "term")).unwrap(),
        ".term",
    ),
    (
        "postings",
        |g| fs::remove_file(segment_file(g, "idx")).unwrap(),
        ".idx",
    ),
    (
        "positions",
        |g| fs::remove_file(segment_file(g, "pos")).unwrap(),
        ".pos",
    ),
    (
        "stored ids",
        |g| fs::remove_file(segment_file(g, "store")).unwrap(),
        ".store",
    ),
    (
        "lengths",
        |g| fs::remove_file(segment_file(g, "fieldnorm")).unwrap(),
        ".fieldnorm",
    ),
];

const EXPANSION: &[Fault] = &[
    (
        "topic",
        |g| edit(g, Dataset::Topics, |b| without(b, 0)),
        "topics/part-00000.parquet: row 0 is not the next topic",
    ),
    (
        "last topics",
        |g| edit(g, Dataset::Topics, |b| pick(&b, 0..1)),
        "has a share of topic",
    ),
    (
        "sketch of the corpus",
        |g| edit(g, Dataset::Topics, |b| swapped(&b, "documents")),
        "topics/part-00000.parquet: the first topic alone has the sketch",
    ),
    (
        "centroids",
        |g| edit(g, Dataset::Topics, |b| scaled(&b, "centroid", 1.1)),
        "topic 0 has a vector of length 1.1",
    ),
    (
        "keywords of a chunk",
        |g| edit(g, Dataset::ChunkTopics, |b| without(b, 0)),
        "chunk_topics/part-00000.parquet: `tides#0` is missing",
    ),
    (
        "ids of keywords",
        |g| edit(g, Dataset::ChunkTopics, |b| swapped(&b, "chunk_id")),
        "chunk_topics/part-00000.parquet: row 0 does not belong there: `tides#1`",
    ),
    (
        "score",
        |g| edit(g, Dataset::Scores, |b| without(b, 0)),
        "scores/part-00000.parquet: `tides#0?0` is missing",
    ),
    (
        "last score",
        |g| {
            edit(g, Dataset::Scores, |b| {
                let n = last(&b);
                without(b, n)
            })
        },
        "scores/part-00000.parquet: `",
    ),
    (
        "gain",
        |g| {
            edit(g, Dataset::Scores, |b| {
                replaced(&b, "gain", plus(&b, "gain", 0.5))
            })
        },
        "scores/part-00000.parquet: `tides#0?0` has a gain of",
    ),
    (
        "row of the selection",
        |g| edit(g, Dataset::Selection, |b| without(b, 0)),
        "selection/part-00000.parquet: `tides#0?0` is missing",
    ),
    (
        "scores of the selection",
        |g| {
            edit(g, Dataset::Selection, |b| {
                replaced(&b, "score", plus(&b, "score", -1e6))
            })
        },
        "is taken with -",
    ),
    (
        "what was taken",
        |g| {
            edit(g, Dataset::Selection, |b| {
                let taken = b.column_by_name("taken").unwrap().as_boolean();
                let other = taken
                    .iter()
                    .enumerate()
                    .map(|(i, t)| t.map(|t| t != (i == 0)));
                let other: BooleanArray = other.collect();
                replaced(&b, "taken", Arc::new(other))
            })
        },
        "queries that are taken; the manifest says",
    ),
];

const CHANGED: &[Fault] = &[
    (
        "ids of text vectors",
        |g| edit(g, Dataset::TextVectors, |b| swapped(&b, "chunk_id")),
        "vectors/text/part-00000.parquet",
    ),
    (
        "text vectors",
        |g| edit(g, Dataset::TextVectors, |b| swapped(&b, "vector")),
        "dense/text.faiss: row 0 (`tides#0`)",
    ),
    (
        "query vectors",
        |g| edit(g, Dataset::QueryVectors, |b| swapped(&b, "vector")),
        "vectors/queries/part-00000.parquet: the vector of `tides#0?0`",
    ),
    (
        "lines of text.ids",
        |g| edit_lines(&g.join("dense/text.ids"), |l| l.swap(0, 1)),
        "dense/text.ids: line 1",
    ),
    (
        "lines of queries.ids",
        |g| edit_lines(&g.join("dense/queries.ids"), |l| l.swap(0, 1)),
        "dense/queries.ids: line 1",
    ),
    (
        "a line more",
        |g| edit_lines(&g.join("dense/text.ids"), |l| l.push("moon#0")),
        "`moon#0`",
    ),
    (
        "texts of chunks",
        |g| edit(g, Dataset::Chunks, |b| swapped(&b, "text")),
        "`tides#0`",
    ),
    (
        "texts of queries",
        |g| edit(g, Dataset::Queries, |b| swapped(&b, "text")),
        "vectors/queries/part-00000.parquet",
    ),
    (
        "order of chunks",
        |g| edit(g, Dataset::Chunks, |b| swap_rows(&b)),
        "`tides#1` stands where `tides#0` belongs",
    ),
    (
        "order of queries",
        |g| edit(g, Dataset::Queries, |b| swap_rows(&b)),
        "`tides#0?1` stands where `tides#0?0` belongs",
    ),
    (
        "a span",
        |g| edit(g, Dataset::Chunks, |b| shifted(&b)),
        "`tides#0`",
    ),
    (
        "a number that is none",
        |g| {
            edit(g, Dataset::TextVectors, |b| {
                with_vectors(&b, |v| v[3] = f32::NAN)
            })
        },
        "`tides#0` is not finite",
    ),
    (
        "a length",
        |g| {
            edit(g, Dataset::TextVectors, |b| {
                with_vectors(&b, |v| v[..64].iter_mut().for_each(|x| *x *= 1.1))
            })
        },
        "`tides#0` is of length 1.",
    ),
    (
        "a sign",
        |g| {
            edit(g, Dataset::TextVectors, |b| {
                with_vectors(&b, |v| v[..64].iter_mut().for_each(|x| *x = -*x))
            })
        },
        "`tides#0`",
    ),
    (
        "title",
        |g| edit(g, Dataset::Documents, |b| swapped(&b, "title")),
        "`tides#0` does not have its document's title",
    ),
    (
        "column",
        |g| {
            edit(g, Dataset::Chunks, |b| {
                let (_, columns, _) = b.into_parts();
                RecordBatch::try_from_iter([("id", columns[0].clone())]).unwrap()
            })
        },
        "column 0 is id",
    ),
    (
        "half of text.faiss",
        |g| halve(&g.join("dense/text.faiss")),
        "dense/text.faiss",
    ),
    (
        "half of queries.faiss",
        |g| halve(&g.join("dense/queries.faiss")),
        "dense/queries.faiss",
    ),
    (
        "half of the CIFF",
        |g| halve(&g.join("sparse.ciff.gz")),
        "sparse.ciff.gz",
    ),
    (
        "half of a part",
        |g| halve(&Dataset::Chunks.part(g, 0)),
        "chunks/part-00000.parquet",
    ),
    (
        "half of the postings",
        |g| halve(&segment_file(g, "idx")),
        "sparse",
    ),
    (
        "other model",
        |g| {
            fs::write(
                g.join("dense/text.faiss"),
                fs::read(g.join("dense/queries.faiss")).unwrap(),
            )
            .unwrap()
        },
        "dense/text",
    ),
    (
        "a file more",
        |g| fs::write(g.join("notes.txt"), "x").unwrap(),
        "notes.txt",
    ),
    (
        "a failure of nothing",
        |g| quarantined(g, "chunks", "nobody"),
        "`nobody` was never given to chunks",
    ),
    (
        "a failure of something",
        |g| quarantined(g, "chunks", "tides"),
        "outcomes/chunks/part-00000.parquet: row 0 does not belong there: `tides`",
    ),
    (
        "a failure without a vector",
        |g| quarantined(g, "vectors-text", "tides#0"),
        "`tides#0` was not embedded, or failed",
    ),
];

fn swap_rows(batch: &RecordBatch) -> RecordBatch {
    pick(batch, [1, 0].into_iter().chain(2..batch.num_rows()))
}

fn shifted(batch: &RecordBatch) -> RecordBatch {
    let ends = batch
        .column_by_name("end")
        .unwrap()
        .as_primitive::<UInt64Type>();
    let mut ends = ends.values().to_vec();
    ends[0] -= 1;
    replaced(batch, "end", Arc::new(UInt64Array::from(ends)))
}

fn halve(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn quarantined(generation: &Path, stage: &str, id: &str) {
    let failure = quarantine::Failure::new(stage, id, "a reason", "an input");
    let mut writer = quarantine::Writer::new(generation, &format!("{stage}-00000"));
    writer.add(failure).unwrap();
    writer.finish().unwrap();
}

/// Faults in one of two index shards, which are of one part each.
const OF_SHARDS: &[Fault] = &[
    (
        "line of a shard's text.ids",
        |g| {
            edit_lines(&g.join("shards/00001/dense/text.ids"), |l| {
                l.remove(0);
            })
        },
        "shards/00001/dense/text.ids",
    ),
    (
        "lines of a shard's queries.ids",
        |g| edit_lines(&g.join("shards/00000/dense/queries.ids"), |l| l.swap(0, 1)),
        "shards/00000/dense/queries.ids: line 1",
    ),
    (
        "half of a shard's CIFF",
        |g| halve(&g.join("shards/00001/sparse.ciff.gz")),
        "shards/00001/sparse.ciff.gz",
    ),
    (
        "postings of a shard",
        |g| fs::remove_file(segment_file(&g.join("shards/00001"), "idx")).unwrap(),
        ".idx",
    ),
    (
        "texts of a shard",
        |g| edit(g, Dataset::Chunks, |b| swapped(&b, "text")),
        "shards/00000/sparse",
    ),
    (
        "CIFFs of shards in each other's place",
        |g| {
            let shards = g.join("shards");
            let [first, second, aside] =
                ["00000/sparse.ciff.gz", "00001/sparse.ciff.gz", "aside"].map(|f| shards.join(f));
            fs::rename(&first, &aside).unwrap();
            fs::rename(&second, &first).unwrap();
            fs::rename(&aside, &second).unwrap();
        },
        "shards/00000/sparse.ciff.gz: `tides#0` is missing",
    ),
    (
        "a shard",
        |g| fs::remove_dir_all(g.join("shards/00001")).unwrap(),
        "shards/00001/sparse: is missing",
    ),
    (
        "a shard more",
        |g| fs::create_dir(g.join("shards/00002")).unwrap(),
        "has 3 index shards; the manifest says 2",
    ),
    (
        "what the manifest says of a shard",
        |g| {
            let path = g.join("manifest.json");
            let mut manifest: Manifest = read_json(&path).unwrap();
            manifest.indexes.shards[0].parts = 2;
            manifest.indexes.shards[1].sparse.as_mut().unwrap().rows += 1;
            replace_json(&path, &manifest).unwrap();
        },
        "has index shards of 3 parts where there are 2",
    ),
    (
        "the manifest's shards",
        |g| {
            let path = g.join("manifest.json");
            let mut manifest: Manifest = read_json(&path).unwrap();
            manifest.indexes.shards.clear();
            replace_json(&path, &manifest).unwrap();
        },
        "sparse: is missing",
    ),
];

fn finds(faults: &[Fault], unforged: &[&str]) {
    finds_in(&built(), faults, unforged);
}

fn finds_in(place: &Place, faults: &[Fault], unforged: &[&str]) {
    let mut missed = Vec::new();
    for (fault, inject, expected) in faults {
        let generation = copy(place, "copy");
        inject(&generation);
        if !unforged.contains(fault) {
            forge(&generation);
        }
        let (code, said) = check(place, "copy", &[]);
        let found = said.lines().any(|line| line.contains(expected));
        // One fault is a few lines, not one for every row that it touches.
        if code != 1 || !found || said.lines().count() > 30 {
            missed.push(format!("{fault}: `{expected}` ({code}):\n{said}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn what_is_missing_is_found_without_hashes() {
    finds(DROPPED, &[]);
}

#[test]
fn faults_of_index_shards_are_found_without_hashes() {
    let place = built_sharded();
    assert_eq!(check(&place, "out", &[]).0, 0);
    finds_in(&place, OF_SHARDS, &[]);
}

#[test]
fn faults_of_topics_keywords_and_scores_are_found_without_hashes() {
    finds(EXPANSION, &[]);
}

/// The advice after damage to a dataset mends it; what of the stage `queries` was computed again.
fn mended(place: &Place, dataset: Dataset, is_forged: bool, flag: &str) -> u64 {
    let generation = copy(place, "copy");
    edit(&generation, dataset, |b| without(b, 0));
    if is_forged {
        forge(&generation);
    }
    let (_, said) = check(place, "copy", &["--no-model"]);
    let advice = format!("`intendex build JOB {flag}` makes a new generation");
    assert!(said.contains(&advice), "{dataset:?}: {said}");
    let mut mend = vec!["--set", "output.path=copy"];
    mend.extend(flag.split(' '));
    place.build_expecting(1, &[BUILT, &mend].concat());
    let (code, said) = check(place, "copy", &[]);
    assert_eq!(code, 0, "{dataset:?}: {said}");
    let run = place.path("copy/generations/2/run.json");
    let run: serde_json::Value = read_json(&run).unwrap();
    run["stages"]["queries"]["computed"].as_u64().unwrap()
}

#[test]
fn what_is_advised_mends_and_writes_no_sound_query_anew() {
    let place = built();
    for dataset in [
        Dataset::Documents,
        Dataset::Chunks,
        Dataset::Topics,
        Dataset::ChunkTopics,
        Dataset::Scores,
        Dataset::Selection,
    ] {
        let computed = mended(&place, dataset, false, "--restart");
        assert_eq!(computed, 0, "{dataset:?}");
    }
    // Where nothing else tells that a file is wrong.
    for (dataset, flag) in [
        (Dataset::Chunks, "--from chunks"),
        (Dataset::Topics, "--from keywords"),
        (Dataset::Queries, "--from queries"),
    ] {
        assert!(mended(&place, dataset, true, flag) > 0, "{dataset:?}");
    }
    assert_eq!(mended(&place, Dataset::Scores, true, "--from scores"), 0);
    assert_eq!(mended(&place, Dataset::Selection, true, "--restart"), 0);
}

#[test]
fn what_is_changed_is_found_without_hashes() {
    // The manifest would list the file.
    finds(CHANGED, &["a file more", "half of a part"]);
}

/// Two builds that differ in the embedder's weights alone.
#[test]
fn vectors_of_another_model_are_found() {
    let place = Place::new(&rows());
    common::tiny::embedder_of(&place.path("other"), "bert.", 7);
    let settings = [
        "--set",
        "chunk.method=fixed",
        "--set",
        "intents.enabled=false",
        // Keywords are chosen by the embedder, and queries are steered by them.
        "--set",
        "expand.lists=0",
    ];
    place.build_expecting(1, &settings);
    let other = [
        "--set",
        "output.path=out2",
        "--set",
        "models.embedder.model=other",
    ];
    place.build_expecting(1, &[&settings[..], &other].concat());
    assert_eq!(check(&place, "out", &[]).0, 0);
    assert_eq!(check(&place, "out2", &[]).0, 0);

    let generation = copy(&place, "copy");
    let theirs = place.path("out2/generations/1");
    for folder in ["vectors/text", "vectors/queries", "dense"] {
        for entry in fs::read_dir(theirs.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(
                &path,
                generation.join(folder).join(path.file_name().unwrap()),
            )
            .unwrap();
        }
    }
    forge(&generation);
    let (code, said) = check(&place, "copy", &["--no-model"]);
    assert_eq!(code, 0, "they agree among themselves: {said}");
    let (code, said) = check(&place, "copy", &[]);
    assert_eq!(code, 1, "{said}");
    for part in [
        "vectors/text/part-00000.parquet",
        "vectors/queries/part-00000.parquet",
    ] {
        let wanted = format!("model: {part}: the vector of `tides#0");
        assert!(said.contains(&wanted), "{said}");
    }

    let (code, said) = check(&place, "out", &["--model", "other"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("model: other: is not the embedder"), "{said}");
    assert!(said.contains("model.safetensors differ"), "{said}");
    fs::rename(place.path("bert"), place.path("moved")).unwrap();
    let (code, said) = check(&place, "out", &[]);
    assert!(code == 1 && said.contains("--no-model"), "{said}");
    assert_eq!(check(&place, "out", &["--model", "moved"]).0, 0);
}

#[test]
fn an_index_of_other_queries_is_found() {
    let place = built();
    let other = ["--set", "output.path=out2", "--set", "expand.keep=0.3"];
    place.build_expecting(1, &[BUILT, &other].concat());
    let generation = copy(&place, "copy");
    let theirs = place.path("out2/generations/1");
    fs::remove_dir_all(generation.join("sparse")).unwrap();
    fs::create_dir(generation.join("sparse")).unwrap();
    for entry in fs::read_dir(theirs.join("sparse")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(
            &path,
            generation.join("sparse").join(path.file_name().unwrap()),
        )
        .unwrap();
    }
    forge(&generation);
    let (code, said) = check(&place, "copy", &["--no-model"]);
    assert!(
        code == 1 && said.contains("was not indexed with its queries"),
        "{said}"
    );
}

/// Without hashes the readers meet the damage themselves: it is a finding or harmless, never an error or a panic.
#[test]
fn damage_behind_the_hashes_never_panics() {
    let place = built();
    let generation = place.generation(1);
    let manifest: Manifest = read_json(&generation.join("manifest.json")).unwrap();
    let options = Options {
        sample: Sample::All,
        hashes: false,
    };
    let check = || verify(&generation, &manifest, options, None, &()).unwrap();
    let findings = check();
    assert!(findings.is_empty(), "{findings:?}");
    let mut found = 0;
    for file in &manifest.files {
        let path = generation.join(&file.path);
        let whole = fs::read(&path).unwrap();
        for at in [
            0,
            whole.len() / 3,
            whole.len() / 2,
            whole.len().saturating_sub(9),
        ] {
            let mut bytes = whole.clone();
            let Some(byte) = bytes.get_mut(at) else {
                continue;
            };
            *byte ^= 0xff;
            fs::write(&path, bytes).unwrap();
            found += usize::from(!check().is_empty());
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(found > manifest.files.len(), "{found}");
    assert!(check().is_empty());
}

/// The faults above are not found because of how they are injected.
#[test]
fn a_rewritten_part_is_whole() {
    let place = built();
    let generation = copy(&place, "copy");
    edit(&generation, Dataset::Chunks, |batch| batch);
    edit(&generation, Dataset::TextVectors, |batch| {
        with_vectors(&batch, |_| ())
    });
    edit_lines(&generation.join("dense/text.ids"), |_| ());
    forge(&generation);
    let (code, said) = check(&place, "copy", &[]);
    assert_eq!(code, 0, "{said}");
}
