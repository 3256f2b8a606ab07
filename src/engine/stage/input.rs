//! A shard's input rows, each beside what was made for it before: the questions of a document, the keywords of a chunk, the chunk
//! of a query, an earlier result.
//!
//! All parts of a shard are in the order of its input, so they are read in step: a join would sort rows that hold whole
//! texts, and a sort must hold the longest of them several times.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringArray, StringBuilder},
    compute::concat,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, dataset::read_part};

/// Column of a document's predicted questions, or of a chunk's keywords; null where it has none.
pub const LIST: &str = "__list";

/// Columns of a query's chunk.
pub const CHUNK: [&str; 2] = ["__title", "__text"];

/// Column of the earlier result, null where there is none.
pub const EARLIER: &str = "result";

/// A part that is read beside the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Beside {
    /// The predicted questions of documents.
    Intents(PathBuf),
    /// The keywords of chunks.
    Keywords(PathBuf),
    /// The chunks of queries.
    Chunks(PathBuf),
}

impl Beside {
    fn path(&self) -> &Path {
        match self {
            Beside::Intents(path) | Beside::Keywords(path) | Beside::Chunks(path) => path,
        }
    }

    #[cfg(feature = "cluster")]
    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Beside::Intents(path) | Beside::Keywords(path) | Beside::Chunks(path) => path,
        }
    }

    fn fields(&self) -> Vec<Field> {
        let text = || Field::new_list_field(DataType::Utf8, true);
        match self {
            Beside::Intents(_) | Beside::Keywords(_) => vec![Field::new_list(LIST, text(), true)],
            Beside::Chunks(_) => CHUNK
                .map(|name| Field::new(name, DataType::Utf8, true))
                .into(),
        }
    }
}

/// The parts of a shard that a stage reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    /// Name of the column with the rows' ids.
    id: String,
    rows: PathBuf,
    beside: Option<Beside>,
    reuse: Option<PathBuf>,
    #[serde(skip, default = "no_columns")]
    schema: SchemaRef,
}

fn no_columns() -> SchemaRef {
    Arc::new(Schema::empty())
}

impl Input {
    pub fn new(
        id: &str,
        rows: PathBuf,
        beside: Option<Beside>,
        reuse: Option<PathBuf>,
    ) -> Result<Self, DataFusionError> {
        let mut fields = Part::open(&rows)?.schema().fields().to_vec();
        if let Some(beside) = &beside {
            fields.extend(beside.fields().into_iter().map(Arc::new));
        }
        if let Some(reuse) = &reuse {
            let schema = Part::open(reuse)?.schema();
            fields.push(Arc::new(schema.field_with_name(EARLIER)?.clone()));
        }
        Ok(Self {
            id: id.to_owned(),
            rows,
            beside,
            reuse,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    pub fn has_beside(&self) -> bool {
        self.beside.is_some()
    }

    /// One that came without its schema.
    #[cfg(feature = "cluster")]
    pub fn with_schema(self, schema: SchemaRef) -> Self {
        Self { schema, ..self }
    }

    /// With paths that mean the same in another process.
    #[cfg(feature = "cluster")]
    pub fn absolute(&self) -> std::io::Result<Self> {
        let mut input = self.clone();
        for path in input.paths_mut() {
            *path = std::path::absolute(&path)?;
        }
        Ok(input)
    }

    #[cfg(feature = "cluster")]
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let beside = self.beside.as_mut().map(Beside::path_mut);
        [&mut self.rows]
            .into_iter()
            .chain(beside)
            .chain(&mut self.reuse)
    }

    /// All parts that it reads.
    #[cfg(feature = "cluster")]
    pub fn parts(&self) -> Vec<PathBuf> {
        let beside = self.beside.as_ref().map(Beside::path);
        let parts = [Some(self.rows.as_path()), beside, self.reuse.as_deref()];
        parts.into_iter().flatten().map(Path::to_owned).collect()
    }

    /// With the parts of a generation where it is stored.
    #[cfg(feature = "cluster")]
    pub fn moved(&self, generation: &Path, to: &str) -> Self {
        let mut input = self.clone();
        for path in input.paths_mut() {
            if let Ok(name) = path.strip_prefix(generation) {
                *path = Path::new(to).join(name);
            }
        }
        input
    }

    /// The part with the rows.
    #[cfg(feature = "cluster")]
    pub fn path(&self) -> &Path {
        &self.rows
    }

    fn open(&self) -> Result<Rows> {
        let beside = |beside: &Beside| {
            Ok::<_, DataFusionError>((beside.clone(), Part::open(beside.path())?))
        };
        Ok(Rows {
            id: self.id.clone(),
            rows: Part::open(&self.rows)?,
            beside: self.beside.as_ref().map(beside).transpose()?,
            reuse: self.reuse.as_deref().map(Part::open).transpose()?,
            schema: self.schema.clone(),
        })
    }
}

impl PartitionStream for Input {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (rows, error) = match self.open() {
            Ok(rows) => (Some(rows), None),
            Err(error) => (None, Some(Err(error))),
        };
        let batches = rows.into_iter().flatten().chain(error);
        let batches = stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// Batches of the input, completed.
struct Rows {
    id: String,
    rows: Part,
    beside: Option<(Beside, Part)>,
    reuse: Option<Part>,
    schema: SchemaRef,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.reader.next() {
            Some(batch) => Some(batch.map_err(Into::into).and_then(|b| self.complete(&b))),
            None => self.left_over().transpose(),
        }
    }
}

impl Rows {
    fn complete(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let ids = column(batch, &self.id)?.as_string::<i32>();
        let mut columns = batch.columns().to_vec();
        match &mut self.beside {
            Some((Beside::Intents(_), part)) => columns.push(part.lists(ids)?),
            Some((Beside::Keywords(_), part)) => columns.push(part.keywords(ids)?),
            Some((Beside::Chunks(_), part)) => {
                let chunks = column(batch, "chunk_id")?.as_string::<i32>();
                columns.extend(part.chunks(chunks)?);
            }
            None => {}
        }
        if let Some(reuse) = &mut self.reuse {
            columns.push(reuse.results(ids)?);
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// Rows that belong to no input row are an error: what was read beside the input was not made for it.
    fn left_over(&mut self) -> Result<Option<RecordBatch>> {
        let beside = match &mut self.beside {
            // A chunk may have no queries.
            Some((Beside::Chunks(_), _)) | None => None,
            Some((_, part)) => Some(part),
        };
        for part in beside.into_iter().chain(&mut self.reuse) {
            if part.has_more()? {
                return Err(part.out_of_step());
            }
        }
        Ok(None)
    }
}

/// A part that is read row by row.
struct Part {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    /// The next row of the batch.
    at: usize,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let external = |e: StoreError| DataFusionError::External(Box::new(e));
        let reader = read_part(path).map_err(external)?;
        Ok(Self {
            path: path.to_owned(),
            batch: RecordBatch::new_empty(arrow::array::RecordBatchReader::schema(&reader)),
            reader,
            at: 0,
        })
    }

    fn schema(&self) -> SchemaRef {
        self.batch.schema()
    }

    fn has_more(&mut self) -> Result<bool> {
        while self.at == self.batch.num_rows() {
            match self.reader.next() {
                Some(batch) => (self.batch, self.at) = (batch?, 0),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The texts of the rows that each of these documents has here.
    fn lists(&mut self, documents: &StringArray) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for document in documents.iter().flatten() {
            let mut any = false;
            while self.has_more()? && self.text("doc_id")? == document {
                lists.values().append_value(self.text("text")?);
                self.at += 1;
                any = true;
            }
            lists.append(any);
        }
        Ok(Arc::new(lists.finish()))
    }

    /// The keywords of these chunks; null for one that has no row here.
    fn keywords(&mut self, chunks: &StringArray) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for chunk in chunks.iter().flatten() {
            let there = self.has_more()? && self.text("chunk_id")? == chunk;
            if there {
                let keywords = column(&self.batch, "keywords")?
                    .as_list::<i32>()
                    .value(self.at);
                let texts = keywords.as_struct().column(0).as_string::<i32>();
                texts
                    .iter()
                    .for_each(|text| lists.values().append_option(text));
                self.at += 1;
            }
            lists.append(there);
        }
        Ok(Arc::new(lists.finish()))
    }

    /// Title and text of these chunks, each of which may be asked for several times in a row.
    fn chunks(&mut self, wanted: &StringArray) -> Result<[ArrayRef; 2]> {
        let (mut titles, mut texts) = (StringBuilder::new(), StringBuilder::new());
        for chunk in wanted.iter().flatten() {
            while self.has_more()? && self.text("chunk_id")? != chunk {
                self.at += 1;
            }
            if !self.has_more()? {
                return Err(self.out_of_step());
            }
            let title = column(&self.batch, "title")?.as_string::<i32>();
            titles.append_option(title.is_valid(self.at).then(|| title.value(self.at)));
            texts.append_value(self.text("text")?);
        }
        Ok([Arc::new(titles.finish()), Arc::new(texts.finish())])
    }

    fn text(&self, name: &str) -> Result<&str> {
        Ok(column(&self.batch, name)?.as_string::<i32>().value(self.at))
    }

    /// The earlier results, of which there is one for each of these rows.
    fn results(&mut self, ids: &StringArray) -> Result<ArrayRef> {
        let (mut taken, mut results) = (0, Vec::new());
        while taken < ids.len() {
            if !self.has_more()? {
                return Err(self.out_of_step());
            }
            let rows = (ids.len() - taken).min(self.batch.num_rows() - self.at);
            let found = self.batch.slice(self.at, rows);
            if *column(&found, "id")?.as_string::<i32>() != ids.slice(taken, rows) {
                return Err(self.out_of_step());
            }
            results.push(column(&found, EARLIER)?.clone());
            self.at += rows;
            taken += rows;
        }
        let results: Vec<&dyn Array> = results.iter().map(AsRef::as_ref).collect();
        Ok(concat(&results)?)
    }

    fn out_of_step(&self) -> DataFusionError {
        DataFusionError::Execution(format!(
            "{} is not in step with the rows it was made for; `intendex build --restart` makes both anew",
            self.path.display()
        ))
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    let column = batch.column_by_name(name);
    column.ok_or_else(|| DataFusionError::Execution(format!("no column {name}")))
}

#[cfg(test)]
mod tests {
    use datafusion::{
        catalog::streaming::StreamingTable,
        prelude::{SessionConfig, SessionContext},
    };

    use super::*;
    use crate::store::dataset::PartWriter;

    fn write(path: &Path, columns: &[(&str, &[&str])]) {
        let columns = columns.iter().map(|(name, values)| {
            let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
            (*name, values)
        });
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = PartWriter::create(path, batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }

    fn read(folder: &Path) -> Result<Vec<RecordBatch>> {
        let path = |name: &str| folder.join(name);
        let (beside, reuse) = (Beside::Intents(path("intents")), path("reuse"));
        let input = Input::new("doc_id", path("rows"), Some(beside), Some(reuse))?;
        let table = StreamingTable::try_new(input.schema().clone(), vec![Arc::new(input)])?;
        let config = SessionConfig::new().with_target_partitions(1);
        let ctx = SessionContext::new_with_config(config);
        ctx.register_table("input", Arc::new(table))?;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let sql = "SELECT doc_id, array_to_string(__list, '|') AS i, result FROM input";
            ctx.sql(sql).await?.collect().await
        })
    }

    #[test]
    fn rows_meet_what_was_made_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..3000).map(|i| format!("d{i}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let asked: Vec<&str> = ids.iter().step_by(7).flat_map(|id| [*id; 3]).collect();
        write(&folder.path().join("rows"), &[("doc_id", &ids)]);
        let intents = [("doc_id", &asked[..]), ("text", &asked[..])];
        write(&folder.path().join("intents"), &intents);
        let reuse = [("id", &ids[..]), ("result", &ids[..])];
        write(&folder.path().join("reuse"), &reuse);
        let mut seen = 0;
        for batch in read(folder.path()).unwrap() {
            let [id, intents, result] = [0, 1, 2].map(|c| batch.column(c).as_string::<i32>());
            for i in 0..batch.num_rows() {
                let wanted = [id.value(i); 3].join("|");
                let wanted = (seen % 7 == 0).then_some(wanted.as_str());
                assert_eq!(intents.is_valid(i).then(|| intents.value(i)), wanted);
                assert_eq!((id.value(i), result.value(i)), (ids[seen], ids[seen]));
                seen += 1;
            }
        }
        assert_eq!(seen, ids.len());

        // Neither a row too few nor one of another document passes.
        for other in [&ids[1..], &[&ids[1..], &["another"]].concat()] {
            write(
                &folder.path().join("reuse"),
                &[("id", other), ("result", other)],
            );
            assert!(
                read(folder.path())
                    .unwrap_err()
                    .to_string()
                    .contains("not in step")
            );
        }
        write(&folder.path().join("reuse"), &reuse);
        write(
            &folder.path().join("intents"),
            &[("doc_id", &["x"]), ("text", &["x"])],
        );
        assert!(
            read(folder.path())
                .unwrap_err()
                .to_string()
                .contains("not in step")
        );
    }
}
