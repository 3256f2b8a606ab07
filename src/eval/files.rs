//! Reads run files (TREC format) and judgements (Parquet), and refuses what would make a figure wrong.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::measures::{Qrels, Run};
use crate::search::columns::{self, ColumnsError};

/// Reads judgements: columns `query_id`, `doc_id` (strings or integers) and `relevance` (integers).
pub fn read_qrels(path: &Path) -> Result<Qrels, FileError> {
    let columns = columns::read(path, "query_id", "doc_id", Some("relevance"))?;
    let mut qrels = Qrels::new();
    let rows = columns
        .first
        .into_iter()
        .zip(columns.second)
        .zip(columns.integers);
    for (row, ((query, doc), relevance)) in rows.enumerate() {
        let judged = qrels.entry(query.clone()).or_default();
        if judged.insert(doc.clone(), relevance).is_some() {
            return Err(FileError::JudgedTwice {
                path: path.to_owned(),
                row,
                query,
                doc,
            });
        }
    }
    if qrels.is_empty() {
        return Err(FileError::NoJudgements {
            path: path.to_owned(),
        });
    }
    Ok(qrels)
}

/// Reads a run: lines of `query_id Q0 doc_id rank score tag`, apart by white space. The rank is not used.
///
/// Scores are single precision, as in trec_eval: what differs less is a tie there too.
pub fn read_run(path: &Path) -> Result<Run, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut run = Run::new();
    let mut seen = HashSet::new();
    for (i, line) in reader.lines().enumerate() {
        let line = line.map_err(unreadable)?;
        let malformed = |message: String| FileError::Malformed {
            path: path.to_owned(),
            line: i + 1,
            message,
        };
        let Some((query, doc, score)) = parse_line(&line).map_err(malformed)? else {
            continue;
        };
        if !seen.insert((query.to_owned(), doc.to_owned())) {
            return Err(malformed(format!(
                "document {doc} is already among the results of query {query}"
            )));
        }
        run.entry(query.to_owned())
            .or_default()
            .push((doc.to_owned(), score));
    }
    Ok(run)
}

/// Query id, document id and score; nothing for a blank line.
fn parse_line(line: &str) -> Result<Option<(&str, &str, f32)>, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields[..] {
        [] => Ok(None),
        [query, _, doc, _, score, _] => match score.parse::<f32>() {
            // Adding 0 makes −0 the same score as 0.
            Ok(value) if !value.is_nan() => Ok(Some((query, doc, value + 0.0))),
            _ => Err(format!("the score `{score}` is not a number")),
        },
        _ => Err(format!(
            "expected `query_id Q0 doc_id rank score tag`, found {} fields",
            fields.len()
        )),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}: row {row} (counted from 0) judges document {doc} for query {query} a second time", path.display())]
    JudgedTwice {
        path: PathBuf,
        row: usize,
        query: String,
        doc: String,
    },
    #[error("{}: there are no judgements in it", path.display())]
    NoJudgements { path: PathBuf },
    #[error(transparent)]
    Columns(#[from] ColumnsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(text: &str) -> Result<Run, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        read_run(file.path()).map_err(|e| e.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn a_run_keeps_ids_and_scores() {
        let run = run_of("q1 Q0 d1 1 2.5 tag\n\nq1\tQ0\td2\t2\t-1e-3\ttag\n").unwrap();
        assert_eq!(
            run["q1"],
            [("d1".to_string(), 2.5), ("d2".to_string(), -1e-3)]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let errors = [
            (
                "q Q0 d 1 2.5 t\nq Q0 d 2\n",
                "FILE:2: expected `query_id Q0 doc_id rank score tag`, found 4 fields",
            ),
            (
                "q Q0 d 1 high t\n",
                "FILE:1: the score `high` is not a number",
            ),
            (
                "q Q0 d 1 NaN t\n",
                "FILE:1: the score `NaN` is not a number",
            ),
            (
                "q Q0 d 1 2 t\nq Q0 d 2 1 t\n",
                "FILE:2: document d is already among the results of query q",
            ),
        ];
        for (text, error) in errors {
            assert_eq!(run_of(text).unwrap_err(), error);
        }
    }
}
