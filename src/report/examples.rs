//! Examples for the generator, from an index's best-scored queries (as Promptagator bootstraps its prompts, arXiv 2209.11755): a
//! short chunk of each of its clearest topics, with the question and the list that it predicts best.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::UInt32Type;

use crate::expand::queries::Origin;
use crate::job::spec::Example;
use crate::store::dataset::{count_rows, each_row, each_row_if_any, float, text};
use crate::store::{Dataset, StoreError};

/// Length of a passage that is worth showing, in tokens of the embedder: every prompt has it.
const TOKENS: std::ops::RangeInclusive<u32> = 30..=140;
/// Queries of a list.
const LIST: usize = 4;

/// The best examples of the generation, at most one of a topic, best first.
pub fn best(generation: &Path, count: usize) -> Result<Vec<Example>, ExamplesError> {
    let mut of_topics: BTreeMap<Topic, (f32, Example)> = BTreeMap::new();
    let (mut any, mut any_query) = (false, false);
    for shard in 0..Dataset::Chunks.parts(generation)?.len() {
        let queries = queries(generation, shard)?;
        any |= !queries.is_empty();
        any_query |= count_rows(&Dataset::Queries.part(generation, shard)).is_ok_and(|n| n > 0);
        for (topic, value, example) in of_shard(generation, shard, queries)? {
            let best = of_topics
                .get(&topic)
                .map_or(f32::NEG_INFINITY, |best| best.0);
            if value > best {
                of_topics.insert(topic, (value, example));
            }
        }
    }
    if !any && !any_query {
        return Err(ExamplesError::NoQueries);
    }
    if !any {
        return Err(ExamplesError::NoScores);
    }
    let mut all: Vec<(f32, Example)> = of_topics.into_values().collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.truncate(count);
    Ok(all.into_iter().map(|(_, example)| example).collect())
}

/// What an example stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Of(u32),
    /// Of a corpus without topics, where each chunk is one of its own.
    Chunk(String),
}

/// The queries of each chunk that have a gain.
type Queries = HashMap<String, Vec<Scored>>;

/// A query with its gain.
struct Scored {
    origin: String,
    text: String,
    gain: f32,
}

/// Every example of a shard, with its topic and how good it is.
fn of_shard(
    generation: &Path,
    shard: usize,
    mut queries: Queries,
) -> Result<Vec<(Topic, f32, Example)>, ExamplesError> {
    let about = about(generation, shard)?;
    let mut examples = Vec::new();
    each_row(&Dataset::Chunks.part(generation, shard), |batch, i| {
        let tokens = batch.column_by_name("tokens");
        let tokens = tokens.map_or(0, |c| c.as_primitive::<UInt32Type>().value(i));
        let Some(id) = text(batch, "chunk_id", i).filter(|_| TOKENS.contains(&tokens)) else {
            return;
        };
        let (topic, keywords) = about.get(id).cloned().unwrap_or_default();
        let topic = topic.map_or_else(|| Topic::Chunk(id.to_owned()), Topic::Of);
        let mut of_chunk = queries.remove(id).unwrap_or_default();
        of_chunk.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let of = |origin: Origin| of_chunk.iter().filter(move |q| q.origin == origin.name());
        let list: Vec<&Scored> = of(Origin::Keyword).take(LIST).collect();
        let Some(question) = of(Origin::Sample).next().filter(|_| list.len() == LIST) else {
            return;
        };
        let value = question.gain + list.iter().map(|q| q.gain).sum::<f32>() / LIST as f32;
        let title = text(batch, "title", i).map(|title| format!("{title}\n"));
        let body = text(batch, "text", i).unwrap_or_default();
        let example = Example {
            passage: title.unwrap_or_default() + body,
            question: question.text.clone(),
            keywords,
            queries: list.into_iter().map(|q| q.text.clone()).collect(),
        };
        examples.push((topic, value, example));
    })?;
    Ok(examples)
}

/// The scored queries of a shard, by chunk.
fn queries(generation: &Path, shard: usize) -> Result<Queries, ExamplesError> {
    let mut gains = HashMap::new();
    each_row_if_any(&Dataset::Scores.part(generation, shard), |batch, i| {
        let gain = float(batch, "gain", i);
        if let (Some(id), Some(gain)) = (text(batch, "query_id", i), gain) {
            gains.insert(id.to_owned(), gain);
        }
    })?;
    let mut queries = Queries::new();
    each_row_if_any(&Dataset::Queries.part(generation, shard), |batch, i| {
        let column = |name| text(batch, name, i).unwrap_or_default().to_owned();
        if let Some(&gain) = gains.get(&column("query_id")) {
            let of_chunk = queries.entry(column("chunk_id")).or_default();
            of_chunk.push(Scored {
                origin: column("origin"),
                text: column("text"),
                gain,
            });
        }
    })?;
    Ok(queries)
}

/// The largest topic and the keywords of a chunk.
type About = (Option<u32>, Vec<String>);

/// What each chunk of a shard is about.
fn about(generation: &Path, shard: usize) -> Result<HashMap<String, About>, ExamplesError> {
    let mut about = HashMap::new();
    each_row_if_any(&Dataset::ChunkTopics.part(generation, shard), |batch, i| {
        let list = |name| {
            batch
                .column_by_name(name)
                .map(|c| c.as_list::<i32>().value(i))
        };
        let (Some(topics), Some(keywords)) = (list("topics"), list("keywords")) else {
            return;
        };
        let topics = topics.as_struct().column(0).as_primitive::<UInt32Type>();
        let keywords = keywords.as_struct().column(0).as_string::<i32>();
        let keywords = keywords.iter().flatten().map(str::to_owned).collect();
        let topic = topics.values().first().copied();
        about.insert(
            text(batch, "chunk_id", i).unwrap_or_default().to_owned(),
            (topic, keywords),
        );
    })?;
    Ok(about)
}

#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    #[error(
        "this index has no queries to choose examples of; set `expand.enabled` in its job and build it again"
    )]
    NoQueries,
    #[error(
        "this index has no scores to choose examples by; add \"gain\" to `expand.scores` in its job and build it again, which writes no query anew"
    )]
    NoScores,
    #[error(transparent)]
    Store(#[from] StoreError),
}
