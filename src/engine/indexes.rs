//! Builds the indexes from the finished datasets: streams each part once, in order, and joins a chunk to its queries
//! within their shard.

mod dense;

use std::{collections::HashMap, path::Path};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Float32Type,
};

use super::EngineError;
use crate::{
    expand::filter::Threshold,
    index::{SparseDocument, SparseIndex, SparseWriter, export_ciff},
    job::{Job, Progress},
    store::{
        Dataset, StoreError,
        dataset::{count_rows, read_part},
        manifest::{Determinism, IndexSummary, Indexes},
        progress::{Journal, Meter, Tally},
        sync_tree,
    },
};
use dense::Dense;

pub const SPARSE: &str = "index-sparse";
pub const DENSE_TEXT: &str = "index-dense-text";
pub const DENSE_QUERIES: &str = "index-dense-queries";
pub const STAGES: [&str; 3] = [SPARSE, DENSE_TEXT, DENSE_QUERIES];

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
    let threshold = generation.threshold(job.expand.keep)?;
    let selection = Selection {
        threshold,
        any: job.expand.enabled,
    };
    if job.sparse.enabled {
        step(SPARSE, generation.folder, journal, |tally| {
            generation.sparse(job, &selection, tally, progress)
        })?;
    }
    let dense = Dense {
        factory: &job.dense.factory,
        dim,
    };
    if job.dense.enabled {
        step(DENSE_TEXT, generation.folder, journal, |tally| {
            generation.dense(&dense, None, tally, progress)
        })?;
    }
    if job.dense.enabled && job.expand.enabled {
        step(DENSE_QUERIES, generation.folder, journal, |tally| {
            generation.dense(&dense, Some(&selection), tally, progress)
        })?;
    }
    Ok(Indexes {
        query_threshold: selection.threshold,
        queries_indexed: generation.count_selected(&selection)?,
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
    for part in ["sparse", "sparse.ciff.gz", "dense"] {
        let path = generation.join(part);
        if path.exists() {
            sync_tree(&path)?;
        }
    }
    Ok(journal.record(name, None, tally)?)
}

/// Which queries the indexes take.
pub(super) struct Selection {
    pub(super) threshold: Option<f32>,
    /// False: the job writes no queries at all.
    pub(super) any: bool,
}

impl Selection {
    /// A query whose generator could not score it is taken.
    pub(super) fn takes(&self, gain: Option<f32>) -> bool {
        match (gain, self.threshold) {
            (None, _) => true,
            (Some(gain), Some(threshold)) => gain >= threshold,
            (Some(_), None) => false,
        }
    }
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

    fn each_gain(&self, mut visit: impl FnMut(Option<f32>)) -> Result<(), EngineError> {
        for shard in 0..self.shards {
            self.each_batch(Dataset::Queries, shard, |batch| {
                (0..batch.num_rows()).for_each(|i| visit(gain(batch, i)));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The lowest gain that an index takes: a percentile of the whole corpus, not of a document.
    fn threshold(&self, keep: f32) -> Result<Option<f32>, EngineError> {
        let mut threshold = Threshold::new(keep);
        loop {
            self.each_gain(|gain| {
                if let Some(gain) = gain {
                    threshold.show(gain);
                }
            })?;
            if let Some(found) = threshold.end_pass() {
                return Ok(found);
            }
        }
    }

    fn count_selected(&self, selection: &Selection) -> Result<u64, EngineError> {
        let mut count = 0;
        if selection.any {
            self.each_gain(|gain| count += u64::from(selection.takes(gain)))?;
        }
        Ok(count)
    }

    fn sparse(
        &self,
        job: &Job,
        selection: &Selection,
        tally: &mut Tally,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let folder = self.folder.join("sparse");
        self.remove_unfinished_sparse()?;
        progress.start(SPARSE, self.rows(Dataset::Chunks)? as u64, "chunks");
        let mut writer = SparseWriter::create(&folder, job.sparse.language)?;
        for shard in 0..self.shards {
            let queries = self.selected_queries(shard, selection)?;
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

    /// The selected queries of each chunk of a shard.
    fn selected_queries(
        &self,
        shard: usize,
        selection: &Selection,
    ) -> Result<HashMap<String, Vec<String>>, EngineError> {
        let mut queries: HashMap<String, Vec<String>> = HashMap::new();
        self.each_batch(Dataset::Queries, shard, |batch| {
            for i in (0..batch.num_rows()).filter(|i| selection.takes(gain(batch, *i))) {
                if let (Some(chunk), Some(query)) =
                    (text(batch, "chunk_id", i), text(batch, "text", i))
                {
                    queries
                        .entry(chunk.to_owned())
                        .or_default()
                        .push(query.to_owned());
                }
            }
            Ok(())
        })?;
        Ok(queries)
    }
}

pub(super) fn text<'a>(batch: &'a RecordBatch, column: &str, i: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    column.is_valid(i).then(|| column.value(i))
}

pub(super) fn gain(batch: &RecordBatch, i: usize) -> Option<f32> {
    let gains = batch
        .column_by_name("scores")?
        .as_struct_opt()?
        .column_by_name("gain")?
        .as_primitive_opt::<Float32Type>()?;
    gains.is_valid(i).then(|| gains.value(i))
}
