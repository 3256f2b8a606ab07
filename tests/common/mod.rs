//! What the black-box tests share: corpora on disk, job files, the program, and models small enough to make here.

#![allow(dead_code)]

pub mod tiny;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder},
    datatypes::{DataType, Field, Schema},
};
use assert_cmd::Command;
use candle_core::quantized::GgmlDType;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::writer::SerializedFileWriter,
};
use rand::Rng;
use tempfile::TempDir;

/// A folder with a corpus, a job file and tiny models.
pub struct Place {
    folder: TempDir,
}

/// id, title, text; None is null.
pub type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

pub fn row<'a>(id: &'a str, title: &'a str, text: &'a str) -> Row<'a> {
    (Some(id), Some(title), Some(text))
}

pub fn documents() -> Vec<Row<'static>> {
    vec![
        row(
            "tides",
            "Tides",
            "Tides are caused by the Moon. The Sun helps a little. Spring tides come at full moon.\n\nNeap tides are weak. They come at half moon.",
        ),
        row(
            "bread",
            "Bread",
            "# Dough\n\nFlour and water make dough. Salt slows the yeast.\n\n# Baking\n\nBake the loaf for forty minutes. The crust turns brown.",
        ),
        row(
            "unicode",
            "Ünïcode",
            "Der Fluß heißt Spree. 東京は日本の首都です。人口は多い。 Émile naquit à Paris 🎉. C’était en 1840.",
        ),
        row(
            "code",
            "Code",
            "Run the tests first.\n\n```sh\ncargo test\ncargo build\n```\n\n- one item\n- another item\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        ),
    ]
}

impl Place {
    pub fn new(rows: &[Row]) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        write_corpus(&place.path("corpus.parquet"), rows);
        tiny::embedder(&place.path("bert"), "bert.");
        tiny::generator(&place.path("qwen2.gguf"), GgmlDType::Q4K);
        place.write_job("");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes job.toml: everything on, with `more` (whole tables) at the end.
    pub fn write_job(&self, more: &str) {
        // Off by default; what depends on them is tested too.
        let intents = match more.contains("[intents]") {
            true => "",
            false => "[intents]\nenabled = true\n",
        };
        // Topics are those of an earlier build, whose corpus was another; without them a build has the bytes of one from nothing.
        let topics = match more.contains("[expand]") {
            true => "",
            false => "[expand]\ntopics = 0\n",
        };
        let job = format!(
            "version = 1\nname = \"test\"\n[corpus]\npath = \"corpus.parquet\"\ntitle = \"title\"\n[output]\npath = \"out\"\n\
             [models]\noffline = true\ndevice = \"cpu\"\n[models.embedder]\nmodel = \"bert\"\n\
             [models.generator]\nmodel = \"qwen2.gguf\"\n{intents}{topics}{more}\n"
        );
        fs::write(self.path("job.toml"), job).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("intendex").unwrap();
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn build(&self, more: &[&str]) -> Output {
        self.run(&[&["build", "job.toml"], more].concat())
    }

    /// Builds, and panics with what the program said unless it ended with `code`.
    pub fn build_expecting(&self, code: i32, more: &[&str]) -> String {
        let output = self.build(more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    pub fn generation(&self, n: u64) -> PathBuf {
        self.path("out").join("generations").join(n.to_string())
    }

    pub fn current(&self) -> Option<String> {
        fs::read_to_string(self.path("out/CURRENT"))
            .ok()
            .map(|s| s.trim().to_owned())
    }
}

pub fn write_corpus(path: &Path, rows: &[Row]) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("doc_id", DataType::Utf8, true),
        Field::new("title", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2))),
    ];
    write_parquet(path, &RecordBatch::try_new(schema, columns).unwrap());
}

pub fn write_parquet(path: &Path, batch: &RecordBatch) {
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// A corpus whose documents bring three questions each in the column `questions`.
pub fn write_questions(path: &Path, rows: &[Row]) {
    let mut questions = ListBuilder::new(StringBuilder::new());
    for (_, title, _) in rows {
        for question in ["What is", "How does one use", "When is there"] {
            let subject = title.unwrap_or_default();
            questions
                .values()
                .append_value(format!("{question} {subject}?"));
        }
        questions.append(true);
    }
    let column = |get: fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(rows.iter().map(get)))
    };
    let columns = [
        ("doc_id", column(|row| row.0.map(str::to_owned))),
        ("title", column(|row| row.1.map(str::to_owned))),
        ("text", column(|row| row.2.map(str::to_owned))),
        ("questions", Arc::new(questions.finish()) as ArrayRef),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    write_parquet(path, &batch);
}

/// Queries for `search`, whose ids are their numbers.
pub fn write_queries(path: &Path, queries: &[impl AsRef<str>]) {
    let ids = (0..queries.len()).map(|i| i.to_string());
    let columns: [(&str, ArrayRef); 2] = [
        ("query_id", Arc::new(StringArray::from_iter_values(ids))),
        ("text", Arc::new(StringArray::from_iter_values(queries))),
    ];
    write_parquet(path, &RecordBatch::try_from_iter(columns).unwrap());
}

/// A few sentences of a few words.
pub fn random_text(random: &mut impl Rng) -> String {
    const WORDS: [&str; 24] = [
        "water", "system", "method", "result", "cell", "energy", "model", "city", "law", "cause",
        "effect", "work", "time", "year", "people", "change", "tide", "bread", "moon", "the", "of",
        "in", "is", "with",
    ];
    let mut text = String::new();
    for sentence in 0..random.random_range(1..4) {
        for word in 0..random.random_range(4..10) {
            text += if word > 0 { " " } else { "" };
            text += WORDS[random.random_range(0..WORDS.len())];
        }
        text += if sentence == 1 { ".\n\n" } else { ". " };
    }
    text
}

/// A file whose `text` is called a string and holds any bytes.
pub fn write_bytes(path: &Path, rows: &[(&str, &[u8])]) {
    let schema = "message schema { required binary doc_id (UTF8); required binary text (UTF8); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let ids: Vec<ByteArray> = rows.iter().map(|(id, _)| ByteArray::from(*id)).collect();
    let texts: Vec<ByteArray> = rows
        .iter()
        .map(|(_, text)| ByteArray::from(text.to_vec()))
        .collect();
    for values in [ids, texts] {
        let mut column = group.next_column().unwrap().unwrap();
        if let ColumnWriter::ByteArrayColumnWriter(writer) = column.untyped() {
            writer.write_batch(&values, None, None).unwrap();
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// All rows of a dataset, its parts in order.
pub fn read(generation: &Path, dataset: &str) -> RecordBatch {
    let mut parts: Vec<_> = fs::read_dir(generation.join(dataset))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    parts.retain(|p| p.extension().is_some_and(|e| e == "parquet"));
    parts.sort();
    let mut batches = Vec::new();
    for part in parts {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(fs::File::open(part).unwrap()).unwrap();
        // A part may have no rows; it has a schema all the same.
        batches.push(RecordBatch::new_empty(reader.schema().clone()));
        batches.extend(reader.build().unwrap().map(Result::unwrap));
    }
    arrow::compute::concat_batches(batches[0].schema_ref(), &batches).unwrap()
}

pub fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    use arrow::array::AsArray;
    let column = batch
        .column_by_name(column)
        .unwrap_or_else(|| panic!("no column {column}"));
    column
        .as_string::<i32>()
        .iter()
        .map(|t| t.unwrap_or("").to_owned())
        .collect()
}

/// Every Parquet file below a folder, by its path, with its bytes.
pub fn parquet_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.path().extension().is_some_and(|e| e == "parquet"))
        .map(|e| {
            (
                e.path().strip_prefix(folder).unwrap().to_owned(),
                fs::read(e.path()).unwrap(),
            )
        })
        .collect()
}

/// Says that a test did not run, past the harness's capture.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs tests/peers.py with the Python that INTENDEX_PEERS_PYTHON names; says so where there is none.
pub fn peers(arguments: &[&Path]) {
    let Some(python) = std::env::var_os("INTENDEX_PEERS_PYTHON") else {
        return skipped("peers: INTENDEX_PEERS_PYTHON is not set");
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers.py");
    let output = std::process::Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}{said}",
        String::from_utf8_lossy(&output.stdout)
    );
}
