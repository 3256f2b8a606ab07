//! Which queries the indexes take: those whose score reaches a percentile over the whole corpus, and of the vocabulary those
//! that other chunks have.
//!
//! Where not all are taken, `selection/` says of each query what became of it and why. Everything that asks later reads it there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Float32Type},
};

use super::{EngineError, indexes::text};
use crate::{
    chunk::objective::dot,
    expand::{filter::Threshold, queries::Origin, scores},
    index::{DenseIndex, analyzer},
    job::{
        Job,
        spec::{self, Filter, VectorType},
    },
    store::{
        Dataset,
        dataset::{PartWriter, read_part},
        schema,
    },
};

/// A word of the vocabulary in a larger share of the chunks says nothing.
const COMMON: f64 = 0.05;
/// How far down a query may find its own chunk; beyond, it counts as not found.
const ROUND_TRIP: usize = 100;

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
                let path = |ending| self.generation.join(format!("dense/text.{ending}"));
                Some(DenseIndex::open(&path("faiss"), &path("ids"))?)
            }
            _ => None,
        };
        let frequencies = self.frequencies()?;
        for shard in 0..self.shards {
            let (phrases, mut decided) = self.decide(shard, round_trip.as_ref())?;
            frequencies.refuse(&mut decided, &phrases);
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
                    query.taken = threshold.is_some_and(|lowest| score >= lowest);
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
        round_trip: Option<&DenseIndex>,
    ) -> Result<(Vec<Phrase>, Vec<Decided>), EngineError> {
        let scores = self.scores(shard, round_trip)?;
        let (mut phrases, mut decided) = (Vec::new(), Vec::new());
        self.each(Dataset::Queries, shard, |batch, i| {
            let id = text(batch, "query_id", i).unwrap_or_default();
            let is_vocabulary = text(batch, "origin", i) == Some(Origin::Vocabulary.name());
            if is_vocabulary {
                phrases.push(Phrase {
                    place: decided.len(),
                    text: text(batch, "text", i).unwrap_or_default().to_owned(),
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
        round_trip: Option<&DenseIndex>,
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
        self.each(Dataset::Scores, shard, |batch, i| {
            let number = |name: &str| {
                let column = batch
                    .column_by_name(name)?
                    .as_primitive_opt::<Float32Type>()?;
                column.is_valid(i).then(|| column.value(i))
            };
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
        index: Option<&DenseIndex>,
    ) -> Result<HashMap<String, f32>, EngineError> {
        let mut chunks: HashMap<String, Vec<f32>> = HashMap::new();
        self.each_vector(Dataset::TextVectors, shard, |id, vector| {
            chunks.insert(id.to_owned(), vector.to_vec());
            Ok(())
        })?;
        let mut scores = HashMap::new();
        self.each_vector(Dataset::QueryVectors, shard, |id, vector| {
            let own = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
            let score = match index {
                Some(index) => {
                    let hits = index.search(vector, ROUND_TRIP)?;
                    let place = hits
                        .iter()
                        .position(|hit| index.ids().get(hit.row) == Some(own));
                    Some(-(place.unwrap_or(ROUND_TRIP) as f32))
                }
                None => chunks.get(own).map(|chunk| dot(chunk, vector)),
            };
            scores.extend(score.map(|score| (id.to_owned(), score)));
            Ok(())
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

    fn part(&self, shard: usize) -> PathBuf {
        Dataset::Selection.part(self.generation, shard)
    }

    fn write_part(&self, shard: usize, decided: &[Decided]) -> Result<(), EngineError> {
        let path = self.part(shard);
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
        self.each(Dataset::Selection, shard, |batch, i| {
            let scores = batch.column(1).as_primitive::<Float32Type>();
            decided.push(Decided {
                id: text(batch, "query_id", i).unwrap_or_default().to_owned(),
                score: scores.is_valid(i).then(|| scores.value(i)),
                taken: batch.column(2).as_boolean().value(i),
            });
        })?;
        Ok(decided)
    }

    /// In how many chunks each word of the vocabulary is.
    fn frequencies(&self) -> Result<Frequencies, EngineError> {
        let mut frequencies = Frequencies::new(self.job.sparse.language);
        if !self.job.expand.vocabulary {
            return Ok(frequencies);
        }
        for shard in 0..self.shards {
            self.each(Dataset::Queries, shard, |batch, i| {
                if text(batch, "origin", i) == Some(Origin::Vocabulary.name()) {
                    frequencies.want(text(batch, "text", i).unwrap_or_default());
                }
            })?;
        }
        for shard in 0..self.shards {
            self.each(Dataset::Chunks, shard, |batch, i| {
                frequencies.count(text(batch, "text", i).unwrap_or_default());
            })?;
        }
        Ok(frequencies)
    }

    /// The rows of a shard's part; none if there is none.
    fn each(
        &self,
        dataset: Dataset,
        shard: usize,
        mut visit: impl FnMut(&RecordBatch, usize),
    ) -> Result<(), EngineError> {
        let path = dataset.part(self.generation, shard);
        if !path.exists() {
            return Ok(());
        }
        for batch in read_part(&path)? {
            let batch = batch.map_err(EngineError::batch(&path))?;
            (0..batch.num_rows()).for_each(|i| visit(&batch, i));
        }
        Ok(())
    }

    fn each_vector(
        &self,
        dataset: Dataset,
        shard: usize,
        mut visit: impl FnMut(&str, &[f32]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let path = dataset.part(self.generation, shard);
        for batch in read_part(&path)? {
            let batch = batch.map_err(EngineError::batch(&path))?;
            let vectors = batch.column(1).as_fixed_size_list();
            let values =
                cast(vectors.values(), &DataType::Float32).map_err(EngineError::batch(&path))?;
            let values = values.as_primitive::<Float32Type>().values();
            let dim = vectors.value_length() as usize;
            for (i, id) in batch.column(0).as_string::<i32>().iter().enumerate() {
                visit(id.unwrap_or_default(), &values[i * dim..(i + 1) * dim])?;
            }
        }
        Ok(())
    }
}

/// A phrase of the vocabulary and its query's place.
struct Phrase {
    place: usize,
    text: String,
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

    /// Refuses phrases of which no word is in any chunk and in at most [`COMMON`] of them.
    fn refuse(&self, decided: &mut [Decided], phrases: &[Phrase]) {
        let most = (self.chunks as f64 * COMMON).max(1.0) as u64;
        let mut analyzer = self.analyzer.clone();
        for phrase in phrases {
            let terms = analyzer::terms(&mut analyzer, &phrase.text);
            let count = |term: &String| self.counts.get(term).copied().unwrap_or(0);
            let any = terms.iter().any(|term| (1..=most).contains(&count(term)));
            decided[phrase.place].taken = any;
        }
    }
}

/// The lowest score of a query that the indexes took, if any has one.
pub fn lowest(generation: &Path, shards: usize) -> Result<Option<f32>, EngineError> {
    let mut lowest: Option<f32> = None;
    for shard in 0..shards {
        let path = Dataset::Selection.part(generation, shard);
        if !path.exists() {
            continue;
        }
        for batch in read_part(&path)? {
            let batch = batch.map_err(EngineError::batch(&path))?;
            let scores = batch.column(1).as_primitive::<Float32Type>().iter();
            let taken = batch.column(2).as_boolean().values().iter();
            let of_taken = scores
                .zip(taken)
                .filter_map(|(score, taken)| score.filter(|_| taken));
            lowest = lowest.into_iter().chain(of_taken).reduce(f32::min);
        }
    }
    Ok(lowest)
}

/// The queries of a shard that the indexes did not take.
pub fn left_out(generation: &Path, shard: usize) -> Result<HashSet<String>, EngineError> {
    let path = Dataset::Selection.part(generation, shard);
    let mut left_out = HashSet::new();
    if !path.exists() {
        return Ok(left_out);
    }
    for batch in read_part(&path)? {
        let batch = batch.map_err(EngineError::batch(&path))?;
        let ids = batch.column(0).as_string::<i32>().iter().flatten();
        let taken = batch.column(2).as_boolean().values();
        let refused = ids.zip(taken.iter()).filter(|(_, taken)| !taken);
        left_out.extend(refused.map(|(id, _)| id.to_owned()));
    }
    Ok(left_out)
}
