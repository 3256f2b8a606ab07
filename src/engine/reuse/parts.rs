//! The joined rows, turned into parts of earlier results.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, UInt64Array},
    buffer::NullBuffer,
    compute::{cast, concat_batches, take},
    datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type},
    error::ArrowError,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::{PREFIX, columns, part, row_fields};
use crate::{
    engine::{
        EngineError,
        fingerprint::Key,
        functions::outcome::{self, Outcome},
        stage::Stage,
    },
    store::dataset::PartWriter,
};

/// Cuts the joined rows into the shards' parts.
pub struct Parts<'a> {
    stage: Stage,
    generation: &'a Path,
    value: DataType,
    held: Vec<RecordBatch>,
    shard: u32,
    reused: u64,
}

impl<'a> Parts<'a> {
    pub fn new(stage: Stage, generation: &'a Path, value: DataType) -> Self {
        Self {
            stage,
            generation,
            value,
            held: Vec::new(),
            shard: 0,
            reused: 0,
        }
    }

    /// Returns how many input rows have an earlier result.
    pub async fn write(mut self, mut found: SendableRecordBatchStream) -> Result<u64, EngineError> {
        while let Some(batch) = found.next().await {
            let failed = EngineError::in_stage(self.stage.name(), self.shard as usize);
            let batch = batch.map_err(failed)?;
            let shards = column(&batch, "shard").as_primitive::<UInt32Type>();
            let shards = shards.values().to_vec();
            let mut start = 0;
            for rows in shards.chunk_by(|a, b| a == b) {
                if rows[0] != self.shard {
                    self.close()?;
                    self.shard = rows[0];
                }
                self.held.push(batch.slice(start, rows.len()));
                start += rows.len();
            }
        }
        self.close()?;
        Ok(self.reused)
    }

    fn close(&mut self) -> Result<(), EngineError> {
        let Some(first) = self.held.first() else {
            return Ok(());
        };
        let path = part(self.generation, self.stage, self.shard as usize);
        let rows =
            concat_batches(&first.schema(), &self.held).map_err(EngineError::batch(&path))?;
        self.held.clear();
        let earlier = Earlier::new(&rows);
        let batch = earlier
            .results(&rows, &self.value)
            .map_err(EngineError::batch(&path))?;
        self.reused += earlier.hits();
        let mut writer = PartWriter::create(&path, batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(())
    }
}

/// The joined rows of a shard, by input row: where each one's earlier rows begin, how many there are, and whether
/// they can be taken.
struct Earlier {
    groups: Vec<(usize, usize, bool)>,
}

impl Earlier {
    fn new(joined: &RecordBatch) -> Self {
        let lines = column(joined, "line").as_primitive::<UInt64Type>();
        let wanted = column(joined, "rows").as_primitive::<UInt32Type>();
        let place = column(joined, "place");
        let mut groups = Vec::new();
        let mut start = 0;
        for same in lines.values().chunk_by(|a, b| a == b) {
            let found = (start..start + same.len())
                .filter(|i| place.is_valid(*i))
                .count();
            // Fewer rows than there should be: that build was killed while it wrote them.
            let whole = wanted.is_valid(start) && wanted.value(start) as usize == found;
            groups.push((start, found, whole));
            start += same.len();
        }
        Self { groups }
    }

    fn hits(&self) -> u64 {
        self.groups.iter().filter(|(_, _, whole)| *whole).count() as u64
    }

    fn results(&self, joined: &RecordBatch, value: &DataType) -> Result<RecordBatch, ArrowError> {
        let firsts: UInt64Array = self.groups.iter().map(|g| Some(g.0 as u64)).collect();
        let (keys, outcomes) = self.outcomes(joined);
        let results = outcome::column(&keys, &outcomes, self.values(joined, value)?)?;
        let nulls = NullBuffer::from_iter(self.groups.iter().map(|(_, _, whole)| *whole));
        let results = results.as_struct();
        let results = StructArray::try_new(
            results.fields().clone(),
            results.columns().to_vec(),
            Some(nulls),
        )?;
        let result_type = results.data_type().clone();
        let schema = Schema::new(vec![
            Field::new("line", DataType::UInt64, false),
            Field::new("id", DataType::Utf8, false),
            Field::new("result", result_type, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                take(column(joined, "line"), &firsts, None)?,
                take(column(joined, "id"), &firsts, None)?,
                Arc::new(results),
            ],
        )
    }

    fn outcomes(&self, joined: &RecordBatch) -> (Vec<Key>, Vec<Outcome>) {
        let keys = column(joined, "key").as_fixed_size_binary();
        let number = |name, i: usize| column(joined, name).as_primitive::<UInt64Type>().value(i);
        let outcome = |&(i, _, whole): &(usize, usize, bool)| {
            let mut key = Key::default();
            if !whole {
                return (key, Outcome::default());
            }
            key.copy_from_slice(keys.value(i));
            let outcome = Outcome {
                error: None,
                tokens: number("tokens", i) as usize,
                truncated: number("truncated", i) as usize,
                skipped: column(joined, "skipped").as_boolean().value(i),
                reused: true,
            };
            (key, outcome)
        };
        self.groups.iter().map(outcome).unzip()
    }

    /// The values of the input rows, empty or null where there is nothing to take.
    fn values(&self, joined: &RecordBatch, value: &DataType) -> Result<ArrayRef, ArrowError> {
        let own = columns(value);
        let own: Vec<&ArrayRef> = own
            .iter()
            .map(|name| column(joined, &format!("{PREFIX}{name}")))
            .collect();
        let Some(fields) = row_fields(value) else {
            let at = self
                .groups
                .iter()
                .map(|(i, _, whole)| whole.then_some(*i as u64));
            return cast(&take(own[0], &UInt64Array::from_iter(at), None)?, value);
        };
        let taken = |g: &(usize, usize, bool)| if g.2 { g.1 } else { 0 };
        let lengths: Vec<usize> = self.groups.iter().map(taken).collect();
        let at: UInt64Array = self
            .groups
            .iter()
            .flat_map(|g| g.0..g.0 + taken(g))
            .map(|i| Some(i as u64))
            .collect();
        let columns = own
            .iter()
            .zip(fields)
            .map(|(column, field)| cast(&take(column, &at, None)?, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        outcome::lists(
            &lengths,
            StructArray::try_new(fields.clone(), columns, None)?,
        )
    }
}

fn column<'a>(joined: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    joined
        .column_by_name(name)
        .expect("a column that the join selects")
}
