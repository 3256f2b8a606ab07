//! The indexes as `benches/index.py` asks for them; one JSON line with the seconds and the peak of memory on stdout.
//!
//!     cargo bench --bench index -- sparse CHUNKS.parquet FOLDER
//!     cargo bench --bench index -- tantivy|tantivy-merged CHUNKS.parquet FOLDER
//!     cargo bench --bench index -- dense VECTORS.f32 DIM FACTORY FOLDER

mod support;

use std::{fs::File, path::Path, time::Instant};

use arrow::array::{AsArray, RecordBatch};
use intendex::{
    index::{DenseWriter, SparseDocument, SparseWriter},
    job::spec::SparseLanguage,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use tantivy::{
    Index, TantivyDocument,
    schema::{IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions},
};

/// Rows that are added to a dense index at once, as when it is built from the datasets.
const ROWS: usize = 1024;

fn main() {
    let arguments: Vec<String> = support::arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seconds = match arguments[..] {
        ["sparse", chunks, folder] => sparse(&read(chunks), Path::new(folder)),
        ["tantivy", chunks, folder] => alone(&read(chunks), Path::new(folder), false),
        ["tantivy-merged", chunks, folder] => alone(&read(chunks), Path::new(folder), true),
        ["dense", vectors, dim, factory, folder] => {
            let dim = dim.parse().expect("a length");
            dense(vectors, dim, factory, Path::new(folder))
        }
        // `cargo bench` runs every benchmark; this one needs a partner.
        _ => return eprintln!("index: run by `make bench-index`"),
    };
    println!(
        "{}",
        json!({ "seconds": seconds, "peak_mib": support::peak_mib() })
    );
}

fn read(path: &str) -> Vec<RecordBatch> {
    let file = File::open(path).expect("chunks");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let batches = reader.build().expect("Parquet");
    batches.map(|batch| batch.expect("a batch")).collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a arrow::array::StringArray {
    batch.column_by_name(name).expect("a column").as_string()
}

fn each(batches: &[RecordBatch], mut visit: impl FnMut([&str; 4])) {
    for batch in batches {
        let columns = ["chunk_id", "doc_id", "title", "text"].map(|name| column(batch, name));
        (0..batch.num_rows()).for_each(|i| visit(columns.map(|column| column.value(i))));
    }
}

fn sparse(chunks: &[RecordBatch], folder: &Path) -> f64 {
    let start = Instant::now();
    let mut writer = SparseWriter::create(folder, SparseLanguage::English).expect("a folder");
    each(chunks, |[chunk_id, doc_id, title, text]| {
        let document = SparseDocument {
            chunk_id,
            doc_id,
            title: Some(title),
            text,
            queries: &[],
        };
        writer.add(document).expect("a document");
    });
    writer.finish().expect("an index");
    start.elapsed().as_secs_f64()
}

/// Tantivy as its documentation has it: a writer of as many threads as there are cores, one commit; `merged`: into one
/// segment, as ours is.
fn alone(chunks: &[RecordBatch], folder: &Path, merged: bool) -> f64 {
    let start = Instant::now();
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("en_stem")
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let options = TextOptions::default().set_indexing_options(indexing);
    let fields = [
        schema.add_text_field("chunk_id", STRING | STORED),
        schema.add_text_field("doc_id", STRING | STORED),
        schema.add_text_field("title", options.clone()),
        schema.add_text_field("text", options),
    ];
    std::fs::create_dir_all(folder).expect("a folder");
    let index = Index::create_in_dir(folder, schema.build()).expect("an index");
    let mut writer = index.writer(256 << 20).expect("a writer");
    each(chunks, |values| {
        let mut document = TantivyDocument::new();
        for (field, value) in fields.into_iter().zip(values) {
            document.add_text(field, value);
        }
        writer.add_document(document).expect("a document");
    });
    writer.commit().expect("a commit");
    if merged {
        let segments = index.searchable_segment_ids().expect("segments");
        writer.merge(&segments).wait().expect("a merge");
    }
    writer.wait_merging_threads().expect("merges");
    start.elapsed().as_secs_f64()
}

fn dense(vectors: &str, dim: usize, factory: &str, folder: &Path) -> f64 {
    let bytes = std::fs::read(vectors).expect("vectors");
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four"));
    let vectors: Vec<f32> = bytes.chunks_exact(4).map(number).collect();
    drop(bytes);
    let rows = vectors.len() / dim;
    let ids: Vec<String> = (0..rows).map(|i| format!("document-{i}#0")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let start = Instant::now();
    let mut writer = DenseWriter::create(folder, "text", factory, dim, rows).expect("a folder");
    for (ids, vectors) in ids.chunks(ROWS).zip(vectors.chunks(ROWS * dim)) {
        writer.add(ids, vectors).expect("vectors");
    }
    writer.finish().expect("an index");
    start.elapsed().as_secs_f64()
}
