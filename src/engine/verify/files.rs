//! The files against the manifest.

use std::{collections::BTreeSet, io};

use super::{Findings, Subject};
use crate::{
    job::Progress,
    store::{
        manifest::{self, FORMAT, FileSummary, Run, hash_file},
        read_json,
    },
};

const CHECK: &str = "files";

/// Every file that the manifest lists is there with its size and hash, and no other.
pub fn check(subject: &mut Subject, findings: &mut Findings, progress: &dyn Progress) {
    let manifest = subject.manifest;
    let files = &manifest.files;
    if manifest.format != FORMAT {
        let format = manifest.format;
        let message = format!("is of format {format}; this program knows {FORMAT}");
        findings.add(CHECK, "manifest.json", message);
    }
    progress.start("verify-files", files.len() as u64, "files");
    for file in files {
        if let Err(message) = compare(subject, file) {
            findings.add(
                CHECK,
                &file.path,
                format!("{message}; not read any further"),
            );
            subject.damaged.insert(file.path.clone());
        }
        progress.advance(1);
    }
    progress.finish();
    unlisted(subject, findings);
    run(subject, findings);
}

fn compare(subject: &Subject, file: &FileSummary) -> Result<(), String> {
    let path = subject.path(&file.path);
    let bytes = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("is missing".into()),
        Err(e) => return Err(e.to_string()),
    };
    if bytes != file.bytes {
        return Err(format!("has {bytes} bytes of {}", file.bytes));
    }
    if subject.options.hashes && hash_file(&path).map_err(|e| e.to_string())? != file.blake3 {
        return Err("is not as it was written: its hash differs".into());
    }
    Ok(())
}

fn unlisted(subject: &Subject, findings: &mut Findings) {
    let listed: BTreeSet<&str> = subject
        .manifest
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    let names = match manifest::paths(subject.generation) {
        Ok(names) => names,
        Err(error) => return findings.add(CHECK, ".", error.to_string()),
    };
    for name in names {
        if !listed.contains(name.as_str()) && !is_lock(&name) {
            findings.add(CHECK, &name, "is not in the manifest");
        }
    }
}

/// Tantivy makes these whenever an index is opened.
fn is_lock(name: &str) -> bool {
    name.starts_with("sparse/.tantivy-") && name.ends_with(".lock")
}

/// run.json is not hashed, as it is no part of the index; a build that goes on has none yet.
fn run(subject: &Subject, findings: &mut Findings) {
    let path = subject.path("run.json");
    if !path.exists() && subject.path("journal.ndjson").exists() {
        return;
    }
    if let Err(error) = read_json::<Run>(&path) {
        findings.add(CHECK, "run.json", error.to_string());
    }
}
