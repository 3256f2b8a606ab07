//! Builds the indexes from the finished datasets: streams each part once, in order, and joins a chunk to its queries
//! within their shard.

mod dense;

use std::{collections::HashMap, path::Path};

use arrow::array::RecordBatch;

use super::{
    EngineError,
    selection::{self, Selector},
};
use crate::{
    index::{SparseDocument, SparseIndex, SparseWriter, export_ciff},
    job::{Job, Progress},
    store::{
        Dataset, StoreError,
        dataset::{count_rows, read_part, text},
        manifest::{Determinism, IndexSummary, Indexes},
        progress::{Journal, Meter, Tally},
        sync_tree,
    },
};
use dense::{Dense, Side};

pub const SELECTION: &str = "index-selection";
pub const SPARSE: &str = "index-sparse";
pub const DENSE_TEXT: &str = "index-dense-text";
pub const DENSE_QUERIES: &str = "index-dense-queries";
pub const STAGES: [&str; 4] = [DENSE_TEXT, SELECTION, SPARSE, DENSE_QUERIES];

/// Builds what the job asks for and the journal does not have yet; tells what there is, for the manifest.
pub fn build(
    job: &Job,
    generation: &Path,
    shards: usize,
    dim: usize,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<Indexes, EngineError> {
    let generation = Generation {
        folder: generation,
        shards,
    };
    let dense = Dense {
        factory: &job.dense.factory,
        dim,
        vocabulary: job.expand.vocabulary,
    };
    // First, as queries may be selected by what it finds for them.
    if job.dense.enabled {
        step(DENSE_TEXT, generation.folder, journal, |tally| {
            generation.dense(&dense, Side::Text, tally, progress)
        })?;
    }
    if selection::is_partial(&job.expand) {
        step(SELECTION, generation.folder, journal, |tally| {
            let selector = Selector {
                job,
                generation: generation.folder,
                shards,
            };
            selector.write()?;
            tally.rows = generation.rows(Dataset::Selection)? as u64;
            Ok(())
        })?;
    }
    if job.sparse.enabled {
        step(SPARSE, generation.folder, journal, |tally| {
            generation.sparse(job, tally, progress)
        })?;
    }
    if job.dense.enabled && job.expand.enabled {
        step(DENSE_QUERIES, generation.folder, journal, |tally| {
            generation.dense(&dense, Side::Queries, tally, progress)
        })?;
    }
    Ok(Indexes {
        query_threshold: selection::lowest(generation.folder, shards)?,
        queries_indexed: generation.count_taken()?,
        sparse: job.sparse.enabled.then(|| IndexSummary {
            rows: journal.total(SPARSE).rows,
            kind: "tantivy".into(),
            determinism: Determinism::no(
                "Tantivy names segments at random; their postings are the same",
            ),
        }),
        dense_text: job
            .dense
            .enabled
            .then(|| dense_summary(&job.dense.factory, journal.total(DENSE_TEXT).rows)),
        dense_queries: (job.dense.enabled && job.expand.enabled)
            .then(|| dense_summary(&job.dense.factory, journal.total(DENSE_QUERIES).rows)),
    })
}

fn dense_summary(factory: &str, rows: u64) -> IndexSummary {
    let kind = crate::index::dense::resolve(factory, rows as usize);
    let determinism = match kind.as_str() {
        "Flat" => Determinism::yes(),
        _ => Determinism::no("FAISS builds graphs and clusters on several threads"),
    };
    IndexSummary {
        rows,
        kind,
        determinism,
    }
}

/// Runs a step that the journal does not have yet; what it wrote is synced before it counts as done.
fn step(
    name: &'static str,
    generation: &Path,
    journal: &mut Journal,
    work: impl FnOnce(&mut Tally) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    if journal.is_done(name, None) {
        return Ok(());
    }
    let mut tally = Tally::default();
    let meter = Meter::start();
    work(&mut tally)?;
    meter.stop(&mut tally);
    tally.computed = tally.rows;
    for part in ["selection", "sparse", "sparse.ciff.gz", "dense"] {
        let path = generation.join(part);
        if path.exists() {
            sync_tree(&path)?;
        }
    }
    Ok(journal.record(name, None, tally)?)
}

struct Generation<'a> {
    folder: &'a Path,
    shards: usize,
}

impl Generation<'_> {
    /// The batches of a shard's part; none if the stage wrote no part for it.
    fn each_batch(
        &self,
        dataset: Dataset,
        shard: usize,
        mut visit: impl FnMut(&RecordBatch) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let path = dataset.part(self.folder, shard);
        if !path.exists() {
            return Ok(());
        }
        for batch in read_part(&path)? {
            visit(&batch.map_err(EngineError::batch(&path))?)?;
        }
        Ok(())
    }

    fn rows(&self, dataset: Dataset) -> Result<usize, StoreError> {
        dataset
            .parts(self.folder)?
            .iter()
            .map(|p| count_rows(p))
            .sum()
    }

    fn count_taken(&self) -> Result<u64, EngineError> {
        let mut count = self.rows(Dataset::Queries)?;
        for shard in 0..self.shards {
            count -= selection::left_out(self.folder, shard)?.len();
        }
        Ok(count as u64)
    }

    fn sparse(
        &self,
        job: &Job,
        tally: &mut Tally,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let folder = self.folder.join("sparse");
        self.remove_unfinished_sparse()?;
        progress.start(SPARSE, self.rows(Dataset::Chunks)? as u64, "chunks");
        let mut writer = SparseWriter::create(&folder, job.sparse.language)?;
        for shard in 0..self.shards {
            let queries = self.taken_queries(shard)?;
            self.each_batch(Dataset::Chunks, shard, |batch| {
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
        tally.rows = writer.finish()?.documents;
        export_ciff(
            &SparseIndex::open(&folder)?,
            &self.folder.join("sparse.ciff.gz"),
            &job.corpus.path,
        )?;
        progress.finish();
        Ok(())
    }

    /// What a killed build left: the index itself, and the parts it was being made from.
    fn remove_unfinished_sparse(&self) -> Result<(), EngineError> {
        for entry in std::fs::read_dir(self.folder).map_err(StoreError::io(self.folder))? {
            let path = entry.map_err(StoreError::io(self.folder))?.path();
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

    /// The queries of each chunk of a shard that the indexes take.
    fn taken_queries(&self, shard: usize) -> Result<HashMap<String, Vec<String>>, EngineError> {
        let left_out = selection::left_out(self.folder, shard)?;
        let mut queries: HashMap<String, Vec<String>> = HashMap::new();
        self.each_batch(Dataset::Queries, shard, |batch| {
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
