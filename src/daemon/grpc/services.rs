//! The services of one connection, found by their names.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};
use tonic_health::pb::health_server::{self, HealthServer};

use super::conversation::Conversation;
use super::health::Health;
use super::own::Own;
use crate::daemon::proto::DESCRIPTORS;
use crate::daemon::proto::aquifer::v1::aquifer_server::{self, AquiferServer};
use crate::daemon::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    self, RateLimitService, RateLimitServiceServer,
};
use crate::daemon::rls::{RateLimitRequest, RateLimitResponse, Rls};
use crate::daemon::sidecar::{Caller, Sidecar};

/// The longest message of a request.
const MESSAGE_MAX: usize = 64 * 1024;

/// What is served to one connection.
pub struct Services {
    rls: RateLimitServiceServer<Envoy>,
    own: AquiferServer<Own>,
    health: HealthServer<Health>,
    reflection: Reflection,
}

impl Services {
    /// For this caller.
    pub fn new(
        sidecar: &Sidecar,
        caller: &Caller,
        conversation: &Arc<Conversation>,
        reflection: &Reflection,
    ) -> Self {
        let own = Own::new(sidecar.clone(), caller.clone(), conversation.clone());
        let health = Health::new(sidecar.engine().clone(), conversation.clone());
        Self {
            rls: RateLimitServiceServer::new(Envoy { rls: sidecar.rls().clone(), user: caller.peer.uid })
                .max_decoding_message_size(MESSAGE_MAX),
            own: AquiferServer::new(own).max_decoding_message_size(MESSAGE_MAX),
            health: HealthServer::new(health).max_decoding_message_size(MESSAGE_MAX),
            reflection: reflection.clone(),
        }
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let Ok(response) = match service.map_or("", |(service, _)| service) {
            rate_limit_service_server::SERVICE_NAME => self.rls.clone().call(request).await,
            aquifer_server::SERVICE_NAME => self.own.clone().call(request).await,
            health_server::SERVICE_NAME => self.health.clone().call(request).await,
            "grpc.reflection.v1.ServerReflection" => (self.reflection.v1)(request).await,
            "grpc.reflection.v1alpha.ServerReflection" => (self.reflection.v1alpha)(request).await,
            _ => Ok(Status::new(Code::Unimplemented, "there is no such service").into_http()),
        };
        response
    }
}

/// Envoy's service as tonic wants it.
struct Envoy {
    rls: Rls,
    user: u32,
}

#[tonic::async_trait]
impl RateLimitService for Envoy {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<tonic::Response<RateLimitResponse>, Status> {
        let answer = self.rls.should_rate_limit(request.get_ref(), self.user).await;
        answer.map(tonic::Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// Tells clients which services there are. Old clients know the first version only.
#[derive(Clone)]
pub struct Reflection {
    v1: Handler,
    v1alpha: Handler,
}

type Handler =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<Response<Body>, std::convert::Infallible> + Send + Sync>;

impl Reflection {
    /// Of all services.
    pub fn new() -> Self {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = builder().build_v1().expect("BUG! the descriptors were compiled with the program");
        let v1alpha = builder().build_v1alpha().expect("BUG! the descriptors were compiled with the program");
        Self {
            v1: Arc::new(move |request| v1.clone().call(request)),
            v1alpha: Arc::new(move |request| v1alpha.clone().call(request)),
        }
    }
}
