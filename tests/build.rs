//! Whole builds with tiny models, looked at from outside.

mod common;

use std::fs;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, UInt64Type};
use common::{Place, documents, parquet_files, peers, read, row, texts};

#[test]
fn publishes_every_dataset_with_one_chunk_identity() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    assert_eq!(place.current().as_deref(), Some("1"));
    let generation = place.generation(1);

    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    peers(&[&generation, Path::new("--schemas"), &schemas]);

    let sources = read(&generation, "documents");
    let chunks = read(&generation, "chunks");
    let ids = texts(&chunks, "chunk_id");
    let starts = chunks
        .column_by_name("start")
        .unwrap()
        .as_primitive::<UInt64Type>()
        .values()
        .to_vec();
    let ends = chunks
        .column_by_name("end")
        .unwrap()
        .as_primitive::<UInt64Type>()
        .values()
        .to_vec();
    for (doc_id, text) in texts(&sources, "doc_id")
        .iter()
        .zip(texts(&sources, "text"))
    {
        let code_points: Vec<char> = text.chars().collect();
        let mut covered = 0;
        for i in (0..ids.len()).filter(|i| ids[*i].starts_with(&format!("{doc_id}#"))) {
            let (start, end) = (starts[i] as usize, ends[i] as usize);
            assert!(
                code_points[covered..start]
                    .iter()
                    .all(|c| c.is_whitespace()),
                "{doc_id}: a gap before {start}"
            );
            let slice: String = code_points[start..end].iter().collect();
            assert_eq!(
                slice,
                chunks
                    .column_by_name("text")
                    .unwrap()
                    .as_string::<i32>()
                    .value(i)
            );
            covered = end;
        }
        assert!(
            code_points[covered..].iter().all(|c| c.is_whitespace()),
            "{doc_id}: the end is missing"
        );
    }

    assert_eq!(texts(&read(&generation, "vectors/text"), "chunk_id"), ids);
    assert_eq!(
        fs::read_to_string(generation.join("dense/text.ids"))
            .unwrap()
            .lines()
            .collect::<Vec<_>>(),
        ids
    );
    let queries = read(&generation, "queries");
    let query_ids = texts(&queries, "query_id");
    assert!(
        !query_ids.is_empty(),
        "the tiny generator wrote nothing that passes for a question"
    );
    assert_eq!(
        texts(&read(&generation, "vectors/queries"), "query_id"),
        query_ids
    );
    for (query, chunk) in query_ids.iter().zip(texts(&queries, "chunk_id")) {
        assert!(
            ids.contains(&chunk) && query.starts_with(&format!("{chunk}?")),
            "{query} of {chunk}"
        );
    }
}

#[test]
fn indexes_take_the_best_share_of_the_queries() {
    let place = Place::new(&documents());
    place.write_job("[expand]\nkeep = 0.5\n");
    place.build_expecting(0, &[]);
    let generation = place.generation(1);
    let queries = read(&generation, "queries");
    let (scores, selection) = (read(&generation, "scores"), read(&generation, "selection"));
    let ids = texts(&queries, "query_id");
    assert_eq!(
        (texts(&scores, "query_id"), texts(&selection, "query_id")),
        (ids.clone(), ids.clone())
    );
    let number = |batch: &arrow::array::RecordBatch, name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column.as_primitive::<Float32Type>().clone()
    };
    let gains = number(&scores, "gain");
    let difference = |i: usize| {
        number(&scores, "log_p_chunk").value(i) - number(&scores, "log_p_empty").value(i)
    };
    assert!((0..ids.len()).all(|i| (gains.value(i) - difference(i)).abs() < 1e-5));
    assert_eq!(number(&selection, "score"), gains);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(generation.join("manifest.json")).unwrap()).unwrap();
    let threshold = manifest["indexes"]["query_threshold"].as_f64().unwrap() as f32;
    let taken = selection
        .column_by_name("taken")
        .unwrap()
        .as_boolean()
        .clone();
    assert!((0..ids.len()).all(|i| taken.value(i) == (gains.value(i) >= threshold)));
    let expected = ids.into_iter().enumerate().filter(|(i, _)| taken.value(*i));
    let expected: Vec<String> = expected.map(|(_, id)| id).collect();
    let indexed = fs::read_to_string(generation.join("dense/queries.ids")).unwrap();
    assert_eq!(indexed.lines().collect::<Vec<_>>(), expected);
    assert!(
        !expected.is_empty() && expected.len() < queries.num_rows(),
        "{} of {}",
        expected.len(),
        queries.num_rows()
    );
}

#[test]
fn the_same_job_twice_gives_the_same_bytes() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    place.build_expecting(0, &["--from", "intents"]);
    assert_eq!(place.current().as_deref(), Some("2"));
    let (first, second) = (
        parquet_files(&place.generation(1)),
        parquet_files(&place.generation(2)),
    );
    assert!(first.len() >= 6);
    for ((path, bytes), (other_path, other)) in first.iter().zip(&second) {
        assert_eq!(path, other_path);
        assert!(bytes == other, "{} differs", path.display());
    }
    assert_eq!(first.len(), second.len());
}

#[test]
fn shards_do_not_change_the_rows() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let anew = ["--from", "intents", "--set", "engine.shard_documents=1"];
    place.build_expecting(0, &anew);
    assert!(
        place
            .generation(2)
            .join("chunks/part-00003.parquet")
            .exists()
    );
    for dataset in [
        "documents",
        "intents",
        "chunks",
        "queries",
        "vectors/text",
        "vectors/queries",
    ] {
        assert_eq!(
            read(&place.generation(1), dataset),
            read(&place.generation(2), dataset),
            "{dataset}"
        );
    }
}

#[test]
fn a_stopped_build_goes_on_where_it_was() {
    let place = Place::new(&documents());
    place.build_expecting(0, &["--stage", "chunks"]);
    assert_eq!(place.current(), None, "nothing may be published yet");
    let part = place.path("out/generations/building/chunks/part-00000.parquet");
    let written = fs::metadata(&part).unwrap().modified().unwrap();
    place.build_expecting(0, &[]);
    let kept = fs::metadata(place.generation(1).join("chunks/part-00000.parquet"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(written, kept, "the finished stage was computed again");
}

#[test]
fn given_intents_replace_the_generator() {
    let place = Place::new(&[]);
    let script = intents_corpus();
    script(&place.path("corpus.parquet"));
    fs::write(
        place.path("job.toml"),
        "version = 1\nname = \"given\"\n[corpus]\npath = \"corpus.parquet\"\nintents = \"questions\"\n[output]\npath = \"out\"\n\
         [models.embedder]\nmodel = \"bert\"\n[expand]\nenabled = false\n",
    )
    .unwrap();
    place.build_expecting(0, &[]);
    let intents = read(&place.generation(1), "intents");
    assert_eq!(
        texts(&intents, "text"),
        ["What causes tides?", "When is the tide weak?"]
    );
}

fn intents_corpus() -> impl Fn(&std::path::Path) {
    use arrow::array::{ListBuilder, RecordBatch, StringArray, StringBuilder};
    use std::sync::Arc;
    |path| {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.values().append_value("What causes tides?");
        lists.values().append_value("When is the tide weak?");
        lists.append(true);
        let batch = RecordBatch::try_from_iter(vec![
            (
                "doc_id",
                Arc::new(StringArray::from(vec!["tides"])) as Arc<dyn Array>,
            ),
            (
                "text",
                Arc::new(StringArray::from(vec![
                    "The Moon causes tides. Neap tides are weak.",
                ])),
            ),
            ("questions", Arc::new(lists.finish())),
        ])
        .unwrap();
        let file = fs::File::create(path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

#[test]
fn run_json_accounts_for_every_stage() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let run: serde_json::Value =
        serde_json::from_slice(&fs::read(place.generation(1).join("run.json")).unwrap()).unwrap();
    let rows = |stage: &str| run["stages"][stage]["rows"].as_u64().unwrap();
    assert_eq!(rows("documents"), 4);
    assert_eq!(rows("chunks"), rows("vectors-text"));
    assert_eq!(rows("chunks"), rows("index-sparse"));
    assert_eq!(rows("queries"), rows("vectors-queries"));
    assert_eq!(
        (&run["quarantined"], &run["resumed"]),
        (&0.into(), &false.into())
    );
    let stages = run["stages"].as_object().unwrap();
    let peaks = stages
        .values()
        .map(|stage| stage["peak_memory_bytes"].as_u64());
    let machine = &run["machine"];
    assert_eq!(machine["peak_memory_bytes"].as_u64(), peaks.max().unwrap());
    if cfg!(target_os = "linux") {
        assert!(machine["host"].is_string() && machine["memory_bytes"].as_u64() > Some(0));
    }
}

#[test]
fn the_summary_tells_what_was_cut() {
    let place = Place::new(&documents());
    let output = place.build(&["--set", "expand.passage_tokens=8"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let path = place.generation(1).join("run.json");
    let run: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let queries = &run["stages"]["queries"];
    let (rows, tokens) = (&queries["truncated_rows"], &queries["truncated_tokens"]);
    let cut = format!(", {rows} inputs cut ({tokens} tokens)");
    assert!(rows.as_u64() > Some(0) && said.contains(&cut), "{said}");
}

#[test]
fn search_answers_in_every_mode_and_format() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    for mode in ["hybrid", "sparse", "dense"] {
        let output = place.run(&[
            "search",
            "out",
            "spring tides moon",
            "--mode",
            mode,
            "--format",
            "json",
            "-k",
            "3",
        ]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = answer.to_string();
        assert!(mode == "dense" || text.contains("tides#"), "{mode}: {text}");
    }
    let output = place.run(&[
        "search",
        "out",
        "spring tides",
        "--mode",
        "sparse",
        "--format",
        "trec",
        "--by",
        "document",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().next().unwrap_or("").contains(" Q0 tides 1 "),
        "{text}"
    );
}

#[test]
fn a_row_like_any_other_survives_its_neighbours() {
    let mut rows = documents();
    rows.push((Some("no-text"), Some("t"), None));
    rows.push((Some("blank"), Some("t"), Some(" \n ")));
    rows.push((None, Some("t"), Some("A text without an id.")));
    rows.push(row("tides", "again", "The same id once more."));
    let place = Place::new(&rows);
    place.build_expecting(1, &[]);
    let quarantine = read(&place.generation(1), "quarantine");
    assert_eq!(quarantine.num_rows(), 4);
    assert!(
        texts(&quarantine, "reason")
            .iter()
            .all(|r| r.contains("corpus.parquet")),
        "{:?}",
        texts(&quarantine, "reason")
    );
    assert_eq!(read(&place.generation(1), "documents").num_rows(), 4);
}
