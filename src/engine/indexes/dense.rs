//! The dense indexes: of the chunks' texts, and of the selected queries.

use std::collections::HashSet;

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Float32Type},
};

use super::{DENSE_QUERIES, DENSE_TEXT, Generation, selection, text};
use crate::{
    engine::EngineError,
    expand::queries::Origin,
    index::{DenseSummary, DenseWriter},
    job::Progress,
    store::{Dataset, progress::Tally},
};

pub(super) struct Dense<'a> {
    pub factory: &'a str,
    pub dim: usize,
    /// Whether there are queries that are words for the sparse index alone.
    pub vocabulary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Text,
    Queries,
}

impl Generation<'_> {
    /// Builds the index of the chunks' texts, or of the queries that are taken.
    pub(super) fn dense(
        &self,
        settings: &Dense,
        side: Side,
        tally: &mut Tally,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let (stage, name, rows) = match side {
            Side::Queries => (DENSE_QUERIES, "queries", self.count_taken()? as usize),
            Side::Text => (DENSE_TEXT, "text", self.rows(Dataset::TextVectors)?),
        };
        progress.start(stage, rows as u64, "vectors");
        let mut writer = DenseWriter::create(
            &self.folder.join("dense"),
            name,
            settings.factory,
            settings.dim,
            rows,
        )?;
        if let Some(stride) = writer.training_stride() {
            let mut sample = Vec::new();
            let mut row = 0;
            self.each_vectors(settings, side, |_, vectors| {
                for vector in vectors.chunks_exact(settings.dim) {
                    if row % stride == 0 {
                        sample.extend_from_slice(vector);
                    }
                    row += 1;
                }
                Ok(())
            })?;
            writer.train(&sample)?;
        }
        self.each_vectors(settings, side, |ids, vectors| {
            progress.advance(ids.len() as u64);
            Ok(writer.add(ids, vectors)?)
        })?;
        let DenseSummary { rows, .. } = writer.finish()?;
        tally.rows = rows;
        progress.finish();
        Ok(())
    }

    /// Batches of ids and their vectors (row-major), all of the texts or those of the queries that are taken.
    fn each_vectors(
        &self,
        settings: &Dense,
        side: Side,
        mut visit: impl FnMut(&[&str], &[f32]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (dim, dataset) = match side {
            Side::Queries => (settings.dim, Dataset::QueryVectors),
            Side::Text => (settings.dim, Dataset::TextVectors),
        };
        for shard in 0..self.shards {
            let (left_out, chunks) = match side {
                Side::Queries => (
                    self.not_embedded(shard, settings.vocabulary)?,
                    self.chunks_with_vectors(shard)?,
                ),
                Side::Text => (HashSet::new(), HashSet::new()),
            };
            self.each_batch(dataset, shard, |batch| {
                let vectors = batch.column(1).as_fixed_size_list();
                let values = cast(vectors.values(), &DataType::Float32)
                    .map_err(EngineError::batch(&dataset.part(self.folder, shard)))?;
                let values = values.as_primitive::<Float32Type>().values();
                let mut ids = Vec::with_capacity(batch.num_rows());
                let mut selected = Vec::with_capacity(values.len());
                for (i, id) in batch.column(0).as_string::<i32>().iter().enumerate() {
                    let id = id.unwrap_or_default();
                    let chunk = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
                    let taken = || !left_out.contains(id) && chunks.contains(chunk);
                    if side == Side::Text || taken() {
                        ids.push(id);
                        selected.extend_from_slice(&values[i * dim..(i + 1) * dim]);
                    }
                }
                visit(&ids, &selected)
            })?;
        }
        Ok(())
    }

    /// The queries that the dense index does not take: those that no index takes, and words.
    fn not_embedded(&self, shard: usize, vocabulary: bool) -> Result<HashSet<String>, EngineError> {
        let mut left_out = selection::left_out(self.folder, shard)?;
        if vocabulary {
            self.each_batch(Dataset::Queries, shard, |batch| {
                let words = (0..batch.num_rows())
                    .filter(|i| text(batch, "origin", *i) == Some(Origin::Vocabulary.name()));
                let ids = words.filter_map(|i| text(batch, "query_id", i));
                left_out.extend(ids.map(str::to_owned));
                Ok(())
            })?;
        }
        Ok(left_out)
    }

    /// A chunk whose text could not be embedded is not in the dense indexes, and neither are its queries.
    fn chunks_with_vectors(&self, shard: usize) -> Result<HashSet<String>, EngineError> {
        let mut chunks = HashSet::new();
        self.each_batch(Dataset::TextVectors, shard, |batch| {
            chunks.extend(
                batch
                    .column(0)
                    .as_string::<i32>()
                    .iter()
                    .flatten()
                    .map(str::to_owned),
            );
            Ok(())
        })?;
        Ok(chunks)
    }
}
