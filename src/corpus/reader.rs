//! Reads the files of a corpus one after another, in batches bounded by bytes as well as by rows.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, UInt64Array,
    new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;

use super::error::{guarded, one_line};
use super::files::CorpusFile;
use super::source::Source;
use super::strings::{decode, rows_that_fit};
use super::table::{FILE, INVALID, ROW};
use super::{CorpusError, schema};

/// Bytes a batch is meant to have, judged by the averages in the footer.
const TARGET_BYTES: u64 = 16 << 20;
const MOST_ROWS: u64 = 1024;

/// An iterator over all rows that pass the filter, in order.
pub struct Reader {
    files: Arc<[CorpusFile]>,
    /// Columns to read: some of the files', then [`FILE`], [`ROW`], [`INVALID`].
    read: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
    next_file: usize,
    open: Option<OpenFile>,
}

struct OpenFile {
    index: usize,
    source: Source,
    batches: ParquetRecordBatchReader,
    /// The batch being handed out, and how many of its rows have been.
    batch: RecordBatch,
    taken: usize,
    /// Rows of the file handed out so far.
    row: u64,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if result.is_err() {
            self.open = None;
            self.next_file = self.files.len();
        }
        result.transpose()
    }
}

impl Reader {
    pub fn new(
        files: Arc<[CorpusFile]>,
        read: SchemaRef,
        filter: Option<Arc<dyn PhysicalExpr>>,
        output: SchemaRef,
    ) -> Self {
        Self {
            files,
            read,
            filter,
            output,
            next_file: 0,
            open: None,
        }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.open.is_none() {
                let Some(file) = self.files.get(self.next_file) else {
                    return Ok(None);
                };
                self.open = Some(OpenFile::new(file, self.next_file, &self.read)?);
                self.next_file += 1;
            }
            let raw = match &mut self.open {
                Some(open) => open.next(&self.files[open.index].path)?,
                None => None,
            };
            match raw {
                None => self.open = None,
                Some(raw) => {
                    let batch = self.finish(&raw)?;
                    if batch.num_rows() > 0 {
                        return Ok(Some(batch));
                    }
                }
            }
        }
    }

    /// Decodes strings, adds our columns, filters, and keeps the columns asked for.
    fn finish(&self, raw: &Located) -> Result<RecordBatch> {
        let rows = raw.batch.num_rows();
        let mut invalid = vec![None; rows];
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.read.fields().len());
        for field in self.read.fields() {
            let Some(column) = raw.batch.column_by_name(field.name()) else {
                continue;
            };
            columns.push(match column.data_type().is_null() {
                // Another file may have a type for it.
                true => new_null_array(field.data_type(), rows),
                false => decode(field.name(), column, &mut invalid)?,
            });
        }
        let numbers = raw.first_row..raw.first_row + rows as u64;
        columns.push(Arc::new(UInt32Array::from_value(raw.file, rows)));
        columns.push(Arc::new(UInt64Array::from_iter_values(numbers)));
        columns.push(Arc::new(StringArray::from(invalid)));
        let mut batch = RecordBatch::try_new(self.read.clone(), columns)?;
        if let Some(filter) = &self.filter {
            let keep = filter.evaluate(&batch)?.into_array(rows)?;
            batch = filter_record_batch(&batch, as_boolean_array(&keep)?)?;
        }
        project(&batch, &self.output)
    }
}

fn project(batch: &RecordBatch, output: &SchemaRef) -> Result<RecordBatch> {
    let columns = output.fields().iter().map(|field| {
        let index = batch.schema_ref().index_of(field.name())?;
        Ok(batch.column(index).clone())
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        output.clone(),
        columns,
        &options,
    )?)
}

/// Rows as read, and where they are: the file's index and the first row's number.
struct Located {
    batch: RecordBatch,
    file: u32,
    first_row: u64,
}

impl OpenFile {
    fn new(file: &CorpusFile, index: usize, read: &Schema) -> Result<Self, CorpusError> {
        let path = &file.path;
        let source = Source::open(file)?;
        let (_, metadata) = schema::open(path, &source).map_err(|e| source.blame(e))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source.clone(), metadata);
        let wanted = |name: &str| {
            ![FILE, ROW, INVALID].contains(&name) && read.field_with_name(name).is_ok()
        };
        let fields = builder.schema().fields().iter().enumerate();
        let roots: Vec<usize> = fields
            .filter(|(_, field)| wanted(field.name()))
            .map(|(i, _)| i)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        source.expect(builder.metadata(), &mask);
        let rows = batch_rows(builder.metadata(), &mask);
        let builder = builder.with_projection(mask).with_batch_size(rows);
        let batches = match guarded(|| builder.build()) {
            Some(batches) => batches.map_err(|error| source.blame(damaged(path, 1, &error)))?,
            None => return Err(damaged(path, 1, &"its footer makes no sense")),
        };
        Ok(Self {
            index,
            source,
            batch: RecordBatch::new_empty(Arc::new(Schema::empty())),
            batches,
            taken: 0,
            row: 0,
        })
    }

    fn next(&mut self, path: &Path) -> Result<Option<Located>, CorpusError> {
        if self.taken == self.batch.num_rows() {
            match guarded(|| self.batches.next()) {
                Some(None) => return Ok(None),
                Some(Some(Ok(batch))) => self.batch = batch,
                Some(Some(Err(error))) => {
                    return Err(self.source.blame(damaged(path, self.row + 1, &error)));
                }
                None => return Err(damaged(path, self.row + 1, &"a page makes no sense")),
            }
            self.taken = 0;
        }
        let rows = rows_that_fit(&self.batch, self.taken);
        let located = Located {
            batch: self.batch.slice(self.taken, rows),
            file: self.index as u32,
            first_row: self.row + 1,
        };
        self.taken += rows;
        self.row += rows as u64;
        Ok(Some(located))
    }
}

fn damaged(path: &Path, row: u64, error: &dyn std::fmt::Display) -> CorpusError {
    CorpusError::Damaged {
        path: path.to_path_buf(),
        row,
        message: one_line(error),
    }
}

/// Rows to decode at once, so that a batch of the row group with the longest rows is of the target size.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask) -> usize {
    let longest = metadata.row_groups().iter().map(|group| {
        let columns = group.columns().iter().enumerate();
        let bytes: i64 = columns
            .filter(|(leaf, _)| mask.leaf_included(*leaf))
            .map(|(_, column)| column.uncompressed_size())
            .sum();
        bytes.max(0) as u64 / group.num_rows().max(1) as u64
    });
    let longest = longest.max().unwrap_or(0).max(1);
    (TARGET_BYTES / longest).clamp(1, MOST_ROWS) as usize
}
