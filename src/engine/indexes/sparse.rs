//! The sparse index of a shard: its chunks, with the selected queries; and the same postings as CIFF.

use std::collections::HashMap;

use super::{Shard, selection};
use crate::{
    engine::EngineError,
    index::{SparseDocument, SparseIndex, SparseWriter, export_ciff},
    job::{Job, Progress},
    store::{Dataset, StoreError, dataset::text},
};

impl Shard<'_> {
    /// Builds the index; how many documents it has.
    pub(super) fn sparse(&self, job: &Job, progress: &dyn Progress) -> Result<u64, EngineError> {
        let folder = self.folder.join("sparse");
        self.remove_unfinished_sparse()?;
        let mut writer = SparseWriter::create(&folder, job.sparse.language)?;
        for part in self.parts.clone() {
            let queries = self.taken_queries(part)?;
            self.each_batch(Dataset::Chunks, part, |batch| {
                for i in 0..batch.num_rows() {
                    let chunk_id = text(batch, "chunk_id", i).unwrap_or_default();
                    let queries: Vec<&str> = queries
                        .get(chunk_id)
                        .into_iter()
                        .flatten()
                        .map(String::as_str)
                        .collect();
                    writer.add(SparseDocument {
                        chunk_id,
                        doc_id: text(batch, "doc_id", i).unwrap_or_default(),
                        title: text(batch, "title", i),
                        text: text(batch, "text", i).unwrap_or_default(),
                        queries: &queries,
                    })?;
                }
                progress.advance(batch.num_rows() as u64);
                Ok(())
            })?;
        }
        let documents = writer.finish()?.documents;
        export_ciff(
            &SparseIndex::open(&folder)?,
            &self.folder.join("sparse.ciff.gz"),
            &job.corpus.path,
        )?;
        Ok(documents)
    }

    /// What a killed build left: the index itself, and the parts it was being made from.
    fn remove_unfinished_sparse(&self) -> Result<(), EngineError> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        for entry in std::fs::read_dir(folder).map_err(StoreError::io(folder))? {
            let path = entry.map_err(StoreError::io(folder))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name == "sparse" || name.starts_with(".sparse-") {
                std::fs::remove_dir_all(&path).map_err(StoreError::io(&path))?;
            }
        }
        Ok(())
    }

    /// The queries of each chunk of a part that the indexes take.
    fn taken_queries(&self, part: usize) -> Result<HashMap<String, Vec<String>>, EngineError> {
        let left_out = selection::left_out(self.generation, part)?;
        let mut queries: HashMap<String, Vec<String>> = HashMap::new();
        self.each_batch(Dataset::Queries, part, |batch| {
            for i in 0..batch.num_rows() {
                let columns = ["query_id", "chunk_id", "text"].map(|column| text(batch, column, i));
                if let [Some(id), Some(chunk), Some(query)] = columns
                    && !left_out.contains(id)
                {
                    let of_chunk = queries.entry(chunk.to_owned()).or_default();
                    of_chunk.push(query.to_owned());
                }
            }
            Ok(())
        })?;
        Ok(queries)
    }
}
