use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, StructArray, UInt32Array, UInt64Array},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};
use rayon::prelude::*;

use super::{
    MapStage, Settings, fatal, list_of_texts, listed_key, outcome, outcome::Outcome, strings,
    text_at, texts_at, titles_and_texts,
};
use crate::{
    chunk::{Chunk, ChunkError, Chunked},
    engine::{
        fingerprint::Key,
        models::{Models, title_tokens},
    },
    job::{Progress, spec},
    model::{Embed, ModelError},
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
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.job.chunk.clone(),
            fingerprint: settings.fingerprints.chunks.clone(),
            models: settings.models.clone(),
            progress: settings.progress.clone(),
        }
    }

    fn row_fields() -> Fields {
        vec![
            Field::new("start", DataType::UInt64, false),
            Field::new("end", DataType::UInt64, false),
            Field::new("text", DataType::Utf8, false),
            Field::new("headings", outcome::required_list(DataType::Utf8), false),
            Field::new("sentences", DataType::UInt32, false),
            Field::new("tokens", DataType::UInt32, false),
            Field::new(
                "intents",
                outcome::required_list(DataType::Struct(served_fields())),
                false,
            ),
            Field::new("language", DataType::Utf8, false),
        ]
        .into()
    }
}

/// Most tokens of a document's chunks: what the embedder takes, less the title, or `max_tokens` if that is less.
pub fn cap(
    settings: &spec::Chunk,
    title: Option<&str>,
    embedder: &dyn Embed,
) -> Result<usize, ModelError> {
    let title = title_tokens(title, embedder)?;
    let room = embedder.max_text_tokens().saturating_sub(title).max(1);
    Ok(settings.max_tokens.map_or(room, |cap| cap.min(room)))
}

/// Cuts one document. The title is embedded with every chunk, so the cap leaves room for it.
pub fn cut(
    settings: &spec::Chunk,
    (title, text): (Option<&str>, &str),
    intents: &[String],
    embedder: &dyn Embed,
) -> Result<Chunked, ChunkError> {
    let mut settings = settings.clone();
    settings.max_tokens = Some(cap(&settings, title, embedder)?);
    crate::chunk::chunk(text, intents, &settings, embedder)
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

    fn value(&self) -> DataType {
        outcome::rows_type(Self::row_fields())
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let intents = texts_at(&arguments[2], i);
        listed_key(&self.fingerprint, arguments, i, &intents)
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let [titles, texts] = titles_and_texts(arguments);
        let embedder = self.models.embedder().map_err(fatal)?;
        let (outcomes, rows): (Vec<Outcome>, Vec<Chunked>) = (0..keys.len())
            .into_par_iter()
            .map(|i| {
                let (title, text) = (text_at(titles, i), text_at(texts, i).unwrap_or_default());
                let intents = texts_at(&arguments[2], i);
                let cut = cut(&self.settings, (title, text), &intents, &*embedder);
                self.progress.advance(1);
                match cut {
                    Ok(chunked) => (outcome(&chunked), chunked),
                    Err(error) => (Outcome::failed(error.to_string()), Chunked::default()),
                }
            })
            .unzip();
        Ok((outcomes, list(&rows)?))
    }
}

fn outcome(chunked: &Chunked) -> Outcome {
    Outcome {
        tokens: chunked.chunks.iter().map(|c| c.tokens).sum(),
        truncated: chunked.cut_sentences,
        skipped: chunked.fallback,
        ..Outcome::default()
    }
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
        outcome::list_of(flat().map(|c| c.headings.len()), Arc::new(headings))?,
        narrow(|c| c.sentences),
        narrow(|c| c.tokens),
        outcome::list_of(flat().map(|c| c.intents.len()), Arc::new(intents))?,
        Arc::new(strings(languages)),
    ];
    let values = StructArray::try_new(Chunks::row_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(|r| r.chunks.len()).collect();
    outcome::lists(&lengths, values)
}
