//! Parquet files as tables of the session.

use std::path::Path;

use datafusion::{
    error::DataFusionError,
    prelude::{ParquetReadOptions, SessionContext},
};

/// Makes a part, or all parts of a dataset's folder, the table of this name, in place of an earlier one.
pub async fn register(
    ctx: &SessionContext,
    name: &str,
    path: &Path,
) -> Result<(), DataFusionError> {
    ctx.deregister_table(name)?;
    ctx.register_parquet(name, path.to_string_lossy(), ParquetReadOptions::default())
        .await
}
