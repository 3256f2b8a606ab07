//! The dense indexes of a shard: of the chunks' texts, and of the selected queries.

use std::collections::HashSet;

use super::{Shard, selection};
use crate::{
    engine::EngineError,
    expand::queries::Origin,
    index::DenseWriter,
    job::Progress,
    store::{
        Dataset,
        dataset::{BATCH_ROWS, column_of_texts, each_row, each_vector, text},
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

impl Shard<'_> {
    /// Builds the index of the chunks' texts, or of the queries that are taken, of which there are `rows`; how many it has.
    pub(super) fn dense(
        &self,
        settings: &Dense,
        side: Side,
        rows: usize,
        progress: &dyn Progress,
    ) -> Result<u64, EngineError> {
        let name = match side {
            Side::Queries => "queries",
            Side::Text => "text",
        };
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
        Ok(writer.finish()?.rows)
    }

    /// Rows that the index will have: what kind of index it is depends on them.
    pub(super) fn count_vectors(&self, settings: &Dense, side: Side) -> Result<usize, EngineError> {
        if side == Side::Text {
            return Ok(self.rows(Dataset::TextVectors)?);
        }
        let mut count = 0;
        for part in self.parts.clone() {
            let taken = self.taken(settings, side, part)?;
            let path = Dataset::QueryVectors.part(self.generation, part);
            let ids = column_of_texts(&path, "query_id")?;
            count += ids.iter().filter(|id| taken(id)).count();
        }
        Ok(count)
    }

    /// Which vectors of a part the index takes: all of the texts; of the queries those that are taken, if their chunk has a
    /// vector too.
    fn taken(
        &self,
        settings: &Dense,
        side: Side,
        part: usize,
    ) -> Result<impl Fn(&str) -> bool + use<>, EngineError> {
        let (left_out, chunks) = match side {
            Side::Queries => (
                self.not_embedded(part, settings.vocabulary)?,
                self.chunks_with_vectors(part)?,
            ),
            Side::Text => (HashSet::new(), HashSet::new()),
        };
        Ok(move |id: &str| {
            let chunk = id.rsplit_once('?').map_or(id, |(chunk, _)| chunk);
            side == Side::Text || (!left_out.contains(id) && chunks.contains(chunk))
        })
    }

    /// Ids and their vectors (row-major) by part, of those that the index takes.
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
        for part in self.parts.clone() {
            let taken = self.taken(settings, side, part)?;
            let (mut ids, mut vectors) = (Vec::new(), Vec::new());
            each_vector(&dataset.part(self.generation, part), |id, vector| {
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
    fn not_embedded(&self, part: usize, vocabulary: bool) -> Result<HashSet<String>, EngineError> {
        let mut left_out = selection::left_out(self.generation, part)?;
        if vocabulary {
            each_row(&Dataset::Queries.part(self.generation, part), |batch, i| {
                if text(batch, "origin", i) == Some(Origin::Vocabulary.name()) {
                    left_out.extend(text(batch, "query_id", i).map(str::to_owned));
                }
            })?;
        }
        Ok(left_out)
    }

    /// A chunk whose text could not be embedded is not in the dense indexes, and neither are its queries.
    fn chunks_with_vectors(&self, part: usize) -> Result<HashSet<String>, EngineError> {
        let path = Dataset::TextVectors.part(self.generation, part);
        Ok(column_of_texts(&path, "chunk_id")?.into_iter().collect())
    }
}
