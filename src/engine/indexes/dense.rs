//! The dense indexes: of the chunks' texts, and of the selected queries.

use std::collections::HashSet;

use super::{DENSE_QUERIES, DENSE_TEXT, Generation, selection};
use crate::{
    engine::EngineError,
    expand::queries::Origin,
    index::{DenseSummary, DenseWriter},
    job::Progress,
    store::{
        Dataset,
        dataset::{BATCH_ROWS, column_of_texts, each_row, each_vector, text},
        progress::Tally,
    },
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
        let (stage, name) = match side {
            Side::Queries => (DENSE_QUERIES, "queries"),
            Side::Text => (DENSE_TEXT, "text"),
        };
        let rows = self.count_vectors(settings, side)?;
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
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            Ok(writer.add(&ids, vectors)?)
        })?;
        let DenseSummary { rows, .. } = writer.finish()?;
        tally.rows = rows;
        progress.finish();
        Ok(())
    }

    /// Rows that the index will have: what kind of index it is depends on them.
    fn count_vectors(&self, settings: &Dense, side: Side) -> Result<usize, EngineError> {
        if side == Side::Text {
            return Ok(self.rows(Dataset::TextVectors)?);
        }
        let mut count = 0;
        for shard in 0..self.shards {
            let taken = self.taken(settings, side, shard)?;
            let path = Dataset::QueryVectors.part(self.folder, shard);
            let ids = column_of_texts(&path, "query_id")?;
            count += ids.iter().filter(|id| taken(id)).count();
        }
        Ok(count)
    }

    /// Which vectors of a shard the index takes: all of the texts; of the queries those that are taken, if their chunk has a
    /// vector too.
    fn taken(
        &self,
        settings: &Dense,
        side: Side,
        shard: usize,
    ) -> Result<impl Fn(&str) -> bool + use<>, EngineError> {
        let (left_out, chunks) = match side {
            Side::Queries => (
                self.not_embedded(shard, settings.vocabulary)?,
                self.chunks_with_vectors(shard)?,
            ),
            Side::Text => (HashSet::new(), HashSet::new()),
        };
        Ok(move |id: &str| {
            let chunk = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
            side == Side::Text || (!left_out.contains(id) && chunks.contains(chunk))
        })
    }

    /// Ids and their vectors (row-major) by shard, of those that the index takes.
    fn each_vectors(
        &self,
        settings: &Dense,
        side: Side,
        mut visit: impl FnMut(&[String], &[f32]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let dataset = match side {
            Side::Queries => Dataset::QueryVectors,
            Side::Text => Dataset::TextVectors,
        };
        for shard in 0..self.shards {
            let taken = self.taken(settings, side, shard)?;
            let (mut ids, mut vectors) = (Vec::new(), Vec::new());
            each_vector(&dataset.part(self.folder, shard), |id, vector| {
                if taken(id) {
                    ids.push(id.to_owned());
                    vectors.extend_from_slice(vector);
                }
                // Many at once, as FAISS adds them on all cores.
                match ids.len() {
                    BATCH_ROWS => visit(&std::mem::take(&mut ids), &std::mem::take(&mut vectors)),
                    _ => Ok(()),
                }
            })?;
            visit(&ids, &vectors)?;
        }
        Ok(())
    }

    /// The queries that the dense index does not take: those that no index takes, and words.
    fn not_embedded(&self, shard: usize, vocabulary: bool) -> Result<HashSet<String>, EngineError> {
        let mut left_out = selection::left_out(self.folder, shard)?;
        if vocabulary {
            each_row(&Dataset::Queries.part(self.folder, shard), |batch, i| {
                if text(batch, "origin", i) == Some(Origin::Vocabulary.name()) {
                    left_out.extend(text(batch, "query_id", i).map(str::to_owned));
                }
            })?;
        }
        Ok(left_out)
    }

    /// A chunk whose text could not be embedded is not in the dense indexes, and neither are its queries.
    fn chunks_with_vectors(&self, shard: usize) -> Result<HashSet<String>, EngineError> {
        let path = Dataset::TextVectors.part(self.folder, shard);
        Ok(column_of_texts(&path, "chunk_id")?.into_iter().collect())
    }
}
