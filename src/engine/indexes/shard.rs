//! An index shard: which parts of the datasets it is of, and where its indexes go.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;

use crate::{
    engine::{EngineError, selection},
    store::{
        Dataset, StoreError,
        dataset::{count_rows, read_part},
    },
};

pub(super) struct Shard<'a> {
    pub generation: &'a Path,
    pub parts: Range<usize>,
    pub folder: PathBuf,
}

impl Shard<'_> {
    /// Of a dataset; no part counts for none, where its stage wrote none.
    pub fn rows(&self, dataset: Dataset) -> Result<usize, StoreError> {
        let parts = self.parts.clone();
        let paths = parts.map(|part| dataset.part(self.generation, part));
        let there = paths.filter(|path| path.exists());
        there.map(|path| count_rows(&path)).sum()
    }

    /// The batches of a part; none if the stage wrote no such part.
    pub fn each_batch(
        &self,
        dataset: Dataset,
        part: usize,
        mut visit: impl FnMut(&RecordBatch) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let path = dataset.part(self.generation, part);
        if !path.exists() {
            return Ok(());
        }
        for batch in read_part(&path)? {
            visit(&batch.map_err(EngineError::batch(&path))?)?;
        }
        Ok(())
    }

    /// Queries that the indexes take.
    pub fn count_taken(&self) -> Result<u64, EngineError> {
        let mut count = self.rows(Dataset::Queries)?;
        for part in self.parts.clone() {
            count -= selection::left_out(self.generation, part)?.len();
        }
        Ok(count as u64)
    }
}
