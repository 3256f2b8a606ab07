//! Whether a document is in two of the indexes: an aggregate over all ids, which spills where they do not fit the memory.

use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use datafusion::{error::Result, prelude::SessionContext};
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use super::Input;
use crate::{
    corpus,
    engine::{EngineError, table},
    store::{Dataset, StoreError, folder_of},
};

/// Documents that are in two inputs.
struct Twice {
    /// The first by its id, and the numbers of its inputs.
    id: String,
    inputs: [u64; 2],
    count: u64,
}

/// Refuses a document that is in two inputs; `into` is where they are merged.
pub fn check(inputs: &[Input], into: &Path) -> Result<(), EngineError> {
    let engine = &inputs[0].manifest().parameters.engine;
    let spill = engine.spill.clone().filter(|folder| folder.is_dir());
    let spill = spill.unwrap_or_else(|| existing(&folder_of(into)));
    let spill = tempfile::tempdir_in(&spill).map_err(StoreError::io(&spill))?;
    let failed = EngineError::during("merge, documents");
    let ctx = corpus::session(engine, spill.path()).map_err(&failed)?;
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let folder = |input: &Input| input.published.folder.join(Dataset::Documents.folder());
    let documents: Vec<PathBuf> = inputs.iter().map(folder).collect();
    match runtime.block_on(twice(&ctx, &documents)).map_err(failed)? {
        Some(twice) => Err(twice.refusal(inputs)),
        None => Ok(()),
    }
}

/// The folder, or the nearest above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new(".")).to_owned()
}

/// `documents`: the inputs' folders.
async fn twice(ctx: &SessionContext, documents: &[PathBuf]) -> Result<Option<Twice>> {
    let mut ids = Vec::new();
    for (number, folder) in documents.iter().enumerate() {
        let name = format!("input_{number}");
        table::register(ctx, &name, folder, &[]).await?;
        let number = format!("CAST({number} AS BIGINT UNSIGNED)");
        ids.push(format!("SELECT doc_id, {number} AS input FROM {name}"));
    }
    let sql = format!(
        "SELECT doc_id, min(input), max(input) FROM ({}) GROUP BY doc_id HAVING count(*) > 1",
        ids.join(" UNION ALL ")
    );
    let (mut least, mut count) = (None::<(String, [u64; 2])>, 0);
    let mut batches = ctx.sql(&sql).await?.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        let [first, last] = [1, 2].map(|c| batch.column(c).as_primitive::<UInt64Type>());
        let ids = batch.column(0).as_string::<i32>().iter().flatten();
        for (i, id) in ids.enumerate() {
            count += 1;
            if least.as_ref().is_none_or(|(least, _)| id < least.as_str()) {
                least = Some((id.to_owned(), [first.value(i), last.value(i)]));
            }
        }
    }
    Ok(least.map(|(id, inputs)| Twice { id, inputs, count }))
}

impl Twice {
    fn refusal(&self, inputs: &[Input]) -> EngineError {
        let outputs = self.inputs.map(|n| inputs[n as usize].output.display());
        let [first, second] = outputs;
        let (id, more) = (&self.id, self.count - 1);
        let more = match more {
            0 => String::new(),
            more => format!("; {more} more documents are in two"),
        };
        EngineError::Refused(format!(
            "document `{id}` is in {first} and in {second}{more}; each must be in one of the indexes that are merged"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::Range, sync::Arc};

    use arrow::array::{RecordBatch, StringArray};

    use super::*;
    use crate::{job::spec::Engine, store::dataset::PartWriter};

    fn write(folder: &Path, numbers: Range<u64>) {
        fs::create_dir_all(folder).unwrap();
        // In no order.
        let id = |i: u64| format!("https://example.org/documents/{:06}", i * 7919 % 1_000_000);
        let ids = StringArray::from_iter_values(numbers.map(id));
        let batch = RecordBatch::try_from_iter([("doc_id", Arc::new(ids) as _)]).unwrap();
        let mut writer =
            PartWriter::create(&folder.join("part-00000.parquet"), batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }

    /// The ids of both inputs are ten times as large as the memory.
    #[test]
    fn memory_does_not_grow_with_the_documents() {
        let folder = tempfile::tempdir().unwrap();
        let documents = ["first", "second"].map(|name| folder.path().join(name));
        write(&documents[0], 0..250_000);
        let engine = Engine {
            memory_mib: 2,
            ..Engine::default()
        };
        let ctx = corpus::session(&engine, &folder.path().join("spill")).unwrap();
        let runtime = Runtime::new().unwrap();
        let found = || runtime.block_on(twice(&ctx, &documents)).unwrap();
        write(&documents[1], 250_000..500_000);
        assert!(found().is_none());
        write(&documents[1], 249_998..500_000);
        let found = found().unwrap();
        // 249,998 and 249,999 times 7,919, without the millions.
        assert_eq!(found.id, "https://example.org/documents/734162");
        assert_eq!((found.inputs, found.count), ([0, 1], 2));
    }
}
