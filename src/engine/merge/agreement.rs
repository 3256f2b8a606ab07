//! Whether indexes can be merged: what their rows and scores depend on must be the same, and no document be in two of them.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatchReader},
    datatypes::{FieldRef, Int64Type},
};
use datafusion::{error::DataFusionError, prelude::SessionContext};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Input;
use crate::{
    corpus,
    engine::{EngineError, build::stages, fingerprint::content, stage::Stage, table, topics},
    store::{Dataset, Manifest, StoreError, dataset::read_part, manifest::FORMAT},
};

/// Refuses inputs that were not built alike.
pub fn check(inputs: &[Input]) -> Result<(), EngineError> {
    let refused = |message: String| Err(EngineError::Refused(message));
    let [first, others @ ..] = inputs else {
        return refused("there is nothing to merge".into());
    };
    if first.manifest().format != FORMAT {
        let (output, format) = (first.output.display(), first.manifest().format);
        return refused(format!(
            "{output}: is of format {format}; this program knows {FORMAT}"
        ));
    }
    let wanted = (identity(first.manifest()), columns(first)?);
    for other in others {
        let found = (identity(other.manifest()), columns(other)?);
        let differs = difference(&wanted.0, &found.0);
        let differs = differs.or_else(|| difference(&wanted.1, &found.1));
        if let Some(key) = differs {
            return refused(format!(
                "{}: its {key} is not that of {}; only indexes that were built alike can be merged",
                other.output.display(),
                first.output.display(),
            ));
        }
    }
    Ok(())
}

/// What the rows, the indexes and their scores depend on, by the names of the manifest and the job.
fn identity(manifest: &Manifest) -> Value {
    let job = &manifest.parameters;
    let topics = topics::wanted(job).then_some(topics::STAGE);
    let ran = stages(job).into_iter().map(Stage::name).chain(topics);
    let fingerprints: BTreeMap<&str, Option<&String>> = ran
        .map(|stage| (stage, manifest.stages.get(stage)))
        .collect();
    json!({
        "format": manifest.format,
        "embedder": content(&manifest.embedder),
        "generator": manifest.generator.as_ref().map(content),
        "cross_encoder": manifest.cross_encoder.as_ref().map(content),
        "dim": manifest.dim,
        "output": { "vectors": job.output.vectors },
        "corpus": { "passthrough": job.corpus.passthrough },
        "intents": job.intents,
        "chunk": job.chunk,
        "expand": job.expand,
        "sparse": job.sparse,
        "dense": job.dense,
        // Of the stages that ran: the code's versions, the models' settings and the seed too.
        "fingerprint": fingerprints,
    })
}

/// The columns of the datasets that end with the corpus's own.
fn columns(input: &Input) -> Result<Value, EngineError> {
    let folder = &input.published.folder;
    let columns = |dataset: Dataset| -> Result<Vec<String>, EngineError> {
        let schema = read_part(&dataset.part(folder, 0))?.schema();
        let column = |f: &FieldRef| format!("{} {}", f.name(), f.data_type());
        Ok(schema.fields().iter().map(column).collect())
    };
    Ok(json!({
        "documents": columns(Dataset::Documents)?,
        "chunks": columns(Dataset::Chunks)?,
    }))
}

/// The first key, with dots between its parts, that has another value.
fn difference(a: &Value, b: &Value) -> Option<String> {
    let (Value::Object(own), Value::Object(other)) = (a, b) else {
        return (a != b).then(String::new);
    };
    let keys = own.keys().chain(other.keys());
    keys.into_iter().find_map(|key| {
        let (own, other) = (own.get(key), other.get(key));
        let null = Value::Null;
        let below = difference(own.unwrap_or(&null), other.unwrap_or(&null))?;
        Some(match below.as_str() {
            "" => key.clone(),
            below => format!("{key}.{below}"),
        })
    })
}

/// Refuses a document that is in two inputs. What does not fit `engine.memory_mib` of the first input's job is spilled.
pub fn check_documents(inputs: &[Input]) -> Result<(), EngineError> {
    let engine = &inputs[0].manifest().parameters.engine;
    let spill = engine.spill.clone().filter(|folder| folder.is_dir());
    let folder = spill.unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::tempdir_in(&folder).map_err(StoreError::io(&folder))?;
    let ctx = corpus::session(engine, scratch.path()).map_err(failed())?;
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let Some(twice) = runtime.block_on(find_twice(&ctx, inputs))? else {
        return Ok(());
    };
    let [first, second] = twice.inputs.map(|number| inputs[number].output.display());
    let more = match twice.documents {
        1 => String::new(),
        count => format!("; {} more documents are in two", count - 1),
    };
    Err(EngineError::Refused(format!(
        "document `{}` is in {first} and in {second}{more}; each must be in one of the indexes that are merged",
        twice.id
    )))
}

/// Documents that are in two inputs.
struct Twice {
    documents: u64,
    /// The first by its id, and two inputs that have it.
    id: String,
    inputs: [usize; 2],
}

fn failed() -> impl FnOnce(DataFusionError) -> EngineError {
    EngineError::during("the search for documents that are in two indexes")
}

async fn find_twice(ctx: &SessionContext, inputs: &[Input]) -> Result<Option<Twice>, EngineError> {
    let mut all = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let documents = input.published.folder.join(Dataset::Documents.folder());
        let table = format!("documents_{number}");
        let registered = table::register(ctx, &table, &documents, &[]).await;
        registered.map_err(failed())?;
        all.push(format!(
            "SELECT doc_id, CAST({number} AS BIGINT) AS input FROM {table}"
        ));
    }
    let statement = format!(
        "SELECT doc_id, min(input), max(input) FROM ({}) GROUP BY doc_id HAVING min(input) < max(input)",
        all.join(" UNION ALL ")
    );
    let found = ctx.sql(&statement).await.map_err(failed())?;
    let mut found = found.execute_stream().await.map_err(failed())?;
    let mut twice: Option<Twice> = None;
    while let Some(batch) = found.next().await {
        let batch = batch.map_err(failed())?;
        let ids = batch.column(0).as_string::<i32>();
        let [first, last] = [1, 2].map(|c| batch.column(c).as_primitive::<Int64Type>());
        for i in 0..batch.num_rows() {
            let known = twice.take();
            let documents = known.as_ref().map_or(0, |known| known.documents) + 1;
            let earlier = known.filter(|known| known.id.as_str() < ids.value(i));
            let this = || Twice {
                documents,
                id: ids.value(i).to_owned(),
                inputs: [first, last].map(|input| input.value(i) as usize),
            };
            twice = Some(match earlier {
                Some(earlier) => Twice {
                    documents,
                    ..earlier
                },
                None => this(),
            });
        }
    }
    Ok(twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_differs_is_named() {
        let a = json!({"chunk": {"method": "fixed", "beta": 1.0}, "dim": 3});
        assert_eq!(difference(&a, &a), None);
        for (b, key) in [
            (
                json!({"chunk": {"method": "fixed", "beta": 2.0}, "dim": 3}),
                "chunk.beta",
            ),
            (json!({"chunk": {"method": "fixed", "beta": 1.0}}), "dim"),
            (
                json!({"chunk": {"method": "fixed", "beta": 1.0}, "dim": 3, "x": 1}),
                "x",
            ),
        ] {
            assert_eq!(difference(&a, &b).as_deref(), Some(key));
        }
    }
}
