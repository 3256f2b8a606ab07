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

use super::topics::{Topic, Topics, shares, tells};

/// Most keywords of a chunk.
const MOST: usize = 10;
/// Words of a phrase; of three, most are pieces of sentences.
const PHRASE: usize = 2;
/// Phrases that are compared, evenly spaced in a chunk that has more.
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
    /// The topic that it is to cover.
    pub topic: Option<u32>,
    /// Cosine to the chunk, or to the topic that it is to cover; of a topic's word its c-TF-IDF.
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
    let vectors = embedded.vectors.of_unit_length();
    let mut start = 0;
    let mut rows = |count: usize| {
        let range = start..start + count;
        start = range.end;
        let dim = vectors.dim;
        let values = vectors.values[range.start * dim..range.end * dim].to_vec();
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
                if edges && seen.insert(phrase.clone()) {
                    phrases.push(phrase);
                }
            }
        }
    }
    let all = phrases.len();
    let spaced = |i: &usize| (i + 1) * CANDIDATES.min(all) / all > i * CANDIDATES.min(all) / all;
    let phrases = phrases.into_iter().enumerate().filter(|(i, _)| spaced(i));
    Parts {
        sentences,
        words,
        phrases: phrases.map(|(_, phrase)| phrase).collect(),
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

/// A keyword for each topic first, then phrases by maximal marginal relevance.
fn choose(
    parts: &Parts,
    phrases: &Vectors,
    chunk: &[f32],
    (topics, shares): (&Topics, &[(u32, f32)]),
) -> Vec<Keyword> {
    let mut chosen = Chosen {
        parts,
        phrases,
        keywords: Vec::new(),
        alike: vec![0.0; phrases.rows()],
    };
    for (topic, _) in shares.iter().take(MOST) {
        chosen.cover(*topic, &topics.0[*topic as usize]);
    }
    let close: Vec<f32> = (0..phrases.rows())
        .map(|i| dot(phrases.row(i), chunk))
        .collect();
    while chosen.keywords.len() < MOST {
        let value = |i: usize| (1.0 - DIVERSITY) * close[i] - DIVERSITY * chosen.alike[i];
        let Some(best) = chosen.best(value) else {
            break;
        };
        chosen.add_phrase(best, None, close[best]);
    }
    chosen.keywords
}

struct Chosen<'a> {
    parts: &'a Parts<'a>,
    phrases: &'a Vectors,
    keywords: Vec<Keyword>,
    /// Of each phrase, the cosine to the closest one chosen so far.
    alike: Vec<f32>,
}

impl Chosen<'_> {
    /// The best word of the topic that the chunk has; where it has none, the phrase that is closest to the topic.
    fn cover(&mut self, number: u32, topic: &Topic) {
        let is_new = |word: &str| self.keywords.iter().all(|k| !overlaps(&k.text, word));
        let mut own = topic
            .words
            .iter()
            .filter(|(word, _)| self.parts.words.contains(word));
        if let Some((word, weight)) = own.find(|(word, _)| is_new(word)) {
            self.keywords.push(Keyword {
                text: word.clone(),
                source: Source::Topic,
                topic: Some(number),
                score: *weight,
            });
            let phrase = self.parts.phrases.iter().position(|phrase| phrase == word);
            phrase
                .into_iter()
                .for_each(|phrase| self.count_alike(phrase));
            return;
        }
        let cosine = |i: usize| dot(self.phrases.row(i), &topic.centroid);
        if let Some(best) = self.best(cosine) {
            let score = cosine(best);
            self.add_phrase(best, Some(number), score);
        }
    }

    /// The phrase of the greatest value among those that no keyword holds and that hold none; of equal ones the first.
    fn best(&self, value: impl Fn(usize) -> f32) -> Option<usize> {
        let is_new = |i: &usize| {
            let phrase = &self.parts.phrases[*i];
            self.keywords.iter().all(|k| !overlaps(&k.text, phrase))
        };
        let left = (0..self.parts.phrases.len()).filter(is_new);
        left.reduce(|a, b| if value(b) > value(a) { b } else { a })
    }

    fn add_phrase(&mut self, phrase: usize, topic: Option<u32>, score: f32) {
        self.keywords.push(Keyword {
            text: self.parts.phrases[phrase].clone(),
            source: Source::Chunk,
            topic,
            score,
        });
        self.count_alike(phrase);
    }

    fn count_alike(&mut self, phrase: usize) {
        let vector = self.phrases.row(phrase);
        for (i, alike) in self.alike.iter_mut().enumerate() {
            *alike = alike.max(dot(self.phrases.row(i), vector));
        }
    }
}

/// Whether one phrase holds the other's words, in their order.
fn overlaps(a: &str, b: &str) -> bool {
    let holds = |a: &str, b: &str| format!(" {a} ").contains(&format!(" {b} "));
    holds(a, b) || holds(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_topic_without_a_word_in_the_chunk_is_covered_by_the_closest_phrase() {
        let topics = Topics(vec![Topic {
            label: "absent".into(),
            words: vec![("absent".into(), 0.9)],
            size: 1,
            centroid: vec![0.0, 1.0],
        }]);
        let parts = parts("A canal; an ocean.", SparseLanguage::English);
        assert_eq!(parts.phrases, ["canal", "ocean"]);
        let phrases = Vectors {
            dim: 2,
            values: vec![1.0, 0.0, 0.6, 0.8],
        };
        let chosen = choose(&parts, &phrases, &[1.0, 0.0], (&topics, &[(0, 1.0)]));
        let found: Vec<_> = chosen.iter().map(|k| (k.text.as_str(), k.topic)).collect();
        assert_eq!(found, [("ocean", Some(0)), ("canal", None)]);
        assert_eq!((chosen[0].source, chosen[0].score), (Source::Chunk, 0.8));
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
