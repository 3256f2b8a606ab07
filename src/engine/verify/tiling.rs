//! Rows and what they were made of: chunks and intents of documents, queries of chunks.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use super::rows::{Chunk, Document, Intent};

/// The rows of each parent. Rows of one parent must stand together, in the order of the parents.
pub fn children(
    parents: &[&str],
    of: &[&str],
    mut complain: impl FnMut(String),
) -> Vec<Range<usize>> {
    let places: HashMap<&str, usize> = parents.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut ranges = vec![0..0; parents.len()];
    let mut next = 0;
    let mut start = 0;
    while start < of.len() {
        let parent = of[start];
        let end = start + of[start..].iter().take_while(|id| **id == parent).count();
        match places.get(parent) {
            None => complain(format!("row {start} is of `{parent}`, which is not there")),
            Some(&place) if place < next => {
                complain(format!("row {start}, of `{parent}`, is out of order"));
            }
            Some(&place) => {
                ranges[place] = start..end;
                next = place + 1;
            }
        }
        start = end;
    }
    ranges
}

/// The first row of a parent that does not have its number.
pub fn misnumbered<'a>(
    parent: &str,
    separator: char,
    rows: impl Iterator<Item = (&'a str, Option<u32>)>,
) -> Option<String> {
    rows.enumerate().find_map(|(n, (id, ordinal))| {
        let wanted = format!("{parent}{separator}{n}");
        let right = id == wanted && ordinal.is_none_or(|ordinal| ordinal as usize == n);
        (!right).then(|| format!("`{id}` stands where `{wanted}` belongs"))
    })
}

/// Where the chunks of a document do not tile it: in order, no overlap unless it is allowed, nothing but white space
/// between and around them.
pub fn gap(document: &Document, chunks: &[Chunk], overlap: bool) -> Option<String> {
    let text = &document.text;
    let (mut starts, mut ends) = (Places::new(text), Places::new(text));
    let mut covered = 0;
    for chunk in chunks {
        let (id, span) = (&chunk.id, format!("{}..{}", chunk.start, chunk.end));
        let (start, end) = match (starts.at(chunk.start), ends.at(chunk.end)) {
            (Some(start), Some(end)) if start < end => (start, end),
            _ => {
                return Some(format!(
                    "`{id}`: {span} is no place in the document, or not in order"
                ));
            }
        };
        if text[start..end] != chunk.text {
            return Some(format!("`{id}`: its text is not {span} of the document"));
        }
        if start < covered && !overlap {
            return Some(format!("`{id}`: {span} overlaps the chunk before"));
        }
        if start > covered && !text[covered..start].trim().is_empty() {
            return Some(format!("`{id}`: the text before {span} is in no chunk"));
        }
        covered = covered.max(end);
    }
    let rest = !text[covered..].trim().is_empty();
    rest.then(|| match chunks.last() {
        Some(last) => format!("`{}`: the document's text after it is in no chunk", last.id),
        None => format!(
            "`{}` has no chunks, and is not in quarantine either",
            document.id
        ),
    })
}

/// Byte offsets of code points, asked for in ascending order: O(text) in total.
struct Places<'a> {
    text: &'a str,
    byte: usize,
    point: u64,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let (byte, point) = (0, 0);
        Self { text, byte, point }
    }

    /// None: below the last one asked for, or past the end.
    fn at(&mut self, point: u64) -> Option<usize> {
        let ahead = usize::try_from(point.checked_sub(self.point)?).ok()?;
        let rest = &self.text[self.byte..];
        let bytes = rest.char_indices().map(|(byte, _)| byte);
        self.byte += bytes.chain([rest.len()]).nth(ahead)?;
        self.point = point;
        Some(self.byte)
    }
}

/// An intent that no chunk serves, or one that a chunk serves and the document does not have: every intent is given to
/// the chunk that serves it best.
pub fn unserved(intents: &[Intent], chunks: &[Chunk]) -> Option<String> {
    let there: BTreeSet<&str> = intents.iter().map(|intent| intent.text.trim()).collect();
    let served: BTreeSet<&str> = chunks
        .iter()
        .flat_map(|chunk| &chunk.intents)
        .map(String::as_str)
        .collect();
    let odd = there
        .symmetric_difference(&served)
        .find(|text| !text.is_empty())?;
    Some(match there.contains(odd) {
        true => format!("no chunk of the document serves its intent `{odd}`"),
        false => format!("a chunk serves the intent `{odd}`, which the document does not have"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            id: "d".into(),
            title: None,
            text: text.into(),
            position: 0,
        }
    }

    fn chunk(ordinal: u32, start: u64, end: u64, text: &str) -> Chunk {
        Chunk {
            id: format!("d#{ordinal}"),
            document: "d".into(),
            title: None,
            ordinal,
            start,
            end,
            text: text.into(),
            tokens: 1,
            intents: Vec::new(),
        }
    }

    #[test]
    fn a_tiling_is_told_from_its_neighbours() {
        let document = document(" 東京 é.\nEnd ");
        let good = || vec![chunk(0, 1, 6, "東京 é."), chunk(1, 7, 10, "End")];
        assert_eq!(gap(&document, &good(), false), None);
        let cases: [(usize, u64, u64, &str, &str); 5] = [
            (0, 1, 5, "東京 é", "d#1"),
            (0, 2, 6, "京 é.", "d#0"),
            (0, 1, 6, "東京 e.", "d#0"),
            (1, 6, 99, "End", "d#1"),
            (1, 5, 10, ".\nEnd", "overlaps"),
        ];
        for (at, start, end, text, said) in cases {
            let mut chunks = good();
            chunks[at] = chunk(at as u32, start, end, text);
            let found = gap(&document, &chunks, false).unwrap_or_default();
            assert!(found.contains(said), "{start}..{end}: {found}");
        }
        assert!(gap(&document, &good()[..1], false).is_some_and(|m| m.contains("after")));
        assert!(gap(&document, &[], false).is_some_and(|m| m.contains("no chunks")));
    }

    #[test]
    fn windows_may_overlap_but_leave_nothing_out() {
        let document = document("a b c");
        let windows = [chunk(0, 0, 3, "a b"), chunk(1, 2, 5, "b c")];
        assert_eq!(gap(&document, &windows, true), None);
        assert!(gap(&document, &windows, false).is_some());
        assert!(gap(&document, &windows[1..], true).is_some());
    }

    #[test]
    fn children_out_of_place_are_named() {
        let parents = ["a", "b", "c"];
        let mut said = Vec::new();
        let ranges = children(&parents, &["a", "a", "c"], |m| said.push(m));
        assert_eq!((ranges, said.len()), (vec![0..2, 0..0, 2..3], 0));
        children(&parents, &["b", "a", "x", "c", "b"], |m| said.push(m));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("`a`") && said[1].contains("`x`") && said[2].contains("`b`"));
    }
}
