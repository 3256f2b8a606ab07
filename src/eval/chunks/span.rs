//! How well retrieved text covers what answers a question: the measures of the Chroma chunking evaluation (Smith and
//! Troynikov, "Evaluating Chunking Strategies for Retrieval", 2024), counted in code points as its own code counts them.

/// A part of a document, in code points, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Index of the document in the set.
    pub document: usize,
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn holds(&self, other: &Span) -> bool {
        self.document == other.document && self.start <= other.start && other.end <= self.end
    }
}

/// Each from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Coverage {
    /// Share of the answers that was retrieved.
    pub recall: f64,
    /// Share of what was retrieved that is an answer; what was retrieved twice counts twice below the line.
    pub precision: f64,
    /// What was retrieved of the answers, over all that was retrieved and the rest of the answers.
    pub iou: f64,
}

/// `answers` are all spans that answer one question.
pub fn coverage(retrieved: &[Span], answers: &[Span]) -> Coverage {
    let read = union(retrieved);
    let found: usize = union(answers).iter().map(|a| overlap(a, &read)).sum();
    if found == 0 {
        return Coverage::default();
    }
    let sum = |spans: &[Span]| -> usize { spans.iter().map(Span::len).sum() };
    let missed: usize = answers.iter().map(|a| a.len() - overlap(a, &read)).sum();
    let share = |whole: usize| found as f64 / whole as f64;
    Coverage {
        recall: share(sum(answers)),
        precision: share(sum(retrieved)),
        iou: share(sum(retrieved) + missed),
    }
}

/// The spans in order, those that touch joined.
fn union(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut union: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match union.last_mut() {
            Some(last) if last.document == span.document && span.start <= last.end => {
                last.end = last.end.max(span.end);
            }
            _ => union.push(span),
        }
    }
    union
}

/// Code points of `span` in a union.
fn overlap(span: &Span, union: &[Span]) -> usize {
    let shared = |other: &Span| match other.document == span.document {
        true => span
            .end
            .min(other.end)
            .saturating_sub(span.start.max(other.start)),
        false => 0,
    };
    union.iter().map(shared).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(of: &[(usize, usize, usize)]) -> Vec<Span> {
        let span = |&(document, start, end): &(usize, usize, usize)| Span {
            document,
            start,
            end,
        };
        of.iter().map(span).collect()
    }

    #[test]
    fn text_retrieved_twice_is_found_once() {
        let retrieved = spans(&[(0, 0, 100), (0, 50, 150), (1, 0, 50)]);
        let answers = spans(&[(0, 90, 110), (0, 200, 210)]);
        let found = coverage(&retrieved, &answers);
        assert_eq!(found.recall, 20.0 / 30.0);
        assert_eq!(found.precision, 20.0 / 250.0);
        assert_eq!(found.iou, 20.0 / 260.0);
        assert_eq!(coverage(&[], &answers), Coverage::default());
    }

    proptest! {
        #[test]
        fn sets_of_code_points_give_the_same(
            retrieved in prop::collection::vec((0usize..3, 0usize..40, 1usize..20), 0..8),
            answers in prop::collection::vec((0usize..3, 0usize..40, 1usize..20), 1..4),
        ) {
            let ends = |of: Vec<(usize, usize, usize)>| -> Vec<Span> {
                spans(&of.into_iter().map(|(d, s, n)| (d, s, s + n)).collect::<Vec<_>>())
            };
            let (retrieved, answers) = (ends(retrieved), ends(answers));
            let points = |of: &[Span]| -> std::collections::BTreeSet<(usize, usize)> {
                of.iter().flat_map(|s| (s.start..s.end).map(|p| (s.document, p))).collect()
            };
            let found = points(&retrieved).intersection(&points(&answers)).count() as f64;
            let sum = |of: &[Span]| of.iter().map(Span::len).sum::<usize>() as f64;
            let coverage = coverage(&retrieved, &answers);
            prop_assert!((coverage.recall - found / sum(&answers)).abs() < 1e-12);
            if !retrieved.is_empty() {
                prop_assert!((coverage.precision - found / sum(&retrieved)).abs() < 1e-12);
            }
        }
    }
}
