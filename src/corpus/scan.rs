//! Documents out of the corpus: what the job names, read through DataFusion in corpus order.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{SessionContext, ident, lit};
use futures::{Stream, StreamExt, TryStreamExt};

use super::CorpusError;
use super::columns::{footers, output_schema};
use super::error::one_line;
use super::files::CorpusFile;
use super::filter::Filter;
use super::judge::{CorpusBatch, Judge, Position, place};
use super::table::{CorpusTable, FILE, INVALID, ROW};
use crate::job::spec::Corpus;

/// A corpus that has been looked over and can be read.
pub struct CorpusScan {
    rows: DataFrame,
    files: Arc<[CorpusFile]>,
    corpus: Corpus,
    schema: SchemaRef,
    count: u64,
    duplicates: Arc<HashSet<String>>,
}

/// Finds the files of `corpus`, checks every footer and the columns named, counts the rows that pass the
/// filter, and finds ids that occur more than once.
pub async fn open(ctx: &SessionContext, corpus: &Corpus) -> Result<CorpusScan, CorpusError> {
    let (files, columns) = footers(corpus)?;
    let total = files.iter().map(|file| file.rows).sum();
    if total == 0 {
        return Err(CorpusError::NoRows {
            path: corpus.path.clone(),
        });
    }
    let schema = output_schema(&files[0], &columns, corpus)?;
    let files: Arc<[CorpusFile]> = files.into();
    let table = CorpusTable::new(files.clone(), &columns);
    let mut rows = ctx.read_table(Arc::new(table))?;
    let mut count = total;
    if let Some(text) = &corpus.filter {
        let columns = &columns;
        let filter = Filter { text, columns };
        rows = filter.apply(rows)?;
        // Some faults are only found when the filter is used.
        let counted = rows.clone().count().await;
        count = counted.map_err(|error| filter.refusal(error))? as u64;
    }
    if count == 0 {
        return Err(CorpusError::NoRowsLeft {
            path: corpus.path.clone(),
            rows: total,
            filter: corpus.filter.clone().unwrap_or_default(),
        });
    }
    let duplicates = Arc::new(duplicates(&rows, &corpus.id).await?);
    Ok(CorpusScan {
        rows,
        files,
        corpus: corpus.clone(),
        schema,
        count,
        duplicates,
    })
}

/// Ids that occur more than once; the aggregate spills when it does not fit the session's memory.
async fn duplicates(rows: &DataFrame, id: &str) -> Result<HashSet<String>, CorpusError> {
    let times = "__times";
    let counted = rows
        .clone()
        .filter(ident(id).is_not_null())?
        .aggregate(vec![ident(id)], vec![count(lit(1)).alias(times)])?
        .filter(ident(times).gt(lit(1)))?
        .select(vec![ident(id)])?;
    let mut stream = counted.execute_stream().await?;
    let mut found = HashSet::new();
    while let Some(batch) = stream.try_next().await? {
        let ids = cast(batch.column(0), &DataType::Utf8).map_err(query)?;
        found.extend(ids.as_string::<i32>().iter().flatten().map(String::from));
    }
    Ok(found)
}

/// An Arrow error of ours.
pub fn query(error: arrow::error::ArrowError) -> CorpusError {
    CorpusError::Query(one_line(&error))
}

impl CorpusScan {
    /// doc_id Utf8, title Utf8?, text Utf8, intents List<Utf8>? when named, then the passthrough columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn files(&self) -> &[CorpusFile] {
        &self.files
    }

    /// Rows that pass the filter, the bad ones included.
    pub fn rows(&self) -> u64 {
        self.count
    }

    /// Changes when a file of the corpus does.
    pub fn fingerprint(&self) -> String {
        super::corpus_fingerprint(&self.files)
    }

    /// File and row number of a document, for messages.
    pub fn place(&self, position: Position) -> String {
        place(&self.files, position)
    }

    /// Reads the documents from the beginning, files in path order and rows in file order.
    pub async fn stream(
        &self,
    ) -> Result<impl Stream<Item = Result<CorpusBatch, CorpusError>> + Send + use<>, CorpusError>
    {
        let corpus = &self.corpus;
        let named = [&corpus.id, &corpus.text].into_iter();
        let named = named.chain(&corpus.title).chain(&corpus.intents);
        let mut columns: Vec<&str> = Vec::new();
        for column in named.chain(&corpus.passthrough) {
            if !columns.contains(&column.as_str()) {
                columns.push(column);
            }
        }
        columns.extend([FILE, ROW, INVALID]);
        let columns: Vec<_> = columns.into_iter().map(ident).collect();
        let rows = self.rows.clone().select(columns)?.execute_stream().await?;
        let mut judge = Judge {
            files: self.files.clone(),
            corpus: corpus.clone(),
            schema: self.schema.clone(),
            duplicates: self.duplicates.clone(),
            kept: HashSet::new(),
        };
        Ok(rows.map(move |batch| judge.split(&batch?)))
    }
}
