//! Predicts the questions a document answers: the generator reads it section by section and asks; near-duplicates
//! are dropped by the cosine of their vectors.

pub mod question;
mod section;

use std::ops::Range;

use crate::{
    job::spec,
    model::{Embed, Generate, Message, ModelError, Prompt, Role, Sampling, TextKind},
};
use section::Section;

const INSTRUCTION: &str = "Write short questions that people would type into a search engine and that the passage \
answers. Each question must make sense to someone who has not seen the passage: name what it is about. Do not number \
the questions. Write one per line and nothing else.";

/// Tokens a question takes at most, its line break included.
const QUESTION_TOKENS: usize = 32;

/// A document whose questions are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    pub title: Option<&'a str>,
    pub text: &'a str,
    /// Decides the sampling, so that a document's questions do not depend on its neighbours.
    pub seed: u64,
}

/// A predicted question and the section it was asked of (code points of the document's text, half open).
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub text: String,
    pub section: Range<usize>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predicted {
    pub intents: Vec<Intent>,
    /// Tokens written by the generator.
    pub tokens: usize,
    /// Tokens of the document that the generator did not read.
    pub truncated: usize,
}

/// How many questions to ask of a document: 10 up to 100 sentences, 15 up to 200, then 15·(n/200)^0.7, at most 50;
/// never more than two a sentence, which is all that a short text can answer.
pub fn question_count(sentences: usize) -> usize {
    let wanted = match sentences {
        0..=100 => 10,
        101..=200 => 15,
        n => ((15.0 * (n as f64 / 200.0).powf(0.7)).round() as usize).min(50),
    };
    wanted.min(2 * sentences)
}

/// Predicts the questions of several documents, in order. `done` is told after each document.
///
/// A document one of whose sections fails yields that section's error.
pub fn predict(
    documents: &[Document],
    settings: &spec::Intents,
    generator: &dyn Generate,
    embedder: &dyn Embed,
    done: &dyn Fn(),
) -> Vec<Result<Predicted, ModelError>> {
    let mut results = Vec::with_capacity(documents.len());
    // Requests are handed over in groups: enough to keep a server busy, few enough for the bars to move.
    for group in documents.chunks(generator.requests_at_once()) {
        let sections: Vec<_> = group
            .iter()
            .map(|d| section::sections(d.text, settings, generator))
            .collect();
        let mut requests = Vec::new();
        for (document, sections) in group.iter().zip(&sections) {
            for (ordinal, section) in sections.iter().flatten().enumerate() {
                requests.push(request(document, section, ordinal, settings));
            }
        }
        let mut answers = generator.generate(&requests).into_iter();
        for (document, sections) in group.iter().zip(sections) {
            let predicted = sections.and_then(|sections| {
                let answers: Vec<_> = answers.by_ref().take(sections.len()).collect();
                collect(document, &sections, answers, settings, embedder)
            });
            results.push(predicted);
            done();
        }
    }
    results
}

fn request(
    document: &Document,
    section: &Section,
    ordinal: usize,
    settings: &spec::Intents,
) -> (Prompt, Sampling) {
    let title = document
        .title
        .map(|t| format!("Title: {t}\n"))
        .unwrap_or_default();
    let passage = &document.text[section.bytes.clone()];
    let content = format!(
        "{INSTRUCTION}\n\n{title}Passage:\n{passage}\n\nWrite {} questions.",
        section.questions
    );
    let sampling = Sampling {
        n: 1,
        temperature: settings.temperature,
        top_p: 0.95,
        max_tokens: QUESTION_TOKENS * section.questions,
        stop: Vec::new(),
        seed: document.seed.wrapping_add(ordinal as u64),
    };
    (
        Prompt {
            messages: vec![Message {
                role: Role::User,
                content,
            }],
        },
        sampling,
    )
}

fn collect(
    document: &Document,
    sections: &[Section],
    answers: Vec<Result<Vec<crate::model::Completion>, ModelError>>,
    settings: &spec::Intents,
    embedder: &dyn Embed,
) -> Result<Predicted, ModelError> {
    let mut predicted = Predicted::default();
    for (section, answer) in sections.iter().zip(answers) {
        predicted.truncated += section.truncated;
        for completion in answer? {
            tracing::debug!(
                finished = completion.finished,
                "the generator wrote: {}",
                completion.text
            );
            predicted.tokens += completion.tokens;
            let lines: Vec<&str> = completion.text.lines().collect();
            // A line that the token limit cut is no question.
            let whole = if completion.finished {
                lines.len()
            } else {
                lines.len().saturating_sub(1)
            };
            let questions = lines[..whole]
                .iter()
                .filter_map(|l| question::clean(l))
                .filter(|q| question::is_asked(q));
            for text in questions.take(section.questions) {
                predicted.intents.push(Intent {
                    text,
                    section: section.chars.clone(),
                });
            }
        }
    }
    // A generator that only echoes the text asks nothing; the document then has no intents.
    drop_duplicates(&mut predicted.intents, settings.duplicate_cosine, embedder)?;
    debug_assert!(
        predicted
            .intents
            .iter()
            .all(|i| i.section.end <= document.text.chars().count())
    );
    Ok(predicted)
}

/// Keeps the earlier of any two questions whose cosine is above `limit`.
fn drop_duplicates(
    intents: &mut Vec<Intent>,
    limit: f32,
    embedder: &dyn Embed,
) -> Result<(), ModelError> {
    let texts: Vec<&str> = intents.iter().map(|i| i.text.as_str()).collect();
    if texts.len() < 2 {
        return Ok(());
    }
    let vectors = embedder.embed(&texts, TextKind::Query)?.vectors;
    let mut kept: Vec<usize> = Vec::new();
    for i in 0..intents.len() {
        if kept
            .iter()
            .all(|&j| cosine(vectors.row(i), vectors.row(j)) <= limit)
        {
            kept.push(i);
        }
    }
    let mut position = 0;
    intents.retain(|_| {
        position += 1;
        kept.binary_search(&(position - 1)).is_ok()
    });
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::question_count;

    #[test]
    fn questions_grow_with_length_and_stop_at_fifty() {
        let counts = [0, 1, 3, 5, 100, 101, 200, 400, 1200, 100_000].map(question_count);
        assert_eq!(counts, [0, 2, 6, 10, 10, 15, 15, 24, 50, 50]);
    }
}
