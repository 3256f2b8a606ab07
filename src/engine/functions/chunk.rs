use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, ListArray, StructArray, UInt32Array, UInt64Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};
use rayon::prelude::*;

use super::{MapStage, list_of_texts, outcome, outcome::Outcome, strings, text_at, texts_at};
use crate::{
    chunk::{Chunk, Chunked},
    engine::{
        fingerprint::{self, Fingerprints},
        models::{Models, title_prefix},
    },
    job::{Job, Progress, spec},
    model::Embed,
    store::schema::served_fields,
};

/// `chunk(title, text, intents)`: the chunks of a document, which tile it.
pub struct Chunks {
    settings: spec::Chunk,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Chunks {
    pub fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            settings: job.chunk.clone(),
            fingerprint: fingerprints.chunks.clone(),
            models: models.clone(),
            progress,
        }
    }

    fn row_fields() -> Fields {
        vec![
            Field::new("start", DataType::UInt64, false),
            Field::new("end", DataType::UInt64, false),
            Field::new("text", DataType::Utf8, false),
            Field::new("headings", required_list(DataType::Utf8), false),
            Field::new("sentences", DataType::UInt32, false),
            Field::new("tokens", DataType::UInt32, false),
            Field::new(
                "intents",
                required_list(DataType::Struct(served_fields())),
                false,
            ),
            Field::new("language", DataType::Utf8, false),
        ]
        .into()
    }

    /// Cuts one document. The title is embedded with every chunk, so the cap leaves room for it.
    fn cut(
        &self,
        title: Option<&str>,
        text: &str,
        intents: &[String],
        embedder: &dyn Embed,
    ) -> Result<Chunked, String> {
        let prefix = title
            .map(|t| title_prefix(t, embedder))
            .transpose()
            .map_err(|e| e.to_string())?;
        let prefix_tokens = match &prefix {
            Some(prefix) => embedder
                .token_offsets(prefix)
                .map_err(|e| e.to_string())?
                .len(),
            None => 0,
        };
        let room = embedder
            .max_text_tokens()
            .saturating_sub(prefix_tokens)
            .max(1);
        let mut settings = self.settings.clone();
        settings.max_tokens = Some(settings.max_tokens.map_or(room, |cap| cap.min(room)));
        crate::chunk::chunk(text, intents, &settings, embedder).map_err(|e| e.to_string())
    }
}

impl MapStage for Chunks {
    fn name(&self) -> &'static str {
        "chunk"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8, DataType::Utf8, list_of_texts()]
    }

    fn returns(&self) -> DataType {
        outcome::data_type(outcome::rows_type(Self::row_fields()))
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let [titles, texts] = [
            arguments[0].as_string::<i32>(),
            arguments[1].as_string::<i32>(),
        ];
        let intents = &arguments[2];
        let embedder = self
            .models
            .embedder()
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let (outcomes, rows): (Vec<Outcome>, Vec<Chunked>) = (0..arguments[1].len())
            .into_par_iter()
            .map(|i| {
                let (title, text) = (text_at(titles, i), text_at(texts, i).unwrap_or_default());
                let intents = texts_at(intents, i);
                let key = fingerprint::key(
                    &self.fingerprint,
                    &[title, Some(text), Some(&intents.join("\n"))],
                );
                let cut = self.cut(title, text, &intents, &*embedder);
                self.progress.advance(1);
                match cut {
                    Ok(chunked) => {
                        let tokens = chunked.chunks.iter().map(|c| c.tokens).sum();
                        (
                            Outcome {
                                key,
                                tokens,
                                truncated: chunked.cut_sentences,
                                ..Outcome::default()
                            },
                            chunked,
                        )
                    }
                    Err(error) => (
                        Outcome {
                            key,
                            error: Some(error),
                            ..Outcome::default()
                        },
                        Chunked::default(),
                    ),
                }
            })
            .unzip();
        outcome::column(&outcomes, list(&rows)?)
    }
}

fn required_list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

fn list(rows: &[Chunked]) -> Result<ArrayRef, ArrowError> {
    let flat = || rows.iter().flat_map(|r| &r.chunks);
    let languages = rows
        .iter()
        .flat_map(|r| r.chunks.iter().map(|_| r.language.as_str()));
    let wide = |get: fn(&Chunk) -> usize| {
        Arc::new(UInt64Array::from_iter_values(flat().map(|c| get(c) as u64)))
    };
    let narrow = |get: fn(&Chunk) -> usize| {
        Arc::new(UInt32Array::from_iter_values(flat().map(|c| get(c) as u32)))
    };
    let headings = strings(flat().flat_map(|c| &c.headings).map(String::as_str));
    let served = || flat().flat_map(|c| &c.intents);
    let intents = StructArray::try_new(
        served_fields(),
        vec![
            Arc::new(strings(served().map(|s| s.text.as_str()))),
            Arc::new(Float32Array::from_iter_values(
                served().map(|s| s.relevance),
            )),
        ],
        None,
    )?;
    let columns: Vec<ArrayRef> = vec![
        wide(|c| c.start),
        wide(|c| c.end),
        Arc::new(strings(flat().map(|c| c.text.as_str()))),
        inner_list(flat().map(|c| c.headings.len()), Arc::new(headings))?,
        narrow(|c| c.sentences),
        narrow(|c| c.tokens),
        inner_list(flat().map(|c| c.intents.len()), Arc::new(intents))?,
        Arc::new(strings(languages)),
    ];
    let values = StructArray::try_new(Chunks::row_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(|r| r.chunks.len()).collect();
    outcome::lists(&lengths, values)
}

fn inner_list(
    lengths: impl Iterator<Item = usize>,
    values: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(
        item,
        OffsetBuffer::from_lengths(lengths),
        values,
        None,
    )?))
}
