//! Notices when a build gets somewhere, by what appears in its folder.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What a build writes behind its stages, in order; `*` stands for any end.
pub const EVENTS: [&str; 11] = [
    "generations/building/.sparse-*",
    "generations/building/sparse",
    "generations/building/sparse.ciff.gz",
    "generations/building/dense/text.*",
    "generations/building/dense/queries.*",
    "generations/building/run.json",
    "generations/building/manifest.json.tmp",
    "generations/building/manifest.json",
    "generations/1",
    "CURRENT.tmp",
    "CURRENT",
];

/// Inode and time of change: another one is another file.
type Identity = (u64, i64, i64);

pub struct Appearance {
    root: PathBuf,
    before: Vec<Vec<Identity>>,
}

impl Appearance {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            before: EVENTS.iter().map(|e| identities(root, e)).collect(),
        }
    }

    /// Whether something is there now that was not there at first.
    pub fn happened(&self, event: usize) -> bool {
        let now = identities(&self.root, EVENTS[event]);
        now.iter().any(|found| !self.before[event].contains(found))
    }
}

fn identities(root: &Path, event: &str) -> Vec<Identity> {
    let path = root.join(event);
    let Some(prefix) = event.strip_suffix('*') else {
        return identity(&path).into_iter().collect();
    };
    let prefix = prefix.rsplit('/').next().unwrap();
    let entries = fs::read_dir(path.parent().unwrap()).into_iter().flatten();
    let entries = entries.flatten();
    entries
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|e| identity(&e.path()))
        .collect()
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    // A folder's time changes with every entry: only its inode says that it is another.
    let time = if found.is_dir() {
        0
    } else {
        found.mtime_nsec()
    };
    let seconds = if found.is_dir() { 0 } else { found.mtime() };
    Some((found.ino(), seconds, time))
}
