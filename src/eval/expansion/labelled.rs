//! How well scores tell the chunk that answers a person's question from the chunks beside it, which are about the same.

use std::io::{self, Write};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::expanded::Expanded;
use super::set::{Question, Set, Truth};
use crate::eval::significance::confidence_interval;
use crate::expand::scores::{Pair, Scores, combined};

/// A question with a chunk that answers it and those before and after that do not.
pub struct Case<'a> {
    pub question: &'a Question,
    pub own: usize,
    pub others: Vec<usize>,
}

/// Questions drawn with a fixed seed, in their order; those whose chunk has no neighbour to tell it from are left out.
pub fn draw<'a>(set: &'a Set, expanded: &Expanded, n: usize) -> Vec<Case<'a>> {
    let cases: Vec<Case> = set
        .questions
        .iter()
        .filter_map(|q| case(q, expanded))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut drawn = rand::seq::index::sample(&mut rng, cases.len(), n.min(cases.len())).into_vec();
    drawn.sort_unstable();
    let mut cases: Vec<Option<Case>> = cases.into_iter().map(Some).collect();
    drawn.into_iter().filter_map(|i| cases[i].take()).collect()
}

fn case<'a>(question: &'a Question, expanded: &Expanded) -> Option<Case<'a>> {
    let Truth::Answers(answers) = &question.truth else {
        return None;
    };
    let chunks = &expanded.chunks;
    let span = |chunk: usize| chunks[chunk].span;
    let own = (0..chunks.len()).find(|c| answers.iter().any(|a| span(*c).holds(a)))?;
    let touches = |chunk: usize| {
        answers.iter().any(|answer| {
            let there = span(chunk);
            there.document == answer.document
                && there.start < answer.end
                && answer.start < there.end
        })
    };
    let beside = [
        own.checked_sub(1),
        Some(own + 1).filter(|c| *c < chunks.len()),
    ];
    let same = |chunk: &usize| span(*chunk).document == span(own).document && !touches(*chunk);
    let others: Vec<usize> = beside.into_iter().flatten().filter(same).collect();
    (!others.is_empty()).then_some(Case {
        question,
        own,
        others,
    })
}

/// The pairs of all cases, a case's own chunk first.
pub fn pairs<'a>(cases: &[Case<'a>], expanded: &'a Expanded) -> Vec<Pair<'a>> {
    let pair = |case: &Case<'a>, chunk: usize| Pair {
        title: expanded.chunks[chunk].title.as_deref(),
        text: &expanded.chunks[chunk].text,
        query: &case.question.text,
    };
    let of_case = |case: &Case<'a>| {
        let chunks = [case.own].into_iter().chain(case.others.iter().copied());
        chunks.map(|chunk| pair(case, chunk)).collect::<Vec<_>>()
    };
    cases.iter().flat_map(of_case).collect()
}

/// What a score tells: its area under the curve within a question (how often the own chunk scores higher than a neighbour, a tie
/// counting half), with its 95% interval, and the share of own chunks among the best third and half of all pairs.
pub struct Precision {
    pub name: &'static str,
    pub area: f64,
    pub interval: (f64, f64),
    pub best_third: f64,
    pub best_half: f64,
    /// Share of own chunks among all pairs: what chance has.
    pub chance: f64,
}

/// `scores` and `cosines` are of [`pairs`].
pub fn precisions(cases: &[Case], scores: &[Scores], cosines: &[f32]) -> Vec<Precision> {
    let of = |name, values: Vec<Option<f32>>| {
        let values = values.into_iter().collect::<Option<Vec<f32>>>()?;
        (!values.is_empty()).then(|| precision(name, cases, &values))
    };
    let score = |get: fn(&Scores) -> Option<f32>| scores.iter().map(get).collect::<Vec<_>>();
    let both = |s: &Scores| Some(combined(s.gain()?, s.relevance?));
    let all = [
        of("cosine", cosines.iter().copied().map(Some).collect()),
        of("log P(query | chunk)", score(|s| s.log_p_chunk)),
        of("gain", score(|s| s.gain())),
        of("relevance", score(|s| s.relevance)),
        of("combined", score(both)),
        of("cross-encoder", score(|s| s.cross_encoder)),
    ];
    all.into_iter().flatten().collect()
}

fn precision(name: &'static str, cases: &[Case], values: &[f32]) -> Precision {
    let (mut wins, mut labelled, mut start) = (Vec::new(), Vec::new(), 0);
    for case in cases {
        let of_case = &values[start..=start + case.others.len()];
        start += of_case.len();
        let own = of_case[0];
        let win = |other: &f32| match own.total_cmp(other) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        let others = &of_case[1..];
        wins.push(others.iter().map(win).sum::<f64>() / others.len() as f64);
        labelled.push((own, true));
        labelled.extend(others.iter().map(|other| (*other, false)));
    }
    labelled.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = |share: usize| {
        let kept = &labelled[..labelled.len().div_ceil(share)];
        kept.iter().filter(|(_, own)| *own).count() as f64 / kept.len() as f64
    };
    Precision {
        name,
        area: wins.iter().sum::<f64>() / wins.len() as f64,
        interval: confidence_interval(&wins),
        best_third: best(3),
        best_half: best(2),
        chance: best(1),
    }
}

pub fn write(out: &mut impl Write, precisions: &[Precision]) -> io::Result<()> {
    writeln!(
        out,
        "{:<22}{:>6} {:<16}{:>11}{:>11}{:>8}",
        "score", "AUC", "[95%]", "best third", "best half", "chance"
    )?;
    for p in precisions {
        let interval = format!("[{:.3}, {:.3}]", p.interval.0, p.interval.1);
        writeln!(
            out,
            "{:<22}{:>6.3} {interval:<16}{:>11.3}{:>11.3}{:>8.3}",
            p.name, p.area, p.best_third, p.best_half, p.chance
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::chunks::span::Span;
    use crate::eval::expansion::expanded::Chunk;
    use crate::eval::expansion::set::By;

    /// Three chunks of a document, and questions whose answers are at these places.
    fn cases_of(answers: &[(usize, usize)]) -> (Set, Expanded) {
        let span = |start, end| Span {
            document: 0,
            start,
            end,
        };
        let chunk = |i: usize| Chunk {
            id: format!("0#{i}"),
            title: None,
            span: span(i * 10, i * 10 + 9),
            text: format!("chunk {i}"),
            keywords: Vec::new(),
        };
        let question = |(i, (start, end)): (usize, &(usize, usize))| Question {
            id: i.to_string(),
            text: format!("question {i}"),
            truth: Truth::Answers(vec![span(*start, *end)]),
        };
        let set = Set {
            by: By::Span,
            questions: answers.iter().enumerate().map(question).collect(),
        };
        let expanded = Expanded {
            documents: vec!["0".into()],
            chunks: (0..3).map(chunk).collect(),
            ..Expanded::default()
        };
        (set, expanded)
    }

    #[test]
    fn a_chunk_is_told_from_its_neighbours() {
        // In the first chunk, in the second, across two.
        let (set, expanded) = cases_of(&[(2, 5), (12, 15), (18, 22)]);
        let cases = draw(&set, &expanded, 9);
        let found: Vec<_> = cases.iter().map(|c| (c.own, c.others.clone())).collect();
        assert_eq!(found, [(0, vec![1]), (1, vec![0, 2])]);
        let pairs = pairs(&cases, &expanded);
        let texts: Vec<_> = pairs.iter().map(|p| (p.query, p.text)).collect();
        assert_eq!(
            texts[..2],
            [("question 0", "chunk 0"), ("question 0", "chunk 1")]
        );
        assert_eq!(texts.len(), 5);
        // The first question's own chunk is better, the second's is better than one and as good as the other.
        let precision = precision("gain", &cases, &[0.9, 0.1, 0.5, 0.5, 0.2]);
        assert!((precision.area - 0.875).abs() < 1e-9);
        assert_eq!((precision.best_third, precision.chance), (1.0, 0.4));
    }
}
