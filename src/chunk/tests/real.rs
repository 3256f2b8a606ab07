//! Real documents of up to 738,000 characters, with the fake embedder: the contract, and how long it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::chunk::chunk;
use crate::chunk::fake::{Fake, Tokens};
use crate::job::spec::ChunkMethod;
use crate::text::analyse;

use super::{checked, params};

fn column(path: &Path, name: &str) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = arrow::compute::cast(
            batch.column_by_name(name).unwrap(),
            &arrow::datatypes::DataType::Utf8,
        )
        .unwrap();
        rows.extend(
            column
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned),
        );
    }
    rows
}

#[test]
fn real_documents() {
    let Some(data) = std::env::var_os("INTENDEX_EVAL_DATA") else {
        crate::skipped("real_documents needs INTENDEX_EVAL_DATA");
        return;
    };
    let embedder = Fake::new(Tokens::Words, 254);
    for set in ["chroma_chunking", "squad_train_sample"] {
        let folder = Path::new(&data).join(set);
        let texts = column(&folder.join("corpus.parquet"), "text");
        let questions = column(&folder.join("queries.parquet"), "text");
        for method in [
            ChunkMethod::Fixed,
            ChunkMethod::Paragraph,
            ChunkMethod::Intent,
        ] {
            let intents = if method == ChunkMethod::Intent {
                &questions[..20]
            } else {
                &[]
            };
            let params = params(method, 254, 160);
            let (mut slowest, mut total) = ((Duration::ZERO, 0), Duration::ZERO);
            for text in &texts {
                let began = Instant::now();
                chunk(text, intents, &params, &embedder).unwrap();
                let took = began.elapsed();
                slowest = slowest.max((took, text.chars().count()));
                total += took;
            }
            let chunks: Vec<_> = texts
                .iter()
                .map(|text| checked(text, intents, &params, &embedder))
                .collect();
            let (count, tokens) = chunks
                .iter()
                .flat_map(|c| &c.chunks)
                .fold((0, 0), |(n, t), c| (n + 1, t + c.tokens));
            println!(
                "{set} {method:?}: {} documents in {total:.2?}, slowest {:.2?} for {} characters; {count} chunks of {:.1} \
                 tokens, {} sentences cut",
                texts.len(),
                slowest.0,
                slowest.1,
                tokens as f64 / count as f64,
                chunks.iter().map(|c| c.cut_sentences).sum::<usize>(),
            );
            assert!(slowest.0 < Duration::from_secs(10));
        }
        let sentences: usize = texts.iter().map(|text| analyse(text).sentences.len()).sum();
        println!("{set}: {sentences} sentences");
    }
}
