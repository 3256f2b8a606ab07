//! Whether a document is what it was indexed from.

use std::collections::BTreeMap;
use std::io;

use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::Postings;
use tantivy::query::{EnableScoring, Query};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, SegmentReader, Term};

use super::{SparseDocument, SparseError, SparseIndex, SparseWeights, any_of, in_dir};
use crate::index::analyzer;

/// The files of a segment, by their endings.
const SEGMENT_FILES: [&str; 6] = ["fast", "fieldnorm", "idx", "pos", "store", "term"];
/// Of texts with nearly the same words, those with a few more of them score higher for all: a text with at least this share
/// of the last score within the best found itself as well as it can.
const NEARLY: f32 = 0.5;

impl SparseIndex {
    /// Files of the index that are not in its folder.
    pub fn missing_files(&self) -> Vec<String> {
        let segments = self.searcher.segment_readers().iter();
        let names = segments.flat_map(|segment| {
            let id = segment.segment_id().uuid_string();
            SEGMENT_FILES.map(|ending| format!("{id}.{ending}"))
        });
        names.filter(|name| !self.dir.join(name).exists()).collect()
    }

    /// A field in which a row does not have the terms of `document`, each as often as there, and as many in all (as
    /// closely as Tantivy keeps lengths).
    pub fn unlike(
        &self,
        row: u32,
        document: &SparseDocument<'_>,
    ) -> Result<Option<&'static str>, SparseError> {
        let title: Vec<&str> = document.title.into_iter().collect();
        let fields: [(&'static str, &[&str]); 3] = [
            ("title", &title),
            ("text", &[document.text]),
            ("queries", document.queries),
        ];
        let Some(segment) = self.searcher.segment_readers().first() else {
            return Ok(Some("text"));
        };
        for (name, texts) in fields {
            if !self.has_terms(segment, row, name, texts)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn has_terms(
        &self,
        segment: &SegmentReader,
        row: u32,
        name: &str,
        texts: &[&str],
    ) -> Result<bool, SparseError> {
        let field = self.field(name)?;
        let inverted = segment.inverted_index(field).map_err(in_dir(&self.dir))?;
        let counts = self.counts(texts);
        for (term, count) in &counts {
            let term = Term::from_field_text(field, term);
            let postings = inverted
                .read_postings(&term, IndexRecordOption::WithFreqs)
                .map_err(|source| self.unreadable(source))?;
            let found = postings.is_some_and(|mut postings| {
                advance_to(&mut postings, row) && postings.term_freq() == *count
            });
            if !found {
                return Ok(false);
            }
        }
        let lengths = segment
            .get_fieldnorms_reader(field)
            .map_err(in_dir(&self.dir))?;
        let length = FieldNormReader::fieldnorm_to_id(counts.values().sum());
        Ok(lengths.fieldnorm_id(row) == length)
    }

    /// How often the index takes each term of the texts.
    fn counts(&self, texts: &[&str]) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        if let Some(analyzer) = self.analyzers.last() {
            for text in texts {
                for term in analyzer::terms(&mut analyzer.clone(), text) {
                    *counts.entry(term).or_default() += 1;
                }
            }
        }
        counts
    }

    fn unreadable(&self, source: io::Error) -> SparseError {
        SparseError::File {
            path: self.dir.clone(),
            source,
        }
    }

    /// Whether a row is among the best `k` for a query, or scores nearly as much as the last of them. A query without terms
    /// finds nothing, which is no row's fault.
    pub fn is_in_first(
        &self,
        row: u32,
        query: &str,
        k: usize,
        weights: SparseWeights,
    ) -> Result<bool, SparseError> {
        let hits = self.search(query, k, weights)?;
        if hits.iter().any(|hit| hit.row == row) || self.terms(query).is_empty() {
            return Ok(true);
        }
        match hits.last() {
            Some(last) if hits.len() == k => {
                let own = self.score(row, query, weights)?;
                Ok(own.is_some_and(|own| own >= last.score * NEARLY))
            }
            _ => Ok(false),
        }
    }

    /// The score of one row; nothing where it has no term of the query.
    fn score(
        &self,
        row: u32,
        query: &str,
        weights: SparseWeights,
    ) -> Result<Option<f32>, SparseError> {
        let words = self.words(query, weights)?;
        let segment = self.searcher.segment_readers().first();
        let Some(segment) = segment.filter(|_| !words.is_empty()) else {
            return Ok(None);
        };
        let scoring = EnableScoring::enabled_from_searcher(&self.searcher);
        let weight = any_of(&words).weight(scoring).map_err(in_dir(&self.dir))?;
        let mut scorer = weight.scorer(segment, 1.0).map_err(in_dir(&self.dir))?;
        Ok(advance_to(&mut scorer, row).then(|| scorer.score()))
    }
}

/// Whether a list has the row; it then stands there. Only ever forwards.
fn advance_to(list: &mut impl DocSet, row: u32) -> bool {
    let there = list.doc();
    row == if there < row { list.seek(row) } else { there }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::sparse::SparseWriter;
    use crate::job::spec::SparseLanguage;

    const TEXT: SparseWeights = SparseWeights {
        title: 0.0,
        text: 1.0,
        queries: 0.0,
    };

    #[test]
    fn a_document_is_told_from_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("sparse");
        let document = |text, queries| SparseDocument {
            chunk_id: "d#0",
            doc_id: "d",
            title: Some("Marsupials"),
            text,
            queries,
        };
        let first = document("Wombats dig and dig", &["who digs", "what digs"]);
        let mut writer = SparseWriter::create(&dir, SparseLanguage::English).unwrap();
        writer.add(first).unwrap();
        writer.add(document("Koalas sleep", &[])).unwrap();
        writer.finish().unwrap();
        let index = SparseIndex::open(&dir).unwrap();

        assert_eq!(index.unlike(0, &first).unwrap(), None);
        assert_eq!(index.unlike(1, &first).unwrap(), Some("text"));
        for (other, field) in [
            (document("Wombats dig", first.queries), "text"),
            (document("Wombats dig and dig well", first.queries), "text"),
            (document(first.text, &["who digs"]), "queries"),
            (
                SparseDocument {
                    title: None,
                    ..first
                },
                "title",
            ),
        ] {
            assert_eq!(index.unlike(0, &other).unwrap(), Some(field));
        }

        assert!(index.missing_files().is_empty());
        let positions = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
        let positions = positions.filter(|p| p.extension().is_some_and(|e| e == "pos"));
        positions.for_each(|path| std::fs::remove_file(path).unwrap());
        let missing = SparseIndex::open(&dir).unwrap().missing_files();
        assert!(
            missing.len() == 1 && missing[0].ends_with(".pos"),
            "{missing:?}"
        );
    }

    #[test]
    fn rows_that_score_alike_are_all_in_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("sparse");
        let mut writer = SparseWriter::create(&dir, SparseLanguage::English).unwrap();
        for i in 0..40 {
            let text = match i {
                0..20 => "the wombat digs",
                20..25 => "the koala sleeps",
                25 => "the koala sleeps slowly",
                26 => "red clay dries slowly",
                _ => "red red clay clay dries dries slowly slowly",
            };
            let (chunk_id, queries) = (format!("d#{i}"), &[]);
            let (doc_id, title) = ("d", None);
            let document = SparseDocument {
                chunk_id: &chunk_id,
                doc_id,
                title,
                text,
                queries,
            };
            writer.add(document).unwrap();
        }
        writer.finish().unwrap();
        let index = SparseIndex::open(&dir).unwrap();
        for row in 0..20 {
            assert!(index.is_in_first(row, "the wombat digs", 5, TEXT).unwrap());
            assert!(index.is_in_first(row, "…", 5, TEXT).unwrap());
        }
        assert!(!index.is_in_first(25, "the wombat digs", 5, TEXT).unwrap());
        // Row 26 has the words of the query once; rows 27 on have them twice, and stand higher.
        let query = "red clay dries slowly";
        assert!(index.is_in_first(26, query, 5, TEXT).unwrap());
        assert!(
            index
                .search(query, 5, TEXT)
                .unwrap()
                .iter()
                .all(|hit| hit.row > 26)
        );
        // It has one of these four.
        assert!(!index.is_in_first(25, query, 5, TEXT).unwrap());
    }
}
