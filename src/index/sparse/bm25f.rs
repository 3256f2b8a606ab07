//! BM25F (Robertson, Zaragoza, Taylor, CIKM 2004): a term's occurrences in all fields are added up, each field's times its
//! weight, and saturate together.
//!
//! For a term t in document d, with the weights w of the fields f:
//!
//! ```text
//! tf = Σ w_f · tf_f(t, d)      len = Σ w_f · len_f(d)      avg = Σ w_f · tokens_f / N
//! score = idf · (k1 + 1) · tf / (tf + k1 · (1 − b + b · len / avg))
//! idf = ln(1 + (N − n + ½) / (n + ½)),   n = max_f n_f(t)
//! ```
//!
//! n as Lucene's `CombinedFieldQuery` has it, as the documents with the term in any field are not counted in the index. Lengths
//! are as closely as Tantivy keeps them. With one field of weight 1 it is Tantivy's BM25. With weights 1 it is BM25 of the
//! fields' texts put together.

use std::sync::Arc;

use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::{Postings, SegmentPostings};
use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError, Term};

const K1: Score = 1.2;
const B: Score = 0.75;

/// One word of a search, looked up in several fields.
#[derive(Debug, Clone)]
pub struct FieldsQuery {
    pub word: String,
    /// How often the search has the word.
    pub count: Score,
    /// The fields, and the weight of each; above 0.
    pub fields: Arc<[(Field, Score)]>,
}

impl FieldsQuery {
    pub fn terms(&self) -> impl Iterator<Item = (Term, Score)> {
        let term = |(field, weight): &(Field, Score)| {
            let term = Term::from_field_text(*field, &self.word);
            (term, *weight)
        };
        self.fields.iter().map(term)
    }
}

impl Query for FieldsQuery {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let EnableScoring::Enabled {
            statistics_provider: statistics,
            ..
        } = scoring
        else {
            let message = "a search by BM25F is scored".to_owned();
            return Err(TantivyError::InvalidArgument(message));
        };
        let (mut documents_with, mut tokens) = (0, 0.0);
        for (term, weight) in self.terms() {
            documents_with = documents_with.max(statistics.doc_freq(&term)?);
            tokens += weight * statistics.total_num_tokens(term.field())? as Score;
        }
        let documents = statistics.total_num_docs()?;
        let rest = documents.saturating_sub(documents_with) as Score;
        let idf = (1.0 + (rest + 0.5) / (documents_with as Score + 0.5)).ln();
        Ok(Box::new(FieldsWeight {
            query: self.clone(),
            factor: self.count * idf * (K1 + 1.0),
            average: tokens / documents.max(1) as Score,
        }))
    }

    fn query_terms<'a>(&'a self, _visitor: &mut dyn FnMut(&'a Term, bool)) {}
}

struct FieldsWeight {
    query: FieldsQuery,
    /// count · idf · (k1 + 1)
    factor: Score,
    average: Score,
}

impl Weight for FieldsWeight {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut scorer = FieldsScorer {
            lists: Vec::new(),
            lengths: Vec::new(),
            factor: self.factor * boost,
            average: self.average,
            doc: TERMINATED,
        };
        for (term, weight) in self.query.terms() {
            let field = term.field();
            let lengths = segment.get_fieldnorms_reader(field)?;
            scorer.lengths.push((lengths, weight));
            let inverted = segment.inverted_index(field)?;
            let list = inverted.read_postings(&term, IndexRecordOption::WithFreqs)?;
            scorer.lists.extend(list.map(|list| (list, weight)));
        }
        scorer.find_doc();
        Ok(Box::new(scorer))
    }

    fn explain(&self, segment: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer(segment, 1.0)?;
        let there = scorer.doc() == doc || (scorer.doc() < doc && scorer.seek(doc) == doc);
        let score = if there { scorer.score() } else { 0.0 };
        Ok(Explanation::new("BM25F", score))
    }
}

/// The documents with a word in any of the fields.
struct FieldsScorer {
    lists: Vec<(SegmentPostings, Score)>,
    /// Of every field, as one without the word makes a document longer too.
    lengths: Vec<(FieldNormReader, Score)>,
    factor: Score,
    average: Score,
    doc: DocId,
}

impl FieldsScorer {
    fn find_doc(&mut self) -> DocId {
        let docs = self.lists.iter().map(|(list, _)| list.doc());
        self.doc = docs.min().unwrap_or(TERMINATED);
        self.doc
    }
}

impl DocSet for FieldsScorer {
    fn advance(&mut self) -> DocId {
        for (list, _) in &mut self.lists {
            if list.doc() == self.doc && self.doc != TERMINATED {
                list.advance();
            }
        }
        self.find_doc()
    }

    fn seek(&mut self, target: DocId) -> DocId {
        for (list, _) in &mut self.lists {
            if list.doc() < target {
                list.seek(target);
            }
        }
        self.find_doc()
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        let hints = self.lists.iter().map(|(list, _)| list.size_hint());
        hints.max().unwrap_or(0)
    }
}

impl Scorer for FieldsScorer {
    fn score(&mut self) -> Score {
        let here = self.lists.iter().filter(|(list, _)| list.doc() == self.doc);
        let count: Score = here
            .map(|(list, weight)| weight * list.term_freq() as Score)
            .sum();
        let lengths = self.lengths.iter();
        let length: Score = lengths
            .map(|(of, weight)| weight * of.fieldnorm(self.doc) as Score)
            .sum();
        self.factor * count / (count + K1 * (1.0 - B + B * length / self.average))
    }
}
