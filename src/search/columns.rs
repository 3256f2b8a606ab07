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
    let has = builder.schema().fields().iter().map(|field| field.name());
    let has: Vec<&str> = has.map(String::as_str).collect();
    if let Some(column) = names.iter().find(|name| !has.contains(name)) {
        return Err(ColumnsError::Missing {
            path: path.to_owned(),
            column: (*column).to_owned(),
            has: has.join(", "),
        });
    }
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
        let column =
            |name: &str, wanted: &DataType| converted(path, &batch[name], name, row, wanted);
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
pub fn converted(
    path: &Path,
    column: &ArrayRef,
    name: &str,
    row: usize,
    wanted: &DataType,
) -> Result<ArrayRef, ColumnsError> {
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
    #[error("{}: there is no column `{column}`; it has: {has}", path.display())]
    Missing {
        path: PathBuf,
        column: String,
        has: String,
    },
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, LargeStringArray, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn read_table(columns: Vec<(&str, ArrayRef)>) -> Result<Columns, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(n, c)| (n, c, true)),
        )
        .unwrap();
        let mut writer =
            ArrowWriter::try_new(file.reopen().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let name = file.path().display().to_string();
        read(file.path(), "query_id", "doc_id", Some("relevance"))
            .map_err(|e| e.to_string().replace(&name, "FILE"))
    }

    fn integers(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    #[test]
    fn ids_may_be_strings_or_integers_in_any_order_of_columns() {
        let docs: ArrayRef = Arc::new(LargeStringArray::from(vec!["x", "y"]));
        let ones = integers(&[Some(1), Some(-1)]);
        let columns = read_table(vec![
            ("relevance", ones),
            ("doc_id", docs),
            ("query_id", integers(&[Some(7), Some(8)])),
        ])
        .unwrap();
        assert_eq!(columns.first, ["7", "8"]);
        assert_eq!(columns.second, ["x", "y"]);
        assert_eq!(columns.integers, [1, -1]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let ones = integers(&[Some(1), Some(1)]);
        let table = |relevance: ArrayRef| {
            vec![
                ("query_id", texts.clone()),
                ("doc_id", texts.clone()),
                ("relevance", relevance),
            ]
        };
        let errors = [
            (
                vec![("query_id", texts.clone()), ("relevance", ones)],
                "FILE: there is no column `doc_id`; it has: query_id, relevance",
            ),
            (
                table(texts.clone()),
                "FILE: column `relevance` holds Utf8, but needs integers",
            ),
            (
                table(integers(&[Some(1), None])),
                "FILE: column `relevance` is null in row 1 (counted from 0)",
            ),
        ];
        for (columns, error) in errors {
            assert_eq!(read_table(columns).err().unwrap(), error);
        }
    }
}
