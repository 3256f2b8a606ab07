//! Queries in, TREC run out.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::columns::{self, ColumnsError};

/// A test query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestQuery {
    pub query_id: String,
    pub text: String,
}

/// Reads queries from Parquet: columns `query_id` (string or integer) and `text`. An id that comes twice, or a query
/// of white space, would only be noticed in the figures; so both are errors.
pub fn read_queries(path: &Path) -> Result<Vec<TestQuery>, QueriesError> {
    let columns = columns::read(path, "query_id", "text", None)?;
    let mut rows = HashMap::new();
    let mut queries = Vec::with_capacity(columns.first.len());
    for (row, (query_id, text)) in columns.first.into_iter().zip(columns.second).enumerate() {
        let path = || path.to_owned();
        if let Some(first) = rows.insert(query_id.clone(), row) {
            return Err(QueriesError::Twice {
                path: path(),
                query_id,
                first,
                second: row,
            });
        }
        if text.trim().is_empty() {
            return Err(QueriesError::Blank {
                path: path(),
                query_id,
                row,
            });
        }
        queries.push(TestQuery { query_id, text });
    }
    match queries.is_empty() {
        true => Err(QueriesError::None {
            path: path.to_owned(),
        }),
        false => Ok(queries),
    }
}

/// Whether every query can be in a TREC run, whose columns are apart by white space.
pub fn check_ids(queries: &[TestQuery]) -> Result<(), RunError> {
    let bad = queries.iter().find(|query| !fits(&query.query_id));
    bad.map_or(Ok(()), |query| {
        Err(RunError::Query {
            query_id: query.query_id.clone(),
        })
    })
}

fn fits(id: &str) -> bool {
    !id.is_empty() && !id.contains(char::is_whitespace)
}

/// Writes the results of one query as TREC run lines: `query_id Q0 id rank score tag`. The query's id and the tag must
/// fit there.
///
/// Ranks are those trec_eval gives: score descending, equal scores by id descending (bytes). Scores are written so
/// that they read back as the same single-precision number.
pub fn write_results(
    out: &mut impl Write,
    query_id: &str,
    results: &[(&str, f32)],
    tag: &str,
) -> Result<(), RunError> {
    if let Some((id, _)) = results.iter().find(|(id, _)| !fits(id)) {
        return Err(RunError::Result {
            query_id: query_id.to_owned(),
            id: (*id).to_owned(),
        });
    }
    let mut ranked = results.to_vec();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(a.0)));
    for (i, (id, score)) in ranked.into_iter().enumerate() {
        writeln!(out, "{query_id} Q0 {id} {} {score} {tag}", i + 1)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum QueriesError {
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    #[error(
        "{}: query_id `{}` is in row {first} and again in row {second} (counted from 0); each query needs its own",
        path.display(), query_id.escape_debug()
    )]
    Twice {
        path: PathBuf,
        query_id: String,
        first: usize,
        second: usize,
    },
    #[error(
        "{}: the text of query `{}` in row {row} (counted from 0) is blank; there is nothing to search for",
        path.display(), query_id.escape_debug()
    )]
    Blank {
        path: PathBuf,
        query_id: String,
        row: usize,
    },
    #[error("{}: there are no queries in it", path.display())]
    None { path: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "query id `{}` cannot be in a TREC run: it is empty or has white space in it; change it, or use `--format json`",
        query_id.escape_debug()
    )]
    Query { query_id: String },
    #[error(
        "id `{}`, a result of query {query_id}, cannot be in a TREC run: it is empty or has white space in it; \
         use `--format json`, or change the document's id and build again",
        id.escape_debug()
    )]
    Result { query_id: String, id: String },
    #[error("the run cannot be written: {0}")]
    Write(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_scores_then_ids_as_trec_eval_orders_them() {
        let mut out = Vec::new();
        write_results(
            &mut out,
            "q",
            &[("a", 0.5), ("b", 0.5), ("c", 0.1), ("d", 0.7)],
            "t",
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "q Q0 d 1 0.7 t\nq Q0 b 2 0.5 t\nq Q0 a 3 0.5 t\nq Q0 c 4 0.1 t\n"
        );
    }

    #[test]
    fn an_id_that_would_break_a_line_is_refused() {
        let error = write_results(&mut Vec::new(), "q", &[("a b", 0.5)], "t").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("id `a b`, a result of query q, cannot be in a TREC run"),
            "{error}"
        );
        let query = |query_id: &str| TestQuery {
            query_id: query_id.into(),
            text: "x".into(),
        };
        let error = check_ids(&[query("a"), query("b\tc")]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("query id `b\\tc` cannot be in a TREC run"),
            "{error}"
        );
        check_ids(&[query("a"), query("b")]).unwrap();
    }
}
