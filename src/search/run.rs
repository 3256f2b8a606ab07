//! Queries in, TREC run out.

use std::io::{self, Write};
use std::path::Path;

use super::columns::{self, ColumnsError};

/// A test query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestQuery {
    pub query_id: String,
    pub text: String,
}

/// Reads queries from Parquet: columns `query_id` (string or integer) and `text`.
pub fn read_queries(path: &Path) -> Result<Vec<TestQuery>, ColumnsError> {
    let columns = columns::read(path, "query_id", "text", None)?;
    let rows = columns.first.into_iter().zip(columns.second);
    Ok(rows
        .map(|(query_id, text)| TestQuery { query_id, text })
        .collect())
}

/// Writes the results of one query as TREC run lines: `query_id Q0 id rank score tag`.
///
/// Ranks are those trec_eval gives: score descending, equal scores by id descending (bytes). Scores are written so
/// that they read back as the same single-precision number.
pub fn write_results(
    out: &mut impl Write,
    query_id: &str,
    results: &[(&str, f32)],
    tag: &str,
) -> Result<(), RunError> {
    let ids = results.iter().map(|(id, _)| *id).chain([query_id, tag]);
    if let Some(id) = ids
        .into_iter()
        .find(|id| id.is_empty() || id.contains(char::is_whitespace))
    {
        return Err(RunError::Id { id: id.to_owned() });
    }
    let mut ranked = results.to_vec();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(a.0)));
    for (i, (id, score)) in ranked.into_iter().enumerate() {
        writeln!(out, "{query_id} Q0 {id} {} {score} {tag}", i + 1)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("id `{}` cannot be in a TREC run: it is empty or has white space in it", id.escape_debug())]
    Id { id: String },
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
        assert_eq!(
            error.to_string(),
            "id `a b` cannot be in a TREC run: it is empty or has white space in it"
        );
    }
}
