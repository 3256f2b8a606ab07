//! The datasets of several generations as those of one: their parts, numbered on, in which positions and topics are numbered on too.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchReader, StructArray, UInt32Array,
    },
    compute::concat_batches,
    datatypes::{UInt32Type, UInt64Type},
    error::ArrowError,
};

use super::{Input, copy};
use crate::{
    engine::{EngineError, ingest, topics},
    expand::sketch::Sketch,
    store::{
        Dataset, StoreError,
        dataset::{PartWriter, parts, read_part},
    },
};

/// The generation that parts are added to, and what it has so far.
pub struct Join<'a> {
    into: &'a Path,
    parts: usize,
    documents: u64,
    topics: Vec<RecordBatch>,
    /// The corpora that they were found in.
    found_in: Sketch,
    refused: Vec<RecordBatch>,
}

impl<'a> Join<'a> {
    pub fn new(into: &'a Path) -> Self {
        Self {
            into,
            parts: 0,
            documents: 0,
            topics: Vec::new(),
            found_in: Sketch::default(),
            refused: Vec::new(),
        }
    }

    /// Adds all datasets of an input.
    pub fn add(&mut self, input: &Input) -> Result<(), EngineError> {
        let from = &input.published.folder;
        for dataset in Dataset::ALL {
            match dataset {
                Dataset::Topics => {}
                Dataset::Quarantine => self.add_quarantine(from)?,
                _ => self.add_parts(dataset, from, input.parts)?,
            }
        }
        self.add_topics(from)?;
        let documents = input.manifest().datasets.get(Dataset::Documents.folder());
        self.documents += documents.map_or(0, |summary| summary.rows);
        self.parts += input.parts;
        Ok(())
    }

    fn add_parts(&self, dataset: Dataset, from: &Path, parts: usize) -> Result<(), EngineError> {
        for part in 0..parts {
            let own = dataset.part(from, part);
            let new = dataset.part(self.into, self.parts + part);
            match dataset {
                _ if !own.exists() => {}
                Dataset::Documents if self.documents > 0 => {
                    rewrite(&own, &new, |batch| self.moved(batch))?;
                }
                Dataset::ChunkTopics if !self.topics.is_empty() => {
                    rewrite(&own, &new, |batch| self.renumbered(batch))?;
                }
                _ => copy(&own, &new)?,
            }
        }
        Ok(())
    }

    /// Documents with their positions behind those of the inputs before.
    fn moved(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let positions = column(batch, "position")?.as_primitive::<UInt64Type>();
        let positions = positions.unary::<_, UInt64Type>(|position| position + self.documents);
        replaced(batch, "position", Arc::new(positions))
    }

    /// Chunks' topics and keywords with the topics' new numbers.
    fn renumbered(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut batch = batch.clone();
        for name in ["topics", "keywords"] {
            let list = with_topics(column(&batch, name)?.as_list(), self.count_topics())?;
            batch = replaced(&batch, name, Arc::new(list))?;
        }
        Ok(batch)
    }

    fn add_topics(&mut self, from: &Path) -> Result<(), EngineError> {
        let path = Dataset::Topics.part(from, 0);
        if !path.exists() {
            return Ok(());
        }
        let topics = whole(&path)?;
        self.found_in.unite(&topics::found_in(from)?);
        self.topics.push(topics);
        Ok(())
    }

    fn count_topics(&self) -> u32 {
        self.topics
            .iter()
            .map(|batch| batch.num_rows() as u32)
            .sum()
    }

    /// The documents that were refused are together; what failed in a part stays with it.
    fn add_quarantine(&mut self, from: &Path) -> Result<(), EngineError> {
        for own in parts(&from.join(Dataset::Quarantine.folder()))? {
            let name = own.file_stem().unwrap_or_default().to_string_lossy();
            let Some((stage, part)) = name.rsplit_once('-') else {
                self.refused.push(whole(&own)?);
                continue;
            };
            let part: usize = part.parse().map_err(|_| StoreError::Invalid {
                path: own.clone(),
                message: "is not named as the failures of a part are".into(),
            })?;
            let name = format!("{stage}-{:05}", self.parts + part);
            copy(&own, &self.quarantine(&name))?;
        }
        Ok(())
    }

    fn quarantine(&self, name: &str) -> PathBuf {
        let folder = self.into.join(Dataset::Quarantine.folder());
        folder.join(format!("{name}.parquet"))
    }

    /// Writes what the inputs have in common.
    pub fn finish(self) -> Result<(), EngineError> {
        write(&self.quarantine(ingest::STAGE), &self.refused, |b| {
            Ok(b.clone())
        })?;
        write(
            &Dataset::Topics.part(self.into, 0),
            &self.topics,
            |topics| {
                let rows = topics.num_rows();
                let ids = UInt32Array::from_iter_values(0..rows as u32);
                let found_in = topics::sketch_column(&self.found_in, rows);
                let topics = replaced(topics, "topic_id", Arc::new(ids))?;
                replaced(&topics, "documents", Arc::new(found_in))
            },
        )
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    Ok(batch.column(batch.schema().index_of(name)?))
}

/// Lists whose items are of topics, each with a number so much higher.
fn with_topics(list: &ListArray, by: u32) -> Result<ListArray, ArrowError> {
    let (item, offsets, items, nulls) = list.clone().into_parts();
    let (fields, mut columns, valid) = items.as_struct().clone().into_parts();
    if let Some((at, _)) = fields.find("topic_id") {
        let ids = columns[at].as_primitive::<UInt32Type>();
        // What stands where there is no number may be any.
        let ids = ids.unary::<_, UInt32Type>(|id| id.wrapping_add(by));
        columns[at] = Arc::new(ids);
    }
    let items = StructArray::try_new(fields, columns, valid)?;
    ListArray::try_new(item, offsets, Arc::new(items), nulls)
}

fn replaced(batch: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of(name)?] = column;
    RecordBatch::try_new(batch.schema(), columns)
}

/// A file that is small enough to be held.
fn whole(path: &Path) -> Result<RecordBatch, EngineError> {
    let reader = read_part(path)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>();
    let batch = batches.and_then(|batches| concat_batches(&schema, &batches));
    batch.map_err(EngineError::batch(path))
}

/// Writes batches as one, changed; no file where there are none.
fn write(
    path: &Path,
    batches: &[RecordBatch],
    change: impl FnOnce(&RecordBatch) -> Result<RecordBatch, ArrowError>,
) -> Result<(), EngineError> {
    let Some(first) = batches.first() else {
        return Ok(());
    };
    let batch = concat_batches(&first.schema(), batches).and_then(|batch| change(&batch));
    let batch = batch.map_err(EngineError::batch(path))?;
    let mut writer = PartWriter::create(path, batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(())
}

/// Copies a part with each batch changed.
fn rewrite(
    from: &Path,
    to: &Path,
    change: impl Fn(&RecordBatch) -> Result<RecordBatch, ArrowError>,
) -> Result<(), EngineError> {
    let reader = read_part(from)?;
    let mut writer = PartWriter::create(to, reader.schema())?;
    for batch in reader {
        let changed = batch.and_then(|batch| change(&batch));
        writer.write(&changed.map_err(EngineError::batch(from))?)?;
    }
    writer.finish()?;
    Ok(())
}
