//! Joins whose sides grow with the corpus.

use std::sync::Arc;

use datafusion::{
    arrow::compute::SortOptions,
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    config::ConfigOptions,
    error::Result,
    execution::SessionStateBuilder,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        joins::{HashJoinExec, SortMergeJoinExec},
    },
    prelude::SessionContext,
};

/// Rows at once: several sorts share the memory, and each must hold some batches of the longest rows.
const ROWS: usize = 128;

/// Memory that each sort keeps for merging what it has spilled.
const MERGE_BYTES: usize = 1 << 20;

/// A session with the memory and the folder of `ctx` whose joins spill. They lose the order of rows, so a statement
/// must name one.
pub fn joins(ctx: &SessionContext) -> SessionContext {
    let state = ctx.state();
    let mut rules = state.physical_optimizers().to_vec();
    rules.insert(0, Arc::new(SortedJoins));
    let config = ctx
        .copied_config()
        .with_batch_size(ROWS)
        .with_sort_spill_reservation_bytes(MERGE_BYTES);
    let state = SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .with_physical_optimizer_rules(rules)
        .build();
    SessionContext::new_with_state(state)
}

/// Makes every join a merge of sorted sides. DataFusion 55 plans those for several partitions only, which would double
/// the sorts that share the memory; in one partition it plans hash joins, which hold a side whole, whatever
/// `prefer_hash_join` says.
#[derive(Debug)]
struct SortedJoins;

impl PhysicalOptimizerRule for SortedJoins {
    fn name(&self) -> &str {
        "sorted_joins"
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
