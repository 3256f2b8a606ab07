//! Which files make up a corpus: a file, a folder read recursively, or a glob, always in path order; on disk or on object
//! storage.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::CorpusError;
use crate::objects::{Object, Objects, is_address};

/// One Parquet file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusFile {
    /// Its address, if it is an object.
    pub path: PathBuf,
    pub bytes: u64,
    /// Nanoseconds since 1970 when it was written, or the object's tag.
    pub version: String,
    /// Rows, before any filter.
    pub rows: u64,
}

/// BLAKE3 of the files' paths, sizes and versions, in hexadecimal: the corpus is unchanged while this is.
pub fn corpus_fingerprint(files: &[CorpusFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let line = format!(
            "{}\0{}\0{}\n",
            file.path.display(),
            file.bytes,
            file.version
        );
        hasher.update(line.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The files that `path` names, sorted by path; their rows are not counted yet.
pub fn find(path: &str) -> Result<Vec<CorpusFile>, CorpusError> {
    if is_address(path) {
        return find_objects(path);
    }
    let named = Path::new(path);
    let mut paths = if named.is_file() {
        vec![named.to_path_buf()]
    } else if named.is_dir() {
        walk(named, is_parquet)?
    } else {
        glob(path)?
    };
    if paths.is_empty() {
        return Err(CorpusError::NoFiles { path: path.into() });
    }
    paths.sort();
    paths.into_iter().map(stat).collect()
}

fn find_objects(address: &str) -> Result<Vec<CorpusFile>, CorpusError> {
    let file = |objects: &Objects, object: Object| CorpusFile {
        path: objects.address(&object.name).into(),
        bytes: object.bytes,
        version: object.version,
        rows: 0,
    };
    let root = Objects::open(&plain(address))?;
    let pattern = matcher(address)?;
    let is_folder = !address.split('/').any(is_special);
    let wanted = |object: &Object| {
        let hidden = object
            .name
            .split('/')
            .any(|part| part.starts_with(['.', '_']));
        let named = Path::new(&object.name);
        !hidden
            && match is_folder {
                true => is_parquet(named),
                false => pattern.is_match(root.address(&object.name)),
            }
    };
    let listed = root.list()?;
    // Below an object there is nothing. Whether it is one is asked last, as not every server takes that of a folder well.
    if listed.is_empty()
        && is_folder
        && let Some(object) = root.look_at("")?
    {
        return Ok(vec![file(&root, object)]);
    }
    let listed = listed.into_iter().filter(wanted);
    let mut files: Vec<CorpusFile> = listed.map(|object| file(&root, object)).collect();
    if files.is_empty() {
        let path = address.into();
        return Err(CorpusError::NoFiles { path });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_special(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// What stands before the first special part of a pattern.
fn plain(pattern: &str) -> String {
    let parts = pattern.split('/').take_while(|part| !is_special(part));
    parts.collect::<Vec<_>>().join("/")
}

fn matcher(pattern: &str) -> Result<globset::GlobMatcher, CorpusError> {
    let glob = globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .build();
    let matcher = glob.map(|glob| glob.compile_matcher());
    matcher.map_err(|source| CorpusError::Glob {
        path: pattern.into(),
        source,
    })
}

fn glob(pattern: &str) -> Result<Vec<PathBuf>, CorpusError> {
    if !pattern.split('/').any(is_special) {
        return Err(CorpusError::Missing {
            path: pattern.into(),
        });
    }
    let matcher = matcher(pattern)?;
    let root = match plain(pattern) {
        root if root.is_empty() && pattern.starts_with('/') => "/".to_string(),
        root if root.is_empty() => ".".to_string(),
        root => root,
    };
    if !Path::new(&root).is_dir() {
        return Err(CorpusError::NoFiles {
            path: pattern.into(),
        });
    }
    // Walking `.` puts `./` before every path, which the pattern does not have.
    let matches = |found: &Path| matcher.is_match(found.strip_prefix("./").unwrap_or(found));
    walk(Path::new(&root), matches)
}

/// Files below `root` that `wanted` accepts. Names that begin with a dot or an underscore are working files
/// of other programs, by the custom of Hive and Spark.
fn walk(root: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, CorpusError> {
    let visible = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with(['.', '_'])
    };
    let mut found = Vec::new();
    for entry in WalkDir::new(root)
        .follow_links(true)
        .into_iter()
        .filter_entry(visible)
    {
        let entry = entry.map_err(|error| CorpusError::Io {
            path: error.path().unwrap_or(root).to_path_buf(),
            source: error.into(),
        })?;
        if entry.file_type().is_file() && wanted(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

fn stat(path: PathBuf) -> Result<CorpusFile, CorpusError> {
    let io = |source| CorpusError::Io {
        path: path.clone(),
        source,
    };
    let metadata = std::fs::metadata(&path).map_err(io)?;
    let modified = metadata.modified().map_err(io)?;
    Ok(CorpusFile {
        bytes: metadata.len(),
        version: modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos())
            .to_string(),
        rows: 0,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, root: &Path) -> Vec<String> {
        let files = find(pattern).unwrap();
        let relative = |f: &CorpusFile| f.path.strip_prefix(root).unwrap().display().to_string();
        files.iter().map(relative).collect()
    }

    #[test]
    fn folders_and_globs_are_sorted_and_skip_working_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.parquet",
            "a/c.parquet",
            "a/d.txt",
            "_tmp/x.parquet",
            ".y.parquet",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let root = dir.path().display().to_string();
        assert_eq!(names(&root, dir.path()), ["a/c.parquet", "b.parquet"]);
        let top = format!("{root}/*.parquet");
        assert_eq!(names(&top, dir.path()), ["b.parquet"]);
        let deep = format!("{root}/**/*.parquet");
        assert_eq!(names(&deep, dir.path()), ["a/c.parquet", "b.parquet"]);
        assert!(matches!(
            find(&format!("{root}/nope/*.parquet")),
            Err(CorpusError::NoFiles { .. })
        ));
        assert!(matches!(
            find(&format!("{root}/nope")),
            Err(CorpusError::Missing { .. })
        ));
    }
}
