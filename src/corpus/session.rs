//! The DataFusion session that all stages share: one partition, so that rows keep their order, and bounded
//! memory with a folder to spill to.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionConfig, SessionContext};
use url::Url;

use crate::job::spec::Engine;

const VIEW_TYPES: &str = "datafusion.execution.parquet.schema_force_view_types";

/// A session that uses at most `engine.memory_mib` before it spills into the folder `spill`, made if absent.
pub fn session(engine: &Engine, spill: &Path) -> Result<SessionContext> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_path_buf()]));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(engine.memory_mib << 20)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(|error| {
            let folder = spill.display();
            error.context(format!("nothing can be spilled to {folder} (engine.spill)"))
        })?;
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(1024)
        // The stages work on plain string arrays.
        .set_bool(VIEW_TYPES, false);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// The rows of Parquet files for which `condition` holds, in memory; strings are plain arrays.
pub async fn select(path: &Path, condition: Expr, columns: &[&str]) -> Result<Vec<RecordBatch>> {
    let config = SessionConfig::new().set_bool(VIEW_TYPES, false);
    let context = SessionContext::new_with_config(config);
    let folder = url(path)?;
    let frame = context
        .read_parquet(folder.as_str(), ParquetReadOptions::default())
        .await?;
    let frame = frame.filter(condition)?.select_columns(columns)?;
    frame.collect().await
}

/// A file or folder for DataFusion, to which `[`, `*` and `?` in a path as such stand for other characters.
pub fn url(path: &Path) -> Result<Url> {
    let path = std::path::absolute(path)?;
    let url = match path.is_dir() {
        true => Url::from_directory_path(&path),
        false => Url::from_file_path(&path),
    };
    url.map_err(|()| {
        DataFusionError::Execution(format!("{} cannot be written as a URL", path.display()))
    })
}
