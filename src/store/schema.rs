//! The written schema of every dataset. `schemas/*.json` is generated from here and diffed in a test.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use serde_json::{Value, json};

use crate::job::spec::VectorType;
use crate::store::Dataset;

/// A row's key: the first 16 bytes of a BLAKE3.
pub const KEY_BYTES: i32 = 16;

/// The schema of a dataset. `extra` are the passthrough columns, which end documents and chunks;
/// `vector` is the element type and length of the vector columns.
pub fn schema(dataset: Dataset, extra: &[FieldRef], vector: (VectorType, usize)) -> SchemaRef {
    let mut fields = match dataset {
        Dataset::Documents => documents(),
        Dataset::Intents => intents(),
        Dataset::Chunks => chunks(),
        Dataset::Topics => topics(vector.1),
        Dataset::ChunkTopics => chunk_topics(),
        Dataset::Queries => queries(),
        Dataset::Scores => scores(),
        Dataset::TextVectors => vectors("chunk_id", vector),
        Dataset::QueryVectors => vectors("query_id", vector),
        Dataset::Selection => selection(),
        Dataset::IntentOutcomes
        | Dataset::ChunkOutcomes
        | Dataset::ChunkTopicOutcomes
        | Dataset::QueryOutcomes
        | Dataset::ScoreOutcomes
        | Dataset::TextVectorOutcomes
        | Dataset::QueryVectorOutcomes => outcomes(),
        Dataset::Quarantine => quarantine(),
    };
    if matches!(dataset, Dataset::Documents | Dataset::Chunks) {
        fields.extend(extra.iter().cloned());
    }
    Arc::new(Schema::new(fields))
}

fn required(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, false))
}

fn optional(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

fn key() -> FieldRef {
    required("key", DataType::FixedSizeBinary(KEY_BYTES))
}

fn list(item: DataType) -> DataType {
    DataType::List(required("item", item))
}

/// A half-open range of code points into the document's text.
pub fn span_fields() -> Fields {
    vec![
        required("start", DataType::UInt64),
        required("end", DataType::UInt64),
    ]
    .into()
}

/// An intent that a chunk serves.
pub fn served_fields() -> Fields {
    vec![
        required("text", DataType::Utf8),
        required("relevance", DataType::Float32),
    ]
    .into()
}

/// A topic's share of a chunk.
pub fn share_fields() -> Fields {
    vec![
        required("topic_id", DataType::UInt32),
        required("share", DataType::Float32),
    ]
    .into()
}

/// A keyword: `source` is `chunk` (a phrase of it; `score` is its cosine to the chunk, or to the topic that it is to cover) or
/// `topic` (a word of one of its topics; `score` is its c-TF-IDF).
pub fn keyword_fields() -> Fields {
    vec![
        required("text", DataType::Utf8),
        required("source", DataType::Utf8),
        optional("topic_id", DataType::UInt32),
        required("score", DataType::Float32),
    ]
    .into()
}

/// A word that tells a topic from the others, and its c-TF-IDF.
pub fn word_fields() -> Fields {
    vec![
        required("text", DataType::Utf8),
        required("weight", DataType::Float32),
    ]
    .into()
}

/// `gain` is log P(query | chunk) − log P(query | empty passage), all per token; `relevance` log P(Yes) − log P(No), asked
/// whether the chunk answers the query; `cross_encoder` that model's logit. Null where the job does not ask for it.
pub fn score_fields() -> Fields {
    [
        "log_p_chunk",
        "log_p_empty",
        "gain",
        "relevance",
        "cross_encoder",
    ]
    .map(|name| optional(name, DataType::Float32))
    .to_vec()
    .into()
}

fn documents() -> Vec<FieldRef> {
    vec![
        required("doc_id", DataType::Utf8),
        optional("title", DataType::Utf8),
        required("text", DataType::Utf8),
        optional("intents", DataType::List(optional("item", DataType::Utf8))),
        required("position", DataType::UInt64),
    ]
}

fn intents() -> Vec<FieldRef> {
    vec![
        required("doc_id", DataType::Utf8),
        required("ordinal", DataType::UInt32),
        required("text", DataType::Utf8),
        required("section", DataType::Struct(span_fields())),
        key(),
    ]
}

fn chunks() -> Vec<FieldRef> {
    vec![
        required("chunk_id", DataType::Utf8),
        required("doc_id", DataType::Utf8),
        optional("title", DataType::Utf8),
        required("ordinal", DataType::UInt32),
        required("start", DataType::UInt64),
        required("end", DataType::UInt64),
        required("text", DataType::Utf8),
        required("headings", list(DataType::Utf8)),
        required("sentences", DataType::UInt32),
        required("tokens", DataType::UInt32),
        required("intents", list(DataType::Struct(served_fields()))),
        required("language", DataType::Utf8),
        key(),
    ]
}

fn queries() -> Vec<FieldRef> {
    vec![
        required("query_id", DataType::Utf8),
        required("chunk_id", DataType::Utf8),
        required("text", DataType::Utf8),
        required("origin", DataType::Utf8),
        required("keywords", list(DataType::Utf8)),
        key(),
    ]
}

/// `size` counts the sampled chunks that are closest to the centroid. `documents`, of the first topic alone, is the sketch of the
/// corpus that the topics were found in: the smallest hashes of its texts, ascending.
fn topics(dim: usize) -> Vec<FieldRef> {
    vec![
        required("topic_id", DataType::UInt32),
        required("label", DataType::Utf8),
        required("words", list(DataType::Struct(word_fields()))),
        required("size", DataType::UInt64),
        required("centroid", vector_type(VectorType::F32, dim)),
        optional("documents", DataType::List(hash_field())),
    ]
}

/// A hash of the sketch.
pub fn hash_field() -> FieldRef {
    Arc::new(Field::new("item", DataType::UInt64, false))
}

fn chunk_topics() -> Vec<FieldRef> {
    vec![
        required("chunk_id", DataType::Utf8),
        required("topics", list(DataType::Struct(share_fields()))),
        required("keywords", list(DataType::Struct(keyword_fields()))),
        key(),
    ]
}

fn scores() -> Vec<FieldRef> {
    let mut fields = vec![required("query_id", DataType::Utf8)];
    fields.extend(score_fields().iter().cloned());
    fields.push(key());
    fields
}

/// `score` is that of the job's filter.
fn selection() -> Vec<FieldRef> {
    vec![
        required("query_id", DataType::Utf8),
        optional("score", DataType::Float32),
        required("taken", DataType::Boolean),
    ]
}

fn vectors(id: &str, (element, dim): (VectorType, usize)) -> Vec<FieldRef> {
    vec![
        required(id, DataType::Utf8),
        required("vector", vector_type(element, dim)),
        key(),
    ]
}

pub fn vector_type(element: VectorType, dim: usize) -> DataType {
    let item = match element {
        VectorType::F32 => DataType::Float32,
        VectorType::F16 => DataType::Float16,
    };
    DataType::FixedSizeList(required("item", item), dim as i32)
}

/// `id` is the input row's: a doc_id, chunk_id or query_id.
fn outcomes() -> Vec<FieldRef> {
    vec![
        required("id", DataType::Utf8),
        required("key", DataType::FixedSizeBinary(KEY_BYTES)),
        required("rows", DataType::UInt32),
        required("tokens", DataType::UInt64),
        required("truncated", DataType::UInt64),
        required("skipped", DataType::Boolean),
    ]
}

fn quarantine() -> Vec<FieldRef> {
    vec![
        required("stage", DataType::Utf8),
        required("id", DataType::Utf8),
        required("reason", DataType::Utf8),
        required("input", DataType::Utf8),
    ]
}

/// A dataset's schema as a JSON document, types spelled as pyarrow spells them. A vector's element is that of
/// the job's `output.vectors` and its length the embedder's, so both are left open (`element`, `dim`).
pub fn describe(dataset: Dataset) -> Value {
    let schema = schema(dataset, &[], (VectorType::F32, 0));
    let fields: Vec<Value> = schema
        .fields()
        .iter()
        .map(|f| {
            let spelled = match f.data_type() {
                DataType::FixedSizeList(..) => {
                    "fixed_size_list<item: element not null>[dim]".to_owned()
                }
                other => spell(other),
            };
            json!({ "name": f.name(), "type": spelled, "nullable": f.is_nullable() })
        })
        .collect();
    let passthrough = matches!(dataset, Dataset::Documents | Dataset::Chunks);
    json!({ "dataset": dataset.folder(), "passthrough": passthrough, "fields": fields })
}

fn spell(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".into(),
        DataType::Boolean => "bool".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::FixedSizeBinary(n) => format!("fixed_size_binary[{n}]"),
        DataType::List(item) => format!("list<{}>", spell_field(item)),
        DataType::Struct(fields) => {
            format!(
                "struct<{}>",
                fields
                    .iter()
                    .map(|f| spell_field(f))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        other => other.to_string(),
    }
}

fn spell_field(field: &Field) -> String {
    let null = if field.is_nullable() { "" } else { " not null" };
    format!("{}: {}{null}", field.name(), spell(field.data_type()))
}
