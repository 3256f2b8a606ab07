//! Object storage as `benches/storage.py` asks for it; one JSON line with the seconds and the peak of memory on stdout.
//!
//!     cargo bench --bench storage -- read ADDRESS          the documents of a corpus, as a build reads them
//!     cargo bench --bench storage -- upload FOLDER ADDRESS
//!     cargo bench --bench storage -- download ADDRESS FOLDER

mod support;

use std::{path::Path, time::Instant};

use futures::StreamExt;
use intendex::{
    corpus,
    job::spec::{Corpus, Engine},
    objects::Objects,
};
use serde_json::json;

fn main() {
    let arguments: Vec<String> = support::arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = Instant::now();
    let rows = match arguments[..] {
        ["read", address] => read(address),
        ["upload", folder, address] => upload(Path::new(folder), address),
        ["download", address, folder] => download(address, Path::new(folder)),
        // `cargo bench` runs every benchmark; this one needs a partner.
        _ => return eprintln!("storage: run by `make bench-storage`"),
    };
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "seconds": seconds, "rows": rows, "peak_mib": support::peak_mib() })
    );
}

/// Rows, read once as a build does after it has opened a corpus.
fn read(address: &str) -> usize {
    let corpus: Corpus =
        serde_json::from_value(json!({ "path": address, "title": "title" })).expect("a corpus");
    let spill = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let ctx = corpus::session(&Engine::default(), spill.path()).expect("a session");
        let scan = corpus::open(&ctx, &corpus).await.expect("a corpus");
        let mut batches = std::pin::pin!(scan.stream().await.expect("a stream"));
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            rows += batch.expect("a batch").documents.num_rows();
        }
        rows
    })
}

fn upload(folder: &Path, address: &str) -> usize {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files = files.filter(|entry| entry.file_type().is_file());
    let named = files.map(|entry| {
        let name = entry.path().strip_prefix(folder).expect("below");
        (entry.path().to_owned(), name.display().to_string())
    });
    let named: Vec<_> = named.collect();
    let count = named.len();
    let objects = Objects::open(address).expect("an address");
    objects.upload(named).expect("an upload");
    count
}

fn download(address: &str, folder: &Path) -> usize {
    let objects = Objects::open(address).expect("an address");
    let listed = objects.list().expect("a listing").into_iter();
    let files = listed.map(|object| {
        let path = folder.join(&object.name);
        (object, path)
    });
    let files: Vec<_> = files.collect();
    let count = files.len();
    objects.download(files).expect("a download");
    count
}
