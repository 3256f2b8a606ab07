//! A small generation, written with the library's own writers, and an embedder that needs no model.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use intendex::index::{DenseWriter, SparseDocument, SparseWriter};
use intendex::job::spec::SparseLanguage;
use intendex::model::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors};
use parquet::arrow::ArrowWriter;

/// Chunk id, text, queries; the last query of each is kept out of the indexes.
pub const CHUNKS: [(&str, &str, &[&str]); 6] = [
    (
        "cats#0",
        "Cats sleep most of the day and hunt at dusk.",
        &["when do cats hunt", "do cats sleep", "dropped: cats"],
    ),
    (
        "cats#1",
        "A kitten opens its eyes after ten days.",
        &["how old is a kitten when its eyes open", "dropped: kitten"],
    ),
    ("dogs#0", "Dogs bark at strangers; wolves howl.", &[]),
    (
        "dogs#1",
        "A puppy needs to be fed four times a day.",
        &["how often to feed a puppy", "puppy food", "dropped: puppy"],
    ),
    (
        "naïve docs/1#0",
        "Ünïcode: the moon rises over the sea at dusk.",
        &["moon at dusk", "dropped: moon"],
    ),
    ("sea#0", "The tide follows the moon twice a day.", &[]),
];

/// A bag of words, hashed: texts that share words are close.
pub struct WordEmbedder {
    identity: ModelIdentity,
}

impl WordEmbedder {
    pub fn new() -> Self {
        let (name, architecture) = ("words".into(), "words".into());
        Self {
            identity: ModelIdentity {
                name,
                architecture,
                files: Vec::new(),
            },
        }
    }

    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.01f32; self.dim()];
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            let word = word.to_lowercase();
            let mix = |h: u64, b: u8| h.wrapping_mul(1_000_003) ^ u64::from(b);
            let hash = word.bytes().fold(7, mix);
            vector[(hash % 31) as usize] += 1.0;
        }
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|v| *v /= norm);
        vector
    }
}

impl Embed for WordEmbedder {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dim(&self) -> usize {
        31
    }

    fn max_text_tokens(&self) -> usize {
        1000
    }

    fn token_offsets(&self, _: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        Ok(Vec::new())
    }

    fn embed(&self, texts: &[&str], _: TextKind) -> Result<Embedded, ModelError> {
        let values = texts.iter().flat_map(|text| self.vector(text)).collect();
        let vectors = Vectors {
            dim: self.dim(),
            values,
        };
        Ok(Embedded {
            vectors,
            tokens: vec![0; texts.len()],
            truncated: vec![0; texts.len()],
        })
    }
}

/// The queries of a chunk that the indexes take.
pub fn indexed(queries: &'static [&'static str]) -> &'static [&'static str] {
    queries.split_last().map_or(&[], |(_, indexed)| indexed)
}

/// Writes `sparse/`, `dense/`, `chunks/` and `queries/` of [`CHUNKS`] under `generation`.
pub fn write(generation: &Path, embedder: &WordEmbedder) {
    let mut sparse =
        SparseWriter::create(&generation.join("sparse"), SparseLanguage::English).unwrap();
    let dense = generation.join("dense");
    let mut texts = DenseWriter::create(&dense, "text", "auto", embedder.dim(), 6).unwrap();
    let mut queries = DenseWriter::create(&dense, "queries", "auto", embedder.dim(), 6).unwrap();
    let mut rows: [Vec<String>; 3] = Default::default();
    let mut taken = Vec::new();
    for (chunk_id, text, all) in CHUNKS {
        let document = SparseDocument {
            chunk_id,
            doc_id: chunk_id.rsplit_once('#').unwrap().0,
            title: None,
            text,
            queries: indexed(all),
        };
        sparse.add(document).unwrap();
        texts.add(&[chunk_id], &embedder.vector(text)).unwrap();
        for (m, query) in all.iter().enumerate() {
            let query_id = format!("{chunk_id}?{m}");
            if m + 1 < all.len() {
                queries.add(&[&query_id], &embedder.vector(query)).unwrap();
            }
            taken.push(m + 1 < all.len());
            let row = [query_id, chunk_id.to_owned(), (*query).to_owned()];
            rows.iter_mut()
                .zip(row)
                .for_each(|(column, value)| column.push(value));
        }
    }
    sparse.finish().unwrap();
    texts.finish().unwrap();
    queries.finish().unwrap();
    let strings = |values: &[String]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let (ids, chunk_texts): (Vec<_>, Vec<_>) = CHUNKS
        .iter()
        .map(|(id, text, _)| ((*id).to_owned(), (*text).to_owned()))
        .unzip();
    parquet(
        generation,
        "chunks",
        vec![("chunk_id", strings(&ids)), ("text", strings(&chunk_texts))],
    );
    let [query_ids, chunk_ids, texts] = rows;
    parquet(
        generation,
        "queries",
        vec![
            ("query_id", strings(&query_ids)),
            ("chunk_id", strings(&chunk_ids)),
            ("text", strings(&texts)),
        ],
    );
    let taken: ArrayRef = Arc::new(BooleanArray::from(taken));
    let columns = vec![("query_id", strings(&query_ids)), ("taken", taken)];
    parquet(generation, "selection", columns);
}

/// Writes a dataset of one part.
pub fn parquet(generation: &Path, dataset: &str, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(generation.join(dataset)).unwrap();
    let file = File::create(generation.join(dataset).join("part-00000.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
