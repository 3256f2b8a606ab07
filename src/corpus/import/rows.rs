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
    let value = |i: usize| (names[i], &row[names[i]]);
    let (name, text) = value(columns.text);
    let text = text.as_str().ok_or_else(|| not_a("string", name, text))?;
    let id = columns.id.map(|i| json_id(value(i))).transpose()?;
    let title = columns.title.map(|i| json_title(value(i))).transpose()?;
    Ok(document(
        file,
        Kind::Jsonl,
        line,
        id,
        title.flatten(),
        text.into(),
    ))
}

/// A string, or an integer with its digits: a row whose id is anything else would get another one unasked.
fn json_id((name, value): (&str, &Value)) -> Result<String, String> {
    match value {
        Value::String(id) => Ok(id.clone()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        Value::Number(_) => Err(format!(
            "its `{name}` is a number with a fraction, or of more than 64 bits, which JSON readers round; \
             write it as a string"
        )),
        Value::Null => Err(format!(
            "its `{name}` is null; fill it, or leave the key out"
        )),
        other => Err(not_a("string or an integer", name, other)),
    }
}

fn json_title((name, value): (&str, &Value)) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(title) => Ok(Some(title.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(not_a("string", name, other)),
    }
}

fn not_a(wanted: &str, name: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("its `{name}` is not a {wanted} but {found}")
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
    if let (Some(key), None) = (&keys.title, columns.title) {
        return sink(None, Err(lacks(key, "--title-key", &names)));
    }
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
        let id = position(names, keys.id.as_deref(), &ID_KEYS);
        if let (Some(key), None) = (&keys.id, id) {
            return Err(lacks(key, "--id-key", names));
        }
        Ok(Self {
            id,
            title: position(names, keys.title.as_deref(), &TITLE_KEYS),
            text,
        })
    }
}

fn lacks(key: &str, flag: &str, names: &[&str]) -> String {
    let names = names.join(", ");
    format!("it has no `{key}`, named by {flag}; it has: {names}")
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
