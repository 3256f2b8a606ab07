use arrow::array::{
    AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, StringArray,
};
use arrow::datatypes::{Float32Type, UInt64Type};

use super::*;
use crate::{
    corpus, engine::functions::outcome::Results, job::spec::Engine, store::dataset::read_part,
};

const ROWS: usize = 20_000;
const DIM: usize = 256;
const STAGE: Stage = Stage::TextVectors;

fn value() -> DataType {
    let number = Field::new("item", DataType::Float32, false);
    DataType::FixedSizeList(Arc::new(number), DIM as i32)
}

/// The key of the n-th row: in an order of its own.
fn key(n: usize) -> [u8; KEY_BYTES as usize] {
    let mut key = [0; KEY_BYTES as usize];
    key.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..KEY_BYTES as usize]);
    key
}

fn keys(rows: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::try_from_iter(rows.map(key)).unwrap())
}

fn ids(rows: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.map(|n| format!("c{n}"))))
}

fn vectors(rows: std::ops::Range<usize>) -> ArrayRef {
    let numbers = rows.flat_map(|n| [n as f32; DIM]);
    let numbers = Arc::new(Float32Array::from_iter_values(numbers));
    let DataType::FixedSizeList(item, _) = value() else {
        unreachable!()
    };
    Arc::new(FixedSizeListArray::new(item, DIM as i32, numbers, None))
}

fn write(path: &Path, batches: impl Iterator<Item = Vec<(&'static str, ArrayRef)>>) {
    let mut writer = None;
    for columns in batches {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer =
            writer.get_or_insert_with(|| PartWriter::create(path, batch.schema()).unwrap());
        writer.write(&batch).unwrap();
    }
    writer.unwrap().finish().unwrap();
}

/// An earlier build with a vector for every row.
fn source(folder: &Path) -> Source {
    let batches = || (0..ROWS).step_by(1000).map(|n| n..n + 1000);
    let rows = batches().map(|b| vec![("chunk_id", ids(b.clone())), ("vector", vectors(b))]);
    write(&STAGE.output().part(folder, 0), rows);
    let outcomes = batches().map(|b| {
        let zeros: ArrayRef = Arc::new(UInt64Array::from(vec![0; b.len()]));
        let ones: ArrayRef = Arc::new(UInt32Array::from(vec![1; b.len()]));
        vec![
            ("id", ids(b.clone())),
            ("key", keys(b.clone())),
            ("rows", ones),
            ("tokens", zeros.clone()),
            ("truncated", zeros),
            (
                "skipped",
                Arc::new(BooleanArray::from(vec![false; b.len()])) as _,
            ),
        ]
    });
    write(&STAGE.outcomes().part(folder, 0), outcomes);
    Source {
        folder: folder.to_owned(),
        stages: BTreeMap::new(),
        files: Vec::new(),
    }
}

/// Two shards whose rows are the source's backwards, and as many that it has not.
fn write_candidates(path: &Path) {
    let mut writer = PartWriter::scratch(path, candidates_schema()).unwrap();
    let wanted: Vec<usize> = (0..2 * ROWS).rev().collect();
    for (shard, rows) in wanted.chunks(ROWS).enumerate() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(vec![shard as u32; rows.len()])),
            Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
            ids(rows.iter().copied()),
            keys(rows.iter().copied()),
        ];
        let batch = RecordBatch::try_new(candidates_schema(), columns).unwrap();
        writer.write(&batch).unwrap();
    }
    writer.finish().unwrap();
}

/// The rows are several times the memory, and a hash join would hold a side of them.
#[test]
fn rows_that_do_not_fit_the_memory_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder.path().join("earlier"));
    let engine = Engine {
        memory_mib: 8,
        ..Engine::default()
    };
    let ctx = corpus::session(&engine, &folder.path().join("spill")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let joins = Joins::new(&ctx, folder.path(), "test").unwrap();
    write_candidates(&joins.path("candidates"));
    let reused = runtime.block_on(async {
        let candidates = joins.path("candidates");
        joins.register("candidates", &candidates).await.unwrap();
        let found = join(STAGE, &joins, &[&source], &value()).await.unwrap();
        let parts = Parts::new(STAGE, folder.path(), value());
        parts.write(found).await.unwrap()
    });
    assert_eq!(reused, ROWS as u64);
    let mut line = 0;
    for batch in read_part(&part(folder.path(), STAGE, 1)).unwrap() {
        let batch = batch.unwrap();
        let lines = batch.column(0).as_primitive::<UInt64Type>().clone();
        let results = Results::of(&batch, "result").unwrap();
        let vectors = results.value().as_fixed_size_list();
        for i in 0..batch.num_rows() {
            let vector = vectors.value(i);
            let number = vector.as_primitive::<Float32Type>().value(0);
            assert_eq!(
                (lines.value(i), number),
                (line, (ROWS - 1) as f32 - line as f32)
            );
            line += 1;
        }
    }
    assert_eq!(line, ROWS as u64);
}
