//! Which queries the indexes take: those whose score reaches a percentile over the whole corpus, and of the vocabulary those
//! that other chunks have.
//!
//! Where not all are taken, `selection/` says of each query what became of it and why. Everything that asks later reads it there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray};

use super::EngineError;
use crate::{
    chunk::objective::dot,
    expand::{
        filter::{self, NOT_FOUND, ROUND_TRIP, Threshold},
        queries::Origin,
        scores,
    },
    index::{DenseShards, analyzer},
    job::{
        Job,
        spec::{self, Filter, VectorType},
    },
    store::{
        Dataset,
        dataset::{PartWriter, each_row, each_row_if_any, each_vector, float, text},
        index_shards, schema,
    },
};

/// A word of the vocabulary in a larger share of the chunks says nothing.
const COMMON: f64 = 0.05;

/// Whether some queries may not be taken.
pub fn is_partial(expand: &spec::Expand) -> bool {
    expand.enabled && (expand.keep < 1.0 || expand.vocabulary)
}

/// A query as far as it is decided on.
struct Decided {
    id: String,
    score: Option<f32>,
    taken: bool,
}

pub struct Selector<'a> {
    pub job: &'a Job,
    pub generation: &'a Path,
    pub shards: usize,
}

impl Selector<'_> {
    /// Decides on every query.
    pub fn write(&self) -> Result<(), EngineError> {
        let round_trip = match self.job.expand.filter {
            Filter::RoundTrip if self.job.expand.keep < 1.0 => {
                let shards = index_shards::folders(self.generation)?.into_iter();
                let folders: Vec<PathBuf> = shards.map(|shard| shard.join("dense")).collect();
                Some(DenseShards::open(&folders, "text")?)
            }
            _ => None,
        };
        let frequencies = self.frequencies()?;
        for shard in 0..self.shards {
            let (phrases, mut decided) = self.decide(shard, round_trip.as_ref())?;
            let own = self.texts_of(shard, &phrases)?;
            frequencies.refuse(&mut decided, &phrases, &own);
            self.write_part(shard, &decided)?;
        }
        if self.job.expand.keep >= 1.0 {
            return Ok(());
        }
        let threshold = self.threshold()?;
        for shard in 0..self.shards {
            let mut decided = self.read_part(shard)?;
            for query in &mut decided {
                // One without a score keeps what was decided: it is taken, unless it is vocabulary that was refused.
                if let Some(score) = query.score {
                    query.taken = filter::reaches(score, threshold);
                }
            }
            self.write_part(shard, &decided)?;
        }
        Ok(())
    }

    /// The queries of a shard with their scores, and the rows that the vocabulary is decided by.
    fn decide(
        &self,
        shard: usize,
        round_trip: Option<&DenseShards>,
    ) -> Result<(Vec<Phrase>, Vec<Decided>), EngineError> {
        let scores = self.scores(shard, round_trip)?;
        let (mut phrases, mut decided) = (Vec::new(), Vec::new());
        each_row(&self.path(Dataset::Queries, shard), |batch, i| {
            let id = text(batch, "query_id", i).unwrap_or_default();
            let is_vocabulary = text(batch, "origin", i) == Some(Origin::Vocabulary.name());
            if is_vocabulary {
                phrases.push(Phrase {
                    place: decided.len(),
                    text: text(batch, "text", i).unwrap_or_default().to_owned(),
                    chunk: text(batch, "chunk_id", i).unwrap_or_default().to_owned(),
                });
            }
            decided.push(Decided {
                id: id.to_owned(),
                score: scores.get(id).copied().filter(|_| !is_vocabulary),
                taken: true,
            });
        })?;
        Ok((phrases, decided))
    }

    /// The filter's score of each query of a shard that has one.
    fn scores(
        &self,
        shard: usize,
        round_trip: Option<&DenseShards>,
    ) -> Result<HashMap<String, f32>, EngineError> {
        let filter = self.job.expand.filter;
        match filter {
            _ if self.job.expand.keep >= 1.0 => Ok(HashMap::new()),
            Filter::Cosine | Filter::RoundTrip => self.compared(shard, round_trip),
            _ => self.scored(shard, filter),
        }
    }

    fn scored(&self, shard: usize, filter: Filter) -> Result<HashMap<String, f32>, EngineError> {
        let mut found = HashMap::new();
        each_row(&self.path(Dataset::Scores, shard), |batch, i| {
            let number = |name: &str| float(batch, name, i);
            let score = match filter {
                Filter::Relevance => number("relevance"),
                Filter::CrossEncoder => number("cross_encoder"),
                Filter::Combined => number("gain")
                    .zip(number("relevance"))
                    .map(|(gain, relevance)| scores::combined(gain, relevance)),
                _ => number("gain"),
            };
            if let (Some(id), Some(score)) = (text(batch, "query_id", i), score) {
                found.insert(id.to_owned(), score);
            }
        })?;
        Ok(found)
    }

    /// The cosine to the own chunk, or with an index the number of chunks that are closer, negated.
    fn compared(
        &self,
        shard: usize,
        index: Option<&DenseShards>,
    ) -> Result<HashMap<String, f32>, EngineError> {
        let mut chunks: HashMap<String, Vec<f32>> = HashMap::new();
        each_vector(&self.path(Dataset::TextVectors, shard), |id, vector| {
            chunks.insert(id.to_owned(), vector.to_vec());
            Ok::<_, EngineError>(())
        })?;
        // A model may not normalise.
        let cosine = |a: &[f32], b: &[f32]| {
            let lengths = (dot(a, a) * dot(b, b)).sqrt();
            dot(a, b) / lengths.max(f32::MIN_POSITIVE)
        };
        let mut scores = HashMap::new();
        each_vector(&self.path(Dataset::QueryVectors, shard), |id, vector| {
            let own = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
            let score = match index {
                Some(index) => {
                    let hits = index.search(vector, ROUND_TRIP)?;
                    let place = hits.iter().position(|hit| index.id(hit.row) == Some(own));
                    Some(place.map_or(NOT_FOUND, |place| -(place as f32)))
                }
                None => chunks.get(own).map(|chunk| cosine(chunk, vector)),
            };
            scores.extend(score.map(|score| (id.to_owned(), score)));
            Ok::<_, EngineError>(())
        })?;
        Ok(scores)
    }

    /// The lowest score among the share that is kept: a percentile of the whole corpus, not of a document.
    fn threshold(&self) -> Result<Option<f32>, EngineError> {
        let mut threshold = Threshold::new(self.job.expand.keep);
        loop {
            for shard in 0..self.shards {
                let decided = self.read_part(shard)?;
                decided
                    .iter()
                    .filter_map(|query| query.score)
                    .for_each(|score| threshold.show(score));
            }
            if let Some(found) = threshold.end_pass() {
                return Ok(found);
            }
        }
    }

    fn path(&self, dataset: Dataset, shard: usize) -> PathBuf {
        dataset.part(self.generation, shard)
    }

    fn write_part(&self, shard: usize, decided: &[Decided]) -> Result<(), EngineError> {
        let path = self.path(Dataset::Selection, shard);
        let schema = schema::schema(Dataset::Selection, &[], (VectorType::F32, 0));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(decided.iter().map(|q| &q.id))),
            Arc::new(Float32Array::from_iter(decided.iter().map(|q| q.score))),
            Arc::new(BooleanArray::from_iter(
                decided.iter().map(|q| Some(q.taken)),
            )),
        ];
        let batch =
            RecordBatch::try_new(schema.clone(), columns).map_err(EngineError::batch(&path))?;
        let mut writer = PartWriter::create(&path, schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(())
    }

    fn read_part(&self, shard: usize) -> Result<Vec<Decided>, EngineError> {
        let mut decided = Vec::new();
        each_row(&self.path(Dataset::Selection, shard), |batch, i| {
            decided.push(Decided {
                id: text(batch, "query_id", i).unwrap_or_default().to_owned(),
                score: float(batch, "score", i),
                taken: is_taken(batch, i),
            });
        })?;
        Ok(decided)
    }

    /// The texts of the phrases' chunks.
    fn texts_of(
        &self,
        shard: usize,
        phrases: &[Phrase],
    ) -> Result<HashMap<String, String>, EngineError> {
        let wanted: HashSet<&str> = phrases.iter().map(|p| p.chunk.as_str()).collect();
        let mut texts = HashMap::new();
        if !wanted.is_empty() {
            each_row(&self.path(Dataset::Chunks, shard), |batch, i| {
                let (id, of) = (text(batch, "chunk_id", i), text(batch, "text", i));
                if let (Some(id), Some(of)) = (id.filter(|id| wanted.contains(id)), of) {
                    texts.insert(id.to_owned(), of.to_owned());
                }
            })?;
        }
        Ok(texts)
    }

    /// In how many chunks each word of the vocabulary is.
    fn frequencies(&self) -> Result<Frequencies, EngineError> {
        let mut frequencies = Frequencies::new(self.job.sparse.language);
        if !self.job.expand.vocabulary {
            return Ok(frequencies);
        }
        for shard in 0..self.shards {
            each_row(&self.path(Dataset::Queries, shard), |batch, i| {
                if text(batch, "origin", i) == Some(Origin::Vocabulary.name()) {
                    frequencies.want(text(batch, "text", i).unwrap_or_default());
                }
            })?;
        }
        for shard in 0..self.shards {
            each_row(&self.path(Dataset::Chunks, shard), |batch, i| {
                frequencies.count(text(batch, "text", i).unwrap_or_default());
            })?;
        }
        Ok(frequencies)
    }
}

/// A phrase of the vocabulary, its query's place, and its chunk.
struct Phrase {
    place: usize,
    text: String,
    chunk: String,
}

/// Document frequencies of the words that are asked for.
struct Frequencies {
    analyzer: tantivy::tokenizer::TextAnalyzer,
    counts: BTreeMap<String, u64>,
    chunks: u64,
}

impl Frequencies {
    fn new(language: spec::SparseLanguage) -> Self {
        let analyzer = analyzer::tokenizers().get(analyzer::name(language));
        Self {
            analyzer: analyzer.expect("registered under this name"),
            counts: BTreeMap::new(),
            chunks: 0,
        }
    }

    fn want(&mut self, phrase: &str) {
        let terms = analyzer::terms(&mut self.analyzer, phrase);
        terms
            .into_iter()
            .for_each(|term| _ = self.counts.entry(term).or_default());
    }

    fn count(&mut self, chunk: &str) {
        let terms: BTreeSet<String> = analyzer::terms(&mut self.analyzer, chunk)
            .into_iter()
            .collect();
        for term in terms {
            if let Some(count) = self.counts.get_mut(&term) {
                *count += 1;
            }
        }
        self.chunks += 1;
    }

    /// Refuses phrases that have no word which some other chunk has and at most [`COMMON`] of all; `own` are the texts of the
    /// phrases' chunks.
    fn refuse(&self, decided: &mut [Decided], phrases: &[Phrase], own: &HashMap<String, String>) {
        let most = (self.chunks as f64 * COMMON).max(1.0) as u64;
        let mut analyzer = self.analyzer.clone();
        for phrase in phrases {
            let own = own.get(&phrase.chunk).map(String::as_str);
            let own: HashSet<String> = analyzer::terms(&mut analyzer, own.unwrap_or_default())
                .into_iter()
                .collect();
            let terms = analyzer::terms(&mut analyzer, &phrase.text);
            let count = |term: &String| self.counts.get(term).copied().unwrap_or(0);
            let mut new = terms.iter().filter(|term| !own.contains(*term));
            decided[phrase.place].taken = new.any(|term| (1..=most).contains(&count(term)));
        }
    }
}

/// The lowest score of a query that the indexes took, if any has one.
pub fn lowest(generation: &Path, shards: usize) -> Result<Option<f32>, EngineError> {
    let mut lowest: Option<f32> = None;
    for shard in 0..shards {
        each_row_if_any(&Dataset::Selection.part(generation, shard), |batch, i| {
            let score = float(batch, "score", i).filter(|_| is_taken(batch, i));
            lowest = lowest.into_iter().chain(score).reduce(f32::min);
        })?;
    }
    Ok(lowest)
}

fn is_taken(batch: &RecordBatch, i: usize) -> bool {
    let taken = batch.column_by_name("taken");
    taken.is_none_or(|taken| taken.as_boolean().value(i))
}

/// The queries of a shard that the indexes did not take.
pub fn left_out(generation: &Path, shard: usize) -> Result<HashSet<String>, EngineError> {
    let mut left_out = HashSet::new();
    each_row_if_any(&Dataset::Selection.part(generation, shard), |batch, i| {
        if !is_taken(batch, i) {
            left_out.extend(text(batch, "query_id", i).map(str::to_owned));
        }
    })?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabulary_is_taken_that_another_chunk_has_and_few_have() {
        let phrases = [
            ("comet tails", true),
            // Of the own chunk, but for a word that no chunk has, and one that all have.
            ("bright comets", false),
            ("unheard", false),
            ("star", false),
        ];
        let mut frequencies = Frequencies::new(spec::SparseLanguage::English);
        phrases.iter().for_each(|(text, _)| frequencies.want(text));
        let own = "A bright comet and a star.";
        let others = (0..40).map(|i| format!("Star {i}."));
        [own.to_owned(), "Its tail was long; a star.".to_owned()]
            .into_iter()
            .chain(others)
            .for_each(|text| frequencies.count(&text));
        let place = |(place, (text, _)): (usize, &(&str, bool))| Phrase {
            place,
            text: (*text).to_owned(),
            chunk: "own".into(),
        };
        let asked: Vec<Phrase> = phrases.iter().enumerate().map(place).collect();
        let query = |phrase: &Phrase| Decided {
            id: phrase.text.clone(),
            score: None,
            taken: true,
        };
        let mut decided: Vec<Decided> = asked.iter().map(query).collect();
        let texts = HashMap::from([("own".to_owned(), own.to_owned())]);
        frequencies.refuse(&mut decided, &asked, &texts);
        let taken: Vec<(&str, bool)> = decided.iter().map(|q| (&*q.id, q.taken)).collect();
        assert_eq!(taken, phrases);
    }
}
