//! Finds a model's files by path or hub id, checks that they are whole, and hashes them.

mod hub;
mod whole;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::hub::Hub;
pub use self::hub::{CachedModel, list};
use super::{ModelError, ModelFile, ModelIdentity};
use crate::job::spec;

/// Needed of an embedder.
const EMBEDDER_FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Taken where the model has them: how sentence-transformers pools, cuts, normalises and prompts.
const EMBEDDER_EXTRAS: [&str; 4] = [
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
];

#[derive(Debug, Clone)]
pub struct EmbedderSource {
    /// Holds config.json, tokenizer.json, model.safetensors, and perhaps the sentence-transformers files.
    pub folder: PathBuf,
    pub identity: ModelIdentity,
    /// Length of a vector.
    pub dim: usize,
}

/// Needed of a generator in safetensors.
const GENERATOR_FILES: [&str; 2] = ["config.json", "tokenizer.json"];

/// Taken where the model has them: its chat template, what ends an answer, and where its weights are.
const GENERATOR_EXTRAS: [&str; 5] = [
    "chat_template.jinja",
    "generation_config.json",
    "model.safetensors",
    SHARDS,
    "tokenizer_config.json",
];

/// Says in which file each tensor is.
const SHARDS: &str = "model.safetensors.index.json";

#[derive(Debug, Clone)]
pub struct GeneratorSource {
    /// A GGUF file, or a folder with config.json, tokenizer.json and safetensors.
    pub path: PathBuf,
    pub identity: ModelIdentity,
}

/// The embedder of a job.
pub fn embedder(settings: &spec::Embedder, offline: bool) -> Result<EmbedderSource, ModelError> {
    encoder(&settings.model, settings.revision.as_deref(), offline)
}

/// The classification head of a cross-encoder.
pub const CLASSIFIER: &str = "classifier.weight";

/// A cross-encoder's folder; an embedder's, which has no classification head, is an error before anything is computed.
pub fn cross_encoder(
    model: &str,
    revision: Option<&str>,
    offline: bool,
) -> Result<EmbedderSource, ModelError> {
    let source = encoder(model, revision, offline)?;
    let weights = source.folder.join("model.safetensors");
    match whole::safetensors(&weights)?.contains(CLASSIFIER) {
        true => Ok(source),
        false => Err(file_error(
            &weights,
            &format!(
                "has no tensor {CLASSIFIER}: an embedder is no cross-encoder; name one that is in `models.cross_encoder.model`, or \
                 leave \"cross-encoder\" out of `expand.scores`"
            ),
        )),
    }
}

/// An encoder: a folder on disk, or a hub model at a pinned revision.
pub fn encoder(
    model: &str,
    revision: Option<&str>,
    offline: bool,
) -> Result<EmbedderSource, ModelError> {
    let path = Path::new(model);
    let folder = if path.is_dir() {
        path.to_owned()
    } else if path.exists() {
        return Err(file_error(
            path,
            "an embedder or cross-encoder is a folder with config.json, tokenizer.json and model.safetensors",
        ));
    } else {
        let hub = Hub::new(model, revision, offline)?;
        hub.folder(&EMBEDDER_FILES, &EMBEDDER_EXTRAS)?
    };
    for name in EMBEDDER_FILES {
        require(&folder, name)?;
    }
    whole::safetensors(&folder.join("model.safetensors"))?;
    let config_path = folder.join("config.json");
    let config = read_json(&config_path)?;
    let architecture = config["model_type"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    let size = ["hidden_size", "n_embd"].map(|key| config[key].as_u64());
    let dim = size.into_iter().flatten().next().ok_or_else(|| {
        file_error(
            &config_path,
            "has no hidden_size; is this a BERT-family model?",
        )
    })?;
    let extras = EMBEDDER_EXTRAS
        .into_iter()
        .filter(|name| folder.join(name).exists());
    let names: Vec<&str> = EMBEDDER_FILES.into_iter().chain(extras).collect();
    Ok(EmbedderSource {
        identity: identity(model, architecture, &folder, names)?,
        folder,
        dim: dim as usize,
    })
}

/// A GGUF file, a folder with one or with safetensors, or a hub model at a pinned revision.
pub fn generator(settings: &spec::Generator, offline: bool) -> Result<GeneratorSource, ModelError> {
    let path = Path::new(&settings.model);
    let hub = || Hub::new(&settings.model, settings.revision.as_deref(), offline);
    match &settings.file {
        _ if path.is_file() => gguf(settings, path.to_owned()),
        Some(file) if path.is_dir() => gguf(settings, path.join(file)),
        None if path.is_dir() => match only_gguf(path)? {
            Some(file) => gguf(settings, file),
            None => safetensors(settings, path.to_owned()),
        },
        Some(file) => gguf(settings, hub()?.file(file)?),
        None => {
            let hub = hub().map_err(|e| {
                model_error(
                    &settings.model,
                    &format!("{e}; a GGUF file of a hub model is named in models.generator.file"),
                )
            })?;
            let folder = hub.folder(&GENERATOR_FILES, &GENERATOR_EXTRAS)?;
            if folder.join(SHARDS).exists() {
                let names = shard_names(&folder)?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                hub.folder(&names, &[])?;
            }
            safetensors(settings, folder)
        }
    }
}

fn gguf(settings: &spec::Generator, path: PathBuf) -> Result<GeneratorSource, ModelError> {
    let architecture = whole::gguf(&path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(GeneratorSource {
        identity: identity(&settings.model, architecture, folder, vec![name.as_ref()])?,
        path,
    })
}

fn safetensors(settings: &spec::Generator, folder: PathBuf) -> Result<GeneratorSource, ModelError> {
    if !folder.join("config.json").exists() {
        return Err(file_error(
            &folder,
            "holds neither a GGUF file nor config.json with safetensors; a generator is one of both",
        ));
    }
    for name in GENERATOR_FILES {
        require(&folder, name)?;
    }
    let shards = shards(&folder)?;
    for shard in &shards {
        require(&folder, &file_name(shard))?;
        whole::safetensors(shard)?;
    }
    let config = read_json(&folder.join("config.json"))?;
    let architecture = config["model_type"].as_str().unwrap_or("unknown");
    let extras = GENERATOR_EXTRAS.map(String::from).into_iter();
    let extras = extras.filter(|name| folder.join(name).exists());
    let shards = shards.iter().map(|shard| file_name(shard));
    let mut names: Vec<String> = extras.chain(shards).collect();
    names.extend(GENERATOR_FILES.map(String::from));
    names.sort();
    names.dedup();
    let names = names.iter().map(String::as_str).collect();
    Ok(GeneratorSource {
        identity: identity(&settings.model, architecture.into(), &folder, names)?,
        path: folder,
    })
}

/// The safetensors files of a folder: one, or those that its index names.
pub fn shards(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let names = match folder.join(SHARDS).exists() {
        true => shard_names(folder)?,
        false => vec!["model.safetensors".into()],
    };
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

fn shard_names(folder: &Path) -> Result<Vec<String>, ModelError> {
    let path = folder.join(SHARDS);
    let index = read_json(&path)?;
    let files = index["weight_map"].as_object().into_iter().flatten();
    let mut names: Vec<String> = files
        .filter_map(|(_, file)| file.as_str())
        .map(String::from)
        .collect();
    names.sort();
    names.dedup();
    // A name must not lead out of the folder.
    let plain = |name: &String| Path::new(name).file_name() == Some(name.as_ref());
    match !names.is_empty() && names.iter().all(plain) {
        true => Ok(names),
        false => Err(file_error(&path, "names no files; fetch the model again")),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Where a model lies, fetched if it is missing: a path as it is; `owner/name@revision`, the folder of a hub
/// embedder; or `owner/name@revision/file`, one file of a hub model.
pub fn locate(name: &str) -> Result<PathBuf, ModelError> {
    if Path::new(name).exists() {
        return Ok(PathBuf::from(name));
    }
    let (id, rest) = name.split_once('@').unwrap_or((name, ""));
    let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
    let hub = Hub::new(id, Some(revision).filter(|r| !r.is_empty()), false)?;
    if file.is_empty() {
        hub.folder(&EMBEDDER_FILES, &EMBEDDER_EXTRAS)
    } else {
        hub.file(file)
    }
}

/// The GGUF file of a folder, if it has one.
fn only_gguf(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| file_error(folder, &e.to_string()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    match files.len() {
        0 | 1 => Ok(files.pop()),
        _ => Err(file_error(
            folder,
            "holds several GGUF files; name one in models.generator.file",
        )),
    }
}

fn require(folder: &Path, name: &str) -> Result<(), ModelError> {
    let path = folder.join(name);
    let message = match std::fs::metadata(&path) {
        Ok(meta) if meta.len() == 0 => "is empty; delete it and fetch the model again",
        Ok(_) => return Ok(()),
        Err(_) if name.ends_with(".safetensors") && folder.join("pytorch_model.bin").exists() => {
            "is missing; only pytorch_model.bin is there: convert it to safetensors"
        }
        Err(_) => {
            "is missing; a model's folder holds config.json, tokenizer.json and model.safetensors"
        }
    };
    Err(file_error(&path, message))
}

fn identity(
    name: &str,
    architecture: String,
    folder: &Path,
    mut names: Vec<&str>,
) -> Result<ModelIdentity, ModelError> {
    names.sort_unstable();
    let files = names
        .iter()
        .map(|name| hashed(folder, name))
        .collect::<Result<_, _>>()?;
    Ok(ModelIdentity {
        name: name.to_owned(),
        architecture,
        files,
    })
}

fn hashed(folder: &Path, name: &str) -> Result<ModelFile, ModelError> {
    let path = folder.join(name);
    let failed = |e: std::io::Error| file_error(&path, &e.to_string());
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(&path).map_err(failed)?;
    Ok(ModelFile {
        name: name.to_owned(),
        bytes: hasher.count(),
        blake3: hasher.finalize().to_hex().to_string(),
        path: std::path::absolute(&path).map_err(failed)?,
    })
}

fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bytes = std::fs::read(path).map_err(|e| file_error(path, &e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| file_error(path, &format!("is not JSON: {e}")))
}

fn file_error(path: &Path, message: &str) -> ModelError {
    ModelError::File {
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

fn model_error(model: &str, message: &str) -> ModelError {
    ModelError::Model {
        model: model.to_owned(),
        message: message.to_owned(),
    }
}
