//! Named columns of a small Parquet file (queries, judgements), whatever string or integer type they have.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Two text columns and, if asked for, one of integers; all of the same length.
pub struct Columns {
    pub first: Vec<String>,
    pub second: Vec<String>,
    pub integers: Vec<i64>,
}

/// Reads the columns `first` and `second` as text and `integers` as integers; a null is an error.
pub fn read(
    path: &Path,
    first: &str,
    second: &str,
    integers: Option<&str>,
) -> Result<Columns, ColumnsError> {
    let unreadable = |message: String| ColumnsError::Unreadable {
        path: path.to_owned(),
        message,
    };
    let file = File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(e.to_string()))?;
    let names: Vec<&str> = [first, second].into_iter().chain(integers).collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let reader = builder
        .with_projection(mask)
        .build()
        .map_err(|e| unreadable(e.to_string()))?;

    let mut columns = Columns {
        first: Vec::new(),
        second: Vec::new(),
        integers: Vec::new(),
    };
    for batch in reader {
        let batch = batch.map_err(|e| unreadable(e.to_string()))?;
        let row = columns.first.len();
        let column = |name: &str, wanted: &DataType| {
            converted(path, batch.column_by_name(name), name, row, wanted)
        };
        if let Some(name) = integers {
            let values = column(name, &DataType::Int64)?;
            columns
                .integers
                .extend_from_slice(values.as_primitive::<Int64Type>().values());
        }
        for (name, texts) in [(first, &mut columns.first), (second, &mut columns.second)] {
            let values = column(name, &DataType::Utf8)?;
            texts.extend(
                values
                    .as_string::<i32>()
                    .iter()
                    .flatten()
                    .map(str::to_owned),
            );
        }
    }
    Ok(columns)
}

/// `column` cast to `wanted`, checked for nulls; `row` is that of its first value in the file.
fn converted(
    path: &Path,
    column: Option<&ArrayRef>,
    name: &str,
    row: usize,
    wanted: &DataType,
) -> Result<ArrayRef, ColumnsError> {
    let column = column.ok_or_else(|| ColumnsError::Missing {
        path: path.to_owned(),
        column: name.to_owned(),
    })?;
    let fits = match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => *wanted == DataType::Utf8,
        found => found.is_integer(),
    };
    if !fits {
        return Err(ColumnsError::Type {
            path: path.to_owned(),
            column: name.to_owned(),
            found: column.data_type().to_string(),
            wanted: if *wanted == DataType::Utf8 {
                "strings or integers"
            } else {
                "integers"
            },
        });
    }
    let values = cast(column, wanted).map_err(|e| ColumnsError::Unreadable {
        path: path.to_owned(),
        message: e.to_string(),
    })?;
    match (0..values.len()).find(|&i| values.is_null(i)) {
        Some(i) => Err(ColumnsError::Null {
            path: path.to_owned(),
            column: name.to_owned(),
            row: row + i,
        }),
        None => Ok(values),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error("{}: cannot be read as Parquet: {message}", path.display())]
    Unreadable { path: PathBuf, message: String },
    #[error("{}: there is no column `{column}`", path.display())]
    Missing { path: PathBuf, column: String },
    #[error("{}: column `{column}` holds {found}, but needs {wanted}", path.display())]
    Type {
        path: PathBuf,
        column: String,
        found: String,
        wanted: &'static str,
    },
    #[error("{}: column `{column}` is null in row {row} (counted from 0)", path.display())]
    Null {
        path: PathBuf,
        column: String,
        row: usize,
    },
}
