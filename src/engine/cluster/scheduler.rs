//! The scheduler's process: Ballista's own, with plans that hold our nodes.

use std::{net::SocketAddr, sync::Arc};

use ballista_core::error::BallistaError;
use ballista_scheduler::{
    cluster::BallistaCluster, config::SchedulerConfig, scheduler_process::start_server,
};

use super::{MESSAGE_BYTES, codec::Codec, executor::HEARTBEAT_SECONDS};

/// An executor that has not been heard of for so long is given up, and its tasks go to others.
const LOST_AFTER_SECONDS: u64 = 3 * HEARTBEAT_SECONDS;

/// Serves until the process is ended. `host` is the name that executors and builds reach it by.
pub async fn serve(address: SocketAddr, host: String) -> Result<(), BallistaError> {
    let config = SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: host,
        override_physical_codec: Some(Arc::new(Codec::default())),
        executor_timeout_seconds: LOST_AFTER_SECONDS,
        expire_dead_executor_interval_seconds: HEARTBEAT_SECONDS / 2,
        no_executors_grace_period_seconds: 10 * LOST_AFTER_SECONDS,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES,
        grpc_client_max_message_size: MESSAGE_BYTES,
        // The rows are in a part once a build has them.
        finished_job_data_clean_up_interval_seconds: 60,
        finished_job_state_clean_up_interval_seconds: 600,
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&config).await?;
    start_server(cluster, address, Arc::new(config)).await
}
