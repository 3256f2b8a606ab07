//! Where the functions of the map stages run: in this process, or on a cluster.

use datafusion::{
    error::DataFusionError,
    execution::SendableRecordBatchStream,
    prelude::{DataFrame, SessionContext},
};

#[cfg(feature = "cluster")]
use super::cluster::client::Cluster;
use super::{EngineError, stage::Input};
use crate::{job::Job, store::Building};

#[derive(Debug)]
pub enum Place {
    Here,
    #[cfg(feature = "cluster")]
    Cluster {
        cluster: Box<Cluster>,
        /// On their way at once.
        shards: usize,
    },
}

impl Place {
    /// Where a job wants its stages, for this generation.
    #[cfg(feature = "cluster")]
    pub fn of(job: &Job, building: &Building, ctx: &SessionContext) -> Result<Self, EngineError> {
        let Some(url) = &job.engine.cluster else {
            return Ok(Place::Here);
        };
        let generation = match building.sending() {
            Some(sending) => (building.folder(), Some(sending)),
            None => {
                let folder = building.folder().canonicalize();
                (folder.unwrap_or_else(|_| building.folder()), None)
            }
        };
        let cluster = Cluster::new(url, job, generation, ctx).map_err(EngineError::Refused)?;
        Ok(Place::Cluster {
            cluster: Box::new(cluster),
            shards: job.engine.cluster_shards,
        })
    }

    /// A job that wants a cluster has been refused when it was read.
    #[cfg(not(feature = "cluster"))]
    pub fn of(_: &Job, _: &Building, _: &SessionContext) -> Result<Self, EngineError> {
        Ok(Place::Here)
    }

    /// Here one at a time: a stage's function uses the whole machine.
    pub fn shards_at_once(&self) -> usize {
        match self {
            Place::Here => 1,
            #[cfg(feature = "cluster")]
            Place::Cluster { shards, .. } => *shards,
        }
    }

    /// The rows of a shard whose input this is.
    pub async fn stream(
        &self,
        frame: DataFrame,
        _input: &Input,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        match self {
            Place::Here => frame.execute_stream().await,
            #[cfg(feature = "cluster")]
            Place::Cluster { cluster, .. } => cluster.stream(frame, _input).await,
        }
    }

    /// Whether a shard that failed is worth another attempt after this one (from 1); waits for it.
    pub async fn sends_again(&self, _attempt: u32, _error: &EngineError) -> bool {
        match self {
            Place::Here => false,
            #[cfg(feature = "cluster")]
            Place::Cluster { cluster, .. } => cluster.sends_again(_attempt, _error).await,
        }
    }

    /// Whether functions tell the progress of this process, or only their rows do, when they come.
    pub fn tells_progress(&self) -> bool {
        matches!(self, Place::Here)
    }
}
