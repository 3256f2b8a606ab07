//! Finds a model's files by path or hub id, checks that they are whole, and hashes them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use candle_core::quantized::gguf_file;
use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};
use serde_json::Value;

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

/// A model in the hub's cache.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CachedModel {
    pub id: String,
    pub revision: String,
    pub folder: PathBuf,
    pub bytes: u64,
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
        hub_folder(&Hub::new(
            &settings.model,
            settings.revision.as_deref(),
            offline,
        )?)?
    };
    let mut names: Vec<&str> = EMBEDDER_EXTRAS
        .into_iter()
        .filter(|n| folder.join(n).exists())
        .collect();
    for name in EMBEDDER_FILES {
        require(&folder, name)?;
        names.push(name);
    }
    check_safetensors(&folder.join("model.safetensors"))?;
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
    Ok(EmbedderSource {
        identity: identity(&settings.model, architecture, &folder, &names)?,
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
            Hub::new(&settings.model, settings.revision.as_deref(), offline)?.get(file)?
        }
        None => {
            return Err(model_error(
                &settings.model,
                "there is no such file or folder here; if it is a hub id, name the GGUF file in models.generator.file",
            ));
        }
    };
    let architecture = check_gguf(&gguf)?;
    let folder = gguf.parent().unwrap_or(Path::new("")).to_owned();
    let name = gguf
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(GeneratorSource {
        identity: identity(&settings.model, architecture, &folder, &[&name])?,
        gguf,
    })
}

/// Where a model lies: a path as it is, or a hub embedder as `owner/name@revision`, fetched if it is missing.
pub fn locate(name: &str) -> Result<PathBuf, ModelError> {
    if Path::new(name).exists() {
        return Ok(PathBuf::from(name));
    }
    let (id, revision) = match name.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (name, None),
    };
    hub_folder(&Hub::new(id, revision, false)?)
}

/// The models in the hub's cache, in order of id.
pub fn list() -> Vec<CachedModel> {
    let root = Cache::from_env().path().to_owned();
    let mut models = Vec::new();
    for repo in folders(&root) {
        let name = repo
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(id) = name.strip_prefix("models--") else {
            continue;
        };
        for snapshot in folders(&repo.join("snapshots")) {
            models.push(CachedModel {
                id: id.replace("--", "/"),
                revision: snapshot
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                bytes: size_of(&snapshot),
                folder: snapshot,
            });
        }
    }
    models
}

/// An embedder's folder in the hub's cache, fetched if it is missing.
fn hub_folder(hub: &Hub) -> Result<PathBuf, ModelError> {
    for name in EMBEDDER_EXTRAS {
        hub.get_optional(name);
    }
    let mut folder = PathBuf::new();
    for name in EMBEDDER_FILES {
        folder = hub.get(name)?.parent().unwrap_or(Path::new("")).to_owned();
    }
    Ok(folder)
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

fn size_of(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .flatten();
    files
        .filter_map(|f| f.metadata().ok())
        .filter(|m| m.is_file())
        .map(|m| m.len())
        .sum()
}

struct Hub {
    id: String,
    offline: bool,
    repo: Repo,
}

impl Hub {
    fn new(id: &str, revision: Option<&str>, offline: bool) -> Result<Self, ModelError> {
        let is_hub_id = id.split('/').count() == 2
            && !id.starts_with(['/', '.', '~'])
            && !id.ends_with(".gguf");
        if !is_hub_id {
            return Err(model_error(
                id,
                "there is no such file or folder, and it is not a hub id (owner/name)",
            ));
        }
        let revision = revision.ok_or_else(|| {
            model_error(id, "a hub model needs `revision`, the commit hash to use, so that a later build reads the same files")
        })?;
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        Ok(Self {
            id: id.to_owned(),
            offline,
            repo,
        })
    }

    fn get(&self, file: &str) -> Result<PathBuf, ModelError> {
        if let Some(path) = Cache::from_env().repo(self.repo.clone()).get(file) {
            return Ok(path);
        }
        if self.offline {
            let message = format!(
                "{file} at this revision is not in the hub's cache and models.offline is set; run once without it, or `intendex models path` on a machine with a network"
            );
            return Err(model_error(&self.id, &message));
        }
        let failed = |e: hf_hub::api::sync::ApiError| {
            model_error(&self.id, &format!("cannot fetch {file}: {e}"))
        };
        let api = ApiBuilder::from_env().build().map_err(failed)?;
        api.repo(self.repo.clone()).get(file).map_err(failed)
    }

    /// Not every model has the file; that it cannot be had is no error.
    fn get_optional(&self, file: &str) {
        if let Err(error) = self.get(file) {
            tracing::debug!("{error}");
        }
    }
}

fn only_gguf(folder: &Path) -> Result<PathBuf, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|e| file_error(folder, &e.to_string()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(file_error(folder, "holds no GGUF file")),
        _ => Err(file_error(
            folder,
            "holds several GGUF files; name one in models.generator.file",
        )),
    }
}

fn require(folder: &Path, name: &str) -> Result<(), ModelError> {
    let path = folder.join(name);
    let message = match std::fs::metadata(&path) {
        Ok(meta) if meta.len() == 0 => "is empty; fetch the model again",
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

/// The header of a safetensors file tells how long the file must be.
fn check_safetensors(path: &Path) -> Result<(), ModelError> {
    let failed = |e: std::io::Error| {
        file_error(
            path,
            &format!("cannot be read ({e}); fetch the model again"),
        )
    };
    let mut file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > found.saturating_sub(8) {
        return Err(file_error(
            path,
            "is truncated or no safetensors file; fetch the model again",
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header)
        .map_err(|_| file_error(path, "is not a safetensors file; fetch the model again"))?;
    let ends = header
        .values()
        .filter_map(|t| t["data_offsets"][1].as_u64());
    let expected = 8 + header_bytes + ends.max().unwrap_or(0);
    if found < expected {
        let message = format!("is truncated: {found} bytes of {expected}; fetch the model again");
        return Err(file_error(path, &message));
    }
    Ok(())
}

/// Checks that a GGUF file is whole; its architecture.
fn check_gguf(path: &Path) -> Result<String, ModelError> {
    let failed = |e: &dyn std::fmt::Display| {
        file_error(
            path,
            &format!("is truncated or no GGUF file ({e}); fetch the model again"),
        )
    };
    let mut file = File::open(path).map_err(|e| file_error(path, &e.to_string()))?;
    let content = gguf_file::Content::read(&mut file).map_err(|e| failed(&e))?;
    let found = file.seek(SeekFrom::End(0)).map_err(|e| failed(&e))?;
    for (name, tensor) in &content.tensor_infos {
        let blocks = tensor.shape.elem_count() / tensor.ggml_dtype.block_size();
        let end = content.tensor_data_offset
            + tensor.offset
            + (blocks * tensor.ggml_dtype.type_size()) as u64;
        if end > found {
            return Err(failed(&format!(
                "tensor {name} ends at byte {end}, the file at {found}"
            )));
        }
    }
    let architecture = content
        .metadata
        .get("general.architecture")
        .and_then(|a| a.to_string().ok());
    architecture
        .cloned()
        .ok_or_else(|| file_error(path, "does not say its general.architecture"))
}

fn identity(
    name: &str,
    architecture: String,
    folder: &Path,
    names: &[&str],
) -> Result<ModelIdentity, ModelError> {
    let mut names = names.to_vec();
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
    let bytes = std::fs::metadata(&path).map_err(failed)?.len();
    let path = std::path::absolute(&path).map_err(failed)?;
    Ok(ModelFile {
        name: name.to_owned(),
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
        path,
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
