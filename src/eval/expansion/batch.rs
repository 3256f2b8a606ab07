//! The rows of a dataset of a generation.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};

use super::ExpansionError;
use crate::search::columns::{ColumnsError, converted};
use crate::store::dataset::{parts, read_part};

/// Some rows of a part.
pub struct Batch<'a> {
    pub path: &'a Path,
    /// The first row's number in the part.
    first: usize,
    pub rows: RecordBatch,
}

/// Visits the rows of the parts of `dataset` in order; it must have some.
pub fn each(
    dataset: &Path,
    mut visit: impl FnMut(&Batch) -> Result<(), ExpansionError>,
) -> Result<(), ExpansionError> {
    let mut rows_seen = 0;
    for path in parts(dataset)? {
        let mut first = 0;
        for rows in read_part(&path)? {
            let rows = rows.map_err(|error| ColumnsError::Unreadable {
                path: path.clone(),
                message: error.to_string(),
            })?;
            let batch = Batch {
                path: &path,
                first,
                rows,
            };
            visit(&batch)?;
            first += batch.rows.num_rows();
        }
        rows_seen += first;
    }
    match rows_seen {
        0 => Err(ExpansionError::NoRows(dataset.to_owned())),
        _ => Ok(()),
    }
}

impl Batch<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef, ColumnsError> {
        let fields = || self.rows.schema_ref().fields().iter();
        let missing = || ColumnsError::Missing {
            path: self.path.to_owned(),
            column: name.to_owned(),
            has: fields()
                .map(|f| f.name().as_str())
                .collect::<Vec<_>>()
                .join(", "),
        };
        self.rows.column_by_name(name).ok_or_else(missing)
    }

    pub fn texts(&self, name: &str) -> Result<StringArray, ColumnsError> {
        let column = self.column(name)?;
        let texts = converted(self.path, column, name, self.first, &DataType::Utf8)?;
        Ok(texts.as_string().clone())
    }

    pub fn text(&self, name: &str, row: usize) -> Result<String, ColumnsError> {
        let text = self.value(name, row, &DataType::Utf8)?;
        Ok(text.as_string::<i32>().value(0).to_owned())
    }

    pub fn integer(&self, name: &str, row: usize) -> Result<i64, ColumnsError> {
        let integer = self.value(name, row, &DataType::Int64)?;
        Ok(integer.as_primitive::<Int64Type>().value(0))
    }

    /// None where it is null or there is no such column.
    pub fn text_or_null(&self, name: &str, row: usize) -> Result<Option<String>, ColumnsError> {
        let column = self.rows.column_by_name(name);
        match column.is_some_and(|column| column.is_valid(row)) {
            true => self.text(name, row).map(Some),
            false => Ok(None),
        }
    }

    fn value(&self, name: &str, row: usize, kind: &DataType) -> Result<ArrayRef, ColumnsError> {
        let value = self.column(name)?.slice(row, 1);
        converted(self.path, &value, name, self.first + row, kind)
    }

    /// A vector of a fixed number of single or half precision floats in every row; that number, and all of them.
    pub fn vectors(&self, name: &str) -> Result<(usize, Vec<f32>), ColumnsError> {
        let column = self.column(name)?;
        let wrong = || ColumnsError::Type {
            path: self.path.to_owned(),
            column: name.to_owned(),
            found: column.data_type().to_string(),
            wanted: "lists of a fixed number of floats, none of them null",
        };
        let lists = column.as_fixed_size_list_opt().ok_or_else(wrong)?;
        // Of a slice, the values are those of the whole.
        let dim = lists.value_length() as usize;
        let values = lists
            .values()
            .slice(lists.offset() * dim, lists.len() * dim);
        if !values.data_type().is_floating() || lists.null_count() + values.null_count() > 0 {
            return Err(wrong());
        }
        let values = cast(&values, &DataType::Float32).map_err(|_| wrong())?;
        let values = values.as_primitive::<Float32Type>();
        Ok((dim, values.values().to_vec()))
    }
}
