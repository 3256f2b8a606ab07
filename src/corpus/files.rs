//! Which files make up a corpus: a file, a folder read recursively, or a glob, always in path order.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::CorpusError;

/// One Parquet file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: u128,
    /// Rows, before any filter.
    pub rows: u64,
}

/// BLAKE3 of the files' paths, sizes and times, in hexadecimal: the corpus is unchanged while this is.
pub fn corpus_fingerprint(files: &[CorpusFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let line = format!(
            "{}\0{}\0{}\n",
            file.path.display(),
            file.bytes,
            file.modified
        );
        hasher.update(line.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The files that `path` names, sorted by path; their rows are not counted yet.
pub fn find(path: &str) -> Result<Vec<CorpusFile>, CorpusError> {
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

fn glob(pattern: &str) -> Result<Vec<PathBuf>, CorpusError> {
    let is_special = |part: &&str| part.contains(['*', '?', '[', '{']);
    if !pattern.split('/').any(|part| is_special(&part)) {
        return Err(CorpusError::Missing {
            path: pattern.into(),
        });
    }
    let matcher = globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|source| CorpusError::Glob {
            path: pattern.into(),
            source,
        })?
        .compile_matcher();
    let plain: Vec<&str> = pattern
        .split('/')
        .take_while(|part| !is_special(part))
        .collect();
    let root = match plain.join("/") {
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
        modified: modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos()),
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
