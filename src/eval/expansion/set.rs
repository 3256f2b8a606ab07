//! A set: questions, and what is right to find for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::ExpansionError;
use super::expanded::Expanded;
use crate::eval::chunks::span::Span;
use crate::eval::files::read_qrels;
use crate::eval::half::Half;
use crate::eval::measures::measure_query;
use crate::search::columns;
use crate::search::fusion::best_of_each;

/// What is right to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// A chunk that holds a whole answer, at the first place: R@1.
    Span,
    /// Relevant documents, by their best chunk: nDCG@10.
    Document,
}

pub struct Set {
    pub by: By,
    pub questions: Vec<Question>,
}

pub struct Question {
    pub id: String,
    pub text: String,
    pub truth: Truth,
}

pub enum Truth {
    /// The spans that answer it.
    Answers(Vec<Span>),
    /// Documents with their relevance.
    Judgements(BTreeMap<String, i64>),
}

impl By {
    /// Of a set: spans where every question that `qrels.parquet` judges, or without it every question, has one.
    pub fn of(set: &Path) -> Result<Self, ExpansionError> {
        let path = set.join("answers.parquet");
        if !path.exists() {
            return Ok(By::Document);
        }
        let answers = columns::read(&path, "query_id", "doc_id", None)?;
        let answered: BTreeSet<String> = answers.first.into_iter().collect();
        let qrels = set.join("qrels.parquet");
        let asked: Vec<String> = match qrels.exists() {
            true => read_qrels(&qrels)?.into_keys().collect(),
            false => columns::read(&set.join("queries.parquet"), "query_id", "text", None)?.first,
        };
        match asked.iter().all(|question| answered.contains(question)) {
            true => Ok(By::Span),
            false => Ok(By::Document),
        }
    }

    pub fn measure(self) -> &'static str {
        match self {
            By::Span => "R@1",
            By::Document => "nDCG@10",
        }
    }
}

impl Set {
    /// Reads `queries.parquet` (query_id, text) with `answers.parquet` (query_id, doc_id, start, end: code points, half open)
    /// or `qrels.parquet` (query_id, doc_id, relevance). `half` is one of the documents where spans are to be found, then
    /// only of questions with answers there, and else one of the questions.
    pub fn read(
        folder: &Path,
        by: By,
        half: Option<Half>,
        expanded: &Expanded,
    ) -> Result<Self, ExpansionError> {
        let mut truths = match by {
            By::Span => read_answers(&folder.join("answers.parquet"), half, expanded)?,
            By::Document => read_judgements(&folder.join("qrels.parquet"), half, expanded)?,
        };
        let path = folder.join("queries.parquet");
        let asked = columns::read(&path, "query_id", "text", None)?;
        let questions = asked.first.into_iter().zip(asked.second);
        let questions = questions.filter_map(|(id, text)| {
            let truth = truths.remove(&id)?;
            Some(Question { id, text, truth })
        });
        let questions: Vec<Question> = questions.collect();
        if let Some((question, _)) = truths.pop_first() {
            return Err(ExpansionError::NoQuestion { path, question });
        }
        match questions.is_empty() {
            true => Err(ExpansionError::NoQuestions(folder.to_owned())),
            false => Ok(Self { by, questions }),
        }
    }
}

type Truths = BTreeMap<String, Truth>;

fn read_answers(
    path: &Path,
    half: Option<Half>,
    expanded: &Expanded,
) -> Result<Truths, ExpansionError> {
    let starts = columns::read(path, "query_id", "doc_id", Some("start"))?;
    let ends = columns::read(path, "query_id", "doc_id", Some("end"))?;
    let documents = expanded.documents.iter().enumerate();
    let documents: HashMap<&str, usize> = documents.map(|(i, id)| (id.as_str(), i)).collect();
    let (mut answers, mut missing) = (BTreeMap::<String, Vec<Span>>::new(), BTreeSet::new());
    let rows = starts.first.into_iter().zip(starts.second);
    let spans = starts.integers.into_iter().zip(ends.integers);
    for (row, ((question, document), (start, end))) in rows.zip(spans).enumerate() {
        if !(0 <= start && start < end) {
            let path = path.to_owned();
            return Err(ExpansionError::Answer { path, row });
        }
        if half.is_some_and(|half| !half.has(&document)) {
            continue;
        }
        let spans = answers.entry(question).or_default();
        match documents.get(document.as_str()) {
            Some(&document) => spans.push(Span {
                document,
                start: start as usize,
                end: end as usize,
            }),
            None => {
                missing.insert(document);
            }
        }
    }
    tell_missing(
        path,
        &missing,
        "questions that only they answer are left out",
    );
    // An index of some of the documents is measured by the questions on these.
    let truths = answers.into_iter().filter(|(_, spans)| !spans.is_empty());
    Ok(truths
        .map(|(id, spans)| (id, Truth::Answers(spans)))
        .collect())
}

fn read_judgements(
    path: &Path,
    half: Option<Half>,
    expanded: &Expanded,
) -> Result<Truths, ExpansionError> {
    let mut qrels = read_qrels(path)?;
    qrels.retain(|question, _| half.is_none_or(|half| half.has(question)));
    let documents: BTreeSet<&str> = expanded.documents.iter().map(String::as_str).collect();
    let relevant = qrels.values().flatten().filter(|(_, grade)| **grade > 0);
    let missing = relevant.filter(|(id, _)| !documents.contains(id.as_str()));
    let missing = missing.map(|(id, _)| id.clone()).collect();
    tell_missing(path, &missing, "they count as not found");
    let truths = qrels.into_iter();
    Ok(truths
        .map(|(id, judged)| (id, Truth::Judgements(judged)))
        .collect())
}

fn tell_missing(path: &Path, documents: &BTreeSet<String>, so: &str) {
    if let Some(first) = documents.first() {
        tracing::warn!(
            "{}: {} of its documents have no chunk in the index, among them {first}; {so}",
            path.display(),
            documents.len()
        );
    }
}

impl Question {
    /// What chunks in this order, with their scores, are worth, from 0 to 1.
    pub fn value(&self, ranked: &[(usize, f32)], expanded: &Expanded) -> f64 {
        match &self.truth {
            Truth::Answers(answers) => {
                let holds = |&(chunk, _): &(usize, f32)| {
                    let span = expanded.chunks[chunk].span;
                    answers.iter().any(|answer| span.holds(answer))
                };
                f64::from(u8::from(ranked.first().is_some_and(holds)))
            }
            Truth::Judgements(judged) => {
                let document = |&(chunk, score): &(usize, f32)| {
                    let document = expanded.chunks[chunk].span.document;
                    (expanded.documents[document].clone(), score)
                };
                let documents = ranked.iter().map(document).collect();
                measure_query(judged, &best_of_each(documents, |(id, _)| id)).ndcg_10
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{expanded, halved, integers, strings, write};
    use super::*;

    /// A question on each document of [`halved`], with an answer, and a judgement of those with a relevance.
    fn set(relevance: &[i64]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let ids = halved();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let path = |name: &str| folder.path().join(name);
        let texts = strings(&["how", "why", "who", "when"]);
        write(
            &path("queries.parquet"),
            &[("query_id", strings(&ids)), ("text", texts)],
        );
        let answers = [
            ("query_id", strings(&ids)),
            ("doc_id", strings(&ids)),
            ("start", integers(&[1, 2, 3, 4])),
            ("end", integers(&[5, 5, 5, 5])),
        ];
        write(&path("answers.parquet"), &answers);
        let judged = &ids[..relevance.len()];
        let qrels = [
            ("query_id", strings(judged)),
            ("doc_id", strings(judged)),
            ("relevance", integers(relevance)),
        ];
        if !judged.is_empty() {
            write(&path("qrels.parquet"), &qrels);
        }
        folder
    }

    /// The fake chunks as of these documents.
    fn of(documents: &[String]) -> Expanded {
        Expanded {
            documents: documents.to_vec(),
            ..expanded(&[])
        }
    }

    fn asked(set: &Set) -> Vec<&str> {
        set.questions.iter().map(|q| q.id.as_str()).collect()
    }

    #[test]
    fn spans_are_looked_for_where_all_judged_questions_have_them() {
        assert_eq!(By::of(set(&[]).path()).unwrap(), By::Span);
        assert_eq!(By::of(set(&[1, 1]).path()).unwrap(), By::Span);
        let folder = set(&[1, 1, 1]);
        let fewer = [
            ("query_id", strings(&[&halved()[0], &halved()[1]])),
            ("doc_id", strings(&[&halved()[0], &halved()[1]])),
        ];
        write(&folder.path().join("answers.parquet"), &fewer);
        assert_eq!(By::of(folder.path()).unwrap(), By::Document);
        std::fs::remove_file(folder.path().join("answers.parquet")).unwrap();
        assert_eq!(By::of(folder.path()).unwrap(), By::Document);
    }

    #[test]
    fn a_half_is_one_of_documents_or_of_questions() {
        let (folder, ids) = (set(&[1, 1, 1, 1]), halved());
        // The half's first document has no chunk, which is told, and its question is left out.
        let tune = of(&ids[1..2]);
        let spans = Set::read(folder.path(), By::Span, Some(Half::Tune), &tune).unwrap();
        assert_eq!(asked(&spans), ids[1..2]);
        let answers = |question: usize| match &spans.questions[question].truth {
            Truth::Answers(answers) => answers.clone(),
            Truth::Judgements(_) => panic!("a span was asked for"),
        };
        let second = Span {
            document: 0,
            start: 2,
            end: 5,
        };
        assert_eq!(answers(0), [second]);
        let all = of(&ids);
        let judged = Set::read(folder.path(), By::Document, Some(Half::Report), &all).unwrap();
        assert_eq!(asked(&judged), ids[2..]);
        let whole = Set::read(folder.path(), By::Document, None, &all).unwrap();
        assert_eq!(asked(&whole), ids);
    }

    #[test]
    fn a_judged_question_without_a_text_is_refused() {
        let folder = set(&[1]);
        let one = [
            ("query_id", strings(&["other"])),
            ("text", strings(&["how"])),
        ];
        write(&folder.path().join("queries.parquet"), &one);
        let read = Set::read(folder.path(), By::Document, None, &of(&halved()));
        let expected = format!("there is no question {}, ", halved()[0]);
        let error = read.err().unwrap().to_string();
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn a_span_must_be_whole_in_the_first_chunk_and_a_document_stands_by_its_best() {
        let mut found = expanded(&[]);
        for (start, end) in [(0, 10), (10, 20)] {
            found.chunks.push(super::super::expanded::Chunk {
                id: format!("1#{start}"),
                title: None,
                span: Span {
                    document: 1,
                    start,
                    end,
                },
                text: String::new(),
                keywords: Vec::new(),
            });
        }
        let question = |truth: Truth| Question {
            id: "q".to_owned(),
            text: "q".to_owned(),
            truth,
        };
        let answer = |start: usize, end: usize| Span {
            document: 1,
            start,
            end,
        };
        let value = |answers: &[Span], ranked: &[usize]| {
            let ranked: Vec<(usize, f32)> = ranked.iter().map(|&chunk| (chunk, 1.0)).collect();
            question(Truth::Answers(answers.to_vec())).value(&ranked, &found)
        };
        assert_eq!(value(&[answer(2, 10)], &[2, 3]), 1.0);
        assert_eq!(value(&[answer(2, 10)], &[3, 2]), 0.0);
        // Cut in two; the other answer is whole.
        assert_eq!(value(&[answer(5, 15)], &[2, 3]), 0.0);
        assert_eq!(value(&[answer(5, 15), answer(0, 3)], &[2, 3]), 1.0);
        // The document 0 has the same offsets.
        assert_eq!(value(&[answer(0, 3)], &[0]), 0.0);
        assert_eq!(value(&[answer(0, 3)], &[]), 0.0);
        // Documents in order: 0, 1. Ideal: 1 (grade 2), 0 (grade 1).
        let judged = [("1".to_owned(), 2), ("0".to_owned(), 1)].into();
        let ranked = [(0, 0.9), (3, 0.8), (2, 0.7)];
        let second = 1.0 / 3f64.log2();
        let expected = (1.0 + 2.0 * second) / (2.0 + second);
        let value = question(Truth::Judgements(judged)).value(&ranked, &found);
        assert!((value - expected).abs() < 1e-12, "{value}");
    }
}
