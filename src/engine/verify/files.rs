//! The files against the manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Subject};
use crate::{
    job::Progress,
    store::{
        index_shards,
        manifest::{self, CHECKSUMS, FORMAT, Run, hash_file},
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
        if let Err(message) = file.compare(subject.generation, subject.options.hashes) {
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
    account(subject, findings);
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
    let name = index_shards::without_prefix(name);
    name.starts_with("sparse/.tantivy-") && name.ends_with(".lock")
}

/// run.json, and what the manifest cannot say of itself. While there is a journal a build goes on: it has neither yet,
/// or those of a run that was killed before it published.
fn account(subject: &Subject, findings: &mut Findings) {
    if subject.path("journal.ndjson").exists() {
        return;
    }
    let path = subject.path("run.json");
    if let Err(error) = read_json::<Run>(&path) {
        findings.add(CHECK, "run.json", error.to_string());
    }
    let checksums = match std::fs::read_to_string(subject.path(CHECKSUMS)) {
        Ok(checksums) => checksums,
        Err(error) => return findings.add(CHECK, CHECKSUMS, error.to_string()),
    };
    let mut expected: BTreeMap<&str, &str> = subject
        .manifest
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.blake3.as_str()))
        .collect();
    let hashes = ["manifest.json", "run.json"].map(|name| (name, hash_file(&subject.path(name))));
    for (name, hash) in &hashes {
        expected.insert(name, hash.as_deref().unwrap_or_default());
    }
    for line in checksums.lines() {
        let (hash, name) = line.split_once("  ").unwrap_or((line, ""));
        if expected.remove(name) != Some(hash) {
            let message = format!("is not what {CHECKSUMS} says of it: one of them has changed");
            findings.add(
                CHECK,
                if name.is_empty() { CHECKSUMS } else { name },
                message,
            );
        }
    }
    for name in expected.into_keys() {
        findings.add(CHECK, CHECKSUMS, format!("has no line for {name}"));
    }
}
