use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StructArray},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::{
    MapStage, Settings, fatal, list_of_texts, outcome, outcome::Outcome, rows_apart, strings,
    text_at, texts_at, titles_and_texts,
};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::Models,
    },
    expand::queries::{self, Chunk, Query, Written},
    job::{Progress, spec},
    store::schema::served_fields,
};

/// `queries(title, text, intents, keywords)`: the queries a chunk answers, its intents among them.
pub struct Queries {
    settings: spec::Expand,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Queries {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.job.expand.clone(),
            fingerprint: settings.fingerprints.queries.clone(),
            models: settings.models.clone(),
            progress: settings.progress.clone(),
        }
    }

    fn row_fields() -> Fields {
        vec![
            Field::new("text", DataType::Utf8, false),
            Field::new("origin", DataType::Utf8, false),
            Field::new("keywords", outcome::required_list(DataType::Utf8), false),
        ]
        .into()
    }
}

impl MapStage for Queries {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![
            DataType::Utf8,
            DataType::Utf8,
            served_list(),
            list_of_texts(),
        ]
    }

    fn value(&self) -> DataType {
        outcome::rows_type(Self::row_fields())
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let [titles, texts] = titles_and_texts(arguments);
        let own = [text_at(titles, i), text_at(texts, i)];
        let (intents, keywords) = (served_at(&arguments[2], i), texts_at(&arguments[3], i));
        let lists = intents.iter().map(|text| Some(text.as_str()));
        // A null parts the two lists.
        let lists = lists
            .chain([None])
            .chain(keywords.iter().map(|text| Some(text.as_str())));
        fingerprint::key(&self.fingerprint, own.into_iter().chain(lists))
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let [titles, texts] = titles_and_texts(arguments);
        let generator = self.models.generator().map_err(fatal)?;
        let intents: Vec<Vec<String>> = (0..keys.len())
            .map(|i| served_at(&arguments[2], i))
            .collect();
        let chunk = |(i, key): (usize, &Key)| Chunk {
            title: text_at(titles, i),
            text: text_at(texts, i).unwrap_or_default(),
            intents: intents[i].iter().map(String::as_str).collect(),
            keywords: texts_at(&arguments[3], i),
            seed: fingerprint::seed(key),
        };
        let chunks: Vec<Chunk> = keys.iter().enumerate().map(chunk).collect();
        let done = || self.progress.advance(1);
        let written = queries::write(&chunks, &self.settings, &*generator, &done);
        let written = rows_apart(written)?;
        let (outcomes, rows): (Vec<Outcome>, Vec<Vec<Query>>) = written
            .into_iter()
            .map(|written| match written {
                Ok(written) => (outcome(&written), written.queries),
                Err(error) => (Outcome::failed(error.to_string()), Vec::new()),
            })
            .unzip();
        Ok((outcomes, list(&rows)?))
    }
}

fn outcome(written: &Written) -> Outcome {
    Outcome {
        tokens: written.tokens,
        truncated: written.truncated,
        ..Outcome::default()
    }
}

/// The chunks dataset's `intents`.
fn served_list() -> DataType {
    DataType::List(Arc::new(Field::new(
        "item",
        DataType::Struct(served_fields()),
        true,
    )))
}

fn served_at(column: &ArrayRef, i: usize) -> Vec<String> {
    let lists = column.as_list::<i32>();
    if lists.is_null(i) {
        return Vec::new();
    }
    let served = lists.value(i);
    let texts = served.as_struct().column(0).as_string::<i32>();
    texts.iter().flatten().map(str::to_owned).collect()
}

fn list(rows: &[Vec<Query>]) -> Result<ArrayRef, ArrowError> {
    let flat = || rows.iter().flatten();
    let keywords = strings(flat().flat_map(|q| &q.keywords).map(String::as_str));
    let keywords = outcome::list_of(flat().map(|q| q.keywords.len()), Arc::new(keywords))?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(strings(flat().map(|q| q.text.as_str()))),
        Arc::new(strings(flat().map(|q| q.origin.name()))),
        keywords,
    ];
    let values = StructArray::try_new(Queries::row_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    outcome::lists(&lengths, values)
}
