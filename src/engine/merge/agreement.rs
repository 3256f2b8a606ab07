//! Whether indexes were built alike: what their rows and scores depend on must be the same.

use std::collections::BTreeMap;

use arrow::{array::RecordBatchReader, datatypes::FieldRef};
use serde_json::{Value, json};

use super::Input;
use crate::{
    engine::{EngineError, build::stages, fingerprint::content, stage::Stage, topics},
    store::{Dataset, Manifest, dataset::read_part, manifest::FORMAT},
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
