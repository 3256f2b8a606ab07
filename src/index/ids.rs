//! The ids of a dense index: line i of the file is the id of row i.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// Ids in memory: one text and where each id ends in it.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    text: String,
    ends: Vec<usize>,
}

impl Ids {
    /// Reads a file of one id per line (UTF-8).
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        if !text.is_empty() && !text.ends_with('\n') {
            ends.push(text.len());
        }
        Ok(Self { text, ends })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The id of a row; nothing past the end.
    pub fn get(&self, row: usize) -> Option<&str> {
        let start = row
            .checked_sub(1)
            .map_or(Some(0), |before| self.ends.get(before).map(|end| end + 1))?;
        self.text.get(start..*self.ends.get(row)?)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|row| self.get(row))
    }
}

/// Where each chunk's queries are: of chunk row i, the rows `range(i)` of the queries.
#[derive(Debug, Clone, Default)]
pub struct QueryRows {
    starts: Vec<usize>,
}

impl QueryRows {
    /// Aligns query ids (`chunk_id?m`) with chunk ids. Both are in the order of the chunks; the error is a query id
    /// that breaks it.
    pub fn align<'a>(
        chunks: impl Iterator<Item = &'a str>,
        queries: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut starts = vec![0];
        let mut row = 0;
        let mut queries = queries.peekable();
        for chunk in chunks {
            while queries
                .next_if(|query| chunk_of(query) == Some(chunk))
                .is_some()
            {
                row += 1;
            }
            starts.push(row);
        }
        match queries.next() {
            Some(query) => Err(query.to_owned()),
            None => Ok(Self { starts }),
        }
    }

    /// The query rows of a chunk row; empty when it has none.
    pub fn range(&self, chunk: usize) -> Range<usize> {
        match self.starts.get(chunk..chunk + 2) {
            Some(bounds) => bounds[0]..bounds[1],
            None => 0..0,
        }
    }

    /// The chunk row that a query row belongs to.
    pub fn chunk(&self, query: usize) -> usize {
        self.starts
            .partition_point(|&start| start <= query)
            .saturating_sub(1)
    }
}

/// The chunk id in a query id.
fn chunk_of(query_id: &str) -> Option<&str> {
    query_id.rsplit_once('?').map(|(chunk, _)| chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(lines: &[String]) -> Ids {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )
        .unwrap();
        Ids::read(file.path()).unwrap()
    }

    proptest! {
        #[test]
        fn every_query_row_finds_its_chunk_and_back(counts in prop::collection::vec(0usize..4, 0..40)) {
            let chunk = |i: usize| format!("döc?#{i}");
            let chunks: Vec<String> = (0..counts.len()).map(chunk).collect();
            let queries: Vec<String> =
                counts.iter().enumerate().flat_map(|(i, &n)| (0..n).map(move |m| format!("{}?{m}", chunk(i)))).collect();
            let (chunks, queries) = (ids(&chunks), ids(&queries));
            let rows = QueryRows::align(chunks.iter(), queries.iter()).unwrap();
            for (i, &count) in counts.iter().enumerate() {
                prop_assert_eq!(rows.range(i).len(), count);
                for row in rows.range(i) {
                    prop_assert_eq!(rows.chunk(row), i);
                    prop_assert_eq!(queries.get(row).and_then(chunk_of), chunks.get(i));
                }
            }
        }
    }

    #[test]
    fn a_query_out_of_order_or_without_its_chunk_is_named() {
        let chunks = ids(&["a#0".into(), "a#1".into()]);
        let queries = ids(&["a#1?0".into(), "a#0?0".into()]);
        assert_eq!(
            QueryRows::align(chunks.iter(), queries.iter()).unwrap_err(),
            "a#0?0"
        );
    }

    #[test]
    fn rows_past_the_end_have_no_id() {
        assert_eq!(ids(&[]).get(0), None);
        let ids = ids(&["a".into(), "b".into()]);
        assert_eq!((ids.get(1), ids.get(2), ids.len()), (Some("b"), None, 2));
    }
}
