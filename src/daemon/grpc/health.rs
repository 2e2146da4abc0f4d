//! `grpc.health.v1`: whether this node answers, as `GET /readyz` says it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::conversation::Conversation;
use crate::daemon::engine::Engine;
use crate::daemon::proto::aquifer::v1::aquifer_server;
use crate::daemon::proto::envoy::service::ratelimit::v3::rate_limit_service_server;
use crate::protocol::node::Phase;

/// How often a watcher is told of a change, if there is one.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// The services that can be asked for; none stands for all.
const SERVICES: [&str; 3] = ["", aquifer_server::SERVICE_NAME, rate_limit_service_server::SERVICE_NAME];

/// The health of this node.
pub struct Health {
    engine: Engine,
    conversation: Arc<Conversation>,
}

impl Health {
    /// Of the node of this engine.
    pub fn new(engine: Engine, conversation: Arc<Conversation>) -> Self {
        Self { engine, conversation }
    }
}

fn status(engine: &Engine) -> ServingStatus {
    match engine.look(|node, _| node.phase()) {
        Phase::Ready => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if SERVICES.contains(&request.get_ref().service.as_str()) {
            return Ok(Response::new(response(status(&self.engine))));
        }
        Err(Status::not_found("there is no such service"))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let state = (self.engine.clone(), self.conversation.answering(), None);
        let changes = stream::unfold(state, move |(engine, answering, last)| async move {
            loop {
                let now = if known { status(&engine) } else { ServingStatus::ServiceUnknown };
                if last != Some(now) {
                    return Some((Ok(response(now)), (engine, answering, Some(now))));
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
