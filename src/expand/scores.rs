//! How well a chunk answers a query, as models see it.
//!
//! - gain: log P(query | chunk) − log P(query | empty passage), per token: the pointwise mutual information.
//! - relevance: log P(Yes) − log P(No), asked whether the chunk answers the query.
//! - cross-encoder: the logit of a model that was trained to tell.

use super::prompt;
use crate::{
    job::spec,
    model::{Generate, LogProb, ModelError, Prompt, Score, bert::CrossEncoder},
};

/// A query and the chunk it is scored against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<'a> {
    pub title: Option<&'a str>,
    pub text: &'a str,
    pub query: &'a str,
}

/// Natural logarithms; None where a score is not wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Per token.
    pub log_p_chunk: Option<f32>,
    /// Per token.
    pub log_p_empty: Option<f32>,
    pub relevance: Option<f32>,
    /// A logit.
    pub cross_encoder: Option<f32>,
}

impl Scores {
    pub fn gain(self) -> Option<f32> {
        Some(self.log_p_chunk? - self.log_p_empty?)
    }
}

/// The sum of the two scores, each by its usual deviation.
pub fn combined(gain: f32, relevance: f32) -> f32 {
    const GAIN: f32 = 0.7;
    const RELEVANCE: f32 = 3.0;
    gain / GAIN + relevance / RELEVANCE
}

/// What scores queries. `scorer` is the same model as `generator`, and needed for its scores; so is the cross-encoder for its own.
pub struct Scorer<'a> {
    pub settings: &'a spec::Expand,
    pub generator: &'a dyn Generate,
    pub scorer: Option<&'a dyn Score>,
    pub cross_encoder: Option<&'a CrossEncoder>,
}

type Scored = Result<Scores, ModelError>;

impl Scorer<'_> {
    /// The scores of each pair, in order. Pairs of one chunk should stand together: its passage is then read once.
    pub fn score(&self, pairs: &[Pair], done: &dyn Fn(usize)) -> Vec<Scored> {
        let same = |a: &Pair, b: &Pair| (a.title, a.text) == (b.title, b.text);
        let groups: Vec<&[Pair]> = pairs.chunk_by(same).collect();
        let mut scores = Vec::with_capacity(pairs.len());
        for groups in groups.chunks(self.generator.requests_at_once()) {
            let before = scores.len();
            scores.extend(self.groups(groups));
            done(scores.len() - before);
        }
        scores
    }

    /// The chunks' own prompts come first, while what the generator remembers of them is fresh; the empty prompt is the same
    /// for all.
    fn groups(&self, groups: &[&[Pair]]) -> Vec<Scored> {
        let mut scores: Vec<Vec<Scored>> = Vec::new();
        let mut passages = Vec::new();
        for group in groups {
            let most = self.settings.passage_tokens;
            let passage = prompt::passage(group[0].title, group[0].text, most, self.generator);
            scores.push(match &passage {
                Ok(_) => group.iter().map(|_| Ok(Scores::default())).collect(),
                Err(error) => group
                    .iter()
                    .map(|_| Err(failed(self.generator, error)))
                    .collect(),
            });
            passages.push(passage.map_or(String::new(), |(passage, _)| passage));
        }
        let wanted = self.settings.scores();
        let generator = self.scorer;
        if let Some(scorer) = generator.filter(|_| wanted.contains(&spec::Scored::Gain)) {
            let examples = &self.settings.examples;
            let own = |i: usize| prompt::question(&passages[i], examples);
            self.texts(scorer, (groups, own), &mut scores, |s, p| {
                s.log_p_chunk = Some(p.per_token() as f32)
            });
            let empty = |_| prompt::question("", examples);
            self.texts(scorer, (groups, empty), &mut scores, |s, p| {
                s.log_p_empty = Some(p.per_token() as f32)
            });
        }
        if let Some(scorer) = generator.filter(|_| wanted.contains(&spec::Scored::Relevance)) {
            relevance(scorer, groups, &passages, &mut scores);
        }
        let cross_encoder = self.cross_encoder;
        if let Some(model) = cross_encoder.filter(|_| wanted.contains(&spec::Scored::CrossEncoder))
        {
            self.cross(model, groups, &passages, &mut scores);
        }
        scores.into_iter().flatten().collect()
    }

    /// The log-probability of each group's queries after its prompt.
    fn texts(
        &self,
        scorer: &dyn Score,
        (groups, prompt): (&[&[Pair]], impl Fn(usize) -> Prompt),
        scores: &mut [Vec<Scored>],
        set: impl Fn(&mut Scores, LogProb),
    ) {
        let texts = |group: &&[Pair]| group.iter().map(|pair| pair.query.to_owned()).collect();
        let requests: Vec<(Prompt, Vec<String>)> = groups
            .iter()
            .enumerate()
            .map(|(i, group)| (prompt(i), texts(group)))
            .collect();
        let answers = scorer.score(&requests);
        for ((group, answer), (prompt, texts)) in scores.iter_mut().zip(answers).zip(&requests) {
            match answer {
                Ok(found) => put(group.iter_mut().zip(found.into_iter().map(Ok)), &set),
                Err(error @ ModelError::Unavailable { .. }) => fail(self.generator, group, &error),
                // One by one, so that the error finds its query.
                Err(_) => put(group.iter_mut().zip(alone(scorer, prompt, texts)), &set),
            }
        }
    }

    fn cross(
        &self,
        model: &CrossEncoder,
        groups: &[&[Pair]],
        passages: &[String],
        scores: &mut [Vec<Scored>],
    ) {
        for ((group, passage), scores) in groups.iter().zip(passages).zip(scores) {
            let pairs: Vec<(&str, &str)> = group
                .iter()
                .map(|pair| (pair.query, passage.as_str()))
                .collect();
            let found: Vec<Result<f32, ModelError>> = match model.score(&pairs) {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(_) => pairs
                    .iter()
                    .map(|pair| Ok(model.score(&[*pair])?[0]))
                    .collect(),
            };
            put(scores.iter_mut().zip(found), |s, logit| {
                s.cross_encoder = Some(logit)
            });
        }
    }
}

/// Each text's score, asked for by itself.
fn alone(
    scorer: &dyn Score,
    prompt: &Prompt,
    texts: &[String],
) -> Vec<Result<LogProb, ModelError>> {
    let requests: Vec<_> = texts
        .iter()
        .map(|text| (prompt.clone(), vec![text.clone()]))
        .collect();
    let missing = || ModelError::Model {
        model: "generator".into(),
        message: "gave no score for a text".into(),
    };
    let first = |found: Vec<LogProb>| found.into_iter().next().ok_or_else(missing);
    let found = scorer.score(&requests).into_iter();
    found.map(|found| found.and_then(first)).collect()
}

fn relevance(
    scorer: &dyn Score,
    groups: &[&[Pair]],
    passages: &[String],
    scores: &mut [Vec<Scored>],
) {
    let answers = || vec!["Yes".to_owned(), "No".to_owned()];
    let pairs = groups.iter().zip(passages);
    let requests: Vec<(Prompt, Vec<String>)> = pairs
        .flat_map(|(group, passage)| group.iter().map(move |pair| (passage, pair.query)))
        .map(|(passage, query)| (prompt::relevance(passage, query), answers()))
        .collect();
    let found = scorer.score(&requests);
    put(scores.iter_mut().flatten().zip(found), |score, found| {
        let log_p = |i: usize| found.get(i).map(|p| p.sum as f32);
        score.relevance = log_p(0).zip(log_p(1)).map(|(yes, no)| yes - no);
    });
}

/// Sets what was found; a row that has failed stays failed.
fn put<'s, T>(
    found: impl Iterator<Item = (&'s mut Scored, Result<T, ModelError>)>,
    set: impl Fn(&mut Scores, T),
) {
    for (score, found) in found {
        match (&mut *score, found) {
            (Ok(score), Ok(found)) => set(score, found),
            (Ok(_), Err(error)) => *score = Err(error),
            (Err(_), _) => {}
        }
    }
}

/// The same error for another row: not all can be copied.
fn failed(generator: &dyn Generate, error: &ModelError) -> ModelError {
    let (model, message) = (generator.identity().name.clone(), error.to_string());
    match error {
        ModelError::Unavailable { model, message } => ModelError::Unavailable {
            model: model.clone(),
            message: message.clone(),
        },
        _ => ModelError::Model { model, message },
    }
}

fn fail(generator: &dyn Generate, group: &mut [Scored], error: &ModelError) {
    let still = group.iter_mut().filter(|score| score.is_ok());
    still.for_each(|score| *score = Err(failed(generator, error)));
}
