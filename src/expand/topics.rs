//! What a corpus is about: clusters of its chunks' vectors, with the words that tell each from the others.
//!
//! Clusters are FAISS's spherical k-means over a sample. Words are weighted by c-TF-IDF (Grootendorst, arXiv 2203.05794):
//! tf(t, topic) · ln(1 + A / tf(t)), where A is the mean number of words of a topic.

use std::collections::BTreeMap;

use faiss::{
    cluster::{Clustering, ClusteringParameters},
    index::flat::FlatIndex,
};

use crate::{chunk::objective::dot, index::analyzer, job::spec::SparseLanguage, model::Vectors};

/// Words kept of a topic.
pub const WORDS: usize = 20;
/// Words in a topic's label.
const LABEL: usize = 3;
/// Words of fewer letters say little.
const SHORTEST: usize = 3;
/// A word in a larger share of the chunks belongs to no topic; where topics are few, one in what two of them have.
const COMMON: f64 = 0.1;
/// Chunks sampled for each topic.
const SAMPLE: usize = 64;
const MOST: usize = 1000;
const ITERATIONS: u32 = 20;

#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// Its first words.
    pub label: String,
    /// Best first, with their c-TF-IDF.
    pub words: Vec<(String, f32)>,
    /// Sampled chunks in it.
    pub size: u64,
    /// Of length 1.
    pub centroid: Vec<f32>,
}

/// The topics of a corpus; a topic's id is its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topics(pub Vec<Topic>);

/// How many topics a corpus of so many chunks has by default.
pub fn usual_count(chunks: u64) -> usize {
    ((chunks as f64 / 2.0).sqrt().round() as usize).clamp(1, MOST)
}

/// How many chunks are sampled for `k` topics.
pub fn sample_size(k: usize) -> usize {
    k * SAMPLE
}

/// Finds at most `k` topics in a sample of chunks. `vectors` has a row for each text, of length 1.
pub fn train(
    texts: &[&str],
    vectors: &Vectors,
    k: usize,
    language: SparseLanguage,
) -> Result<Topics, faiss::error::Error> {
    let k = k.min(texts.len());
    if k == 0 {
        return Ok(Topics::default());
    }
    let centroids = cluster(vectors, k)?;
    let nearest: Vec<usize> = (0..texts.len())
        .map(|i| closest(centroids.iter().map(Vec::as_slice), vectors.row(i)))
        .collect();
    let words = topic_words(texts, &nearest, k, language);
    let topics = centroids.into_iter().zip(words).enumerate();
    let topics = topics.map(|(topic, (centroid, words))| {
        let label: Vec<&str> = words.iter().take(LABEL).map(|(w, _)| w.as_str()).collect();
        Topic {
            label: label.join(" "),
            size: nearest.iter().filter(|n| **n == topic).count() as u64,
            words,
            centroid,
        }
    });
    Ok(Topics(topics.collect()))
}

fn cluster(vectors: &Vectors, k: usize) -> Result<Vec<Vec<f32>>, faiss::error::Error> {
    let dim = vectors.dim as u32;
    let mut parameters = ClusteringParameters::new();
    parameters.set_spherical(true);
    parameters.set_niter(ITERATIONS);
    // A sample may be small; FAISS only warns, but to stderr.
    parameters.set_min_points_per_centroid(1);
    parameters.set_max_points_per_centroid(SAMPLE as u32 * 4);
    let mut clustering = Clustering::new_with_params(dim, k as u32, &parameters)?;
    let mut index = FlatIndex::new_ip(dim)?;
    clustering.train(&vectors.values, &mut index)?;
    let centroids = clustering.centroids()?.into_iter();
    Ok(centroids.map(<[f32]>::to_vec).collect())
}

fn closest<'a>(centroids: impl Iterator<Item = &'a [f32]>, vector: &[f32]) -> usize {
    let scored = centroids.map(|centroid| dot(centroid, vector)).enumerate();
    let best = scored.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(topic, _)| topic)
}

/// The words of each topic, best first, of equal weight in the order of their bytes.
fn topic_words(
    texts: &[&str],
    nearest: &[usize],
    k: usize,
    language: SparseLanguage,
) -> Vec<Vec<(String, f32)>> {
    let mut words_of = analyzer::words(language);
    let mut counts: Vec<BTreeMap<String, u32>> = vec![BTreeMap::new(); k];
    let mut chunks_with: BTreeMap<String, u32> = BTreeMap::new();
    for (text, topic) in texts.iter().zip(nearest) {
        let mut words = analyzer::terms(&mut words_of, text);
        words.retain(|word| tells(word));
        for word in &words {
            *counts[*topic].entry(word.clone()).or_default() += 1;
        }
        words.sort_unstable();
        words.dedup();
        for word in words {
            *chunks_with.entry(word).or_default() += 1;
        }
    }
    let most = texts.len() as f64 * COMMON.max(2.0 / k as f64);
    let mut totals: BTreeMap<&str, f32> = BTreeMap::new();
    for (word, count) in counts.iter().flatten() {
        *totals.entry(word).or_default() += *count as f32;
    }
    let average = totals.values().sum::<f32>() / k as f32;
    let weighted = |counts: &BTreeMap<String, u32>| {
        let own: f32 = counts.values().map(|count| *count as f32).sum();
        let rare = counts
            .iter()
            .filter(|(word, _)| f64::from(chunks_with[*word]) <= most);
        let weight = |(word, count): (&String, &u32)| {
            let tf = *count as f32 / own;
            (
                word.clone(),
                tf * (1.0 + average / totals[word.as_str()]).ln(),
            )
        };
        let mut words: Vec<(String, f32)> = rare.map(weight).collect();
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(WORDS);
        words
    };
    counts.iter().map(weighted).collect()
}

/// Whether a word can say what a text is about: not a number, and not one or two letters.
pub fn tells(word: &str) -> bool {
    word.chars().filter(|c| c.is_alphabetic()).count() >= SHORTEST
}

/// How much of a text each topic has, from the topics that its sentences are closest to, weighted by their lengths; the
/// largest share first, of equal ones the lower id.
pub fn shares(topics: &Topics, sentences: &Vectors, lengths: &[usize]) -> Vec<(u32, f32)> {
    let total: usize = lengths.iter().sum();
    if topics.0.is_empty() || total == 0 {
        return Vec::new();
    }
    let mut shares: BTreeMap<u32, f32> = BTreeMap::new();
    for (i, length) in lengths.iter().enumerate() {
        let centroids = topics.0.iter().map(|topic| topic.centroid.as_slice());
        let topic = closest(centroids, sentences.row(i)) as u32;
        *shares.entry(topic).or_default() += *length as f32 / total as f32;
    }
    let mut shares: Vec<(u32, f32)> = shares.into_iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty texts on cats and twenty on tides, in two directions with a little of a third.
    fn corpus() -> (Vec<String>, Vectors) {
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        for i in 0..40 {
            let (text, mut vector) = match i % 2 {
                0 => (format!("the cat purrs and sleeps {i}"), [1.0, 0.0, 0.0]),
                _ => (format!("the tide rises with moon {i}"), [0.0, 1.0, 0.0]),
            };
            vector[2] = 0.01 * i as f32;
            let norm = vector.iter().map(|v: &f32| v * v).sum::<f32>().sqrt();
            texts.push(text);
            values.extend(vector.map(|v| v / norm));
        }
        (texts, Vectors { dim: 3, values })
    }

    #[test]
    fn texts_of_a_kind_are_a_topic_with_its_words() {
        let (texts, vectors) = corpus();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let topics = train(&texts, &vectors, 2, SparseLanguage::English).unwrap();
        assert_eq!(
            topics,
            train(&texts, &vectors, 2, SparseLanguage::English).unwrap()
        );
        let cats = topics
            .0
            .iter()
            .position(|t| t.words.iter().any(|(w, _)| w == "cat"));
        let cats = cats.expect("no topic of cats");
        assert!(topics.0[1 - cats].words.iter().any(|(w, _)| w == "tide"));
        assert_eq!(
            topics.0.iter().map(|t| t.size).collect::<Vec<_>>(),
            [20, 20]
        );
        let sentences = Vectors {
            dim: 3,
            values: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        };
        let shares = shares(&topics, &sentences, &[10, 10, 20]);
        assert_eq!(shares, [(cats as u32, 0.75), (1 - cats as u32, 0.25)]);
    }

    #[test]
    fn there_are_no_more_topics_than_texts() {
        let vectors = Vectors {
            dim: 2,
            values: vec![1.0, 0.0],
        };
        let topics = train(&["one text"], &vectors, 5, SparseLanguage::English).unwrap();
        assert_eq!(topics.0.len(), 1);
        let none = train(
            &[],
            &Vectors {
                dim: 2,
                values: vec![],
            },
            5,
            SparseLanguage::English,
        );
        assert!(none.unwrap().0.is_empty());
        assert_eq!(
            [57, 3209, 9079, 100_000_000].map(usual_count),
            [5, 40, 67, 1000]
        );
    }
}
