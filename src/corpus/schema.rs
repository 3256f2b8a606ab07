//! The columns of a corpus, read from every file's footer before the first row is.
//!
//! Parquet readers refuse a whole file for one string that is not UTF-8. So string columns are read as bytes:
//! the file's schema is given to the reader without its string annotations, and rows are judged one by one.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{ConvertedType, Type as Physical};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use super::CorpusError;
use super::error::{guarded, one_line};

/// How the strings of a column are stored; other columns pass untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// One string a row, whatever Arrow's width, view or dictionary.
    One,
    /// A list of strings a row.
    List,
}

/// What kind of strings a column of this type holds, if any.
pub fn strings(data_type: &DataType) -> Option<Strings> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Strings::One),
        DataType::Dictionary(_, value) if strings(value) == Some(Strings::One) => {
            Some(Strings::One)
        }
        DataType::List(item) | DataType::LargeList(item) => {
            (strings(item.data_type()) == Some(Strings::One)).then_some(Strings::List)
        }
        _ => None,
    }
}

/// The columns as the table shows them: all strings are Utf8, all nullable.
pub fn shown(schema: &Schema) -> Schema {
    let field = |field: &Arc<Field>| {
        let data_type = match strings(field.data_type()) {
            Some(Strings::One) => DataType::Utf8,
            Some(Strings::List) => string_list(),
            None => field.data_type().clone(),
        };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// A list of Utf8.
pub fn string_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// Reads a file's footer: its Arrow schema and everything needed to read it with strings as bytes.
pub fn open(
    path: &Path,
    file: &impl ChunkReader,
) -> Result<(SchemaRef, ArrowReaderMetadata), CorpusError> {
    guarded(|| read_footer(path, file)).unwrap_or_else(|| {
        Err(CorpusError::NotParquet {
            path: path.to_path_buf(),
            message: "its footer makes no sense".into(),
        })
    })
}

fn read_footer(
    path: &Path,
    file: &impl ChunkReader,
) -> Result<(SchemaRef, ArrowReaderMetadata), CorpusError> {
    let broken = |error: parquet::errors::ParquetError| CorpusError::NotParquet {
        path: path.to_path_buf(),
        message: one_line(&error),
    };
    let plain = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(broken)?;
    let schema = plain.schema().clone();
    let raw = raw_parquet(plain.parquet_schema(), &schema).map_err(broken)?;
    let options = ArrowReaderOptions::new()
        .with_parquet_schema(Arc::new(raw))
        .with_schema(raw_arrow(&schema));
    let bytes = ArrowReaderMetadata::load(file, options).map_err(broken)?;
    Ok((schema, bytes))
}

fn raw_arrow(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match strings(field.data_type()) {
        Some(_) => Arc::new(
            field
                .as_ref()
                .clone()
                .with_data_type(raw_type(field.data_type())),
        ),
        None => field.clone(),
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn raw_type(data_type: &DataType) -> DataType {
    let item = |field: &Field| Arc::new(field.clone().with_data_type(DataType::BinaryView));
    match data_type {
        DataType::List(field) => DataType::List(item(field)),
        DataType::LargeList(field) => DataType::LargeList(item(field)),
        _ => DataType::BinaryView,
    }
}

fn raw_parquet(
    descriptor: &SchemaDescriptor,
    schema: &Schema,
) -> parquet::errors::Result<SchemaDescriptor> {
    let root = descriptor.root_schema();
    let mut columns = Vec::with_capacity(root.get_fields().len());
    for (column, field) in root.get_fields().iter().zip(schema.fields()) {
        columns.push(match strings(field.data_type()) {
            Some(_) => without_annotation(column)?,
            None => column.clone(),
        });
    }
    let root = Type::group_type_builder(root.name())
        .with_fields(columns)
        .build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

/// The same type with its byte-array leaves no longer called strings.
fn without_annotation(node: &TypePtr) -> parquet::errors::Result<TypePtr> {
    let info = node.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if node.is_primitive() {
        if node.get_physical_type() != Physical::BYTE_ARRAY {
            return Ok(node.clone());
        }
        let leaf = Type::primitive_type_builder(node.name(), Physical::BYTE_ARRAY)
            .with_repetition(info.repetition())
            .with_converted_type(ConvertedType::NONE)
            .with_id(id);
        return Ok(Arc::new(leaf.build()?));
    }
    let fields = node.get_fields().iter().map(without_annotation);
    let group = Type::group_type_builder(node.name())
        .with_repetition(info.repetition())
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields.collect::<parquet::errors::Result<_>>()?)
        .with_id(id);
    Ok(Arc::new(group.build()?))
}

/// How `other` differs from `first`, both as shown; the order of columns does not matter, nor that one of them has
/// nothing but nulls in a column, and so no type for it.
pub fn difference(first: &Schema, other: &Schema) -> Option<String> {
    for field in first.fields() {
        match other.field_with_name(field.name()) {
            Err(_) => return Some(format!("it has no `{}`", field.name())),
            Ok(found) if !alike(field.data_type(), found.data_type()) => {
                return Some(format!(
                    "`{}` is {}, not {}",
                    field.name(),
                    found.data_type(),
                    field.data_type()
                ));
            }
            Ok(_) => {}
        }
    }
    let added = other
        .fields()
        .iter()
        .find(|field| first.field_with_name(field.name()).is_err());
    added.map(|field| format!("it has `{}` besides", field.name()))
}

fn alike(a: &DataType, b: &DataType) -> bool {
    a == b || a.is_null() || b.is_null()
}

/// `first`, with the types of `other` where it has none.
pub fn with_types_of(first: &Schema, other: &Schema) -> Schema {
    let field = |field: &Arc<Field>| match other.field_with_name(field.name()) {
        Ok(found) if field.data_type().is_null() => Arc::new(found.clone()),
        _ => field.clone(),
    };
    Schema::new(first.fields().iter().map(field).collect::<Vec<_>>())
}
