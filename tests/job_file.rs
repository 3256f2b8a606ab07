//! The job file: what is accepted, and what is said of what is not.

use std::path::Path;

use intendex::job::{Job, JobError};

const MINIMAL: &str = r#"
version = 1
[corpus]
path = "corpus.parquet"
[output]
path = "out"
[models.embedder]
model = "."
[intents]
enabled = false
[expand]
enabled = false
[chunk]
method = "fixed"
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Job, JobError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let lookup = |name: &str| match name {
        "SECRET" => Some("hunter2".to_string()),
        "FOLDER" => Some("elsewhere".to_string()),
        _ => None,
    };
    Job::parse(Path::new("job.toml"), text, &overrides, &lookup)
}

/// The message for `text` and `overrides`, which must be refused.
fn refusal(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).unwrap_err().to_string()
}

#[test]
fn a_minimal_job_takes_the_defaults() {
    let job = parse(MINIMAL, &[]).unwrap();
    assert_eq!(job.corpus.id, "doc_id");
    assert_eq!(job.models.device, "auto");
    assert_eq!(job.engine.shard_documents, None);
    assert_eq!(job.sparse.title_weight, 1.0);
}

#[test]
fn other_versions_are_refused_before_anything_else() {
    let text = "version = 2\n[nonsense]\n";
    assert_eq!(
        refusal(text, &[]),
        "job.toml: `version` is 2, but this program reads version 1"
    );
    assert!(refusal("[corpus]\n", &[]).contains("`version` is missing"));
    assert_eq!(
        refusal(MINIMAL, &["version=2", "engine.sead=1"]),
        "job.toml: `version` is 2, but this program reads version 1"
    );
    assert!(refusal(text, &["version=1"]).contains("`version` is 2"));
}

#[test]
fn all_unknown_keys_are_named_with_their_nearest() {
    let text = MINIMAL.replace("[output]", "fliter = \"x\"\n[outputs]\na = 1\n[output]");
    let message = refusal(&text, &[]);
    assert!(
        message.contains("`corpus.fliter` is not a known key; did you mean `filter`?"),
        "{message}"
    );
    assert!(
        message.contains("`outputs` is not a known key; did you mean `output`?"),
        "{message}"
    );
}

#[test]
fn types_missing_keys_and_words_are_named_by_their_path() {
    let text = MINIMAL
        .replace("path = \"out\"", "vectors = \"f64\"")
        .replace(
            "method = \"fixed\"",
            "method = \"fixed\"\nlambda = \"x\"\ntarget_tokens = -1",
        );
    let message = refusal(&text, &["corpus.passthrough=[1]"]);
    for part in [
        "`output.path` is missing",
        "`output.vectors` must be one of f32, f16",
        "`chunk.lambda` must be a number, not a string",
        "`chunk.target_tokens` must not be negative",
        "`corpus.passthrough[0]` must be a string, not an integer",
    ] {
        assert!(message.contains(part), "{part} not in {message}");
    }
}

#[test]
fn syntax_errors_have_line_and_column() {
    let error = parse("version = 1\n[corpus\n", &[]).unwrap_err();
    assert!(matches!(error, JobError::Syntax { line: 2, .. }), "{error}");
    let error = parse("version = 1\n\na = = 2\n", &[]).unwrap_err();
    assert!(
        matches!(
            error,
            JobError::Syntax {
                line: 3,
                column: 5,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn the_environment_is_read_and_never_shown() {
    let text = MINIMAL.replace("\"out\"", "\"${FOLDER}/${GONE:-out}\"");
    assert_eq!(
        parse(&text, &[]).unwrap().output.path,
        Path::new("elsewhere/out")
    );
    let text = MINIMAL.replace("\"out\"", "\"${GONE}\"");
    let message = refusal(&text, &[]);
    assert!(
        message.contains("`output.path` needs the environment variable GONE"),
        "{message}"
    );
    for key in [
        "output.vectors",
        "models.device",
        "engine.seed",
        "models.embedder.model",
        "sparse.language",
    ] {
        let set = format!("{key}='${{SECRET}}/a/b'");
        let message = refusal(MINIMAL, &[&set]);
        assert!(
            message.contains(key) && !message.contains("hunter2"),
            "{message}"
        );
    }
}

#[test]
fn an_environment_value_cannot_become_syntax() {
    let lookup = |_: &str| Some("x\"\n[engine]\nseed = 7".to_string());
    let text = MINIMAL.replace("\"out\"", "\"${ANY}\"");
    let job = Job::parse(Path::new("job.toml"), &text, &[], &lookup).unwrap();
    assert_eq!(job.engine.seed, 42);
    assert_eq!(job.output.path, Path::new("x\"\n[engine]\nseed = 7"));
}

#[test]
fn overrides_are_typed_by_the_schema() {
    let job = parse(
        MINIMAL,
        &[
            "dense.enabled=false",
            "dense.factory = Flat",
            "corpus.id=12",
            "chunk.beta=0",
            "expand.keep=0.25",
            "corpus.passthrough=[\"a\", \"b\"]",
            "corpus.filter=year > 2000 AND lang = 'en'",
            "engine.seed=1",
            "engine.seed=2",
        ],
    )
    .unwrap();
    assert!(!job.dense.enabled);
    assert_eq!(job.dense.factory, "Flat");
    assert_eq!(job.corpus.id, "12");
    assert_eq!((job.chunk.beta, job.expand.keep), (0.0, 0.25));
    assert_eq!(job.corpus.passthrough, ["a", "b"]);
    assert_eq!(
        job.corpus.filter.as_deref(),
        Some("year > 2000 AND lang = 'en'")
    );
    assert_eq!(job.engine.seed, 2);
}

#[test]
fn overrides_of_no_key_are_refused() {
    let message = refusal(MINIMAL, &["chunk.lamda=1", "seed", "engine.seed.x=1"]);
    assert!(
        message.contains("`chunk.lamda` is not a known key; did you mean `lambda`?"),
        "{message}"
    );
    assert!(
        message.contains("`seed` given to --set is not an assignment"),
        "{message}"
    );
    assert!(
        message.contains("`engine.seed.x` is not a known key"),
        "{message}"
    );
}

#[test]
fn ranges_and_rules_between_keys() {
    let server = "models.generator={ model = \"m\", server = \"http://h/v1\", file = \"f\" }";
    for (set, part) in [
        ("expand.keep=1.5", "`expand.keep` must be from 0 to 1"),
        ("expand.keep=nan", "`expand.keep` must be from 0 to 1"),
        (
            "expand.list_tokens=0",
            "`expand.list_tokens` must be at least 1",
        ),
        (
            "sparse.text_weight=-1",
            "`sparse.text_weight` must be 0 or more",
        ),
        (
            "chunk={ method = \"sliding\", overlap_tokens = 160 }",
            "`chunk.overlap_tokens` must be at most half",
        ),
        (
            "chunk.max_sentences=0",
            "`chunk.max_sentences` must be at least 1",
        ),
        ("chunk.lambda=-0.1", "`chunk.lambda` must be 0 or more"),
        (
            "chunk.max_tokens=100",
            "`chunk.target_tokens` must not be above",
        ),
        (
            "chunk.method=intent",
            "`chunk.method` cuts by questions and there are none",
        ),
        (
            "engine.max_failures=1.5",
            "`engine.max_failures` must be a number of rows",
        ),
        (
            "engine.max_failures=-1",
            "`engine.max_failures` must be a number of rows",
        ),
        (
            "engine.max_failures=101%",
            "`engine.max_failures` must be a number of rows",
        ),
        ("engine.max_failures=true", "`engine.max_failures` must be"),
        ("corpus.path=", "`corpus.path` must not be empty"),
        (
            "corpus.passthrough=[\"text\"]",
            "has the name of a column of the chunks dataset",
        ),
        (
            "models.device=gpu",
            "`models.device` must be auto, cpu or cuda:N",
        ),
        (
            "models.embedder.model=owner/name",
            "pin it: set `models.embedder.revision`",
        ),
        (
            "models.embedder.model=./no/such",
            "`models.embedder.model` names no file",
        ),
        (
            "models.embedder={ model = \"o/n\", revision = \"main\" }",
            "40 hexadecimal digits",
        ),
        (
            "intents.enabled=true",
            "name a column of given questions in `corpus.intents`",
        ),
        (
            "expand.enabled=true",
            "add [models.generator], or set `expand.enabled = false`",
        ),
        (server, "`models.generator.file` names a local model"),
        (
            "models.generator={ model = \".\", api_key = \"k\" }",
            "`models.generator.api_key` is for a server",
        ),
    ] {
        let message = refusal(MINIMAL, &[set]);
        assert!(message.contains(part), "{set}: {part} not in {message}");
    }
    let given = [
        "corpus.intents=questions",
        "intents.enabled=true",
        "chunk.method=intent",
    ];
    parse(MINIMAL, &given).unwrap();
}

#[test]
fn failures_may_be_a_count_or_a_share() {
    let limit = |set: &str| {
        let job = parse(MINIMAL, &[&format!("engine.max_failures={set}")]).unwrap();
        let again = toml::to_string(&job).unwrap();
        assert_eq!(parse(&again, &[]).unwrap(), job);
        job.engine.max_failures.unwrap().limit(1000)
    };
    assert_eq!(
        ["7", "0", "2%", "\"0.5 %\"", "0.25", "0.0"].map(limit),
        [7, 0, 20, 5, 250, 0]
    );
}

#[test]
fn a_job_survives_being_written_and_read() {
    let job = parse(MINIMAL, &["corpus.filter=a > '${FOLDER}'"]).unwrap();
    let again = toml::to_string(&job).unwrap();
    assert_eq!(parse(&again, &[]).unwrap(), job);
}

#[test]
fn an_api_key_is_never_written() {
    let server =
        "models.generator={ model = \"m\", server = \"http://h/v1\", api_key = \"${SECRET}\" }";
    let job = parse(MINIMAL, &[server]).unwrap();
    let generator = job.models.generator.as_ref().unwrap();
    let key = generator.api_key.as_ref().map(|key| key.reveal());
    assert_eq!(key, Some("hunter2"));
    assert!(!serde_json::to_string(&job).unwrap().contains("hunter2"));
}
