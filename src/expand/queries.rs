//! Writes the queries that a chunk answers: questions sampled one by one, lists steered by keywords, and words that it lacks.

use std::collections::BTreeSet;

use super::prompt;
use crate::{
    intent::question,
    job::spec,
    model::{Completion, Generate, ModelError, Prompt, Sampling},
};

/// Two queries with at least this share of their words in common ask the same.
const ALIKE: f32 = 0.8;

/// What prompts call a chunk's text, and no searcher does.
const PASSAGE: &str = "passage";

/// A chunk whose queries are wanted.
#[derive(Debug, Clone)]
pub struct Chunk<'a> {
    pub title: Option<&'a str>,
    pub text: &'a str,
    /// The document's intents that this chunk serves best; they become its queries too.
    pub intents: Vec<&'a str>,
    /// What lists are steered by.
    pub keywords: Vec<String>,
    /// Decides the sampling, so that a chunk's queries do not depend on its neighbours.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Predicted for the document, served best by this chunk.
    Intent,
    /// Sampled from the chunk by itself.
    Sample,
    /// Of a list steered by keywords.
    Keyword,
    /// Words that the chunk lacks.
    Vocabulary,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Intent => "intent",
            Origin::Sample => "sample",
            Origin::Keyword => "keyword",
            Origin::Vocabulary => "vocabulary",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub text: String,
    pub origin: Origin,
    /// The chunk's keywords that it has.
    pub keywords: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    pub queries: Vec<Query>,
    /// Tokens sampled.
    pub tokens: usize,
    /// Tokens of the chunk beyond `passage_tokens`, which the generator did not read.
    pub truncated: usize,
}

/// Writes the queries of several chunks, in order. `done` is told after each chunk.
pub fn write(
    chunks: &[Chunk],
    settings: &spec::Expand,
    generator: &dyn Generate,
    done: &dyn Fn(),
) -> Vec<Result<Written, ModelError>> {
    let mut results = Vec::with_capacity(chunks.len());
    for group in chunks.chunks(generator.requests_at_once()) {
        results.extend(write_group(group, settings, generator));
        group.iter().for_each(|_| done());
    }
    results
}

fn write_group(
    chunks: &[Chunk],
    settings: &spec::Expand,
    generator: &dyn Generate,
) -> Vec<Result<Written, ModelError>> {
    let passages: Vec<_> = chunks
        .iter()
        .map(|c| prompt::passage(c.title, c.text, settings.passage_tokens, generator))
        .collect();
    let (mut requests, mut origins) = (Vec::new(), Vec::new());
    for (chunk, passage) in chunks.iter().zip(&passages) {
        let asked = passage
            .as_ref()
            .map_or(Vec::new(), |(passage, _)| asked(chunk, passage, settings));
        origins.push(asked.iter().map(|(origin, ..)| *origin).collect::<Vec<_>>());
        requests.extend(
            asked
                .into_iter()
                .map(|(_, prompt, sampling)| (prompt, sampling)),
        );
    }
    let mut answers = generator.generate(&requests).into_iter();
    let missing = || ModelError::Model {
        model: generator.identity().name.clone(),
        message: "gave fewer answers than it was asked for".into(),
    };
    let mut written = Vec::with_capacity(chunks.len());
    for ((chunk, passage), origins) in chunks.iter().zip(passages).zip(origins) {
        // All of a chunk's answers are taken, so that the next chunk finds its own.
        let answer = |origin| (origin, answers.next().unwrap_or_else(|| Err(missing())));
        let completions: Vec<_> = origins.into_iter().map(answer).collect();
        written.push(passage.and_then(|(passage, truncated)| {
            let mut shown = prompt::shown_answers(&passage, &settings.examples);
            if settings.vocabulary {
                shown.extend(prompt::shown_vocabulary());
            }
            let shown: Vec<BTreeSet<String>> = shown.into_iter().map(words).collect();
            gather(chunk, completions, truncated, &shown)
        }));
    }
    written
}

/// What a chunk is asked for.
fn asked(chunk: &Chunk, passage: &str, settings: &spec::Expand) -> Vec<(Origin, Prompt, Sampling)> {
    let examples = &settings.examples;
    let sampling = |n, max_tokens, stop: &[&str], origin: Origin| Sampling {
        n,
        temperature: settings.temperature,
        top_p: settings.top_p,
        max_tokens,
        stop: stop.iter().map(|s| (*s).to_owned()).collect(),
        seed: chunk.seed ^ origin as u64,
    };
    let mut asked = Vec::new();
    if settings.queries > 0 {
        let sampling = sampling(
            settings.queries,
            settings.max_tokens,
            &["\n"],
            Origin::Sample,
        );
        asked.push((
            Origin::Sample,
            prompt::question(passage, examples),
            sampling,
        ));
    }
    // Without keywords a generator writes of their absence.
    if settings.lists > 0 && !chunk.keywords.is_empty() {
        let sampling = sampling(settings.lists, settings.list_tokens, &[], Origin::Keyword);
        let prompt = prompt::list(passage, &chunk.keywords, examples);
        asked.push((Origin::Keyword, prompt, sampling));
    }
    if settings.vocabulary {
        let sampling = sampling(1, settings.list_tokens, &[], Origin::Vocabulary);
        asked.push((Origin::Vocabulary, prompt::vocabulary(passage), sampling));
    }
    asked
}

/// The intents first, then what was written, in the order asked for. Unfinished lines go, and those that ask what an earlier
/// one does or an example that was `shown`, or that speak of the passage.
fn gather(
    chunk: &Chunk,
    completions: Vec<(Origin, Result<Vec<Completion>, ModelError>)>,
    truncated: usize,
    shown: &[BTreeSet<String>],
) -> Result<Written, ModelError> {
    let mut written = Written {
        truncated,
        ..Written::default()
    };
    let mut own = words(chunk.text);
    own.extend(words(chunk.title.unwrap_or_default()));
    let mut lines: Vec<(Origin, String)> = Vec::new();
    lines.extend(
        chunk
            .intents
            .iter()
            .map(|i| (Origin::Intent, (*i).to_owned())),
    );
    for (origin, completions) in completions {
        for completion in completions? {
            written.tokens += completion.tokens;
            lines.extend(finished_lines(&completion).filter_map(|line| {
                let text = match origin {
                    Origin::Vocabulary => phrase(line, &own),
                    _ => question::clean(line),
                };
                Some((origin, text?))
            }));
        }
    }
    let speaks_of_it = |words: &BTreeSet<String>| words.contains(PASSAGE) && !own.contains(PASSAGE);
    let mut seen: Vec<BTreeSet<String>> = Vec::new();
    for (origin, text) in lines {
        let words = words(&text);
        let copies = || shown.iter().any(|example| share(example, &words) >= ALIKE);
        if origin != Origin::Intent && (speaks_of_it(&words) || copies()) {
            continue;
        }
        // Two phrases may differ by one word of two.
        let repeats = match origin {
            Origin::Vocabulary => seen.contains(&words),
            _ => seen.iter().any(|earlier| share(earlier, &words) >= ALIKE),
        };
        if !repeats {
            let keywords = used(&chunk.keywords, &text);
            written.queries.push(Query {
                text,
                origin,
                keywords,
            });
            seen.push(words);
        }
    }
    Ok(written)
}

/// The lines but for one that was cut.
fn finished_lines(completion: &Completion) -> impl Iterator<Item = &str> {
    let text = completion.text.as_str();
    let whole = match completion.finished {
        true => text,
        false => text.rfind('\n').map_or("", |end| &text[..end]),
    };
    whole.lines()
}

/// A phrase of the vocabulary, unless all of its words are among the chunk's own.
fn phrase(line: &str, own: &BTreeSet<String>) -> Option<String> {
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    let phrase = line.trim().trim_start_matches(['-', '*', '•']).trim();
    let new = words(phrase).iter().any(|word| !own.contains(word));
    (new && phrase.chars().count() <= LONGEST_PHRASE).then(|| phrase.to_owned())
}

/// Longest phrase of the vocabulary, in code points; more is a sentence.
const LONGEST_PHRASE: usize = 60;

fn words(text: &str) -> BTreeSet<String> {
    let normal = question::normal_form(text);
    normal
        .split(' ')
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The share of their words that two queries have in common (Jaccard).
fn share(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f32 {
    let common = a.intersection(b).count();
    common as f32 / (a.len() + b.len() - common).max(1) as f32
}

/// The keywords that a query has.
fn used(keywords: &[String], query: &str) -> Vec<String> {
    let query = format!(" {} ", question::normal_form(query));
    let has = |keyword: &&String| query.contains(&format!(" {} ", question::normal_form(keyword)));
    keywords.iter().filter(has).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(text: &str, finished: bool) -> Completion {
        Completion {
            text: text.into(),
            tokens: 7,
            finished,
        }
    }

    #[test]
    fn lines_are_gathered_without_repeats_and_cut_ends() {
        let chunk = Chunk {
            title: Some("The Northwest Passage"),
            text: "The canal joined two seas.",
            intents: vec!["what did the canal join?"],
            keywords: vec!["two seas".into(), "ships".into()],
            seed: 1,
        };
        let lists = [
            completion(
                "1. canal of the two seas\nWhat did the canal join\n- who dug the ca",
                false,
            ),
            completion(
                "canal two seas of the\nBest temperature, wild yeast\nwhich passage is shorter?\nwhich two seas did it join?",
                true,
            ),
        ];
        let samples = [
            completion("which seas did the canal join?", true),
            completion("cut", false),
        ];
        let vocabulary = [completion("waterway\n- the canal\nship waterway", true)];
        let completions = vec![
            (Origin::Sample, Ok(samples.into())),
            (Origin::Keyword, Ok(lists.into())),
            (Origin::Vocabulary, Ok(vocabulary.into())),
        ];
        let shown = [words("best temperature for wild yeast")];
        let written = gather(&chunk, completions, 3, &shown).unwrap();
        let found: Vec<_> = written
            .queries
            .iter()
            .map(|q| (q.origin.name(), q.text.as_str()))
            .collect();
        let wanted = [
            ("intent", "what did the canal join?"),
            ("sample", "which seas did the canal join?"),
            ("keyword", "canal of the two seas"),
            ("keyword", "which passage is shorter?"),
            ("keyword", "which two seas did it join?"),
            ("vocabulary", "waterway"),
            ("vocabulary", "ship waterway"),
        ];
        assert_eq!(found, wanted);
        // Where nothing of the chunk's own is called so, the word means the chunk.
        let untitled = Chunk {
            title: None,
            ..chunk
        };
        let lines = completion("which passage is shorter?\nhow short is it?", true);
        let lines = gather(&untitled, vec![(Origin::Keyword, Ok(vec![lines]))], 0, &[]).unwrap();
        assert_eq!(lines.queries.last().unwrap().text, "how short is it?");
        assert_eq!(lines.queries.len(), 2);
        assert_eq!(written.queries[2].keywords, ["two seas"]);
        assert_eq!((written.tokens, written.truncated), (35, 3));
    }
}
