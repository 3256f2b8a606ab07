//! The texts of results: chunks and their indexed queries, from the generation's Parquet datasets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use datafusion::common::DataFusionError;
use datafusion::prelude::{Expr, col, lit};

use crate::corpus;
use crate::store::Indexes;

/// What a result shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Passage {
    pub text: String,
    /// The generated queries that the indexes took, as (query_id, text), in order.
    pub queries: Vec<(String, String)>,
}

/// Looks up the chunks by id; one that is not in the datasets is left out. Queries are those that the indexes took.
pub async fn read(
    generation: &Path,
    chunk_ids: &[&str],
    indexes: &Indexes,
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
    if indexes.queries_indexed > 0 && queries.exists() {
        let columns = ["chunk_id", "query_id", "text"];
        let found = rows(&queries, wanted(), columns).await?;
        let ids: Vec<&str> = found
            .iter()
            .map(|[_, query_id, _]| query_id.as_str())
            .collect();
        let left_out = left_out(generation, &ids).await?;
        for [chunk_id, query_id, text] in found {
            if let Some(passage) = passages.get_mut(&chunk_id)
                && !left_out.contains(&query_id)
            {
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

/// Of these queries, those that the indexes did not take; where there is no dataset that says so, they took all.
pub async fn left_out(
    generation: &Path,
    query_ids: &[&str],
) -> Result<BTreeSet<String>, PassageError> {
    let selection = generation.join("selection");
    if !selection.exists() || query_ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ids = query_ids.iter().map(|id| lit(*id)).collect();
    let refused = col("query_id").in_list(ids, false).and(!col("taken"));
    let rows = rows(&selection, refused, ["query_id"]).await?;
    Ok(rows.into_iter().map(|[id]| id).collect())
}

/// The m of `chunk_id?m`.
pub fn ordinal(query_id: &str) -> Option<u64> {
    query_id.rsplit_once('?')?.1.parse().ok()
}

/// The rows of a dataset of strings for which `condition` holds.
async fn rows<const N: usize>(
    dataset: &Path,
    condition: Expr,
    columns: [&str; N],
) -> Result<Vec<[String; N]>, PassageError> {
    let selected = corpus::select(dataset, condition, &columns).await;
    let batches = selected.map_err(|source| PassageError {
        path: dataset.to_owned(),
        source: Box::new(source),
    })?;
    let text = |batch: &RecordBatch, column: usize, row: usize| {
        let texts = batch.column(column).as_string::<i32>();
        texts.value(row).to_owned()
    };
    let rows = batches.iter().flat_map(|batch| {
        let row = move |row| std::array::from_fn(|column| text(batch, column, row));
        (0..batch.num_rows()).map(row)
    });
    Ok(rows.collect())
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PassageError {
    path: PathBuf,
    source: Box<DataFusionError>,
}
