//! The result column of a stage: per input row its key, what it cost, its error if it failed, and its value.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, ListArray, RecordBatch,
        StringArray, StructArray, UInt64Array,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, UInt64Type},
    error::ArrowError,
};

use crate::{engine::fingerprint::Key, store::schema::KEY_BYTES};

/// What a stage says of one input row besides its value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub error: Option<String>,
    /// Tokens the model read or wrote for the row.
    pub tokens: usize,
    /// Tokens of the row that the model did not see.
    pub truncated: usize,
    /// The stage left the row alone, as its settings say.
    pub skipped: bool,
    /// Taken from an earlier build.
    pub reused: bool,
}

impl Outcome {
    pub fn failed(error: String) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}

const VALUE: &str = "value";

/// The type of a result column with values of the given type.
pub fn data_type(value: DataType) -> DataType {
    DataType::Struct(fields(value))
}

/// The type of a value that is a list of rows.
pub fn rows_type(row: Fields) -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(row), false)))
}

fn fields(value: DataType) -> Fields {
    vec![
        Field::new("key", DataType::FixedSizeBinary(KEY_BYTES), false),
        Field::new("error", DataType::Utf8, true),
        Field::new("tokens", DataType::UInt64, false),
        Field::new("truncated", DataType::UInt64, false),
        Field::new("skipped", DataType::Boolean, false),
        Field::new("reused", DataType::Boolean, false),
        Field::new(VALUE, value, true),
    ]
    .into()
}

/// The result column of rows with these keys.
pub fn column(keys: &[Key], outcomes: &[Outcome], value: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let flag = |get: fn(&Outcome) -> bool| {
        Arc::new(BooleanArray::from_iter(
            outcomes.iter().map(|o| Some(get(o))),
        ))
    };
    let count = |get: fn(&Outcome) -> usize| {
        Arc::new(UInt64Array::from_iter_values(
            outcomes.iter().map(|o| get(o) as u64),
        ))
    };
    let columns: Vec<ArrayRef> = vec![
        key_column(keys.iter().copied())?,
        Arc::new(StringArray::from_iter(
            outcomes.iter().map(|o| o.error.as_deref()),
        )),
        count(|o| o.tokens),
        count(|o| o.truncated),
        flag(|o| o.skipped),
        flag(|o| o.reused),
        value.clone(),
    ];
    Ok(Arc::new(StructArray::try_new(
        fields(value.data_type().clone()),
        columns,
        None,
    )?))
}

pub fn key_column(keys: impl Iterator<Item = Key>) -> Result<ArrayRef, ArrowError> {
    let bytes: Vec<u8> = keys.flatten().collect();
    Ok(Arc::new(FixedSizeBinaryArray::try_new(
        KEY_BYTES,
        bytes.into(),
        None,
    )?))
}

/// A value column of lists: `lengths[i]` rows of `rows` belong to input row `i`.
pub fn lists(lengths: &[usize], rows: StructArray) -> Result<ArrayRef, ArrowError> {
    list_of(lengths.iter().copied(), Arc::new(rows))
}

/// The type of such a column.
pub fn required_list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

/// A column of lists of these lengths of values, none of which is null.
pub fn list_of(
    lengths: impl Iterator<Item = usize>,
    values: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

/// A result column, read back.
pub struct Results<'a> {
    column: &'a StructArray,
}

impl<'a> Results<'a> {
    /// The result column of a batch.
    pub fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, ArrowError> {
        let column = batch.column_by_name(name).and_then(|c| c.as_struct_opt());
        column
            .map(|column| Self { column })
            .ok_or_else(|| ArrowError::SchemaError(format!("no result column {name}")))
    }

    pub fn outcome(&self, i: usize) -> Outcome {
        let number = |name: &str| self.part(name).as_primitive::<UInt64Type>().value(i) as usize;
        let error = self.part("error").as_string::<i32>();
        Outcome {
            error: error.is_valid(i).then(|| error.value(i).to_owned()),
            tokens: number("tokens"),
            truncated: number("truncated"),
            skipped: self.part("skipped").as_boolean().value(i),
            reused: self.part("reused").as_boolean().value(i),
        }
    }

    pub fn keys(&self) -> &'a ArrayRef {
        self.part("key")
    }

    /// Rows that each input row gave.
    pub fn lengths(&self) -> Vec<u32> {
        match self.value().as_list_opt::<i32>() {
            Some(lists) => (0..lists.len())
                .map(|i| lists.value_length(i) as u32)
                .collect(),
            None => vec![1; self.value().len()],
        }
    }

    pub fn value(&self) -> &'a ArrayRef {
        self.part(VALUE)
    }

    /// Values that are lists of rows: the input row of each, and the rows.
    pub fn rows(&self) -> (Vec<u32>, &'a StructArray) {
        let lists = self.value().as_list::<i32>();
        let mut parents = Vec::with_capacity(lists.values().len());
        for i in 0..lists.len() {
            parents.extend(std::iter::repeat_n(
                i as u32,
                lists.value_length(i) as usize,
            ));
        }
        (parents, lists.values().as_struct())
    }

    fn part(&self, name: &str) -> &'a ArrayRef {
        self.column
            .column_by_name(name)
            .expect("the fields of a result column are fixed")
    }
}
