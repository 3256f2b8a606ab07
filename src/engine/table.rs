//! Parquet files as tables of the session.

use std::path::Path;

use datafusion::{
    error::DataFusionError,
    logical_expr::SortExpr,
    prelude::{ParquetReadOptions, SessionContext, ident},
};

use crate::corpus;

/// Makes a part, or all parts of a dataset's folder, the table of this name, in place of an earlier one. Its rows are
/// known to be in the order of these columns, nulls first.
pub async fn register(
    ctx: &SessionContext,
    name: &str,
    path: &Path,
    order: &[&str],
) -> Result<(), DataFusionError> {
    ctx.deregister_table(name)?;
    let order: Vec<SortExpr> = order.iter().map(|c| ident(*c).sort(true, true)).collect();
    let options = ParquetReadOptions::default().file_sort_order(match order.is_empty() {
        true => Vec::new(),
        false => vec![order],
    });
    ctx.register_parquet(name, corpus::url(path)?.as_str(), options)
        .await
}
