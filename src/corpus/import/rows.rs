//! Files with a document in each row: JSONL and CSV.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::find::{Found, Kind};
use super::{Document, MOST_BYTES, RowKeys};

const ID_KEYS: [&str; 3] = ["id", "doc_id", "_id"];
const TITLE_KEYS: [&str; 1] = ["title"];
const TEXT_KEYS: [&str; 4] = ["text", "body", "content", "contents"];

/// Takes a row, with its line unless the whole file is meant, or why it is no document.
type Sink<'a> = dyn FnMut(Option<u64>, Result<Document, String>) -> ControlFlow<()> + 'a;

/// Reads a JSON object a line; empty lines are passed over.
pub fn jsonl(file: &Found, keys: &RowKeys, sink: &mut Sink) -> ControlFlow<()> {
    let mut reader = match File::open(&file.path) {
        Ok(handle) => BufReader::new(handle),
        Err(error) => return sink(None, Err(format!("it cannot be read: {error}"))),
    };
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        match (&mut reader).take(MOST_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Ok(_) if bytes.trim_ascii().is_empty() => continue,
            Ok(_) => sink(Some(line), json_row(file, line, &bytes, keys))?,
            Err(error) => return sink(None, Err(format!("it cannot be read: {error}"))),
        }
    }
    ControlFlow::Continue(())
}

fn json_row(file: &Found, line: u64, bytes: &[u8], keys: &RowKeys) -> Result<Document, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8; convert it".to_string())?;
    let row: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))?;
    let names: Vec<&str> = row.keys().map(String::as_str).collect();
    let columns = Columns::find(&names, keys)?;
    let string = |i: usize| row[names[i]].as_str().map(String::from);
    let Some(text) = string(columns.text) else {
        return Err(format!("its `{}` is not a string", names[columns.text]));
    };
    let id = columns.id.and_then(|i| match &row[names[i]] {
        Value::Number(number) => Some(number.to_string()),
        other => other.as_str().map(String::from),
    });
    Ok(document(
        file,
        Kind::Jsonl,
        line,
        id,
        columns.title.and_then(string),
        text,
    ))
}

/// Reads CSV with a header line.
pub fn csv(file: &Found, keys: &RowKeys, sink: &mut Sink) -> ControlFlow<()> {
    let mut reader = match csv::Reader::from_path(&file.path) {
        Ok(reader) => reader,
        Err(error) => return sink(None, Err(format!("it cannot be read: {error}"))),
    };
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => return sink(None, Err(format!("its header cannot be read: {error}"))),
    };
    let names: Vec<&str> = headers.iter().collect();
    let columns = match Columns::find(&names, keys) {
        Ok(columns) => columns,
        Err(reason) => return sink(None, Err(reason)),
    };
    for record in reader.byte_records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                sink(Some(line), csv_row(file, line, record, &columns))?;
            }
            Err(error) if error.is_io_error() => {
                return sink(None, Err(format!("it cannot be read: {error}")));
            }
            Err(error) => {
                let line = error.position().map(csv::Position::line);
                sink(line, Err(format!("it is no row of the table: {error}")))?;
            }
        }
    }
    ControlFlow::Continue(())
}

fn csv_row(
    file: &Found,
    line: u64,
    record: csv::ByteRecord,
    columns: &Columns,
) -> Result<Document, String> {
    let record = csv::StringRecord::from_byte_record(record)
        .map_err(|_| "it is not UTF-8; convert it".to_string())?;
    let string = |i: usize| record.get(i).map(String::from);
    let text = string(columns.text).unwrap_or_default();
    let id = columns.id.and_then(string);
    Ok(document(
        file,
        Kind::Csv,
        line,
        id,
        columns.title.and_then(string),
        text,
    ))
}

fn document(
    file: &Found,
    kind: Kind,
    line: u64,
    id: Option<String>,
    title: Option<String>,
    text: String,
) -> Document {
    let id = id.filter(|id| !id.is_empty());
    Document {
        id: id.unwrap_or_else(|| format!("{}#{line}", file.name)),
        title: title.filter(|title| !title.trim().is_empty()),
        text,
        source: file.path.display().to_string(),
        kind: kind.name(),
    }
}

/// Where a row's id, title and text are among its names.
struct Columns {
    id: Option<usize>,
    title: Option<usize>,
    text: usize,
}

impl Columns {
    fn find(names: &[&str], keys: &RowKeys) -> Result<Self, String> {
        let text = position(names, keys.text.as_deref(), &TEXT_KEYS);
        let text = text.ok_or_else(|| {
            let wanted = match &keys.text {
                Some(key) => key.clone(),
                None => TEXT_KEYS.join(", "),
            };
            let names = names.join(", ");
            format!("it has no text under {wanted}; it has: {names}; name the key with --text-key")
        })?;
        Ok(Self {
            id: position(names, keys.id.as_deref(), &ID_KEYS),
            title: position(names, keys.title.as_deref(), &TITLE_KEYS),
            text,
        })
    }
}

/// The name given, else the first of the usual ones, in any case.
fn position(names: &[&str], given: Option<&str>, usual: &[&str]) -> Option<usize> {
    match given {
        Some(given) => names.iter().position(|name| *name == given),
        None => usual.iter().find_map(|usual| {
            let same = |name: &&str| name.eq_ignore_ascii_case(usual);
            names.iter().position(same)
        }),
    }
}
