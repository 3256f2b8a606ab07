//! The texts of results: chunks and their indexed queries, from the generation's Parquet datasets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::DataFusionError;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionContext, col, lit};

use crate::corpus;

/// What a result shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Passage {
    pub text: String,
    /// The generated queries that the indexes took, as (query_id, text), in order.
    pub queries: Vec<(String, String)>,
}

/// Looks up the chunks by id; one that is not in the datasets is left out. Queries are those with at least
/// `lowest_gain`, the threshold of the indexes, and those without a score; None: the indexes took none.
pub async fn read(
    generation: &Path,
    chunk_ids: &[&str],
    lowest_gain: Option<f32>,
) -> Result<BTreeMap<String, Passage>, PassageError> {
    let mut passages = BTreeMap::new();
    if chunk_ids.is_empty() {
        return Ok(passages);
    }
    let wanted = || col("chunk_id").in_list(chunk_ids.iter().map(|id| lit(*id)).collect(), false);
    for [chunk_id, text] in rows(&generation.join("chunks"), wanted(), ["chunk_id", "text"]).await?
    {
        passages.insert(
            chunk_id,
            Passage {
                text,
                queries: Vec::new(),
            },
        );
    }
    let queries = generation.join("queries");
    if let Some(lowest) = lowest_gain.filter(|_| queries.exists()) {
        let columns = ["chunk_id", "query_id", "text"];
        let gain = || get_field(col("scores"), "gain");
        let taken = gain().is_null().or(gain().gt_eq(lit(lowest)));
        for [chunk_id, query_id, text] in rows(&queries, wanted().and(taken), columns).await? {
            if let Some(passage) = passages.get_mut(&chunk_id) {
                passage.queries.push((query_id, text));
            }
        }
    }
    for passage in passages.values_mut() {
        passage
            .queries
            .sort_by_key(|(id, _)| (ordinal(id), id.clone()));
    }
    Ok(passages)
}

/// The m of `chunk_id?m`.
fn ordinal(query_id: &str) -> Option<u64> {
    query_id.rsplit_once('?')?.1.parse().ok()
}

/// The rows of a dataset for which `condition` holds, as text.
async fn rows<const N: usize>(
    dataset: &Path,
    condition: Expr,
    columns: [&str; N],
) -> Result<Vec<[String; N]>, PassageError> {
    let failed = |source: DataFusionError| PassageError {
        path: dataset.to_owned(),
        source: Box::new(source),
    };
    let folder = corpus::url(dataset).map_err(failed)?;
    let context = SessionContext::new();
    let frame = context
        .read_parquet(folder.as_str(), ParquetReadOptions::default())
        .await
        .map_err(failed)?;
    let frame = frame
        .filter(condition)
        .and_then(|frame| frame.select_columns(&columns))
        .map_err(failed)?;
    let mut rows = Vec::new();
    for batch in frame.collect().await.map_err(failed)? {
        let texts = texts(&batch).map_err(|e| failed(e.into()))?;
        for row in 0..batch.num_rows() {
            rows.push(std::array::from_fn(|column| {
                texts[column].as_string::<i32>().value(row).to_owned()
            }));
        }
    }
    Ok(rows)
}

/// The columns, whichever string type DataFusion read them as.
fn texts(batch: &RecordBatch) -> Result<Vec<ArrayRef>, arrow::error::ArrowError> {
    batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8))
        .collect()
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PassageError {
    path: PathBuf,
    source: Box<DataFusionError>,
}
