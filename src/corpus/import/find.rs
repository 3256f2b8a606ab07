//! Which files an import reads, and the name each has in the corpus.
//!
//! A name is the path below the PATH given, with `/`. With several PATHs each name begins with the end of its
//! PATH, as short as tells them apart. So names depend on where files are and never on what is in them.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobMatcher};
use walkdir::{DirEntry, WalkDir};

use super::ImportError;

/// What a file is, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Markdown,
    Text,
    Html,
    Jsonl,
    Csv,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "md" | "markdown" => Some(Self::Markdown),
            "txt" => Some(Self::Text),
            "html" | "htm" => Some(Self::Html),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// As the column `kind` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Text => "text",
            Self::Html => "html",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// Its name in the corpus.
    pub name: String,
    /// None for a file that was named itself and is of no known kind.
    pub kind: Option<Kind>,
}

/// What cannot be looked at, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub path: PathBuf,
    pub reason: String,
}

/// The files below `paths` in order, of the paths as given, then of the names; and what of them is lost.
pub fn find(paths: &[PathBuf], glob: Option<&str>) -> Result<(Vec<Found>, Vec<Lost>), ImportError> {
    let matcher = glob.map(compile).transpose()?;
    let roots = roots(paths)?;
    let (mut found, mut all_lost) = (Vec::new(), Vec::new());
    for (path, label) in roots.iter().zip(labels(&roots)) {
        let (mut files, mut lost) = below(path, &label);
        if let Some(matcher) = &matcher {
            files.retain(|(relative, _)| matcher.is_match(relative));
            // A link that leads nowhere is no folder of more; a folder may hold files that match.
            lost.retain(|(relative, lost)| !lost.path.is_symlink() || matcher.is_match(relative));
        }
        files.sort();
        lost.sort();
        found.extend(files.into_iter().map(|(_, found)| found));
        all_lost.extend(lost.into_iter().map(|(_, lost)| lost));
    }
    Ok((found, all_lost))
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.name, &self.path).cmp(&(&other.name, &other.path))
    }
}

fn compile(pattern: &str) -> Result<GlobMatcher, ImportError> {
    let glob = Glob::new(pattern).map_err(|source| ImportError::Glob {
        pattern: pattern.into(),
        source,
    })?;
    Ok(glob.compile_matcher())
}

/// The paths given and what they really are, each once.
fn roots(paths: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>, ImportError> {
    let mut roots: Vec<(PathBuf, PathBuf)> = Vec::new();
    for path in paths {
        let real = path.canonicalize().map_err(|source| ImportError::Path {
            path: path.clone(),
            source,
        })?;
        if !roots.iter().any(|(_, known)| *known == real) {
            roots.push((path.clone(), real));
        }
    }
    Ok(roots)
}

/// What each root's names begin with: nothing for the only one, else the shortest end of its path that no
/// other shares.
fn labels(roots: &[(PathBuf, PathBuf)]) -> Vec<String> {
    let parts: Vec<Vec<String>> = roots.iter().map(|(_, real)| normal_parts(real)).collect();
    let end = |i: usize, n: usize| parts[i][parts[i].len().saturating_sub(n)..].join("/");
    let unique =
        |i: usize, n: usize| (0..parts.len()).all(|other| other == i || end(other, n) != end(i, n));
    (0..parts.len())
        .map(|i| {
            if parts.len() == 1 {
                return String::new();
            }
            let shortest = (1..parts[i].len()).find(|n| unique(i, *n));
            end(i, shortest.unwrap_or(parts[i].len()))
        })
        .collect()
}

fn normal_parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

/// Things below a root, each with the path that a glob is matched against.
type Below<T> = Vec<(String, T)>;

/// Files at or below a root, and what cannot be looked at there.
fn below(root: &(PathBuf, PathBuf), label: &str) -> (Below<Found>, Below<Lost>) {
    let (path, real) = root;
    if real.is_file() {
        let own = normal_parts(real).pop().unwrap_or_default();
        let name = if label.is_empty() { &own } else { label };
        let found = Found {
            path: path.clone(),
            name: name.to_string(),
            kind: Kind::of(path),
        };
        return (vec![(own, found)], Vec::new());
    }
    let (mut files, mut all_lost) = (Vec::new(), Vec::new());
    let walk = WalkDir::new(path).follow_links(true).into_iter();
    for entry in walk.filter_entry(is_visible) {
        match entry {
            Ok(entry) => files.extend(found(path, label, entry)),
            Err(error) => all_lost.extend(lost(path, &error)),
        }
    }
    (files, all_lost)
}

/// A file of a known kind.
fn found(root: &Path, label: &str, entry: DirEntry) -> Option<(String, Found)> {
    let kind = Kind::of(entry.path()).filter(|_| entry.file_type().is_file())?;
    let relative = relative(root, entry.path());
    let name = match label {
        "" => relative.clone(),
        label => format!("{label}/{relative}"),
    };
    let found = Found {
        path: entry.into_path(),
        name,
        kind: Some(kind),
    };
    Some((relative, found))
}

/// An unreadable folder, a link to nothing, or a link to a folder that it lies in.
fn lost(root: &Path, error: &walkdir::Error) -> Option<(String, Lost)> {
    let path = error.path().unwrap_or(root);
    if error.depth() > 0 && is_hidden(path.file_name().unwrap_or_default()) {
        return None;
    }
    let cause = error
        .io_error()
        .map(ToString::to_string)
        .unwrap_or_default();
    let reason = match (error.loop_ancestor(), path.read_link()) {
        (Some(above), _) => format!("it is a link to {}, which it lies in", above.display()),
        (None, Ok(to)) => format!(
            "it is a link to {}, which cannot be read: {cause}",
            to.display()
        ),
        (None, Err(_)) => format!("it cannot be read: {cause}"),
    };
    let path = path.to_owned();
    Some((relative(root, &path), Lost { path, reason }))
}

fn relative(root: &Path, path: &Path) -> String {
    normal_parts(path.strip_prefix(root).unwrap_or(path)).join("/")
}

/// Hidden files and folders are not documents, but a hidden folder that was named itself is read.
fn is_visible(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !is_hidden(entry.file_name())
}

fn is_hidden(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(paths: &[&str]) -> Vec<String> {
        let roots: Vec<_> = paths.iter().map(|p| (p.into(), p.into())).collect();
        labels(&roots)
    }

    #[test]
    fn labels_are_as_short_as_tells_them_apart() {
        assert_eq!(ends(&["/x/docs"]), [""]);
        assert_eq!(ends(&["/x/docs", "/x/src"]), ["docs", "src"]);
        assert_eq!(
            ends(&["/a/docs", "/b/docs", "/b/src"]),
            ["a/docs", "b/docs", "src"]
        );
        assert_eq!(ends(&["/docs", "/b/docs"]), ["docs", "b/docs"]);
    }
}
