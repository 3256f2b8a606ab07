//! The words that steer what is asked of a chunk: phrases that are close to it and unlike each other, and the words of its
//! topics that it has, so that every topic of the chunk is asked about (Doc2Query++, arXiv 2510.09557).

use std::collections::HashSet;

use crate::{
    chunk::objective::dot,
    index::analyzer,
    job::spec::SparseLanguage,
    model::{Embed, ModelError, TextKind, Vectors},
    text,
};

use super::topics::{Topics, shares, tells};

/// Most keywords of a chunk.
const MOST: usize = 8;
/// Topics of a chunk that have to be covered, the largest first.
const TOPICS: usize = 3;
/// Words of a phrase; of three, most are pieces of sentences.
const PHRASE: usize = 2;
/// Phrases that are compared; a chunk rarely has more.
const CANDIDATES: usize = 128;
/// Weight of being unlike the keywords chosen before (Carbonell, Goldstein, SIGIR 1998: 1 − λ).
const DIVERSITY: f32 = 0.6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A phrase of the chunk.
    Chunk,
    /// A word of one of its topics.
    Topic,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Chunk => "chunk",
            Source::Topic => "topic",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Keyword {
    pub text: String,
    pub source: Source,
    /// The topic that it covers.
    pub topic: Option<u32>,
    /// Cosine to the chunk; of a topic's word its c-TF-IDF.
    pub score: f32,
}

/// What a chunk is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Topics and their shares, the largest first.
    pub topics: Vec<(u32, f32)>,
    pub keywords: Vec<Keyword>,
    /// Tokens that the embedder read.
    pub tokens: usize,
}

/// A chunk's sentences and phrases.
struct Parts<'a> {
    sentences: Vec<&'a str>,
    words: HashSet<String>,
    phrases: Vec<String>,
}

/// What each of these texts is about.
pub fn about(
    texts: &[&str],
    topics: &Topics,
    language: SparseLanguage,
    embedder: &dyn Embed,
) -> Result<Vec<About>, ModelError> {
    let parts: Vec<Parts> = texts.iter().map(|text| parts(text, language)).collect();
    let all: Vec<&str> = parts
        .iter()
        .flat_map(|p| {
            p.sentences
                .iter()
                .copied()
                .chain(p.phrases.iter().map(String::as_str))
        })
        .collect();
    let embedded = embedder.embed(&all, TextKind::Document)?;
    let mut start = 0;
    let mut rows = |count: usize| {
        let range = start..start + count;
        start = range.end;
        let dim = embedded.vectors.dim;
        let values = embedded.vectors.values[range.start * dim..range.end * dim].to_vec();
        let tokens = embedded.tokens[range].iter().sum::<usize>();
        (Vectors { dim, values }, tokens)
    };
    let about = parts.iter().map(|parts| {
        let (sentences, read) = rows(parts.sentences.len());
        let (phrases, more) = rows(parts.phrases.len());
        let tokens = read + more;
        let lengths: Vec<usize> = parts.sentences.iter().map(|s| s.len()).collect();
        let topics_of = shares(topics, &sentences, &lengths);
        let keywords = choose(parts, &phrases, &mean(&sentences), (topics, &topics_of));
        About {
            topics: topics_of,
            keywords,
            tokens,
        }
    });
    Ok(about.collect())
}

fn parts(text: &str, language: SparseLanguage) -> Parts<'_> {
    let analysis = text::analyse(text);
    let sentences = analysis.sentences.iter();
    let sentences: Vec<&str> = sentences.map(|s| &text[s.start..s.end]).collect();
    let mut analyzer = analyzer::words(language);
    let (mut words, mut phrases) = (HashSet::new(), Vec::new());
    let mut seen = HashSet::new();
    for sentence in &sentences {
        let mut run: Vec<String> = Vec::new();
        let mut end = 0;
        let mut stream = analyzer.token_stream(sentence);
        while let Some(token) = stream.next() {
            words.insert(token.text.clone());
            // A stop word or a mark between two words parts them.
            let between = &sentence[end.min(token.offset_from)..token.offset_from];
            if !matches!(between, " " | "-" | "") {
                run.clear();
            }
            end = token.offset_to;
            run.push(token.text.clone());
            for length in 1..=PHRASE.min(run.len()) {
                let phrase = &run[run.len() - length..];
                let edges = tells(&phrase[0]) && tells(&phrase[length - 1]);
                let phrase = phrase.join(" ");
                if edges && phrases.len() < CANDIDATES && seen.insert(phrase.clone()) {
                    phrases.push(phrase);
                }
            }
        }
    }
    Parts {
        sentences,
        words,
        phrases,
    }
}

/// The mean, of length 1; zeros of nothing.
fn mean(vectors: &Vectors) -> Vec<f32> {
    let mut mean = vec![0.0; vectors.dim];
    for vector in vectors.values.chunks_exact(vectors.dim) {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    let norm = dot(&mean, &mean).sqrt().max(f32::MIN_POSITIVE);
    mean.iter_mut().for_each(|m| *m /= norm);
    mean
}

/// A word of each topic first, then phrases by maximal marginal relevance.
fn choose(
    parts: &Parts,
    phrases: &Vectors,
    chunk: &[f32],
    (topics, shares): (&Topics, &[(u32, f32)]),
) -> Vec<Keyword> {
    let mut keywords: Vec<Keyword> = Vec::new();
    for (topic, _) in shares.iter().take(TOPICS) {
        let words = &topics.0[*topic as usize].words;
        let new = |word: &str| keywords.iter().all(|k| k.text != word);
        let word = words
            .iter()
            .find(|(w, _)| parts.words.contains(w) && new(w));
        keywords.extend(word.map(|(word, weight)| Keyword {
            text: word.clone(),
            source: Source::Topic,
            topic: Some(*topic),
            score: *weight,
        }));
    }
    let close: Vec<f32> = phrases
        .values
        .chunks_exact(phrases.dim)
        .map(|phrase| dot(phrase, chunk))
        .collect();
    // The cosine to the closest keyword chosen so far.
    let mut alike = vec![0.0f32; close.len()];
    let mut left: Vec<usize> = (0..close.len()).collect();
    let overlaps = |a: &str, b: &str| {
        let holds = |a: &str, b: &str| format!(" {a} ").contains(&format!(" {b} "));
        holds(a, b) || holds(b, a)
    };
    while keywords.len() < MOST {
        left.retain(|i| {
            keywords
                .iter()
                .all(|k| !overlaps(&k.text, &parts.phrases[*i]))
        });
        let value = |i: usize| (1.0 - DIVERSITY) * close[i] - DIVERSITY * alike[i];
        let best = left.iter().copied();
        let Some(best) = best.reduce(|a, b| if value(b) > value(a) { b } else { a }) else {
            break;
        };
        keywords.push(Keyword {
            text: parts.phrases[best].clone(),
            source: Source::Chunk,
            topic: None,
            score: close[best],
        });
        for (i, alike) in alike.iter_mut().enumerate() {
            *alike = alike.max(dot(phrases.row(i), phrases.row(best)));
        }
    }
    keywords
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::topics::Topic;

    #[test]
    fn phrases_stand_between_stop_words_and_marks() {
        let text = "The Suez Canal, opened in 1869, joined two seas. It is a canal.";
        let parts = parts(text, SparseLanguage::English);
        assert_eq!(parts.sentences.len(), 2);
        let wanted = [
            "suez",
            "canal",
            "suez canal",
            "opened",
            "joined",
            "two",
            "joined two",
            "seas",
            "two seas",
        ];
        assert_eq!(parts.phrases, wanted);
        assert!(parts.words.contains("1869") && !parts.words.contains("the"));
    }

    #[test]
    fn every_topic_is_covered_and_no_keyword_holds_another() {
        let topic = |word: &str| Topic {
            label: word.into(),
            words: vec![("absent".into(), 0.9), (word.into(), 0.5)],
            size: 1,
            centroid: vec![1.0, 0.0],
        };
        let topics = Topics(vec![topic("canal"), topic("seas")]);
        let parts = parts("The Suez Canal joined two seas.", SparseLanguage::English);
        let values: Vec<f32> = (0..parts.phrases.len())
            .flat_map(|i| {
                let angle = i as f32 * 0.3;
                [angle.cos(), angle.sin()]
            })
            .collect();
        let phrases = Vectors { dim: 2, values };
        let chosen = choose(
            &parts,
            &phrases,
            &[1.0, 0.0],
            (&topics, &[(1, 0.7), (0, 0.3)]),
        );
        let topic_words: Vec<_> = chosen
            .iter()
            .filter(|k| k.source == Source::Topic)
            .collect();
        assert_eq!(
            topic_words
                .iter()
                .map(|k| k.text.as_str())
                .collect::<Vec<_>>(),
            ["seas", "canal"]
        );
        assert_eq!(topic_words[0].topic, Some(1));
        assert!(chosen.len() > 2 && chosen.len() <= MOST, "{chosen:?}");
        for (i, a) in chosen.iter().enumerate() {
            for b in &chosen[..i] {
                let words: HashSet<&str> = a.text.split(' ').collect();
                assert!(!b.text.split(' ').all(|w| words.contains(w)), "{a:?} {b:?}");
            }
        }
        assert!(chosen.iter().all(|k| k.text != "absent"));
    }

    #[test]
    fn of_two_phrases_that_are_alike_one_is_taken_late() {
        let parts = Parts {
            sentences: vec![],
            words: HashSet::new(),
            phrases: ["red clay", "scarlet clay", "dry river"]
                .map(String::from)
                .into(),
        };
        let values = vec![1.0, 0.0, 0.99, 0.14, 0.6, 0.8];
        let phrases = Vectors { dim: 2, values };
        let chosen = choose(&parts, &phrases, &[0.9, 0.4], (&Topics::default(), &[]));
        let texts: Vec<&str> = chosen.iter().map(|k| k.text.as_str()).collect();
        assert_eq!(texts[1], "dry river", "{texts:?}");
    }
}
