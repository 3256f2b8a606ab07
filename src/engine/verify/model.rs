//! The embedder: that it is the one of the build, and that it gives the vectors that are there.

use super::{
    Finding, Findings, Subject,
    part::{Checked, guarded},
    vectors::Side,
};
use crate::{
    engine::models::with_title,
    model::{Embed, ModelError, ModelIdentity, bert},
    store::Manifest,
};

const CHECK: &str = "model";
/// Lowest cosine of a vector with itself embedded again; batches, devices and half precision round differently.
const SAME: f32 = 0.999;
/// Texts embedded at once.
const BATCH: usize = 64;

pub struct Model<'a> {
    embedder: Option<&'a dyn Embed>,
    /// Whether vectors have length 1; None: the manifest does not say, and the model's files are not there.
    pub unit: Option<bool>,
}

/// A vector to be computed again.
pub struct Again {
    pub id: String,
    pub title: Option<String>,
    pub text: String,
    pub vector: Vec<f32>,
}

impl<'a> Model<'a> {
    pub fn new(subject: &Subject, embedder: Option<&'a dyn Embed>) -> Self {
        let built_with = &subject.manifest.embedder;
        Self {
            unit: is_unit(
                subject,
                embedder.map_or(built_with, |embedder| embedder.identity()),
            ),
            embedder,
        }
    }

    pub fn is_there(&self) -> bool {
        self.embedder.is_some()
    }

    /// Tokens of a text that a vector sees.
    pub fn max_text_tokens(&self) -> Option<usize> {
        self.embedder.map(|embedder| embedder.max_text_tokens())
    }

    /// Embeds the texts again and compares. `what`: the part that holds the vectors.
    pub fn repeat(&self, side: Side, rows: &[Again], what: &str, findings: &mut Findings) {
        let Some(embedder) = self.embedder else {
            return;
        };
        for rows in rows.chunks(BATCH) {
            let embedded = guarded(CHECK, what, || embed(embedder, side, rows, what));
            match embedded {
                Ok(vectors) => compare(rows, &vectors, what, findings),
                Err(finding) => findings.push(finding),
            }
        }
    }
}

/// How an embedder is not the one of the build, if it is not.
pub fn check_embedder(embedder: &dyn Embed, manifest: &Manifest) -> Option<Finding> {
    let message = unlike(embedder, &manifest.embedder, manifest.dim)?;
    Some(Finding::new(CHECK, &embedder.identity().name, message))
}

/// Its name does not matter where its files are known.
fn unlike(embedder: &dyn Embed, wanted: &ModelIdentity, dim: usize) -> Option<String> {
    let found = embedder.identity();
    let files = |identity: &ModelIdentity| -> Vec<(String, String)> {
        let files = identity.files.iter();
        files
            .map(|file| (file.name.clone(), file.blake3.clone()))
            .collect()
    };
    let (here, there) = (files(found), files(wanted));
    let differ: Vec<&str> = there
        .iter()
        .filter(|file| !here.contains(file))
        .chain(
            here.iter()
                .filter(|file| there.iter().all(|(name, _)| *name != file.0)),
        )
        .map(|(name, _)| name.as_str())
        .collect();
    if !differ.is_empty() {
        let differ = differ.join(", ");
        return Some(format!(
            "is not the embedder that this index was built with: {differ} differ; \
             name its folder with --model, or leave it out with --no-model"
        ));
    }
    (embedder.dim() != dim).then(|| {
        let given = embedder.dim();
        format!("gives vectors of {given} numbers, but the manifest says {dim}")
    })
}

fn is_unit(subject: &Subject, identity: &ModelIdentity) -> Option<bool> {
    let settings = &subject.manifest.parameters.models.embedder;
    let modules = |identity: &ModelIdentity| {
        let mut files = identity.files.iter();
        files
            .find(|file| file.name == "modules.json")
            .map(|file| file.path.clone())
    };
    match (settings.normalize, modules(identity)) {
        (Some(normalize), _) => Some(normalize),
        (None, None) => Some(true),
        (None, Some(path)) if path.is_file() => bert::normalizes(path.parent()?, settings).ok(),
        (None, Some(_)) => None,
    }
}

fn embed(embedder: &dyn Embed, side: Side, rows: &[Again], what: &str) -> Checked<Vec<Vec<f32>>> {
    let failed = |e: ModelError| Finding::new(CHECK, what, format!("cannot embed a sample: {e}"));
    let whole = |row: &Again| with_title(row.title.as_deref(), &row.text, embedder);
    let texts = rows
        .iter()
        .map(whole)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = embedder.embed(&texts, side.kind()).map_err(failed)?.vectors;
    Ok((0..rows.len()).map(|i| vectors.row(i).to_vec()).collect())
}

fn compare(rows: &[Again], vectors: &[Vec<f32>], what: &str, findings: &mut Findings) {
    for (row, vector) in rows.iter().zip(vectors) {
        let cosine = cosine(&row.vector, vector);
        let is_same = cosine >= SAME;
        if !is_same {
            let id = &row.id;
            let message = format!(
                "the vector of `{id}` is not what the model gives: their cosine is {cosine:.4}"
            );
            findings.add(CHECK, what, message);
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
