//! Nothing is computed twice: what the journal calls finished stays the same file, whatever happens later.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Round;

/// Finished files below a generation's folder: their inode and time of change (s, ns).
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<PathBuf, (u64, i64, i64)>);

impl Kept {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What was finished before must be the same file still; what is finished now is remembered.
    pub fn check_and_extend(&mut self, round: &Round) {
        let folder = round.folder();
        self.check(&folder);
        for (stage, shard) in journal(&folder).unwrap_or_default() {
            for file in files(&folder, &stage, shard) {
                let identity = identity(&file).unwrap_or_else(|| {
                    panic!("{} is in the journal and not there", file.display())
                });
                let name = file.strip_prefix(&folder).unwrap().to_owned();
                self.0.insert(name, identity);
            }
        }
    }

    pub fn check(&self, folder: &Path) {
        for (name, identity_then) in &self.0 {
            let now = identity(&folder.join(name));
            assert_eq!(
                now.as_ref(),
                Some(identity_then),
                "{} was finished and has been written again",
                name.display()
            );
        }
    }
}

fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec()))
}

/// Stage and shard of every whole line behind the header; None without a journal.
pub fn journal(folder: &Path) -> Option<Vec<(String, Option<usize>)>> {
    let text = fs::read_to_string(folder.join("journal.ndjson")).ok()?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text[..whole].lines().skip(1);
    let parsed = lines.map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let shard = line["shard"].as_u64().map(|n| n as usize);
        line["stage"]
            .as_str()
            .map(|stage| (stage.to_owned(), shard))
    });
    Some(parsed.flatten().collect())
}

/// Parquet files directly in a folder.
pub fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|e| e.path());
    paths
        .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
        .collect()
}

/// What a finished shard, or a finished stage, has written.
fn files(folder: &Path, stage: &str, shard: Option<usize>) -> Vec<PathBuf> {
    let dataset = match stage {
        "keywords" => "chunk_topics",
        "vectors-text" => "vectors/text",
        "vectors-queries" => "vectors/queries",
        stage => stage,
    };
    match (stage, shard) {
        ("index-sparse", _) => {
            let segments = fs::read_dir(folder.join("sparse")).unwrap().flatten();
            let mut files: Vec<PathBuf> = segments.map(|e| e.path()).collect();
            files.push(folder.join("sparse.ciff.gz"));
            files
        }
        ("index-dense-text", _) => ["text.faiss", "text.ids"]
            .map(|f| folder.join("dense").join(f))
            .into(),
        ("index-dense-queries", _) => ["queries.faiss", "queries.ids"]
            .map(|f| folder.join("dense").join(f))
            .into(),
        (_, Some(shard)) => vec![
            folder
                .join(dataset)
                .join(format!("part-{shard:05}.parquet")),
        ],
        ("documents", None) => parts(&folder.join(dataset)),
        (_, None) => Vec::new(),
    }
}
