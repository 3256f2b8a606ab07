//! Parquet files: bytes flipped, overwritten, cut off.

use std::{fs, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use intendex::{
    corpus::{self, CorpusError},
    job::spec::{Corpus, Engine},
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use proptest::prelude::*;

use crate::campaign;

/// A valid corpus of 12 rows in row groups of three.
fn corpus_bytes() -> Vec<u8> {
    let strings = |name: &str| {
        let rows = (0..12).map(|i| format!("{name} {i}: {}", "words of a text. ".repeat(i)));
        Arc::new(StringArray::from_iter_values(rows)) as ArrayRef
    };
    let batch = RecordBatch::try_from_iter(vec![
        ("doc_id", strings("id")),
        ("title", strings("title")),
        ("text", strings("text")),
        ("n", Arc::new(Int64Array::from_iter_values(0..12))),
    ])
    .unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(3))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn are_rows_or_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.parquet");
    let whole = corpus_bytes();
    let corpus = |filter: &str| -> Corpus {
        let rest = format!("title = \"title\"\npassthrough = [\"n\"]\n{filter}");
        toml::from_str(&format!("path = {:?}\n{rest}", path.to_str().unwrap())).unwrap()
    };
    let corpora = [corpus(""), corpus("filter = \"n > 4\"")];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ctx = corpus::session(&Engine::default(), folder.path()).unwrap();
    let read = |corpus: &Corpus| -> Result<usize, CorpusError> {
        runtime.block_on(async {
            let scan = corpus::open(&ctx, corpus).await?;
            let batches: Vec<_> = scan.stream().await?.try_collect().await?;
            Ok(batches.iter().map(|b| b.documents.num_rows()).sum())
        })
    };
    // Found by an earlier campaign: an integer of no width in the Arrow schema.
    let mut bytes = whole.clone();
    bytes[9217] ^= 8;
    fs::write(&path, &bytes).unwrap();
    let _ = read(&corpora[0]);
    let n = whole.len();
    // Half of the flips fall into the footer, where the offsets and sizes are.
    let flip = (prop_oneof![0..n, n / 2..n], 1u8..);
    let range = (0..n, 1usize..64, any::<u8>());
    let inputs = (
        prop::collection::vec(flip, 0..6),
        prop::option::weighted(0.2, range),
        prop::option::weighted(0.2, 0..n),
        0..corpora.len(),
    );
    let (cases, readable) = campaign(&inputs, |(flips, range, cut, which)| {
        let mut bytes = whole.clone();
        flips.iter().for_each(|(at, with)| bytes[*at] ^= with);
        if let Some((at, count, with)) = range {
            let end = (at + count).min(n);
            bytes[at..end].fill(with);
        }
        bytes.truncate(cut.unwrap_or(n));
        fs::write(&path, &bytes).unwrap();
        match read(&corpora[which]) {
            Ok(rows) => {
                prop_assert!(rows <= 12, "{rows} rows");
                Ok(true)
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                Ok(false)
            }
        }
    });
    println!(
        "{cases} Parquet files: {readable} readable, the others refused with an error, no panic"
    );
}
