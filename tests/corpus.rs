//! Reading a corpus: order, types, and every kind of bad row and bad file.

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, LargeStringArray,
    ListBuilder, NullArray, RecordBatch, StringArray, StringBuilder, StringViewArray,
};
use arrow::datatypes::Int32Type;
use common::write_bytes;
use futures::TryStreamExt;
use intendex::corpus::{self, CorpusError, CorpusScan, Rejected};
use intendex::job::spec::{Corpus, Engine};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn maybe(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn write(dir: &TempDir, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .build();
    let path = dir.path().join(name);
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn named(path: &Path) -> Corpus {
    let text = format!("path = {:?}", path.display().to_string());
    toml::from_str(&text).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn open(corpus: &Corpus) -> Result<CorpusScan, CorpusError> {
    let spill = tempfile::tempdir().unwrap();
    let ctx = corpus::session(&Engine::default(), spill.path()).unwrap();
    run(corpus::open(&ctx, corpus))
}

/// All documents in one batch, and all rejected rows.
fn read(corpus: &Corpus) -> (RecordBatch, Vec<Rejected>) {
    let scan = open(corpus).unwrap();
    let batches: Vec<_> = run(async { scan.stream().await?.try_collect().await }).unwrap();
    let documents: Vec<_> = batches.iter().map(|b| b.documents.clone()).collect();
    let all = arrow::compute::concat_batches(scan.schema(), &documents).unwrap();
    let rejected: Vec<_> = batches.into_iter().flat_map(|b| b.rejected).collect();
    assert_eq!(scan.rows() as usize, all.num_rows() + rejected.len());
    (all, rejected)
}

fn column(batch: &RecordBatch, name: &str) -> Vec<String> {
    let column = batch.column_by_name(name).unwrap();
    column
        .as_string::<i32>()
        .iter()
        .map(|v| v.unwrap_or("∅").to_string())
        .collect()
}

#[test]
fn files_in_path_order_and_rows_in_file_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    for name in ["a.parquet", "b/a.parquet", "c.parquet"] {
        let ids: Vec<String> = (0..3000).map(|i| format!("{name}-{}", 2999 - i)).collect();
        let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
        write(
            &dir,
            name,
            vec![("doc_id", strings(&refs)), ("text", strings(&refs))],
        );
        expected.extend(ids);
    }
    let (documents, rejected) = read(&named(dir.path()));
    assert!(rejected.is_empty());
    assert_eq!(column(&documents, "doc_id"), expected);
    assert_eq!(column(&documents, "text"), expected);
    assert!(column(&documents, "title").iter().all(|title| title == "∅"));
}

#[test]
fn every_string_type_and_integer_ids() {
    let values = vec!["é", "ß", "字"];
    let texts: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(values.clone())),
        Arc::new(LargeStringArray::from(values.clone())),
        Arc::new(StringViewArray::from(values.clone())),
        Arc::new(
            values
                .iter()
                .copied()
                .collect::<DictionaryArray<Int32Type>>(),
        ),
    ];
    for text in texts {
        let dir = tempfile::tempdir().unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![-1, 2, 3]));
        let path = write(&dir, "a.parquet", vec![("doc_id", ids), ("text", text)]);
        let (documents, _) = read(&named(&path));
        assert_eq!(column(&documents, "doc_id"), ["-1", "2", "3"]);
        assert_eq!(column(&documents, "text"), values);
    }
}

#[test]
fn titles_intents_and_passthrough() {
    let dir = tempfile::tempdir().unwrap();
    let mut questions = ListBuilder::new(StringBuilder::new());
    questions.append_value([Some("who?"), None, Some("why?")]);
    questions.append_null();
    let path = write(
        &dir,
        "a.parquet",
        vec![
            ("id", strings(&["a", "b"])),
            ("body", strings(&["A", "B"])),
            ("name", strings(&[" ", "Bee"])),
            ("asks", Arc::new(questions.finish())),
            ("year", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ],
    );
    let corpus = Corpus {
        id: "id".into(),
        text: "body".into(),
        title: Some("name".into()),
        intents: Some("asks".into()),
        passthrough: vec!["year".into(), "name".into(), "id".into()],
        ..named(&path)
    };
    let (documents, _) = read(&corpus);
    let names: Vec<_> = documents
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(
        names,
        ["doc_id", "title", "text", "intents", "year", "name", "id"]
    );
    assert_eq!(column(&documents, "title"), ["∅", "Bee"]);
    assert_eq!(column(&documents, "name"), [" ", "Bee"]);
    let years = documents.column(4).as_primitive::<Int32Type>();
    assert_eq!(years.iter().collect::<Vec<_>>(), [Some(1), None]);
    let asks = documents.column(3).as_list::<i32>();
    assert!(asks.is_null(1));
    let first: Vec<_> = asks
        .value(0)
        .as_string::<i32>()
        .iter()
        .map(|q| q.map(String::from))
        .collect();
    assert_eq!(first, [Some("who?".into()), None, Some("why?".into())]);
}

#[test]
fn a_filter_sees_the_original_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        &dir,
        "a.parquet",
        vec![
            ("doc_id", strings(&["a", "b", "c", "d"])),
            ("text", strings(&["A", "B", "C", "D"])),
            (
                "year",
                Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(3)])),
            ),
            ("Lang", strings(&["en", "en", "en", "de"])),
        ],
    );
    let filtered = |filter: &str| Corpus {
        filter: Some(filter.into()),
        ..named(&path)
    };
    let (documents, _) = read(&filtered("year >= 2 AND \"Lang\" LIKE 'e%'"));
    assert_eq!(column(&documents, "doc_id"), ["b"]);
    let (documents, _) = read(&filtered("upper(text) <> 'A' AND length(doc_id) = 1"));
    assert_eq!(column(&documents, "doc_id"), ["b", "c", "d"]);
    let error = open(&filtered("year > 99")).err().unwrap().to_string();
    assert!(
        error.contains("`corpus.filter` leaves no row of 4; the filter is year > 99"),
        "{error}"
    );
    for bad in ["yeer > 1", "year >", "year + 1", "year > 1; DROP TABLE x"] {
        let error = open(&filtered(bad)).err().unwrap();
        assert!(
            matches!(error, CorpusError::Filter { .. }),
            "{bad}: {error}"
        );
    }
    for (bad, why) in [
        (
            "yeer > 1",
            "there is no column `yeer`; did you mean `year`?",
        ),
        (
            "lang = 'en'",
            "there is no column `lang`; write \"Lang\", with the quotes",
        ),
        (
            "doc_id = \"xyz\"",
            "if it is a value, write 'xyz', with single quotes",
        ),
        ("year >", "it is not a SQL expression ("),
        (
            "year + 1",
            "it is Int64, but must be true or false for each row",
        ),
        ("year > 'many'", "many"),
        ("lenth(text) > 1", "lenth"),
    ] {
        let error = open(&filtered(bad)).err().unwrap();
        assert!(matches!(error, CorpusError::Filter { .. }), "{error}");
        let error = error.to_string();
        let whole = [
            "`corpus.filter` cannot be used: ",
            why,
            &format!("; the filter is `{bad}`; the columns are doc_id, text, year, Lang"),
        ];
        assert!(whole.iter().all(|part| error.contains(part)), "{error}");
        for internal in [
            "?table?",
            "__file",
            "Schema error",
            "ParserError",
            "Arrow error",
        ] {
            assert!(!error.contains(internal), "{internal} in {error}");
        }
    }
}

#[test]
fn a_title_column_of_nulls_is_no_title() {
    let dir = tempfile::tempdir().unwrap();
    let table = |name: &str, id: &str, title: ArrayRef| {
        let columns = vec![
            ("doc_id", strings(&[id])),
            ("title", title),
            ("text", strings(&["A"])),
        ];
        write(&dir, name, columns)
    };
    let nulls = || Arc::new(NullArray::new(1)) as ArrayRef;
    let titles = |path: &Path| {
        let corpus = Corpus {
            title: Some("title".into()),
            filter: Some("title IS NULL OR title <> 'x'".into()),
            ..named(path)
        };
        column(&read(&corpus).0, "title")
    };
    assert_eq!(titles(&table("b.parquet", "b", nulls())), ["∅"]);
    // Beside files that have titles, in either order.
    table("a.parquet", "a", strings(&["Ay"]));
    table("c.parquet", "c", strings(&["Cee"]));
    assert_eq!(titles(dir.path()), ["Ay", "∅", "Cee"]);
    std::fs::remove_file(dir.path().join("a.parquet")).unwrap();
    assert_eq!(titles(dir.path()), ["∅", "Cee"]);
}

#[test]
fn bad_rows_are_rejected_with_file_row_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        &dir,
        "a.parquet",
        vec![
            (
                "doc_id",
                maybe(&[
                    Some("a"),
                    None,
                    Some(""),
                    Some("d"),
                    Some("e"),
                    Some("f"),
                    Some("a"),
                    Some("g"),
                ]),
            ),
            (
                "text",
                maybe(&[
                    Some("A"),
                    Some("B"),
                    Some("C"),
                    None,
                    Some(" \n"),
                    Some("too long"),
                    Some("A2"),
                    Some("G"),
                ]),
            ),
        ],
    );
    let corpus = Corpus {
        max_document_bytes: 7,
        ..named(&path)
    };
    let (documents, rejected) = read(&corpus);
    assert_eq!(column(&documents, "doc_id"), ["a", "g"]);
    assert_eq!(column(&documents, "text"), ["A", "G"]);
    let place = |row: u64| format!("{}, row {row}", path.display());
    let expected = [
        (2, place(2), "`doc_id` is null or empty"),
        (3, place(3), "`doc_id` is null or empty"),
        (4, "d".into(), "`text` is null"),
        (5, "e".into(), "`text` has no text"),
        (6, "f".into(), "raise `corpus.max_document_bytes` (7)"),
        (7, "a".into(), "occurs before"),
    ];
    assert_eq!(rejected.len(), expected.len());
    for (found, (row, id, reason)) in rejected.iter().zip(expected) {
        assert_eq!(found.id, id);
        assert!(
            found.reason.starts_with(&format!("{}: ", place(row))),
            "{}",
            found.reason
        );
        assert!(
            found.reason.contains(reason),
            "{} lacks {reason}",
            found.reason
        );
    }
    assert_eq!(rejected[4].input, "too long");
}

#[test]
fn duplicates_across_files_keep_the_first_usable() {
    let dir = tempfile::tempdir().unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 2]));
    write(
        &dir,
        "a.parquet",
        vec![
            ("doc_id", ids.clone()),
            ("text", maybe(&[Some("a1"), None, Some("a2")])),
        ],
    );
    write(
        &dir,
        "b.parquet",
        vec![
            ("doc_id", ids),
            ("text", maybe(&[Some("b1"), Some("b2"), Some("b3")])),
        ],
    );
    let (documents, rejected) = read(&named(dir.path()));
    assert_eq!(column(&documents, "text"), ["a1", "a2"]);
    assert_eq!(rejected.len(), 4);
}

#[test]
fn a_string_that_is_not_utf8_costs_its_row_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_bytes(
        &path,
        &[
            ("a", b"good"),
            ("b", b"bad \xff\xfe"),
            ("c", "gut é".as_bytes()),
        ],
    );
    let (documents, rejected) = read(&named(&path));
    assert_eq!(column(&documents, "text"), ["good", "gut é"]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].id, "b");
    assert!(
        rejected[0].reason.contains("row 2: `text` is not UTF-8"),
        "{}",
        rejected[0].reason
    );
    let filtered = Corpus {
        filter: Some("text LIKE '%a%'".into()),
        ..named(&path)
    };
    let (documents, rejected) = read(&filtered);
    assert_eq!((documents.num_rows(), rejected.len()), (0, 1));
}

#[test]
fn long_documents_come_in_short_batches() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(20 << 20);
    let texts: Vec<&str> = vec![&long; 10];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let path = write(
        &dir,
        "a.parquet",
        vec![("doc_id", ids), ("text", strings(&texts))],
    );
    let scan = open(&named(&path)).unwrap();
    let batches: Vec<_> = run(async { scan.stream().await?.try_collect().await }).unwrap();
    let batches: Vec<corpus::CorpusBatch> = batches;
    assert!(batches.iter().all(|b| b.documents.num_rows() <= 3));
    let rows: Vec<u64> = batches
        .iter()
        .flat_map(|b| b.positions.iter().map(|p| p.row))
        .collect();
    assert_eq!(rows, (1..=10).collect::<Vec<_>>());
}

#[test]
fn missing_and_mistyped_columns() {
    let dir = tempfile::tempdir().unwrap();
    let columns = vec![
        ("doc_id", strings(&["a"])),
        ("texts", strings(&["A"])),
        ("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ];
    let path = write(&dir, "a.parquet", columns);
    let error = open(&named(&path)).err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "{}: has no column `text`, named by `corpus.text`; did you mean `texts`? it has: doc_id, texts, n",
            path.display()
        )
    );
    let corpus = Corpus {
        text: "n".into(),
        ..named(&path)
    };
    let error = open(&corpus).err().unwrap().to_string();
    assert!(
        error.contains("column `n`, named by `corpus.text`, is Int64, but must be a string"),
        "{error}"
    );
    let corpus = Corpus {
        text: "texts".into(),
        intents: Some("texts".into()),
        ..named(&path)
    };
    let error = open(&corpus).err().unwrap().to_string();
    assert!(error.contains("must be a list of strings"), "{error}");
}

#[test]
fn files_of_other_columns_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir,
        "a.parquet",
        vec![("doc_id", strings(&["a"])), ("text", strings(&["A"]))],
    );
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let other = write(
        &dir,
        "b.parquet",
        vec![("doc_id", ids), ("text", strings(&["A"]))],
    );
    let error = open(&named(dir.path())).err().unwrap().to_string();
    assert!(error.starts_with(&other.display().to_string()), "{error}");
    assert!(error.contains("`doc_id` is Int64, not Utf8"), "{error}");
}

#[test]
fn truncated_and_foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        &dir,
        "a.parquet",
        vec![("doc_id", strings(&["a"])), ("text", strings(&["A"]))],
    );
    let whole = std::fs::read(&path).unwrap();
    let bad = dir.path().join("b.parquet");
    for bytes in [
        &whole[..whole.len() / 2],
        &whole[..3],
        &[][..],
        b"id,text\n1,hello world, this is csv\n",
    ] {
        std::fs::write(&bad, bytes).unwrap();
        let error = open(&named(dir.path())).err().unwrap();
        assert!(
            matches!(&error, CorpusError::NotParquet { path, .. } if *path == bad),
            "{error}"
        );
    }
}

#[test]
fn damage_inside_a_file_is_named_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<String> = (0..50).map(|i| format!("document {i}")).collect();
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    let good = write(
        &dir,
        "good.parquet",
        vec![("doc_id", strings(&refs)), ("text", strings(&refs))],
    );
    let whole = std::fs::read(&good).unwrap();
    let path = dir.path().join("bad.parquet");
    let mut damaged = 0;
    for at in (4..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        let result = open(&named(&path))
            .and_then(|scan| run(async { scan.stream().await?.try_collect::<Vec<_>>().await }));
        if let Err(error) = result {
            assert!(
                error.to_string().contains("bad.parquet"),
                "byte {at}: {error}"
            );
            damaged += 1;
        }
    }
    assert!(damaged > whole.len() / 30);
}

#[test]
fn an_empty_corpus_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(&named(dir.path())).err(),
        Some(CorpusError::NoFiles { .. })
    ));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(
        open(&named(&nowhere)).err(),
        Some(CorpusError::Missing { .. })
    ));
    write(
        &dir,
        "a.parquet",
        vec![("doc_id", strings(&[])), ("text", strings(&[]))],
    );
    assert!(matches!(
        open(&named(dir.path())).err(),
        Some(CorpusError::NoRows { .. })
    ));
}

#[test]
fn many_duplicates_are_found_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<i64> = (0..400_000).chain(0..1000).collect();
    let texts: Vec<&str> = vec!["x"; ids.len()];
    let path = dir.path().join("a.parquet");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("doc_id", Arc::new(Int64Array::from(ids))),
        ("text", strings(&texts)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let spill = tempfile::tempdir().unwrap();
    let engine = Engine {
        memory_mib: 8,
        ..Engine::default()
    };
    let ctx = corpus::session(&engine, spill.path()).unwrap();
    let rejected: u64 = run(async {
        let scan = corpus::open(&ctx, &named(&path)).await?;
        let batches = scan.stream().await?;
        batches
            .try_fold(0, |n, b| async move { Ok(n + b.rejected.len() as u64) })
            .await
    })
    .unwrap();
    assert_eq!(rejected, 1000);
}

#[test]
fn the_fingerprint_follows_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let columns = || vec![("doc_id", strings(&["a"])), ("text", strings(&["A"]))];
    write(&dir, "a.parquet", columns());
    let first = open(&named(dir.path())).unwrap().fingerprint();
    assert_eq!(open(&named(dir.path())).unwrap().fingerprint(), first);
    write(&dir, "b.parquet", columns());
    assert_ne!(open(&named(dir.path())).unwrap().fingerprint(), first);
}

#[test]
fn integer_type_is_kept_for_filters() {
    let dir = tempfile::tempdir().unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![9, 10, 11]));
    let path = write(
        &dir,
        "a.parquet",
        vec![("doc_id", ids), ("text", strings(&["a", "b", "c"]))],
    );
    let corpus = Corpus {
        filter: Some("doc_id > 9".into()),
        ..named(&path)
    };
    let (documents, _) = read(&corpus);
    assert_eq!(column(&documents, "doc_id"), ["10", "11"]);
}
