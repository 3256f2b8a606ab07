//! The datasets of a generation: folders of Parquet parts, one part per shard.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float32Type, SchemaRef},
    error::ArrowError,
};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::ColumnPath,
};

use super::{StoreError, address_of, rename, temporary_name};
use crate::objects::Objects;

/// Rows read at once: bounds what a stage holds beside its models.
pub const BATCH_ROWS: usize = 1024;

/// Rows that are held until they are written, where nothing else bounds them.
const SCRATCH_GROUP_BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dataset {
    /// The corpus's rows as indexed, so that a generation explains itself without its source.
    Documents,
    Intents,
    Chunks,
    /// What the corpus is about; one part, for all shards.
    Topics,
    /// The topics and keywords of each chunk.
    ChunkTopics,
    Queries,
    Scores,
    TextVectors,
    QueryVectors,
    /// Which queries the indexes took, where they did not take all.
    Selection,
    /// What became of each input row of a stage: its key and how many rows it gave. The next build finds here what
    /// it can take over.
    IntentOutcomes,
    ChunkOutcomes,
    ChunkTopicOutcomes,
    QueryOutcomes,
    ScoreOutcomes,
    TextVectorOutcomes,
    QueryVectorOutcomes,
    Quarantine,
}

impl Dataset {
    pub const ALL: [Dataset; 18] = [
        Dataset::Documents,
        Dataset::Intents,
        Dataset::Chunks,
        Dataset::Topics,
        Dataset::ChunkTopics,
        Dataset::Queries,
        Dataset::Scores,
        Dataset::TextVectors,
        Dataset::QueryVectors,
        Dataset::Selection,
        Dataset::IntentOutcomes,
        Dataset::ChunkOutcomes,
        Dataset::ChunkTopicOutcomes,
        Dataset::QueryOutcomes,
        Dataset::ScoreOutcomes,
        Dataset::TextVectorOutcomes,
        Dataset::QueryVectorOutcomes,
        Dataset::Quarantine,
    ];

    /// Folder below a generation.
    pub fn folder(self) -> &'static str {
        match self {
            Dataset::Documents => "documents",
            Dataset::Intents => "intents",
            Dataset::Chunks => "chunks",
            Dataset::Topics => "topics",
            Dataset::ChunkTopics => "chunk_topics",
            Dataset::Queries => "queries",
            Dataset::Scores => "scores",
            Dataset::TextVectors => "vectors/text",
            Dataset::QueryVectors => "vectors/queries",
            Dataset::Selection => "selection",
            Dataset::IntentOutcomes => "outcomes/intents",
            Dataset::ChunkOutcomes => "outcomes/chunks",
            Dataset::ChunkTopicOutcomes => "outcomes/keywords",
            Dataset::QueryOutcomes => "outcomes/queries",
            Dataset::ScoreOutcomes => "outcomes/scores",
            Dataset::TextVectorOutcomes => "outcomes/vectors-text",
            Dataset::QueryVectorOutcomes => "outcomes/vectors-queries",
            Dataset::Quarantine => "quarantine",
        }
    }

    pub fn part(self, generation: &Path, shard: usize) -> PathBuf {
        generation
            .join(self.folder())
            .join(format!("part-{shard:05}.parquet"))
    }

    /// The parts there are, in order of shard.
    pub fn parts(self, generation: &Path) -> Result<Vec<PathBuf>, StoreError> {
        parts(&generation.join(self.folder()))
    }
}

/// The parts in a dataset's folder, in order of shard.
pub fn parts(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::io(folder))? {
        let path = entry.map_err(StoreError::io(folder))?.path();
        if path.extension().is_some_and(|e| e == "parquet") {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}

/// Row `i` of a column of texts; None where it is null or there is no such column.
pub fn text<'a>(batch: &'a RecordBatch, column: &str, i: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    column.is_valid(i).then(|| column.value(i))
}

/// Row `i` of a column of single floats; None where it is null or there is no such column.
pub fn float(batch: &RecordBatch, column: &str, i: usize) -> Option<f32> {
    let column = batch.column_by_name(column)?;
    let column = column.as_primitive_opt::<Float32Type>()?;
    column.is_valid(i).then(|| column.value(i))
}

/// Visits every row of a part.
pub fn each_row(path: &Path, mut visit: impl FnMut(&RecordBatch, usize)) -> Result<(), StoreError> {
    for batch in read_part(path)? {
        let batch = batch.map_err(unreadable(path))?;
        (0..batch.num_rows()).for_each(|i| visit(&batch, i));
    }
    Ok(())
}

/// Visits every row of a part of a dataset that a generation need not have.
pub fn each_row_if_any(
    path: &Path,
    visit: impl FnMut(&RecordBatch, usize),
) -> Result<(), StoreError> {
    match path.exists() {
        true => each_row(path, visit),
        false => Ok(()),
    }
}

/// The texts of one column of a part, without reading the others.
pub fn column_of_texts(path: &Path, column: &str) -> Result<Vec<String>, StoreError> {
    let file = File::open(path).map_err(StoreError::io(path))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::parquet(path))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let batches = builder.with_projection(mask).build();
    let mut texts = Vec::new();
    for batch in batches.map_err(StoreError::parquet(path))? {
        let batch = batch.map_err(unreadable(path))?;
        let rows = 0..batch.num_rows();
        texts.extend(rows.map(|i| text(&batch, column, i).unwrap_or_default().to_owned()));
    }
    Ok(texts)
}

/// Visits every row of a part of vectors: its id, and the vector.
pub fn each_vector<E: From<StoreError>>(
    path: &Path,
    mut visit: impl FnMut(&str, &[f32]) -> Result<(), E>,
) -> Result<(), E> {
    for batch in read_part(path)? {
        let batch = batch.map_err(unreadable(path))?;
        let vectors = batch.column(1).as_fixed_size_list();
        let values = cast(vectors.values(), &DataType::Float32).map_err(unreadable(path))?;
        let values = values.as_primitive::<Float32Type>().values();
        let dim = vectors.value_length() as usize;
        for (i, id) in batch.column(0).as_string::<i32>().iter().enumerate() {
            visit(id.unwrap_or_default(), &values[i * dim..(i + 1) * dim])?;
        }
    }
    Ok(())
}

fn unreadable(path: &Path) -> impl Fn(ArrowError) -> StoreError + '_ {
    move |error| StoreError::Invalid {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// Writes one part under a temporary name; [`finish`](PartWriter::finish) gives it its own.
pub struct PartWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
    rows: usize,
}

impl PartWriter {
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self, StoreError> {
        Self::open(path, schema, properties().build())
    }

    /// For a file of any length that is gone when its stage ends: a shard's rows are bounded, these are not, and a
    /// group of them is held until it is whole.
    pub fn scratch(path: &Path, schema: SchemaRef) -> Result<Self, StoreError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_max_row_group_bytes(Some(SCRATCH_GROUP_BYTES));
        Self::open(path, schema, properties.build())
    }

    fn open(
        path: &Path,
        schema: SchemaRef,
        properties: WriterProperties,
    ) -> Result<Self, StoreError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        let temporary = temporary_name(path);
        let file = File::create(&temporary).map_err(StoreError::io(&temporary))?;
        let writer = ArrowWriter::try_new(file, schema, Some(properties))
            .map_err(StoreError::parquet(path))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            rows: 0,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.rows += batch.num_rows();
        self.writer
            .write(batch)
            .map_err(StoreError::parquet(&self.path))
    }

    /// Bytes written and buffered so far.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    pub fn finish(mut self) -> Result<usize, StoreError> {
        self.writer
            .finish()
            .map_err(StoreError::parquet(&self.path))?;
        let temporary = temporary_name(&self.path);
        self.writer
            .inner()
            .sync_all()
            .map_err(StoreError::io(&temporary))?;
        rename(&temporary, &self.path)?;
        Ok(self.rows)
    }
}

/// `created_by` is fixed, so that the bytes depend on the rows alone. Vectors neither compress nor have useful
/// statistics or dictionaries.
fn properties() -> WriterPropertiesBuilder {
    let mut builder = WriterProperties::builder()
        .set_created_by("intendex".into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in ["vector.list.item", "vector.list.element"] {
        builder = builder
            .set_column_compression(ColumnPath::from(split(column)), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(ColumnPath::from(split(column)), false)
            .set_column_statistics_enabled(
                ColumnPath::from(split(column)),
                EnabledStatistics::None,
            );
    }
    builder
}

fn split(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// Streams the batches of one part, which on a cluster's executor may be an object.
pub fn read_part(path: &Path) -> Result<ParquetRecordBatchReader, StoreError> {
    let file = match address_of(path) {
        Some(address) => Objects::open(address)?.open_file()?,
        None => File::open(path).map_err(StoreError::io(path))?,
    };
    ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|b| b.with_batch_size(BATCH_ROWS).build())
        .map_err(StoreError::parquet(path))
}

/// Rows of one part, from its footer.
pub fn count_rows(path: &Path) -> Result<usize, StoreError> {
    let file = File::open(path).map_err(StoreError::io(path))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::parquet(path))?;
    Ok(builder.metadata().file_metadata().num_rows() as usize)
}
