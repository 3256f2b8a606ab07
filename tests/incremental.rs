//! A second build computes what changed and nothing else, and its datasets are those of a build from nothing.

mod common;

use std::{fs, sync::Arc};

use arrow::array::AsArray;
use common::{Place, Row, documents, parquet_files, read, row, texts, tiny, write_corpus};
use intendex::{engine::build, job::Job};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

const STAGES: [&str; 6] = [
    "intents",
    "chunks",
    "keywords",
    "queries",
    "vectors-text",
    "vectors-queries",
];

fn run_json(place: &Place, generation: u64) -> Value {
    json(place, generation, "run.json")
}

fn manifest(place: &Place, generation: u64) -> Value {
    json(place, generation, "manifest.json")
}

fn json(place: &Place, generation: u64, name: &str) -> Value {
    let path = place.generation(generation).join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Input rows computed and reused, by stage.
fn counts(place: &Place, generation: u64) -> Vec<(u64, u64)> {
    let run = run_json(place, generation);
    let count = |stage: &str, what: &str| run["stages"][stage][what].as_u64().unwrap();
    STAGES
        .map(|stage| (count(stage, "computed"), count(stage, "reused")))
        .to_vec()
}

/// The last generation's Parquet files are those of a build of the same job from nothing.
fn assert_as_from_nothing(place: &Place, generation: u64, more: &[&str]) {
    let fresh = ["--set", "output.path=fresh"];
    let _ = fs::remove_dir_all(place.path("fresh"));
    place.build_expecting(0, &[&fresh[..], more].concat());
    let ours = parquet_files(&place.generation(generation));
    let theirs = parquet_files(&place.path("fresh/generations/1"));
    let names = |files: &[(std::path::PathBuf, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|f| f.0.display().to_string()).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    for ((path, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        assert!(ours == theirs, "{} differs", path.display());
    }
}

fn corpus(place: &Place, rows: &[Row]) {
    write_corpus(&place.path("corpus.parquet"), rows);
}

#[test]
fn a_folder_whose_name_looks_like_a_pattern() {
    let mut rows = documents();
    let place = Place::new(&rows);
    let output = "out [1] *?#%20";
    let set = ["--set", &format!("output.path={output}")];
    place.build_expecting(0, &set);
    rows.push(row(
        "stars",
        "Stars",
        "Stars burn hydrogen. They are far away.",
    ));
    corpus(&place, &rows);
    place.build_expecting(0, &set);
    let found = place.run(&["search", output, "hydrogen", "--mode", "sparse"]);
    let said = String::from_utf8_lossy(&found.stderr);
    assert_eq!(found.status.code(), Some(0), "{said}");
    let run = place.path(output).join("generations/2/run.json");
    let run: Value = serde_json::from_slice(&fs::read(run).unwrap()).unwrap();
    let chunks = &run["stages"]["chunks"];
    assert_eq!(chunks["computed"], 1);
    assert_eq!(chunks["reused"], documents().len());
}

#[test]
fn an_unchanged_job_does_nothing() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let output = place.build(&[]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("up to date"), "{said}");
    assert_eq!(place.current().as_deref(), Some("1"));
    place.build_expecting(0, &["--restart"]);
    assert_eq!(place.current().as_deref(), Some("2"));
}

#[test]
fn added_changed_moved_and_removed_documents() {
    let mut rows = documents();
    let place = Place::new(&rows);
    let small = ["--set", "engine.shard_documents=2"];
    place.build_expecting(0, &small);

    // One added, one changed, one removed, the rest in another order.
    rows.remove(0);
    rows[0].2 = Some("# Dough\n\nRye and water make another dough. Salt slows the yeast.");
    rows.reverse();
    rows.insert(1, row("new", "New", "A new text. It has two sentences."));
    corpus(&place, &rows);
    place.build_expecting(0, &small);
    let counts = counts(&place, 2);
    assert_eq!(counts[0], (2, 2), "{counts:?}");
    assert_eq!(counts[1], (2, 2), "{counts:?}");
    assert!(
        counts
            .iter()
            .all(|(computed, reused)| *computed > 0 && *reused > 0)
    );
    assert_as_from_nothing(&place, 2, &small);

    let chunks = read(&place.generation(2), "chunks");
    assert!(!texts(&chunks, "doc_id").contains(&"tides".to_owned()));
    let output = place.run(&["search", "out", "spring tides", "--mode", "sparse"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("tides#"));
}

#[test]
fn the_same_text_under_another_id_is_taken_over() {
    let mut rows = documents();
    let place = Place::new(&rows);
    place.build_expecting(0, &[]);
    rows[1].0 = Some("loaf?1#2");
    rows.push((Some("again"), rows[1].1, rows[1].2));
    corpus(&place, &rows);
    place.build_expecting(0, &[]);
    assert!(counts(&place, 2).iter().all(|(computed, _)| *computed == 0));
    assert_as_from_nothing(&place, 2, &[]);
    // And from a generation where it stands twice, under an id that looks like a query's.
    rows.remove(0);
    corpus(&place, &rows);
    place.build_expecting(0, &[]);
    assert!(counts(&place, 3).iter().all(|(computed, _)| *computed == 0));
    assert_as_from_nothing(&place, 3, &[]);
}

#[test]
fn a_changed_parameter_recomputes_its_stage_and_what_depends_on_it() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let changed = |set: &str, generation: u64| -> Vec<bool> {
        place.build_expecting(0, &["--set", set]);
        assert_as_from_nothing(&place, generation, &["--set", set]);
        let counts = counts(&place, generation);
        counts.iter().map(|(computed, _)| *computed > 0).collect()
    };
    assert_eq!(changed("expand.keep=0.5", 2), [false; 6]);
    assert_eq!(changed("sparse.text_weight=2.0", 3), [false; 6]);
    let queries = changed("expand.queries=2", 4);
    assert_eq!(queries[..5], [false, false, false, true, false]);
    let chunks = changed("chunk.max_sentences=2", 5);
    assert_eq!(chunks[..2], [false, true]);
    assert!(changed("output.vectors=f16", 6)[4..].iter().all(|c| *c));
}

#[test]
fn a_model_is_known_by_its_content() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    fs::rename(place.path("bert"), place.path("other-name")).unwrap();
    let renamed = ["--set", "models.embedder.model=other-name"];
    let output = place.build(&renamed);
    assert!(String::from_utf8_lossy(&output.stdout).contains("up to date"));

    let weights = place.path("other-name/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    place.build_expecting(0, &renamed);
    let counts = counts(&place, 2);
    assert!(counts[4].1 == 0 && counts[5].1 == 0, "{counts:?}");
    assert_as_from_nothing(&place, 2, &renamed);
}

fn plan_json(place: &Place, more: &[&str]) -> Value {
    let output = place.run(&[&["plan", "job.toml", "--format", "json"], more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// compute, reuse, reason of the documents and the map stages.
fn plan(place: &Place, more: &[&str]) -> Vec<(String, u64, u64, String)> {
    let plan = plan_json(place, more);
    let stages = plan["stages"].as_array().unwrap();
    let row = |s: &Value| {
        let text = |key: &str| s[key].as_str().unwrap().to_owned();
        let number = |key: &str| s[key].as_u64().unwrap();
        (
            text("stage"),
            number("compute"),
            number("reuse"),
            text("reason"),
        )
    };
    stages.iter().take(1 + STAGES.len()).map(row).collect()
}

#[test]
fn a_plan_knows_what_is_done_and_what_the_indexes_take() {
    let place = Place::new(&documents());
    let computed = |plan: &Value| -> Vec<(String, u64)> {
        let stages = plan["stages"].as_array().unwrap().iter();
        let pair = |s: &Value| {
            (
                s["stage"].as_str().unwrap().into(),
                s["compute"].as_u64().unwrap(),
            )
        };
        stages.map(pair).collect()
    };
    let first = plan_json(&place, &[]);
    assert!(first["unfinished"].is_null());
    let names: Vec<String> = computed(&first).into_iter().map(|s| s.0).collect();
    assert_eq!(
        names[7..],
        [
            "index-dense-text",
            "index-sparse",
            "index-dense-queries",
            "verify"
        ]
    );
    assert!(computed(&first).iter().all(|s| s.1 > 0), "{first}");

    place.build_expecting(0, &["--stage", "chunks"]);
    let rest = plan_json(&place, &[]);
    assert_eq!(rest["stages"][1]["reason"], "done by the unfinished build");
    assert_eq!(rest["unfinished"], "this_plan");
    let done: Vec<bool> = computed(&rest).iter().map(|s| s.1 == 0).collect();
    assert_eq!(done[..4], [true, true, true, false], "{rest}");
    let other = plan_json(&place, &["--set", "expand.keep=0.5"]);
    assert_eq!(other["unfinished"], "another_plan");

    place.build_expecting(0, &[]);
    let run = run_json(&place, 1);
    assert_eq!(run["resumed"], true);
    let after = plan_json(&place, &[]);
    assert!(
        after["up_to_date"] == true && computed(&after).iter().all(|s| s.1 == 0),
        "{after}"
    );
}

#[test]
fn a_plan_is_scaled_to_other_corpora_clusters_and_rates() {
    let place = Place::new(&documents());
    let scale = ["--documents", "1000,2000", "--executors", "1,4"];
    let refusal = |more: &[&str]| {
        let output = place.run(&[&["plan", "job.toml"], more].concat());
        assert_ne!(output.status.code(), Some(0));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = refusal(&scale);
    assert!(
        unknown.contains("--rate documents=ROWS_PER_SECOND"),
        "{unknown}"
    );
    let other = refusal(&["--rate", "embedding=5"]);
    assert!(
        other.contains("no stage of this job") && other.contains("vectors-text"),
        "{other}"
    );
    assert!(refusal(&["--rate", "queries=-1"]).contains("no number of rows a second"));

    place.build_expecting(0, &[]);
    let scaled = |rate: &str| -> Vec<(f64, f64)> {
        let plan = plan_json(&place, &[&scale[..], &["--rate", rate]].concat());
        assert_eq!(plan["given_rates"].as_object().unwrap().len(), 1);
        let rows = plan["scaled"].as_array().unwrap().iter();
        let pair = |row: &Value| {
            let number = |key: &str| row[key].as_f64().unwrap();
            (number("seconds"), number("alone_seconds"))
        };
        rows.map(pair).collect()
    };
    let slow = scaled("queries=0.001");
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * b;
    // 1,000 documents on 1 and 4 executors, then 2,000: only what is not done alone is divided.
    assert!(near(slow[0].0 - slow[0].1, 4.0 * (slow[1].0 - slow[1].1)));
    assert!(near(2.0 * slow[0].0, slow[2].0) && near(2.0 * slow[0].1, slow[3].1));
    let chunks = plan_json(&place, &["--set", "expand.queries=2"]);
    let chunks = chunks["stages"][4]["compute"].as_f64().unwrap() / documents().len() as f64;
    // A dense index of another kind is not as fast.
    let large = [
        "plan",
        "job.toml",
        "--format",
        "json",
        "--documents",
        "1000,100000000",
    ];
    let output = place.run(&large);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let warning = "index-dense-text is counted at the last run's rate, of Flat, but these sizes come to Flat and IVF";
    assert!(said.contains(warning), "{said}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        plan["scaled"][0]["dense_indexes"],
        serde_json::json!(["Flat", "Flat"])
    );
    let output = place.run(
        &[
            &large[..],
            &[
                "--rate",
                "index-dense-text=9",
                "--rate",
                "index-dense-queries=9",
            ],
        ]
        .concat(),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("index-dense-text is counted at one rate that was given"),
        "{said}"
    );
    let twice = refusal(&["--rate", "queries=1", "--rate", "queries=2"]);
    assert!(twice.contains("two rates for queries"), "{twice}");
    let faster = slow[0].0 - scaled("queries=1000")[0].0;
    assert!(near(faster, 1000.0 * chunks * (1000.0 - 0.001)), "{faster}");
}

#[test]
fn files_that_a_killed_build_had_not_finished_are_not_published() {
    let place = Place::new(&documents());
    place.build_expecting(0, &["--stage", "queries"]);
    let building = place.path("out/generations/building");
    for name in ["manifest.json.tmp", "queries/part-00000.parquet.tmp"] {
        fs::write(building.join(name), "half").unwrap();
    }
    place.build_expecting(0, &[]);
    assert!(!place.generation(1).join("manifest.json.tmp").exists());
    assert!(
        !place
            .generation(1)
            .join("queries/part-00000.parquet.tmp")
            .exists()
    );
}

#[test]
fn starting_over_takes_nothing_from_a_given_up_build() {
    let place = Place::new(&documents());
    place.build_expecting(0, &["--stage", "queries"]);
    place.build_expecting(0, &["--stage", "chunks", "--set", "expand.keep=0.5"]);
    assert!(place.path("out/generations/abandoned").exists());
    place.build_expecting(0, &["--restart"]);
    assert!(counts(&place, 1).iter().all(|(_, reused)| *reused == 0));
    assert!(!place.path("out/generations/abandoned").exists());
    assert!(!place.path("out/spill").exists());
}

#[test]
fn mistaken_builds_in_between_lose_nothing() {
    let place = Place::new(&documents());
    place.build_expecting(0, &["--stage", "queries"]);
    for target in ["chunk.target_tokens=30", "chunk.target_tokens=40"] {
        place.build_expecting(0, &["--stage", "chunks", "--set", target]);
    }
    place.build_expecting(0, &[]);
    for (stage, (computed, reused)) in STAGES.iter().zip(counts(&place, 1)).take(3) {
        assert!(
            computed == 0 && reused > 0,
            "{stage}: {computed} rows computed, {reused} reused"
        );
    }
    assert!(!place.path("out/generations/abandoned-3").exists());
}

#[test]
fn an_index_with_a_missing_file_is_not_up_to_date() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    fs::remove_file(place.generation(1).join("dense/text.ids")).unwrap();
    assert_eq!(plan_json(&place, &[])["up_to_date"], false);
    let said = place.build_expecting(0, &[]);
    assert!(
        said.contains("text.ids is missing; the index is built again"),
        "{said}"
    );
    assert_eq!(place.current().as_deref(), Some("2"));
    assert!(counts(&place, 2).iter().all(|(computed, _)| *computed == 0));
}

#[test]
fn what_speaks_of_an_index_is_written_again() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    for (i, name) in ["run.json", "CHECKSUMS", "manifest.json"]
        .iter()
        .enumerate()
    {
        let generation = place.generation(i as u64 + 1);
        fs::remove_file(generation.join(name)).unwrap();
        assert_eq!(plan_json(&place, &[])["up_to_date"], false, "{name}");
        let said = place.build_expecting(0, &[]);
        assert!(said.contains(name), "{said}");
        assert_eq!(place.current(), Some((i + 2).to_string()), "{name}");
    }
    let checksums = place.generation(4).join("CHECKSUMS");
    let text = fs::read_to_string(&checksums).unwrap();
    fs::write(&checksums, &text[..text.len() / 2]).unwrap();
    let said = place.build_expecting(0, &[]);
    assert!(said.contains("does not agree"), "{said}");
    assert_eq!(plan_json(&place, &[])["up_to_date"], true);
}

#[test]
fn a_plan_refuses_what_a_build_refuses() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    for more in ["name=other", "output.path=job.toml"] {
        let refuse = |command: &str| {
            let output = place.run(&[command, "job.toml", "--set", more]);
            assert_eq!(output.status.code(), Some(2), "{command} {more}");
            String::from_utf8(output.stderr).unwrap()
        };
        let (plan, build) = (refuse("plan"), refuse("build"));
        assert!(plan.contains("output.path"), "{plan}");
        assert!(build.contains("output.path"), "{build}");
    }
}

#[test]
fn a_lower_limit_of_failures_holds_for_what_is_published() {
    let place = Place::new(&[documents(), vec![(Some("bad"), None, None)]].concat());
    place.build_expecting(1, &[]);
    let said = place.build_expecting(2, &["--set", "engine.max_failures=0"]);
    assert!(said.contains("quarantine"), "{said}");
    assert_eq!(place.current().as_deref(), Some("1"));
    place.build_expecting(1, &["--set", "engine.max_failures=1"]);
}

#[test]
fn a_plan_counts_the_tokens_that_the_embedder_reads() {
    let place = Place::new(&documents());
    let by_length = ["--set", "chunk.method=fixed"];
    let planned = plan_json(&place, &by_length);
    place.build_expecting(0, &by_length);
    let run = run_json(&place, 1);
    let stages = planned["stages"].as_array().unwrap();
    let vectors = stages
        .iter()
        .find(|s| s["stage"] == "vectors-text")
        .unwrap();
    assert_eq!(vectors["estimate"], Value::Null);
    assert_eq!(
        vectors["tokens_read"],
        run["stages"]["vectors-text"]["tokens"]
    );
}

#[test]
fn a_plan_says_what_a_build_will_compute_and_why() {
    let mut rows = documents();
    let place = Place::new(&rows);
    let first = plan(&place, &[]);
    assert!(
        first
            .iter()
            .skip(1)
            .all(|s| s.2 == 0 && s.3.contains("nothing is published"))
    );
    assert!(!place.path("out").exists(), "a plan changes nothing");
    place.build_expecting(0, &[]);
    let unchanged = plan(&place, &[]);
    assert!(
        unchanged.iter().skip(1).all(|s| s.1 == 0 && s.2 > 0),
        "{unchanged:?}"
    );
    let bytes: u64 = manifest(&place, 1)["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["bytes"].as_u64().unwrap())
        .sum();
    let planned = plan_json(&place, &[]);
    let basis = planned["disk_basis"].as_str().unwrap();
    assert!(
        basis.contains("largest stage") && basis.contains("merged"),
        "{basis}"
    );
    assert!(planned["disk_bytes"].as_u64().unwrap() > bytes);

    rows[1].2 = Some("Rye and water make another dough. Salt slows the yeast.");
    rows.push((Some("again"), rows[0].1, rows[0].2));
    corpus(&place, &rows);
    let planned = plan(&place, &[]);
    place.build_expecting(0, &[]);
    let built = counts(&place, 2);
    for (planned, built) in planned.iter().skip(1).zip(&built) {
        // A new document's question may happen to be one that is known.
        let exact = planned.0 != "vectors-queries";
        assert!(
            planned.2 == built.1 || !exact && planned.2 < built.1,
            "reused: {planned:?}, {built:?}"
        );
        assert!(
            planned.1 > 0 && planned.3.contains("new or have changed"),
            "{planned:?}"
        );
    }
    assert_eq!(planned[1].1, built[0].0);
    assert_eq!(planned[2].1, built[1].0);

    let other = plan(&place, &["--set", "chunk.max_sentences=2"]);
    assert_eq!((other[1].1, other[1].2), (0, 5), "{other:?}");
    assert!(
        other[2].2 == 0 && other[2].3.contains("parameters"),
        "{other:?}"
    );
    assert!(
        other[3].2 == 0 && other[3].3.contains("stage chunks"),
        "{other:?}"
    );
}

#[test]
fn from_a_stage_on_everything_is_computed_anew() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    place.build_expecting(0, &["--from", "queries"]);
    let counts = counts(&place, 2);
    let reused: Vec<bool> = counts.iter().map(|(_, reused)| *reused > 0).collect();
    assert_eq!(
        reused,
        [true, true, true, false, false, false],
        "{counts:?}"
    );
    let said = place.build_expecting(2, &["--from", "queries", "--set", "expand.enabled=false"]);
    assert!(said.contains("no stage queries"), "{said}");
}

#[test]
fn what_a_given_up_build_computed_is_taken_over() {
    let place = Place::new(&documents());
    place.build_expecting(0, &["--stage", "queries"]);
    place.build_expecting(0, &["--set", "expand.keep=0.5"]);
    let first = counts(&place, 1);
    assert!(
        first[..3].iter().all(|(computed, _)| *computed == 0),
        "{first:?}"
    );
    assert!(!place.path("out/generations/abandoned").exists());
    assert_as_from_nothing(&place, 1, &["--set", "expand.keep=0.5"]);
}

#[test]
fn damaged_rows_are_not_taken_over() {
    let mut rows = documents();
    let place = Place::new(&rows);
    place.build_expecting(0, &[]);
    for part in ["vectors/text", "outcomes/chunks"] {
        let path = place.generation(1).join(part).join("part-00000.parquet");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    rows.push(row("new", "New", "A new text. It has two sentences."));
    corpus(&place, &rows);
    // A plan that cannot use the first stage's outcomes says so; here those of the second are damaged.
    let planned = plan(&place, &[]);
    assert!(planned[1].2 > 0, "{planned:?}");
    assert!(
        planned[2].3.contains("damaged") && planned[2].2 == 0,
        "{planned:?}"
    );
    assert!(
        planned[5].3.contains("damaged") && planned[5].2 == 0,
        "{planned:?}"
    );
    let said = place.build_expecting(0, &[]);
    assert!(
        said.contains("its hash differs; nothing of the stage chunks"),
        "{said}"
    );
    let reused: Vec<bool> = counts(&place, 2)
        .iter()
        .map(|(_, reused)| *reused > 0)
        .collect();
    assert_eq!(reused, [true, false, true, true, false, true]);
    assert_as_from_nothing(&place, 2, &[]);
}

/// Has the embedder's tokenizer spell ligatures out, so that one character is several tokens.
fn spell_out_ligatures(place: &Place) {
    let path = place.path("bert/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let own = tokenizer["normalizer"].take();
    tokenizer["normalizer"] =
        serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, own]});
    fs::write(path, tokenizer.to_string()).unwrap();
}

#[test]
fn rows_that_failed_are_tried_again() {
    let mut rows = documents();
    rows.insert(1, row("ligature", "", "One sign says it all: \u{fdfa}"));
    let place = Place::new(&rows);
    spell_out_ligatures(&place);
    let strict = [
        ["--set", "chunk.method=fixed"],
        ["--set", "chunk.target_tokens=3"],
        ["--set", "chunk.max_tokens=3"],
        ["--set", "expand.enabled=false"],
    ]
    .concat();
    place.build_expecting(1, &strict);
    let quarantine = read(&place.generation(1), "quarantine");
    let column = |name: &str| texts(&quarantine, name);
    assert_eq!(
        (column("stage"), column("id")),
        (vec!["chunks".into()], vec!["ligature".into()])
    );
    assert!(
        column("reason")[0].contains("raise chunk.max_tokens"),
        "{quarantine:?}"
    );
    assert_eq!(column("input"), [rows[1].2.unwrap()]);
    let chunked = texts(&read(&place.generation(1), "chunks"), "doc_id");
    for (id, ..) in &rows {
        assert_eq!(
            chunked.contains(&id.unwrap().into()),
            *id != Some("ligature")
        );
    }
    assert_eq!(place.run(&["verify", "out"]).status.code(), Some(0));

    let planned = plan(&place, &strict);
    let failed = (
        "chunks".into(),
        1,
        4,
        "failed in the published index".into(),
    );
    assert_eq!(planned[2], failed);
    assert_eq!((planned[1].1, planned[1].2), (0, 5), "{planned:?}");
    place.build_expecting(1, &strict);
    let run = run_json(&place, 2);
    let chunks = &run["stages"]["chunks"];
    assert_eq!(
        (&chunks["computed"], &chunks["reused"]),
        (&1.into(), &4.into())
    );
    assert_eq!(run["quarantined"], 1);

    let lenient = [&strict[..], &["--set", "chunk.max_tokens=50"]].concat();
    place.build_expecting(0, &lenient);
    assert_eq!(run_json(&place, 3)["quarantined"], 0);
}

#[test]
fn an_interrupted_restart_of_an_index_that_is_up_to_date_goes_on() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    place.build_expecting(0, &["--restart", "--stage", "chunks"]);
    let found = place.path("out/generations/building/reuse");
    assert_eq!(
        fs::read_dir(found).unwrap().count(),
        0,
        "what was taken over is gone"
    );
    let planned = plan_json(&place, &[]);
    assert_eq!(
        (&planned["unfinished"], &planned["up_to_date"]),
        (&"this_plan".into(), &false.into())
    );
    place.build_expecting(0, &[]);
    assert_eq!(place.current().as_deref(), Some("2"));
    assert_eq!(run_json(&place, 2)["resumed"], true);
}

/// As a build leaves them that is killed between the generation's number and `CURRENT`.
#[test]
fn a_finished_generation_of_an_index_that_is_up_to_date_is_published() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    place.build_expecting(0, &["--restart"]);
    let plan = plan_json(&place, &[])["fingerprint"].clone();
    let header = serde_json::json!({"plan": plan, "stages": {}});
    fs::write(place.path("out/CURRENT"), "1\n").unwrap();
    fs::write(
        place.generation(2).join("journal.ndjson"),
        format!("{header}\n"),
    )
    .unwrap();
    assert_eq!(plan_json(&place, &[])["up_to_date"], false);
    place.build_expecting(0, &[]);
    assert_eq!(place.current().as_deref(), Some("2"));
    assert!(!place.path("out/generations/building").exists());
    assert!(plan_json(&place, &[])["unfinished"].is_null());
}

/// A sort would hold its text twice.
#[test]
fn a_document_that_does_not_fit_the_memory_for_sorting() {
    let line = "Water and energy change the system. The city uses time and people work.\n\n";
    let text = line.repeat((5 << 20) / line.len());
    let blank = format!("Water.{}Energy.", " ".repeat(5 << 20));
    let rows = [
        row("big", "Big", &text),
        row("blank", "Blank", &blank),
        row("small", "Small", line),
    ];
    let place = Place::new(&rows);
    let set = [
        (
            "corpus.path",
            place.path("corpus.parquet").display().to_string(),
        ),
        ("output.path", place.path("out").display().to_string()),
        (
            "models.embedder.model",
            place.path("bert").display().to_string(),
        ),
        (
            "models.generator.model",
            place.path("qwen2.gguf").display().to_string(),
        ),
        ("intents.max_document_chars", "1000".into()),
        ("chunk.method", "paragraph".into()),
        ("expand.enabled", "false".into()),
        ("dense.enabled", "false".into()),
    ];
    let set = set.map(|(key, value)| format!("{key}={value}"));
    let mut job = Job::load(&place.path("job.toml"), &set).unwrap();
    job.engine.memory_mib = 8;
    build::build(&job, &build::Options::default(), Arc::new(())).unwrap();
    assert_eq!(run_json(&place, 1)["stages"]["chunks"]["computed"], 3);

    // The chunk that would not fit a sort is cut again.
    let [big, blank, small] = rows;
    corpus(&place, &[small, row("new", "New", line), blank, big]);
    build::build(&job, &build::Options::default(), Arc::new(())).unwrap();
    let chunks = &run_json(&place, 2)["stages"]["chunks"];
    assert_eq!(
        (&chunks["computed"], &chunks["reused"]),
        (&2.into(), &2.into())
    );
}

/// 5,000 real documents, cut short, as the tiny models cost by the token.
fn abstracts() -> Option<Vec<[String; 3]>> {
    let path = std::path::PathBuf::from(std::env::var_os("INTENDEX_EVAL_DATA")?);
    let file = fs::File::open(path.join("scifact/corpus.parquet")).ok()?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    let all = arrow::compute::concat_batches(batches[0].schema_ref(), &batches).unwrap();
    let columns = ["doc_id", "title", "text"].map(|name| {
        let column = all.column_by_name(name).unwrap();
        let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
        column.as_string::<i32>().clone()
    });
    let row = |i: usize| {
        let [id, title, text] = [0, 1, 2].map(|c| columns[c].value(i).to_owned());
        [id, title, text.chars().take(200).collect()]
    };
    let wanted = std::env::var("INTENDEX_DOCUMENTS").map_or(5000, |n| n.parse().unwrap());
    Some((0..all.num_rows().min(wanted)).map(row).collect())
}

#[test]
#[ignore = "takes minutes; `make test-incremental` runs it"]
fn one_percent_changed_recomputes_at_most_two() {
    let Some(mut abstracts) = abstracts() else {
        return common::skipped("one percent: INTENDEX_EVAL_DATA has no scifact/corpus.parquet");
    };
    let place = Place::new(&[]);
    let write = |abstracts: &[[String; 3]]| {
        let rows: Vec<Row> = abstracts.iter().map(|r| row(&r[0], &r[1], &r[2])).collect();
        corpus(&place, &rows);
    };
    write(&abstracts);
    let small = ["--set", "expand.queries=1", "--set", "expand.max_tokens=8"];
    place.build_expecting(0, &small);
    for document in abstracts.iter_mut().step_by(100) {
        document[2].insert_str(0, "An added sentence. ");
    }
    write(&abstracts);
    place.build_expecting(0, &small);
    for (stage, (computed, reused)) in STAGES.iter().zip(counts(&place, 2)) {
        let share = computed as f64 / (computed + reused) as f64;
        println!(
            "{stage}: {computed} rows computed, {reused} reused: {:.2}%",
            100.0 * share
        );
        assert!(share <= 0.02, "{stage}");
    }
    assert_as_from_nothing(&place, 2, &small);
}

#[test]
fn topics_are_kept_until_the_corpus_is_another() {
    let mut rows = documents();
    let place = Place::new(&rows);
    place.write_job("[expand]\nqueries = 1\n");
    place.build_expecting(0, &[]);
    let topics = |generation: u64| {
        fs::read(
            place
                .generation(generation)
                .join("topics/part-00000.parquet"),
        )
        .unwrap()
    };
    let reproducible = |generation: u64, dataset: &str| {
        let manifest = manifest(&place, generation);
        manifest["datasets"][dataset]["determinism"]["reproducible"] == true
    };
    assert!(reproducible(1, "queries"));
    rows.push(row(
        "stars",
        "Stars",
        "Stars burn hydrogen. They are far away.",
    ));
    corpus(&place, &rows);
    place.build_expecting(0, &[]);
    assert_eq!(topics(1), topics(2));
    let run = run_json(&place, 2);
    let count = |stage: &str, what: &str| run["stages"][stage][what].as_u64().unwrap();
    assert!(count("topics", "reused") > 0 && count("topics", "computed") == 0);
    for stage in ["keywords", "queries"] {
        assert_eq!(
            (count(stage, "computed"), count(stage, "failed")),
            (1, 0),
            "{stage}"
        );
        assert!(count(stage, "reused") > 0, "{stage}");
    }
    // The manifest says that a build from nothing would have others.
    assert!(!reproducible(2, "queries") && reproducible(2, "chunks"));
    assert_eq!(place.run(&["verify", "out"]).status.code(), Some(0));

    // Asked for anew, when the corpus is far larger, or when it is as large and another.
    place.build_expecting(0, &["--from", "keywords"]);
    assert_ne!(topics(3), topics(1));
    let texts: Vec<String> = (0..60)
        .map(|i| format!("Star {i} burns. It is {i} light years away."))
        .collect();
    let ids: Vec<String> = (0..60).map(|i| format!("star-{i}")).collect();
    let more = ids
        .iter()
        .zip(&texts)
        .map(|(id, text)| (Some(id.as_str()), None, Some(text.as_str())));
    let all: Vec<Row> = rows.iter().copied().chain(more).collect();
    corpus(&place, &all);
    place.build_expecting(0, &[]);
    let computed = |generation: u64| {
        let run = run_json(&place, generation);
        run["stages"]["topics"]["computed"].as_u64().unwrap()
    };
    assert!(computed(4) > 0);
    let other: Vec<String> = texts
        .iter()
        .map(|text| text.replace("Star", "Loaf"))
        .collect();
    let others = ids.iter().zip(&other);
    let others: Vec<Row> = others
        .map(|(id, text)| (Some(id.as_str()), None, Some(text.as_str())))
        .collect();
    corpus(&place, &others);
    let keywords = plan(&place, &[])
        .into_iter()
        .find(|row| row.0 == "keywords");
    let (_, compute, reuse, _) = keywords.unwrap();
    assert!(compute > 0 && reuse == 0, "{compute} {reuse}");
    place.build_expecting(0, &[]);
    assert!(computed(5) > 0);
}

#[test]
fn scores_and_thresholds_change_without_generating_again() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    assert!(!place.generation(1).join("scores").exists());
    assert!(!place.generation(1).join("selection").exists());
    let settings = [
        "expand.scores=[\"gain\", \"relevance\", \"cross-encoder\"]",
        "expand.keep=0.5",
        "expand.filter=relevance",
        "expand.filter=combined",
        "expand.filter=cross-encoder",
        "expand.filter=cosine",
        "expand.filter=round-trip",
    ];
    // An embedder is refused before a query is written.
    let wrong = "models.cross_encoder.model=bert";
    let scores = "expand.scores=[\"cross-encoder\"]";
    let plan = place.run(&["plan", "job.toml", "--set", wrong, "--set", scores]);
    let said = String::from_utf8_lossy(&plan.stderr);
    assert!(said.contains("an embedder is no cross-encoder"), "{said}");
    tiny::embedder(&place.path("cross"), "");
    tiny::heads(&place.path("cross"));
    let mut set = vec!["--set", "models.cross_encoder.model=cross"];
    for (setting, generation) in settings.into_iter().zip(2..) {
        set.extend(["--set", setting]);
        place.build_expecting(0, &set);
        let run = run_json(&place, generation);
        let computed = |stage: &str| run["stages"][stage]["computed"].as_u64().unwrap();
        assert_eq!(computed("queries"), 0, "{setting}");
        assert_eq!(computed("scores") > 0, generation == 2, "{setting}");
        assert_eq!(
            place.run(&["verify", "out"]).status.code(),
            Some(0),
            "{setting}"
        );
        if generation > 2 {
            let all = read(&place.generation(generation), "queries").num_rows();
            let taken = manifest(&place, generation)["indexes"]["queries_indexed"]
                .as_u64()
                .unwrap();
            assert!(
                taken > 0 && (taken as usize) < all,
                "{setting}: {taken} of {all}"
            );
        }
    }
}
