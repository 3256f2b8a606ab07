//! The hub and its cache on disk, which other programs share. `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to those.

use std::path::{Path, PathBuf};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError, ApiRepo},
};

use super::{ModelError, model_error};

/// A model in the hub's cache.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CachedModel {
    pub id: String,
    pub revision: String,
    pub folder: PathBuf,
    pub bytes: u64,
}

/// The models in the hub's cache, in order of id.
pub fn list() -> Vec<CachedModel> {
    let mut models = Vec::new();
    for repo in folders(Cache::from_env().path()) {
        let name = file_name(&repo);
        let Some(id) = name.strip_prefix("models--") else {
            continue;
        };
        for snapshot in folders(&repo.join("snapshots")) {
            models.push(CachedModel {
                id: id.replace("--", "/"),
                revision: file_name(&snapshot),
                bytes: size_of(&snapshot),
                folder: snapshot,
            });
        }
    }
    models
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

/// Bytes of the files in a folder, those behind links counted.
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

/// A model of the hub at one commit.
pub struct Hub {
    id: String,
    commit: String,
    offline: bool,
    repo: Repo,
    snapshot: PathBuf,
}

impl Hub {
    /// `offline`: only the cache may be read.
    pub fn new(id: &str, revision: Option<&str>, offline: bool) -> Result<Self, ModelError> {
        let parts: Vec<&str> = id.split('/').collect();
        let part =
            |p: &&str| !p.is_empty() && !p.starts_with(['.', '~', '-']) && !p.ends_with(".gguf");
        if parts.len() != 2 || !parts.iter().all(part) {
            return Err(model_error(
                id,
                "there is no such file or folder, and it is not a hub id (owner/name)",
            ));
        }
        let pinned = |r: &&str| r.len() == 40 && r.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = revision.filter(pinned).ok_or_else(|| {
            let found = revision.map_or("it has none".into(), |r| format!("it is `{r}`"));
            model_error(
                id,
                &format!("there is no such folder; a model of the hub needs its revision, a commit hash of 40 digits ({found}), so that a later build reads the same files"),
            )
        })?;
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, commit.to_owned());
        // hf-hub's own look-up wants a ref, which Python's client does not write for a commit hash.
        let snapshot = Cache::from_env().repo(repo.clone()).pointer_path(commit);
        Ok(Self {
            id: id.to_owned(),
            commit: commit.to_owned(),
            offline,
            repo,
            snapshot,
        })
    }

    /// One file, fetched where the cache lacks it.
    pub fn file(&self, name: &str) -> Result<PathBuf, ModelError> {
        if !self.has(name) {
            self.fetch(&self.api(name)?, name)?;
        }
        Ok(self.snapshot.join(name))
    }

    /// The folder with the `required` files and those of the `optional` that the model has. The hub is not asked
    /// when all are in the cache.
    pub fn folder(&self, required: &[&str], optional: &[&str]) -> Result<PathBuf, ModelError> {
        let missing = |names: &[&str]| -> Vec<String> {
            names
                .iter()
                .filter(|name| !self.has(name))
                .map(|name| name.to_string())
                .collect()
        };
        let mut wanted = missing(required);
        let perhaps = missing(optional);
        if perhaps.is_empty() && wanted.is_empty() || self.offline && wanted.is_empty() {
            return Ok(self.snapshot.clone());
        }
        let api = self.api(&wanted.join(", "))?;
        // Whether the model has an optional file must be known: to miss one would pool or cut texts otherwise.
        let info = api
            .info()
            .map_err(|e| self.failed("its list of files", &e))?;
        let has = |name: &String| info.siblings.iter().any(|s| s.rfilename == *name);
        if let Some(absent) = wanted.iter().find(|name| !has(name)) {
            return Err(self.error(&format!("the model has no {absent} at this revision")));
        }
        wanted.extend(perhaps.into_iter().filter(has));
        for name in &wanted {
            self.fetch(&api, name)?;
        }
        Ok(self.snapshot.clone())
    }

    fn has(&self, name: &str) -> bool {
        self.snapshot.join(name).exists()
    }

    /// `wanted`: what an error names when the network is forbidden.
    fn api(&self, wanted: &str) -> Result<ApiRepo, ModelError> {
        if self.offline {
            return Err(self.error(&format!(
                "{wanted}: not in the hub's cache ({}), and models.offline forbids to fetch it; run `intendex models path {}@{}` (for one file, with /FILE after it) where there is a network",
                self.snapshot.display(),
                self.id,
                self.commit
            )));
        }
        let mut builder = ApiBuilder::from_env();
        if let Some(token) = std::env::var("HF_TOKEN")
            .ok()
            .filter(|token| !token.is_empty())
        {
            builder = builder.with_token(Some(token));
        }
        let api = builder.build().map_err(|e| self.failed(wanted, &e))?;
        Ok(api.repo(self.repo.clone()))
    }

    fn fetch(&self, api: &ApiRepo, name: &str) -> Result<(), ModelError> {
        let path = api.download(name).map_err(|e| self.failed(name, &e))?;
        if path == self.snapshot.join(name) {
            return Ok(());
        }
        Err(self.error(&format!(
            "the hub answered with another revision of {name}: {}",
            path.display()
        )))
    }

    fn failed(&self, what: &str, error: &ApiError) -> ModelError {
        let status = match error {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => status,
                _ => 0,
            },
            _ => 0,
        };
        let remedy = match status {
            401 | 403 => "if the model is private or gated, set HF_TOKEN",
            404 => "check its id, its revision and the file's name",
            _ => {
                "run the same command again to go on where it stopped, or set models.offline to use only what is in the cache"
            }
        };
        self.error(&format!("cannot fetch {what}: {error}; {remedy}"))
    }

    fn error(&self, message: &str) -> ModelError {
        model_error(&format!("{}@{}", self.id, self.commit), message)
    }
}
