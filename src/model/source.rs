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

#[derive(Debug, Clone)]
pub struct GeneratorSource {
    pub gguf: PathBuf,
    pub identity: ModelIdentity,
}

/// A folder on disk, or a hub model at a pinned revision.
pub fn embedder(settings: &spec::Embedder, offline: bool) -> Result<EmbedderSource, ModelError> {
    let path = Path::new(&settings.model);
    let folder = if path.is_dir() {
        path.to_owned()
    } else if path.exists() {
        return Err(file_error(
            path,
            "an embedder is a folder with config.json, tokenizer.json and model.safetensors",
        ));
    } else {
        let hub = Hub::new(&settings.model, settings.revision.as_deref(), offline)?;
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
    let dim = config["hidden_size"].as_u64().ok_or_else(|| {
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
        identity: identity(&settings.model, architecture, &folder, names)?,
        folder,
        dim: dim as usize,
    })
}

/// A GGUF file, a folder with one, or a hub model at a pinned revision.
pub fn generator(settings: &spec::Generator, offline: bool) -> Result<GeneratorSource, ModelError> {
    let path = Path::new(&settings.model);
    let gguf = match &settings.file {
        _ if path.is_file() => path.to_owned(),
        Some(file) if path.is_dir() => path.join(file),
        None if path.is_dir() => only_gguf(path)?,
        Some(file) => {
            Hub::new(&settings.model, settings.revision.as_deref(), offline)?.file(file)?
        }
        None => {
            return Err(model_error(
                &settings.model,
                "there is no such file or folder here; if it is a hub id, name the GGUF file in models.generator.file",
            ));
        }
    };
    let architecture = whole::gguf(&gguf)?;
    let folder = gguf.parent().unwrap_or(Path::new(""));
    let name = gguf.file_name().unwrap_or_default().to_string_lossy();
    Ok(GeneratorSource {
        identity: identity(&settings.model, architecture, folder, vec![name.as_ref()])?,
        gguf,
    })
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

fn only_gguf(folder: &Path) -> Result<PathBuf, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| file_error(folder, &e.to_string()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(file_error(
            folder,
            "holds no GGUF file; a generator is a GGUF file",
        )),
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
            "is missing; an embedder's folder holds config.json, tokenizer.json and model.safetensors"
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
