//! The topics of a corpus: found once, in a sample of its chunks, and kept from build to build.
//!
//! Topics found anew would be others after any change of the corpus, and with them the keywords and queries of every chunk. So
//! a build takes them over from an earlier one, until the corpus shares less than half of its documents with the one they were
//! found in, or the settings or the model of topics change.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, ListBuilder,
        RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array, UInt64Builder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Float32Type, UInt64Type},
};

use super::{EngineError, functions::TEXTS_AT_ONCE, reuse::Source};
use crate::{
    expand::{
        sketch::Sketch,
        topics::{self, Topic, Topics},
    },
    job::{Job, Progress, spec::VectorType},
    model::{Embed, TextKind, Vectors},
    store::{
        Dataset,
        dataset::{PartWriter, column_of_texts, count_rows, each_row, read_part, text},
        progress::Tally,
        schema,
    },
};

pub const STAGE: &str = "topics";

/// The least share of the documents of two corpora that both have, for the topics of one to fit the other.
const SHARED: f64 = 0.5;

/// Whether the job's keywords are to cover topics.
pub fn wanted(job: &Job) -> bool {
    job.expand.enabled && job.expand.lists > 0 && job.expand.topics != Some(0)
}

/// Reads the topics of a generation.
pub fn read(generation: &Path) -> Result<Topics, EngineError> {
    Ok(read_with_corpus(generation)?.0)
}

/// The topics, and the sketch of the corpus that they were found in.
fn read_with_corpus(generation: &Path) -> Result<(Topics, Sketch), EngineError> {
    let path = Dataset::Topics.part(generation, 0);
    let (mut topics, mut corpus) = (Vec::new(), Sketch::default());
    for batch in read_part(&path)? {
        let batch = batch.map_err(EngineError::batch(&path))?;
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.ok_or_else(|| arrow::error::ArrowError::SchemaError(format!("no column {name}")))
        };
        let read = |name| column(name).map_err(EngineError::batch(&path));
        let (words, centroids) = (
            read("words")?.as_list::<i32>(),
            read("centroid")?.as_fixed_size_list(),
        );
        let sizes = read("size")?.as_primitive::<UInt64Type>();
        let documents = read("documents")?.as_list::<i32>();
        for i in 0..batch.num_rows() {
            let of_topic = words.value(i);
            let of_topic = of_topic.as_struct();
            let texts = of_topic.column(0).as_string::<i32>().iter().flatten();
            let weights = of_topic.column(1).as_primitive::<Float32Type>().values();
            topics.push(Topic {
                label: text(&batch, "label", i).unwrap_or_default().to_owned(),
                words: texts
                    .map(str::to_owned)
                    .zip(weights.iter().copied())
                    .collect(),
                size: sizes.value(i),
                centroid: centroids
                    .value(i)
                    .as_primitive::<Float32Type>()
                    .values()
                    .to_vec(),
            });
            if documents.is_valid(i) {
                let hashes = documents.value(i);
                corpus = hashes
                    .as_primitive::<UInt64Type>()
                    .values()
                    .iter()
                    .copied()
                    .collect();
            }
        }
    }
    Ok((Topics(topics), corpus))
}

/// The sketch of the corpus that a generation's topics were found in.
pub fn found_in(generation: &Path) -> Result<Sketch, EngineError> {
    Ok(read_with_corpus(generation)?.1)
}

/// Whether topics that were found in one corpus fit another.
pub fn fit(found_in: &Sketch, corpus: &Sketch) -> bool {
    found_in.similarity(corpus) >= SHARED
}

/// Writes the topics of the generation being built, those of an earlier one if they still fit.
pub fn write(
    job: &Job,
    (generation, shards): (&Path, usize),
    sources: &[&Source],
    embedder: &dyn Embed,
    tally: &mut Tally,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let (mut corpus, mut chunks) = (Sketch::default(), 0);
    for shard in 0..shards {
        let texts = column_of_texts(&Dataset::Documents.part(generation, shard), "text")?;
        texts.iter().for_each(|text| corpus.add(text));
        chunks += count_rows(&Dataset::Chunks.part(generation, shard))? as u64;
    }
    let earlier = sources.iter().find_map(|source| {
        let (topics, found_in) = read_with_corpus(&source.folder).ok()?;
        fit(&found_in, &corpus).then_some((topics, found_in))
    });
    let (topics, found_in) = match earlier {
        Some(earlier) => {
            tally.reused = earlier.0.0.len() as u64;
            earlier
        }
        None => {
            let topics = find(job, (generation, shards, chunks), embedder, tally, progress)?;
            tally.computed = topics.0.len() as u64;
            (topics, corpus)
        }
    };
    tally.rows = topics.0.len() as u64;
    let path = Dataset::Topics.part(generation, 0);
    let batch = batch(&topics, &found_in, embedder.dim()).map_err(EngineError::batch(&path))?;
    let mut writer = PartWriter::create(&path, batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(())
}

fn find(
    job: &Job,
    (generation, shards, chunks): (&Path, usize, u64),
    embedder: &dyn Embed,
    tally: &mut Tally,
    progress: &dyn Progress,
) -> Result<Topics, EngineError> {
    let k = job
        .expand
        .topics
        .unwrap_or_else(|| topics::usual_count(chunks));
    let sample = (topics::sample_size(k) as u64).min(chunks);
    progress.start(STAGE, sample, "chunks");
    let mut texts: Vec<String> = Vec::new();
    let mut row = 0u64;
    for shard in 0..shards {
        each_row(&Dataset::Chunks.part(generation, shard), |batch, i| {
            // Evenly spaced.
            if (row + 1) * sample / chunks > row * sample / chunks {
                texts.push(text(batch, "text", i).unwrap_or_default().to_owned());
            }
            row += 1;
        })?;
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut values = Vec::with_capacity(texts.len() * embedder.dim());
    for group in texts.chunks(TEXTS_AT_ONCE) {
        let embedded = embedder.embed(group, TextKind::Document)?;
        tally.tokens += embedded.tokens.iter().sum::<usize>() as u64;
        values.extend(embedded.vectors.values);
        progress.advance(group.len() as u64);
    }
    let vectors = Vectors {
        dim: embedder.dim(),
        values,
    }
    .of_unit_length();
    let found = topics::train(&texts, &vectors, k, job.sparse.language);
    progress.finish();
    found.map_err(EngineError::Topics)
}

fn batch(
    topics: &Topics,
    found_in: &Sketch,
    dim: usize,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = schema::schema(Dataset::Topics, &[], (VectorType::F32, dim));
    let all = &topics.0;
    let words = || all.iter().flat_map(|topic| &topic.words);
    let rows: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(
            words().map(|w| w.0.as_str()).collect::<Vec<_>>(),
        )),
        Arc::new(Float32Array::from_iter_values(words().map(|w| w.1))),
    ];
    let rows = StructArray::try_new(schema::word_fields(), rows, None)?;
    let words = ListArray::try_new(
        Arc::new(Field::new("item", rows.data_type().clone(), false)),
        OffsetBuffer::from_lengths(all.iter().map(|topic| topic.words.len())),
        Arc::new(rows),
        None,
    )?;
    let values = all.iter().flat_map(|topic| topic.centroid.iter().copied());
    let centroids = FixedSizeListArray::try_new(
        Arc::new(Field::new("item", DataType::Float32, false)),
        dim as i32,
        Arc::new(Float32Array::from_iter_values(values)),
        None,
    )?;
    let documents = sketch_column(found_in, all.len());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(0..all.len() as u32)),
        Arc::new(StringArray::from_iter_values(
            all.iter().map(|topic| &topic.label),
        )),
        Arc::new(words),
        Arc::new(UInt64Array::from_iter_values(
            all.iter().map(|topic| topic.size),
        )),
        Arc::new(centroids),
        Arc::new(documents),
    ];
    RecordBatch::try_new(schema, columns)
}

/// The column of so many topics that has the sketch of their corpus once.
pub fn sketch_column(found_in: &Sketch, topics: usize) -> ListArray {
    let mut documents = ListBuilder::new(UInt64Builder::new()).with_field(schema::hash_field());
    for i in 0..topics {
        if i == 0 {
            let hashes = found_in.hashes();
            hashes.for_each(|hash| documents.values().append_value(hash));
        }
        documents.append(i == 0);
    }
    documents.finish()
}
