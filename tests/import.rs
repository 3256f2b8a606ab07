//! `intendex import` on real files.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use assert_cmd::Command;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predicates::str::contains;
use tempfile::TempDir;

fn intendex() -> Command {
    let mut command = Command::cargo_bin("intendex").unwrap();
    command.arg("import");
    command
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// (doc_id, title, text, kind) of every row.
fn rows(path: &Path) -> Vec<(String, String, String, String)> {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.unwrap();
        let get = |name: &str, row: usize| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            column.iter().nth(row).flatten().unwrap_or("∅").to_string()
        };
        for row in 0..batch.num_rows() {
            rows.push((
                get("doc_id", row),
                get("title", row),
                get("text", row),
                get("kind", row),
            ));
        }
    }
    rows
}

fn row(id: &str, title: &str, text: &str, kind: &str) -> (String, String, String, String) {
    (id.into(), title.into(), text.into(), kind.into())
}

#[test]
fn every_kind_becomes_documents_in_path_order() {
    let dir = folder(&[
        ("in/b.md", b"---\ntitle: \"Bee\"\n---\n# Heading\n\nBody.\n"),
        ("in/a/one.markdown", b"Intro\n\n# Real *title*\n"),
        ("in/a/plain.txt", b"\xef\xbb\xbfFirst line\n\nRest.\n"),
        ("in/a/page.HTML", b"<html><head><title>Page</title></head><body><h1>H</h1><ul><li>x</li></ul></body></html>"),
        ("in/rows.jsonl", b"{\"_id\": 7, \"title\": \"Seven\", \"text\": \"t7\"}\n\n{\"TEXT\": \"t8\"}\n"),
        ("in/table.csv", b"ID,Body,Title\nx,\"multi\nline\",T\n,second,\n"),
        ("in/.hidden/x.md", b"# no\n"),
        ("in/code.rs", b"fn main() {}\n"),
    ]);
    let out = dir.path().join("out.parquet");
    let input = dir.path().join("in");
    intendex()
        .arg(&input)
        .arg("--out")
        .arg(&out)
        .assert()
        .code(0)
        .stdout("");
    assert_eq!(
        rows(&out),
        [
            row(
                "a/one.markdown",
                "Real title",
                "Intro\n\n# Real *title*\n",
                "markdown"
            ),
            row("a/page.HTML", "Page", "# H\n\n*   x", "html"),
            row("a/plain.txt", "First line", "First line\n\nRest.\n", "text"),
            row("b.md", "Bee", "# Heading\n\nBody.\n", "markdown"),
            row("7", "Seven", "t7", "jsonl"),
            row("rows.jsonl#3", "∅", "t8", "jsonl"),
            row("x", "T", "multi\nline", "csv"),
            row("table.csv#4", "∅", "second", "csv"),
        ]
    );
    let first = fs::read(&out).unwrap();
    intendex()
        .arg(&input)
        .arg("--out")
        .arg(&out)
        .assert()
        .code(0);
    assert!(
        first == fs::read(&out).unwrap(),
        "the same files gave other bytes"
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "something was left behind"
    );
}

#[test]
fn what_cannot_be_read_is_skipped_told_and_counted() {
    let dir = folder(&[
        ("in/a.md", b"good\n"),
        ("in/bad.txt", b"caf\xe9"),
        ("in/empty.md", b" \n"),
        ("in/r.jsonl", b"{\"id\": \"1\", \"text\": \"one\"}\nnot json\n{\"id\": \"1\", \"text\": \"again\"}\n{\"title\": \"no text\"}\n{\"text\": \"\xff\"}\n"),
        ("in/t.csv", b"name,value\na,b\n"),
        ("in/u.csv", b"text,n\nok,1\nshort\n\xff,2\n"),
    ]);
    let out = dir.path().join("out.parquet");
    let assert = intendex()
        .arg(dir.path().join("in"))
        .arg("--out")
        .arg(&out)
        .assert()
        .code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    for part in [
        "bad.txt: skipped, it is not UTF-8 (byte 3)",
        "empty.md: skipped, it has no text",
        "r.jsonl:2: skipped, it is no JSON object",
        "r.jsonl:3: skipped, its doc_id 1 occurs before",
        "r.jsonl:4: skipped, it has no text under text, body, content, contents; it has: title",
        "r.jsonl:5: skipped, it is not UTF-8",
        "t.csv: skipped, it has no text under",
        "u.csv:3: skipped",
        "u.csv:4: skipped, it is not UTF-8",
        "3 documents, 9 skipped",
    ] {
        assert!(stderr.contains(part), "{part} not in {stderr}");
    }
    let ids: Vec<_> = rows(&out).into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["a.md", "1", "u.csv#2"]);
}

#[test]
fn several_paths_keep_their_names_apart() {
    let dir = folder(&[
        ("x/docs/a.md", b"1"),
        ("y/docs/a.md", b"2"),
        ("y/notes/b.txt", b"3"),
    ]);
    let out = dir.path().join("out.parquet");
    let paths = [
        "x/docs",
        "y/docs",
        "y/notes",
        "y/../x/docs",
        "y/notes/b.txt",
    ];
    intendex()
        .current_dir(&dir)
        .args(paths)
        .arg("--out")
        .arg(&out)
        .assert()
        .code(0);
    let ids: Vec<_> = rows(&out).into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["x/docs/a.md", "y/docs/a.md", "notes/b.txt", "b.txt"]);
}

#[test]
fn glob_limit_and_keys() {
    let dir = folder(&[
        ("in/a/README.md", b"r1"),
        ("in/b/README.md", b"r2"),
        ("in/b/other.md", b"o"),
        (
            "in/q.jsonl",
            b"{\"key\": \"k\", \"text\": \"no\", \"question\": \"yes\", \"head\": \"h\"}\n",
        ),
    ]);
    let out = dir.path().join("out.parquet");
    let base = |args: &[&str]| {
        intendex()
            .arg(dir.path().join("in"))
            .arg("--out")
            .arg(&out)
            .args(args)
            .assert()
            .code(0);
        rows(&out)
    };
    assert_eq!(base(&["--glob", "**/README.md"]).len(), 2);
    assert_eq!(base(&["--glob", "**/README.md", "--limit", "1"]).len(), 1);
    let keys = [
        "--glob",
        "*.jsonl",
        "--id-key",
        "key",
        "--text-key",
        "question",
        "--title-key",
        "head",
    ];
    assert_eq!(base(&keys), [row("k", "h", "yes", "jsonl")]);
}

#[test]
fn nothing_found_writes_nothing() {
    let dir = folder(&[("in/x.rs", b"fn")]);
    let out = dir.path().join("out.parquet");
    let input = dir.path().join("in");
    intendex()
        .arg(&input)
        .arg("--out")
        .arg(&out)
        .assert()
        .code(2)
        .stderr(contains("error: no document found"));
    intendex()
        .arg("nowhere")
        .arg("--out")
        .arg(&out)
        .assert()
        .code(2)
        .stderr(contains("cannot read nowhere"));
    let lost = dir.path().join("no/such/folder/out.parquet");
    intendex()
        .arg(&input)
        .arg("--out")
        .arg(&lost)
        .assert()
        .code(2)
        .stderr(contains("cannot write"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn many_long_files_make_one_whole_corpus() {
    let files: Vec<(String, Vec<u8>)> = (0..1500)
        .map(|i| {
            (
                format!("in/{i:04}.txt"),
                format!("{i}\n").repeat(500).into_bytes(),
            )
        })
        .collect();
    let refs: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(n, b)| (n.as_str(), b.as_slice()))
        .collect();
    let dir = folder(&refs);
    let out = dir.path().join("out.parquet");
    intendex()
        .arg(dir.path().join("in"))
        .arg("--out")
        .arg(&out)
        .assert()
        .code(0);
    let rows = rows(&out);
    assert_eq!(rows.len(), 1500);
    assert!(
        rows.iter()
            .zip(&files)
            .all(|(row, (_, bytes))| row.2.as_bytes() == bytes)
    );
}

fn import(dir: &TempDir, code: i32, flags: &[&str]) -> String {
    let mut command = intendex();
    command
        .current_dir(dir)
        .args(["in", "--out", "out.parquet"]);
    let output = command.args(flags).assert().code(code).get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

fn ids(dir: &TempDir) -> Vec<String> {
    let rows = rows(&dir.path().join("out.parquet"));
    rows.into_iter().map(|row| row.0).collect()
}

#[test]
fn links_that_lead_nowhere_or_in_a_circle_are_skipped_and_told() {
    let dir = folder(&[("in/a.md", b"A"), ("in/sub/b.md", b"B")]);
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, dir.path().join("in").join(name)).unwrap();
    };
    link("gone.md", "c.md");
    link("..", "sub/above");
    link("itself", "itself");
    link("gone", ".#a.md");
    link("a.md", "good.md");
    let said = import(&dir, 1, &[]);
    for part in [
        "in/c.md: skipped, it is a link to gone.md, which cannot be read: No such file",
        "in/sub/above: skipped, it is a link to in, which it lies in",
        "in/itself: skipped, it is a link to itself, which cannot be read: ",
        "3 documents, 3 skipped",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    assert_eq!(ids(&dir), ["a.md", "good.md", "sub/b.md"]);
    // What was not asked for is not missed.
    import(&dir, 0, &["--glob", "sub/*.md"]);
    assert_eq!(ids(&dir), ["sub/b.md"]);
}

#[test]
fn integers_keep_their_digits_and_other_ids_are_no_ids() {
    let dir = folder(&[(
        "in/r.jsonl",
        br#"{"id": 9007199254740993, "text": "t"}
{"id": 18446744073709551615, "text": "t"}
{"id": -9223372036854775808, "text": "t", "title": 1984}
{"id": 18446744073709551616, "text": "t"}
{"id": 1.0, "text": "t"}
{"id": true, "text": "t"}
{"id": {"$oid": "x"}, "text": "t"}
{"id": null, "text": "t"}
{"text": "t"}
{"id": "", "text": "t"}
{"id": "a", "text": 5}
{"id": "b", "text": "t", "title": ["x"]}
{"id": "c\nd", "text": "t"}
"#,
    )]);
    let said = import(&dir, 1, &[]);
    for part in [
        "r.jsonl:4: skipped, its `id` is a number with a fraction, or of more than 64 bits",
        "r.jsonl:5: skipped, its `id` is a number with a fraction",
        "r.jsonl:6: skipped, its `id` is not a string or an integer but true or false",
        "r.jsonl:7: skipped, its `id` is not a string or an integer but an object",
        "r.jsonl:8: skipped, its `id` is null; fill it, or leave the key out",
        "r.jsonl:11: skipped, its `text` is not a string but a number",
        "r.jsonl:12: skipped, its `title` is not a string but an array",
        "r.jsonl:13: skipped, its doc_id c\\nd has a control character",
        "5 documents, 8 skipped",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    assert_eq!(
        ids(&dir),
        [
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
            "r.jsonl#9",
            "r.jsonl#10"
        ]
    );
    assert_eq!(rows(&dir.path().join("out.parquet"))[2].1, "1984");
}

#[test]
fn a_key_that_was_named_must_be_there() {
    let dir = folder(&[
        (
            "in/r.jsonl",
            b"{\"key\": 1, \"text\": \"t\"}\n{\"id\": 2, \"text\": \"t\"}\n",
        ),
        ("in/t.csv", b"key,text\n3,t\n"),
        ("in/u.csv", b"id,text\n4,t\n"),
    ]);
    let said = import(&dir, 1, &["--id-key", "key"]);
    for part in [
        "r.jsonl:2: skipped, it has no `key`, named by --id-key; it has: id, text",
        "u.csv: skipped, it has no `key`, named by --id-key; it has: id, text",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    assert_eq!(ids(&dir), ["1", "3"]);
    let said = import(&dir, 1, &["--title-key", "head"]);
    assert!(
        said.contains("t.csv: skipped, it has no `head`, named by --title-key; it has: key, text"),
        "{said}"
    );
}

#[test]
fn ids_with_white_space_are_told_of_once() {
    let dir = folder(&[("in/a b.md", b"A"), ("in/c.md", b"C"), ("in/d e.md", b"D")]);
    let said = import(&dir, 0, &[]);
    assert!(
        said.contains("2 ids have white space in them, the first of them `a b.md`"),
        "{said}"
    );
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    let said = import(&dir, 0, &["--glob", "c.md"]);
    assert!(!said.contains("white space"), "{said}");
}

#[test]
fn a_folder_as_out_is_refused_before_any_work() {
    let dir = folder(&[("in/a.md", b"A")]);
    fs::create_dir(dir.path().join("out.parquet")).unwrap();
    let said = import(&dir, 2, &[]);
    assert!(said.contains("cannot write out.parquet: "), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
