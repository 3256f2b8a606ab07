//! The scheduler's process: Ballista's own, with plans that hold our nodes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ballista_core::{
    error::BallistaError, serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer,
};
use ballista_scheduler::{
    cluster::BallistaCluster, config::SchedulerConfig, scheduler_process::create_scheduler,
};
use tonic::transport::Server;

use super::{
    MESSAGE_BYTES,
    codec::Codec,
    executor::HEARTBEAT_SECONDS,
    service::{JobIds, Service},
};

/// An executor that has not been heard of for so long is given up, and its tasks go to others.
const LOST_AFTER_SECONDS: u64 = 3 * HEARTBEAT_SECONDS;

/// Serves until the process is ended. `host` is the name that executors and builds reach it by.
pub async fn serve(address: SocketAddr, host: String) -> Result<(), BallistaError> {
    let config = Arc::new(config(address, host));
    let cluster = BallistaCluster::new_from_config(&config).await?;
    let scheduler = create_scheduler(cluster, config).await?;
    let bytes = MESSAGE_BYTES as usize;
    let service = SchedulerGrpcServer::new(Service(Arc::new(scheduler)))
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes);
    // A build that is cut off closes nothing.
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(HEARTBEAT_SECONDS)))
        .http2_keepalive_timeout(Some(Duration::from_secs(LOST_AFTER_SECONDS)));
    let served = { server }.add_service(service).serve(address).await;
    served.map_err(BallistaError::TonicError)
}

fn config(address: SocketAddr, host: String) -> SchedulerConfig {
    SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: host,
        override_physical_codec: Some(Arc::new(Codec::default())),
        job_id_generator: Some(Arc::new(JobIds)),
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
    }
}
