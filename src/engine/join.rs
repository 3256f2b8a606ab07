//! Joins whose sides grow with the corpus: each side is sorted into a file, one after the other, and the files merged.
//!
//! A sort that has spilled takes for its merge all the memory that there is, so two at once can starve each other. A
//! statement here sorts once, at its end, and reads tables that are already in the order it joins them by.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::{
    arrow::compute::SortOptions,
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, SessionStateBuilder},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, displayable, execute_stream,
        joins::{HashJoinExec, SortMergeJoinExec},
        sorts::sort::SortExec,
    },
    prelude::SessionContext,
};
use futures::StreamExt;

use super::{EngineError, table};
use crate::store::{StoreError, dataset::PartWriter};

/// Rows at once: a sort must hold some batches of the longest rows.
const ROWS: usize = 128;

/// Memory that a sort keeps for merging what it has in memory, so that it can spill it.
const MERGE_BYTES: usize = 1 << 20;

/// A session for joins, and the folder that holds what is sorted for them.
pub struct Joins {
    ctx: SessionContext,
    folder: PathBuf,
    /// What the joins are for, in errors.
    what: String,
}

impl Joins {
    /// With the memory and the functions of `ctx`. The folder is made if it is absent, and is the caller's to remove.
    pub fn new(
        ctx: &SessionContext,
        folder: &Path,
        what: impl Into<String>,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        let state = ctx.state();
        let mut rules = state.physical_optimizers().to_vec();
        rules.insert(0, Arc::new(Merged));
        let config = ctx
            .copied_config()
            .with_batch_size(ROWS)
            // Else the rows of each earlier build are sorted by themselves, at once.
            .with_repartition_sorts(false)
            .with_sort_spill_reservation_bytes(MERGE_BYTES);
        let state = SessionStateBuilder::new_from_existing(state)
            .with_config(config)
            .with_physical_optimizer_rules(rules)
            .build();
        Ok(Self {
            ctx: SessionContext::new_with_state(state),
            folder: folder.to_owned(),
            what: what.into(),
        })
    }

    /// Where a table that this session sorts, or that its caller writes, lies.
    pub fn path(&self, table: &str) -> PathBuf {
        self.folder.join(format!("{table}.parquet"))
    }

    /// Makes a Parquet file, or all files of a folder, the table of this name.
    pub async fn register(&self, table: &str, path: &Path) -> Result<(), EngineError> {
        let registered = table::register(&self.ctx, table, path, &[]).await;
        registered.map_err(self.failed())
    }

    /// Writes the rows of a statement in the order of these columns, nulls first, as the table of this name.
    pub async fn sort(&self, table: &str, rows: &str, order: &[&str]) -> Result<(), EngineError> {
        let columns: Vec<String> = order.iter().map(|c| format!("{c} NULLS FIRST")).collect();
        let sql = format!("SELECT * FROM ({rows}) ORDER BY {}", columns.join(", "));
        let mut sorted = self.stream(&sql).await?;
        let path = self.path(table);
        let mut writer = PartWriter::scratch(&path, sorted.schema())?;
        while let Some(batch) = sorted.next().await {
            writer.write(&batch.map_err(self.failed())?)?;
        }
        writer.finish()?;
        let registered = table::register(&self.ctx, table, &path, order).await;
        registered.map_err(self.failed())
    }

    /// The rows of a statement.
    pub async fn stream(&self, sql: &str) -> Result<SendableRecordBatchStream, EngineError> {
        let frame = self.ctx.sql(sql).await.map_err(self.failed())?;
        let plan = frame.create_physical_plan().await.map_err(self.failed())?;
        debug_assert!(
            count::<SortExec>(plan.as_ref()) <= 1 && count::<HashJoinExec>(plan.as_ref()) == 0,
            "{}",
            displayable(plan.as_ref()).indent(false)
        );
        execute_stream(plan, self.ctx.task_ctx()).map_err(self.failed())
    }

    /// Forgets tables that lie in the folder, and frees their room.
    pub fn remove(&self, tables: &[&str]) -> Result<(), EngineError> {
        for table in tables {
            self.ctx.deregister_table(*table).map_err(self.failed())?;
            let path = self.path(table);
            fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
        Ok(())
    }

    pub fn failed(&self) -> impl Fn(DataFusionError) -> EngineError {
        EngineError::during(&self.what)
    }
}

/// How many of a plan's nodes are of this kind.
fn count<Node: ExecutionPlan>(plan: &dyn ExecutionPlan) -> usize {
    let children = plan.children();
    let below: usize = children.iter().map(|p| count::<Node>(p.as_ref())).sum();
    below + usize::from(plan.downcast_ref::<Node>().is_some())
}

/// Makes every join a merge of sorted sides. DataFusion 55 plans those for several partitions only; in one partition
/// it plans hash joins, which hold a side whole and cannot spill it, whatever `prefer_hash_join` says.
#[derive(Debug)]
struct Merged;

impl PhysicalOptimizerRule for Merged {
    fn name(&self) -> &str {
        "merged_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let merged = |plan: Arc<dyn ExecutionPlan>| {
            let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            let sorted = SortMergeJoinExec::try_new(
                join.left().clone(),
                join.right().clone(),
                join.on().to_vec(),
                join.filter().cloned(),
                *join.join_type(),
                vec![SortOptions::default(); join.on().len()],
                join.null_equality(),
            )?;
            Ok(Transformed::yes(Arc::new(sorted) as Arc<dyn ExecutionPlan>))
        };
        plan.transform_up(merged).data()
    }
}
