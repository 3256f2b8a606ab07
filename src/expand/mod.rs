//! Writes the questions each chunk answers, and says how much better than chance the chunk predicts each.

pub mod filter;
pub mod prompt;

use std::collections::HashSet;

use crate::{
    intent::question,
    job::spec,
    model::{Completion, Generate, LogProb, ModelError, Prompt, Sampling, Score},
};

/// A chunk whose questions are wanted.
#[derive(Debug, Clone)]
pub struct Chunk<'a> {
    pub title: Option<&'a str>,
    pub text: &'a str,
    /// The document's intents that this chunk serves best; they become its queries too.
    pub intents: Vec<&'a str>,
    /// Decides the sampling, so that a chunk's questions do not depend on its neighbours.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Predicted for the document, served best by this chunk.
    Intent,
    /// Sampled from the chunk.
    Sample,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Intent => "intent",
            Origin::Sample => "sample",
        }
    }
}

/// log P(query | chunk) and log P(query | empty passage), natural logarithms per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    pub log_p_chunk: f32,
    pub log_p_empty: f32,
}

impl Scores {
    /// How much the chunk tells about the query: the pointwise mutual information per token.
    pub fn gain(self) -> f32 {
        self.log_p_chunk - self.log_p_empty
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub text: String,
    pub origin: Origin,
    /// None where the generator cannot score.
    pub scores: Option<Scores>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    pub queries: Vec<Query>,
    /// Tokens sampled.
    pub tokens: usize,
    /// Tokens of the chunk beyond `passage_tokens`, which the generator did not read.
    pub truncated: usize,
}

/// Writes and scores the queries of several chunks, in order. `done` is told after each chunk.
pub fn queries(
    chunks: &[Chunk],
    settings: &spec::Expand,
    generator: &dyn Generate,
    scorer: Option<&dyn Score>,
    done: &dyn Fn(),
) -> Vec<Result<Written, ModelError>> {
    let mut results = Vec::with_capacity(chunks.len());
    for group in chunks.chunks(generator.requests_at_once()) {
        results.extend(write_group(group, settings, generator, scorer));
        group.iter().for_each(|_| done());
    }
    results
}

fn write_group(
    chunks: &[Chunk],
    settings: &spec::Expand,
    generator: &dyn Generate,
    scorer: Option<&dyn Score>,
) -> Vec<Result<Written, ModelError>> {
    let passages: Vec<_> = chunks
        .iter()
        .map(|c| prompt::passage(c, settings, generator))
        .collect();
    let mut requests = Vec::new();
    for (chunk, passage) in chunks.iter().zip(&passages) {
        if let Ok((passage, _)) = passage {
            requests.push((prompt::prompt(passage, settings), sampling(chunk, settings)));
        }
    }
    let mut answers = generator.generate(&requests).into_iter();
    let mut written: Vec<Result<Written, ModelError>> = Vec::with_capacity(chunks.len());
    for (chunk, passage) in chunks.iter().zip(&passages) {
        written.push(match passage {
            Ok((_, truncated)) => match answers.next() {
                Some(answer) => answer.map(|completions| gather(chunk, completions, *truncated)),
                None => Err(ModelError::Model {
                    model: generator.identity().name.clone(),
                    message: "gave fewer answers than it was asked for".into(),
                }),
            },
            Err(error) => Err(ModelError::Model {
                model: generator.identity().name.clone(),
                message: error.to_string(),
            }),
        });
    }
    if let Some(scorer) = scorer {
        score_group(&mut written, &passages, settings, scorer);
    }
    written
}

fn sampling(chunk: &Chunk, settings: &spec::Expand) -> Sampling {
    Sampling {
        n: settings.queries,
        temperature: settings.temperature,
        top_p: settings.top_p,
        max_tokens: settings.max_tokens,
        stop: vec!["\n".into()],
        seed: chunk.seed,
    }
}

/// The intents first, then the samples; repeats and unfinished lines are dropped.
fn gather(chunk: &Chunk, completions: Vec<Completion>, truncated: usize) -> Written {
    let mut written = Written {
        tokens: completions.iter().map(|c| c.tokens).sum(),
        truncated,
        ..Written::default()
    };
    let mut seen = HashSet::new();
    let samples = completions
        .iter()
        .filter(|c| c.finished)
        .filter_map(|c| question::clean(&c.text));
    let intents = chunk
        .intents
        .iter()
        .map(|i| (Origin::Intent, (*i).to_owned()));
    for (origin, text) in intents.chain(samples.map(|s| (Origin::Sample, s))) {
        if seen.insert(question::normal_form(&text)) {
            written.queries.push(Query {
                text,
                origin,
                scores: None,
            });
        }
    }
    written
}

type Passage = Result<(String, usize), ModelError>;

/// Asks for each chunk's texts twice, given the chunk and given nothing. The chunks come first, while what the
/// generator remembers of them is fresh; the empty prompt is the same for all.
fn score_group(
    written: &mut [Result<Written, ModelError>],
    passages: &[Passage],
    settings: &spec::Expand,
    scorer: &dyn Score,
) {
    let mut given: Vec<(Prompt, Vec<String>)> = Vec::new();
    let mut prior = Vec::new();
    for (written, passage) in written.iter().zip(passages) {
        if let (Ok(written), Ok((passage, _))) = (written, passage) {
            given.push((prompt::prompt(passage, settings), texts(written)));
            prior.push((prompt::prompt("", settings), texts(written)));
        }
    }
    let count = given.len();
    given.extend(prior);
    let mut given = scorer.score(&given);
    let prior = given.split_off(count.min(given.len()));
    let mut answers = given.into_iter().zip(prior);
    for slot in written.iter_mut() {
        if let Ok(row) = slot {
            match answers.next() {
                Some((Ok(given), Ok(prior))) => attach(row, &given, &prior),
                Some((Err(error), _) | (_, Err(error))) => *slot = Err(error),
                None => {}
            }
        }
    }
}

fn texts(written: &Written) -> Vec<String> {
    written.queries.iter().map(|q| q.text.clone()).collect()
}

fn attach(written: &mut Written, given: &[LogProb], prior: &[LogProb]) {
    for ((query, given), prior) in written.queries.iter_mut().zip(given).zip(prior) {
        query.scores = Some(Scores {
            log_p_chunk: given.per_token() as f32,
            log_p_empty: prior.per_token() as f32,
        });
    }
}

/// The gain of one query over one text: what the SQL function `score(query, text)` returns.
pub fn gain(
    pairs: &[(&str, &str)],
    settings: &spec::Expand,
    scorer: &dyn Score,
) -> Vec<Result<f32, ModelError>> {
    let request =
        |text: &str, query: &str| (prompt::prompt(text, settings), vec![query.to_owned()]);
    let mut requests: Vec<_> = pairs
        .iter()
        .map(|(query, text)| request(text, query))
        .collect();
    requests.extend(pairs.iter().map(|(query, _)| request("", query)));
    let mut given = scorer.score(&requests);
    let prior = given.split_off(pairs.len().min(given.len()));
    let one = |scores: Vec<LogProb>| scores.first().map_or(0.0, |s| s.per_token());
    let gain = |(given, prior): (Result<Vec<LogProb>, _>, Result<Vec<LogProb>, _>)| {
        Ok((one(given?) - one(prior?)) as f32)
    };
    given.into_iter().zip(prior).map(gain).collect()
}
