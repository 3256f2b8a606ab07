//! The corpus as a DataFusion table: its columns, and three of ours that say where a row came from.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use super::files::CorpusFile;
use super::reader::Reader;

/// Index of the row's file (UInt32).
pub const FILE: &str = "__file";
/// The row's place in its file, from 1 (UInt64).
pub const ROW: &str = "__row";
/// Name of the first column read whose bytes are not UTF-8 in this row (Utf8), else null.
pub const INVALID: &str = "__invalid";

/// All files of a corpus as one table with one partition: files in order, rows in file order.
#[derive(Debug)]
pub struct CorpusTable {
    files: Arc<[CorpusFile]>,
    schema: SchemaRef,
}

impl CorpusTable {
    /// `columns` are the files' columns as shown.
    pub fn new(files: Arc<[CorpusFile]>, columns: &Schema) -> Self {
        let own = [
            Field::new(FILE, DataType::UInt32, false),
            Field::new(ROW, DataType::UInt64, false),
            Field::new(INVALID, DataType::Utf8, true),
        ];
        let fields = columns.fields().iter().cloned();
        let fields: Vec<_> = fields.chain(own.map(Arc::new)).collect();
        Self {
            files,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

#[async_trait]
impl TableProvider for CorpusTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters are applied while reading: a plan's own filter gathers rows by number, whatever their length.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let output = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let filter = conjunction(filters.to_vec());
        let read = Arc::new(
            self.schema
                .project(&self.read_columns(&output, filter.as_ref()))?,
        );
        let filter = match filter {
            Some(filter) => {
                let schema = DFSchema::try_from(read.clone())?;
                Some(state.create_physical_expr(filter, &schema)?)
            }
            None => None,
        };
        let partition = Partition {
            files: self.files.clone(),
            read,
            filter,
            output: output.clone(),
        };
        let exec =
            StreamingTableExec::try_new(output, vec![Arc::new(partition)], None, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

impl CorpusTable {
    /// The columns to read: those wanted, those the filter looks at, and ours.
    fn read_columns(&self, output: &Schema, filter: Option<&Expr>) -> Vec<usize> {
        let filtered = filter.map(Expr::column_refs).unwrap_or_default();
        let wanted = |name: &str| {
            [FILE, ROW, INVALID].contains(&name)
                || output.field_with_name(name).is_ok()
                || filtered.iter().any(|column| column.name == name)
        };
        let fields = self.schema.fields().iter().enumerate();
        fields
            .filter(|(_, field)| wanted(field.name()))
            .map(|(i, _)| i)
            .collect()
    }
}

struct Partition {
    files: Arc<[CorpusFile]>,
    read: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "corpus of {} files", self.files.len())
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.output
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = Reader::new(
            self.files.clone(),
            self.read.clone(),
            self.filter.clone(),
            self.output.clone(),
        );
        let stream = futures::stream::iter(reader);
        Box::pin(RecordBatchStreamAdapter::new(self.output.clone(), stream))
    }
}
