//! Turns columns read as bytes into strings, and marks the rows whose bytes are not UTF-8.

use std::str::from_utf8;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, GenericListArray, ListBuilder, OffsetSizeTrait,
    RecordBatch, StringBuilder,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// Most bytes of strings in one batch, so that long documents come in short batches.
const BATCH_BYTES: usize = 64 << 20;

/// A bad value is shown to filters and in reasons only; no more of it is needed.
const SHOWN_BAD_BYTES: usize = 1 << 16;

/// For each row, the name of the first column that is not UTF-8 in it.
pub type Invalid = Vec<Option<String>>;

/// How many rows from `start` on make a batch of at most [`BATCH_BYTES`]; at least one.
pub fn rows_that_fit(batch: &RecordBatch, start: usize) -> usize {
    let mut bytes = 0;
    for row in start..batch.num_rows() {
        bytes += batch
            .columns()
            .iter()
            .map(|c| bytes_at(c, row))
            .sum::<usize>();
        if bytes > BATCH_BYTES {
            return (row - start).max(1);
        }
    }
    batch.num_rows() - start
}

fn bytes_at(column: &ArrayRef, row: usize) -> usize {
    let lengths = |values: &ArrayRef, from: usize, to: usize| match values.as_binary_view_opt() {
        Some(views) => views.views()[from..to]
            .iter()
            .map(|v| *v as u32 as usize)
            .sum(),
        None => 0,
    };
    match column.data_type() {
        DataType::BinaryView => lengths(column, row, row + 1),
        DataType::List(_) => {
            let offsets = column.as_list::<i32>().value_offsets();
            let values = column.as_list::<i32>().values();
            lengths(values, offsets[row] as usize, offsets[row + 1] as usize)
        }
        DataType::LargeList(_) => {
            let offsets = column.as_list::<i64>().value_offsets();
            let values = column.as_list::<i64>().values();
            lengths(values, offsets[row] as usize, offsets[row + 1] as usize)
        }
        _ => 0,
    }
}

/// The column `name` with its strings as Utf8; a bad value reads with replacement characters, and its row is
/// marked in `invalid`. Other columns come back as they are.
pub fn decode(
    name: &str,
    column: &ArrayRef,
    invalid: &mut Invalid,
) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::BinaryView => Ok(decode_one(name, column.as_binary_view(), invalid)),
        DataType::List(item) if item.data_type() == &DataType::BinaryView => {
            decode_list(name, column.as_list::<i32>(), invalid)
        }
        DataType::LargeList(item) if item.data_type() == &DataType::BinaryView => {
            decode_list(name, column.as_list::<i64>(), invalid)
        }
        _ => Ok(column.clone()),
    }
}

fn decode_one(name: &str, column: &BinaryViewArray, invalid: &mut Invalid) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(column.len(), column.total_bytes_len());
    for (row, value) in column.iter().enumerate() {
        match value.map(from_utf8) {
            None => out.append_null(),
            Some(Ok(text)) => out.append_value(text),
            Some(Err(_)) => {
                invalid[row].get_or_insert_with(|| name.to_string());
                out.append_value(shown(column.value(row)));
            }
        }
    }
    Arc::new(out.finish())
}

fn decode_list<O: OffsetSizeTrait>(
    name: &str,
    column: &GenericListArray<O>,
    invalid: &mut Invalid,
) -> Result<ArrayRef, ArrowError> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for (row, list) in column.iter().enumerate() {
        let Some(list) = list else {
            out.append_null();
            continue;
        };
        let list = list.as_binary_view();
        // One string cannot pass the reach of i32 offsets, but a list of them could.
        if list.total_bytes_len() > i32::MAX as usize {
            return Err(ArrowError::OffsetOverflowError(list.total_bytes_len()));
        }
        for value in list {
            match value.map(from_utf8) {
                None => out.values().append_null(),
                Some(Ok(text)) => out.values().append_value(text),
                Some(Err(_)) => {
                    invalid[row].get_or_insert_with(|| name.to_string());
                    out.values().append_value(shown(value.unwrap_or_default()));
                }
            }
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BAD_BYTES)]).into_owned()
}
