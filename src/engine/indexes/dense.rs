//! The dense indexes: of the chunks' texts, and of the selected queries.

use std::collections::{HashMap, HashSet};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Float32Type},
};

use super::{DENSE_QUERIES, DENSE_TEXT, Generation, Selection, gain, text};
use crate::{
    engine::EngineError,
    index::{DenseSummary, DenseWriter},
    job::Progress,
    store::{Dataset, progress::Tally},
};

pub(super) struct Dense<'a> {
    pub factory: &'a str,
    pub dim: usize,
}

impl Generation<'_> {
    /// Builds the index of the chunks' texts, or of the selected queries.
    pub(super) fn dense(
        &self,
        settings: &Dense,
        selection: Option<&Selection>,
        tally: &mut Tally,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let (stage, name, rows) = match selection {
            Some(selection) => (
                DENSE_QUERIES,
                "queries",
                self.count_selected(selection)? as usize,
            ),
            None => (DENSE_TEXT, "text", self.rows(Dataset::TextVectors)?),
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
            self.each_vectors(settings.dim, selection, |_, vectors| {
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
        self.each_vectors(settings.dim, selection, |ids, vectors| {
            progress.advance(ids.len() as u64);
            Ok(writer.add(ids, vectors)?)
        })?;
        let DenseSummary { rows, .. } = writer.finish()?;
        tally.rows = rows;
        progress.finish();
        Ok(())
    }

    /// Batches of ids and their vectors (row-major), all of the texts or those of the selected queries.
    fn each_vectors(
        &self,
        dim: usize,
        selection: Option<&Selection>,
        mut visit: impl FnMut(&[&str], &[f32]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let dataset = match selection {
            Some(_) => Dataset::QueryVectors,
            None => Dataset::TextVectors,
        };
        for shard in 0..self.shards {
            let gains = match selection {
                Some(_) => self.gains(shard)?,
                None => HashMap::new(),
            };
            let chunks = match selection {
                Some(_) => self.chunks_with_vectors(shard)?,
                None => HashSet::new(),
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
                    let taken = |s: &Selection| {
                        let chunk = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
                        s.takes(gains.get(id).copied().flatten()) && chunks.contains(chunk)
                    };
                    if selection.is_none_or(taken) {
                        ids.push(id);
                        selected.extend_from_slice(&values[i * dim..(i + 1) * dim]);
                    }
                }
                visit(&ids, &selected)
            })?;
        }
        Ok(())
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

    fn gains(&self, shard: usize) -> Result<HashMap<String, Option<f32>>, EngineError> {
        let mut gains = HashMap::new();
        self.each_batch(Dataset::Queries, shard, |batch| {
            for i in 0..batch.num_rows() {
                gains.insert(
                    text(batch, "query_id", i).unwrap_or_default().to_owned(),
                    gain(batch, i),
                );
            }
            Ok(())
        })?;
        Ok(gains)
    }
}
