//! The program from outside: exit codes, where output goes, what errors look like.

use std::{fs, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use assert_cmd::Command;
use parquet::arrow::ArrowWriter;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};

fn intendex() -> Command {
    Command::cargo_bin("intendex").unwrap()
}

#[test]
fn usage_errors_exit_with_2() {
    intendex()
        .arg("nonsense")
        .assert()
        .code(2)
        .stdout(is_empty());
    intendex()
        .args(["import", "x"])
        .assert()
        .code(2)
        .stderr(contains("--out"));
    intendex().args(["search", "out"]).assert().code(2);
    intendex()
        .args(["search", "out", "q", "--alpha", "2"])
        .assert()
        .code(2)
        .stderr(contains("from 0 to 1"));
    for (command, remedy) in [
        (&["search", "out", "q", "-k", "0"][..], "at least 1"),
        (&["search", "out", " \t"], "nothing in it to search for"),
        (&["gc", "out", "--keep", "0"], "at least 1"),
        (&["import", "x", "--out", "y", "--limit", "0"], "at least 1"),
        (&["schema", "nope", "--out", "schemas"], "no schema `nope`"),
        (&["schema", "all"], "--out"),
    ] {
        let mut program = intendex();
        let run = program.args(command).assert().code(2).stdout(is_empty());
        run.stderr(contains(remedy));
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.md"), "text").unwrap();
    let import = |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = intendex();
        command
            .current_dir(&dir)
            .args(["import", ".", "--out", "c.parquet"])
            .args(flags)
            .envs(variables.iter().copied());
        command.assert().code(0)
    };
    let empty = [
        ("INTENDEX_QUIET", ""),
        ("INTENDEX_VERBOSE", ""),
        ("INTENDEX_LOG_FORMAT", ""),
        ("INTENDEX_IMPORT_LIMIT", ""),
        ("INTENDEX_IMPORT_GLOB", ""),
    ];
    import(&empty, &[]).stderr(contains("1 documents"));
    // What is off excludes nothing.
    import(&[("INTENDEX_QUIET", "0")], &["-v"]).stderr(contains("1 documents"));
    import(&[("INTENDEX_QUIET", "true")], &[]).stderr(is_empty());
    intendex()
        .args(["import", "x"])
        .env("INTENDEX_IMPORT_OUT", "")
        .assert()
        .code(2)
        .stderr(contains("--out"));
}

#[test]
fn refused_arguments_are_json_too() {
    let refusal = |command: &mut Command| {
        let stderr = command
            .assert()
            .code(2)
            .stdout(is_empty())
            .get_output()
            .stderr
            .clone();
        let line: serde_json::Value = serde_json::from_slice(&stderr).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert!(line["timestamp"].is_string());
        line["message"].as_str().unwrap().to_owned()
    };
    let json = ["--log-format", "json"];
    let unknown = refusal(intendex().arg("serach").args(json));
    assert!(
        unknown.starts_with("unrecognized subcommand 'serach'"),
        "{unknown}"
    );
    assert!(!unknown.contains("Usage"), "{unknown}");
    let missing = refusal(intendex().args(["import", "x", "--log-format=json"]));
    assert!(missing.contains("--out <FILE>"), "{missing}");
    let mut command = intendex();
    command.env("INTENDEX_LOG_FORMAT", "json");
    let wrong = refusal(command.args(["search", "out", "q", "--alpha", "2"]));
    assert!(wrong.ends_with("must be from 0 to 1"), "{wrong}");
    let none = refusal(intendex().args(json));
    assert!(none.contains("a command is missing"), "{none}");
    // Help is a result, not an error.
    let help = intendex().args(json).arg("--help").assert().code(0);
    help.stdout(contains("Usage:")).stderr(is_empty());
}

#[test]
fn a_bad_job_file_exits_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job.toml");
    for command in [&["plan"][..], &["build"], &["models", "check"]] {
        intendex()
            .args(command)
            .arg(&job)
            .assert()
            .code(78)
            .stderr(contains("cannot read job file"));
    }
    fs::write(&job, "version = 1\n[corpus]\npth = \"x\"\n").unwrap();
    for command in [&["plan"][..], &["build"], &["models", "check"]] {
        let refusal = starts_with("error: ").and(contains(
            "`corpus.pth` is not a known key; did you mean `path`?",
        ));
        intendex()
            .args(command)
            .arg(&job)
            .assert()
            .code(78)
            .stdout(is_empty())
            .stderr(refusal);
    }
    fs::write(&job, "version = 9\n").unwrap();
    intendex()
        .arg("plan")
        .arg(&job)
        .assert()
        .code(78)
        .stderr(contains("reads version 1"));
    intendex()
        .arg("plan")
        .arg(&job)
        .env("INTENDEX_PLAN_SET", "a.b=1")
        .assert()
        .code(78);
}

#[test]
fn set_reaches_the_job_from_flag_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job.toml");
    fs::write(&job, "version = 1\n").unwrap();
    let nope = "`engine.sead` is not a known key";
    intendex()
        .arg("build")
        .arg(&job)
        .args(["--set", "engine.sead=1"])
        .assert()
        .code(78)
        .stderr(contains(nope));
    let two = "engine.sead=1\nengine.memory_mib=x";
    let both = contains(nope).and(contains("`engine.memory_mib` must be an integer"));
    intendex()
        .arg("build")
        .arg(&job)
        .env("INTENDEX_BUILD_SET", two)
        .assert()
        .code(78)
        .stderr(both);
}

#[test]
fn json_logs_are_json_on_every_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.md"), "text").unwrap();
    fs::write(dir.path().join("b.md"), "").unwrap();
    let mut command = intendex();
    command
        .current_dir(&dir)
        .args(["--log-format", "json", "import", ".", "--out", "c.parquet"]);
    let output = command
        .assert()
        .code(1)
        .stdout(is_empty())
        .get_output()
        .stderr
        .clone();
    let lines: Vec<serde_json::Value> = String::from_utf8(output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["level"], "WARN");
    assert!(
        lines[0]["message"]
            .as_str()
            .unwrap()
            .contains("b.md: skipped")
    );
    assert_eq!(lines[1]["level"], "INFO");

    let mut command = intendex();
    command
        .env("INTENDEX_LOG_FORMAT", "json")
        .args(["plan", "nowhere.toml"]);
    let output = command.assert().code(78).get_output().stderr.clone();
    let error: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(error["level"], "ERROR");
    assert!(error["timestamp"].is_string(), "{error}");
    assert_eq!(error["causes"].as_array().unwrap().len(), 1);
}

#[test]
fn quiet_leaves_errors_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.md"), "text").unwrap();
    let import = |args: &[&str]| {
        let mut command = intendex();
        command
            .current_dir(&dir)
            .args(["import", ".", "--out", "c.parquet"])
            .args(args);
        command
    };
    import(&["-q"]).assert().code(0).stderr(is_empty());
    import(&[])
        .env("INTENDEX_QUIET", "1")
        .assert()
        .code(0)
        .stderr(is_empty());
    import(&[]).assert().code(0).stderr(contains("1 documents"));
    import(&["-q", "-v"]).assert().code(2);
}

#[test]
fn schema_completions_and_manual_come_on_stdout() {
    let schema = intendex()
        .args(["schema", "job"])
        .assert()
        .code(0)
        .get_output()
        .stdout
        .clone();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert_eq!(schema["properties"]["version"]["type"], "integer");
    intendex()
        .args(["completions", "bash"])
        .assert()
        .code(0)
        .stdout(contains("_intendex"));
    intendex()
        .arg("man")
        .assert()
        .code(0)
        .stdout(contains(".TH intendex 1"));
    let dir = tempfile::tempdir().unwrap();
    intendex()
        .arg("man")
        .arg("--out")
        .arg(dir.path().join("man"))
        .assert()
        .code(0)
        .stdout(is_empty());
    for page in ["intendex.1", "intendex-build.1", "intendex-eval-run.1"] {
        assert!(dir.path().join("man").join(page).is_file(), "{page}");
    }
}

#[test]
fn an_error_of_the_system_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("no-run.txt");
    let qrels = dir.path().join("qrels.parquet");
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let relevance: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let columns = [
        ("query_id", ids.clone()),
        ("doc_id", ids),
        ("relevance", relevance),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(&qrels).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut command = intendex();
    command
        .args(["eval", "run"])
        .arg(&run)
        .arg("--qrels")
        .arg(&qrels);
    let stderr = command.assert().code(2).get_output().stderr.clone();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(said.matches("os error 2").count(), 1, "{said}");
    assert!(said.contains("no-run.txt"), "{said}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let program = assert_cmd::cargo::cargo_bin("intendex");
    let script = format!(
        "set -o pipefail; '{}' completions zsh | head -c 1",
        program.display()
    );
    Command::new("bash")
        .args(["-c", &script])
        .assert()
        .code(0)
        .stderr(is_empty());
}
