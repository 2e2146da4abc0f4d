//! `aquifer.v1.Aquifer`: what the Unix socket serves in JSON. Requests are put into its words and answered by it, so that
//! every bound and every complaint is the same.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use serde::Serialize;
use tonic::{Request, Response, Status};

use super::conversation::Conversation;
use super::convert;
use crate::daemon::api;
use crate::daemon::engine::{Binding, Engine};
use crate::daemon::proto::aquifer::v1 as proto;
use crate::daemon::proto::aquifer::v1::{aquifer_server::Aquifer, settle_request::End};
use crate::daemon::sidecar::{Caller, Sidecar};
use crate::protocol::permit::PermitId;

/// How often a permit is looked at whose stream is open.
const HOLD_LOOK: Duration = Duration::from_millis(500);
const INTERVAL_DEFAULT: u64 = 1_000;
const INTERVAL: std::ops::RangeInclusive<u64> = 100..=3_600_000;

/// The service for one connection.
pub struct Own {
    sidecar: Sidecar,
    caller: Caller,
    conversation: Arc<Conversation>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Own {
    /// For this caller.
    pub fn new(sidecar: Sidecar, caller: Caller, conversation: Arc<Conversation>) -> Self {
        Self { sidecar, caller, conversation }
    }

    async fn ask(
        &self,
        request: &api::AcquireRequest,
        caller: &Caller,
    ) -> Result<api::AcquireAnswer, Status> {
        let answer = self.sidecar.acquired(&json(request), caller).await;
        answer.map_err(|problem| convert::status(&problem))
    }
}

#[tonic::async_trait]
impl Aquifer for Own {
    async fn acquire(
        &self,
        request: Request<proto::AcquireRequest>,
    ) -> Result<Response<proto::AcquireReply>, Status> {
        let request = convert::acquire(request.into_inner())?;
        let answer = self.ask(&request, &self.caller).await?;
        Ok(Response::new(convert::acquired(answer)))
    }

    async fn settle(
        &self,
        request: Request<proto::SettleRequest>,
    ) -> Result<Response<proto::SettleReply>, Status> {
        let proto::SettleRequest { permit, end } = request.into_inner();
        let settled = match end {
            Some(End::Commit(used)) => {
                let body = json(&convert::used(used));
                self.sidecar.committed(&permit, &body, &self.caller)
            }
            Some(End::Release(_)) => self.sidecar.released(&permit, b"", &self.caller),
            None => return Err(Status::invalid_argument("end: say commit or release")),
        };
        let settled = settled.map_err(|problem| convert::status(&problem))?;
        let api::SettleAnswer { refunded, debt, ended, repeated } = settled;
        Ok(Response::new(proto::SettleReply { refunded, debt, ended, repeated }))
    }

    type HoldStream = Replies<proto::AcquireReply>;

    async fn hold(
        &self,
        request: Request<proto::AcquireRequest>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let mut request = convert::acquire(request.into_inner())?;
        request.bind = Some(api::Bind::Connection);
        let answering = self.conversation.answering();
        // The permit ends with the stream, wherever that is when it is dropped.
        let binding = Binding::new(self.sidecar.engine());
        let caller = Caller { bound: binding.name(), ..self.caller.clone() };
        let answer = self.ask(&request, &caller).await?;
        let permit: Option<PermitId> = answer.permit.as_deref().and_then(|permit| permit.parse().ok());
        let state = (self.sidecar.engine().clone(), Some(answer), (binding, answering));
        let stream = stream::unfold(state, move |(engine, answer, guards)| async move {
            if let Some(answer) = answer {
                return Some((Ok(convert::acquired(answer)), (engine, None, guards)));
            }
            if let Some(permit) = permit {
                while is_live(&engine, permit) {
                    tokio::time::sleep(HOLD_LOOK).await;
                }
            }
            None
        });
        Ok(Response::new(Box::pin(stream)))
    }

    type WatchStatusStream = Replies<proto::Status>;

    async fn watch_status(
        &self,
        request: Request<proto::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let interval = request.get_ref().interval_ms.unwrap_or(INTERVAL_DEFAULT);
        if !INTERVAL.contains(&interval) {
            let (least, most) = (INTERVAL.start(), INTERVAL.end());
            let detail =
                format!("interval_ms: must be a whole number from {least} to {most}, not {interval}");
            return Err(Status::invalid_argument(detail));
        }
        let interval = Duration::from_millis(interval);
        let state = (self.sidecar.clone(), self.conversation.answering(), Duration::ZERO);
        let stream = stream::unfold(state, move |(sidecar, answering, wait)| async move {
            tokio::time::sleep(wait).await;
            let status = convert::node_status(sidecar.status());
            Some((Ok(status), (sidecar, answering, interval)))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn is_live(engine: &Engine, permit: PermitId) -> bool {
    engine.look(|node, _| node.permit_pools(permit).is_some())
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("BUG! a body that is no JSON")
}
