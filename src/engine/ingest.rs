//! The first stage: streams the corpus into shards, which the later stages read one at a time.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, UInt64Array, new_null_array},
    compute::cast,
    datatypes::{FieldRef, SchemaRef},
};
use futures::StreamExt;

use super::EngineError;
use crate::{
    corpus::{CorpusBatch, CorpusScan},
    job::{Job, Progress, spec::VectorType},
    store::{
        Dataset,
        dataset::PartWriter,
        progress::Tally,
        quarantine::{self, Failure},
        schema,
    },
};

/// The documents stage's name in the journal and in run.json.
pub const STAGE: &str = "documents";

/// Writes the documents of the corpus as shards of at most so many, and its rejected rows as failures.
pub async fn documents(
    scan: &CorpusScan,
    job: &Job,
    (generation, most): (&Path, usize),
    tally: &mut Tally,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    progress.start(STAGE, scan.rows(), "documents");
    let passthrough = scan
        .schema()
        .fields()
        .iter()
        .filter(|f| job.corpus.passthrough.contains(f.name()));
    let passthrough: Vec<FieldRef> = passthrough.cloned().collect();
    let mut shards = Shards::new((generation, &passthrough), (most, job.engine.shard_bytes));
    let mut failures = quarantine::Writer::new(generation, STAGE);
    let mut first = None;
    let mut batches = std::pin::pin!(scan.stream().await?);
    while let Some(batch) = batches.next().await {
        let CorpusBatch {
            documents,
            rejected,
            ..
        } = batch?;
        progress.advance((documents.num_rows() + rejected.len()) as u64);
        for r in rejected {
            failures.add(Failure::new(STAGE, &r.id, &r.reason, &r.input))?;
            first.get_or_insert(r.reason);
        }
        shards.write(&documents)?;
    }
    let (count, rows) = shards.finish()?;
    progress.finish();
    tally.rows = rows;
    tally.computed = rows;
    tally.failed = failures.finish()?;
    if count == 0 {
        return Err(EngineError::Refused(format!(
            "{}: no document is left to index: all {} rows were refused, the first because: {}",
            job.corpus.path,
            tally.failed,
            first.as_deref().unwrap_or("there are none"),
        )));
    }
    Ok(())
}

/// Cuts a stream of documents into parts of bounded rows and bytes.
struct Shards<'a> {
    generation: &'a Path,
    schema: SchemaRef,
    most_rows: usize,
    most_bytes: usize,
    count: usize,
    total: u64,
    open: Option<(PartWriter, usize, usize)>,
}

impl<'a> Shards<'a> {
    fn new(
        (generation, passthrough): (&'a Path, &[FieldRef]),
        (most_rows, most_bytes): (usize, usize),
    ) -> Self {
        Self {
            generation,
            schema: schema::schema(Dataset::Documents, passthrough, (VectorType::F32, 0)),
            most_rows,
            most_bytes,
            count: 0,
            total: 0,
            open: None,
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), EngineError> {
        let texts = batch
            .column_by_name("text")
            .map(|c| c.as_string::<i32>().clone());
        let mut start = 0;
        for row in 0..batch.num_rows() {
            let bytes = texts.as_ref().map_or(0, |t| t.value(row).len());
            let full = self.open.as_ref().is_some_and(|(_, rows, held)| {
                *rows + row - start >= self.most_rows
                    || (*rows + row > start && held + bytes > self.most_bytes)
            });
            if full {
                self.append(&batch.slice(start, row - start))?;
                self.close()?;
                start = row;
            }
            if self.open.is_none() {
                let path = Dataset::Documents.part(self.generation, self.count);
                self.open = Some((PartWriter::create(&path, self.schema.clone())?, 0, 0));
            }
            if let Some((_, _, held)) = &mut self.open {
                *held += bytes;
            }
        }
        self.append(&batch.slice(start, batch.num_rows() - start))
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<(), EngineError> {
        let Some((writer, held, _)) = &mut self.open else {
            return Ok(());
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        writer.write(&as_documents(
            rows,
            &self.schema,
            self.total,
            self.generation,
        )?)?;
        *held += rows.num_rows();
        self.total += rows.num_rows() as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<(), EngineError> {
        if let Some((writer, _, _)) = self.open.take() {
            writer.finish()?;
            self.count += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(usize, u64), EngineError> {
        self.close()?;
        Ok((self.count, self.total))
    }
}

/// A batch of the corpus as rows of the documents dataset, without passthrough columns; `path` is for errors.
pub fn documents_batch(rows: &RecordBatch, path: &Path) -> Result<RecordBatch, EngineError> {
    let schema = schema::schema(Dataset::Documents, &[], (VectorType::F32, 0));
    as_documents(rows, &schema, 0, path)
}

/// The corpus's columns in the order and types of the dataset, each row with its position in the corpus.
fn as_documents(
    rows: &RecordBatch,
    schema: &SchemaRef,
    first: u64,
    path: &Path,
) -> Result<RecordBatch, EngineError> {
    let failed = EngineError::batch(path);
    let n = rows.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match rows.column_by_name(field.name()) {
            _ if field.name() == "position" => {
                Arc::new(UInt64Array::from_iter_values(first..first + n as u64))
            }
            Some(column) => cast(column, field.data_type()).map_err(&failed)?,
            None => new_null_array(field.data_type(), n),
        });
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(failed)
}
