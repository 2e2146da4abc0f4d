//! A [tower](https://docs.rs/tower) layer: asks for a permit before each call of a service.
//!
//! ```no_run
//! use aquifer::api::{AcquireRequest, CommitRequest};
//! use aquifer::client::{Client, PermitLayer, default_socket};
//! # use tower_layer::Layer;
//! # struct Prompt { text: String }
//! # struct Reply { tokens: u64 }
//! # fn provider<S>(inner: S) -> impl tower_service::Service<Prompt>
//! # where S: tower_service::Service<Prompt, Response = Reply> + Clone + Send + 'static, S::Future: Send, S::Error: Send {
//!
//! let client = Client::new(default_socket());
//! PermitLayer::new(client, |prompt: &Prompt| {
//!     AcquireRequest::new("anthropic/sonnet").tokens(prompt.text.len() as u64 / 3 + 800)
//! })
//! .used(|reply: &Reply| CommitRequest::default().tokens(reply.tokens))
//! .layer(inner)
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use thiserror::Error;
use tower_layer::Layer;
use tower_service::Service;

use super::{Client, ClientError};
use crate::api::{AcquireRequest, CommitRequest};

type Cost<R> = Arc<dyn Fn(&R) -> AcquireRequest + Send + Sync>;
type Used<A> = Arc<dyn Fn(&A) -> CommitRequest + Send + Sync>;

/// Wraps services of requests `R` and responses `A` in [`Permitted`].
pub struct PermitLayer<R, A> {
    client: Client,
    cost: Cost<R>,
    used: Used<A>,
}

/// A service that asks for a permit before each call.
///
/// It is ready when the inner service is: nothing is reserved before a call is there. The call then waits for its permit as
/// its [`AcquireRequest`] says, and is not made if it is refused. Afterwards what it used is committed; after an error of
/// the inner service that is what was reserved, for the provider may have counted the call. So it is when the future is
/// dropped. That committing fails is not an error of the call: what was reserved counts as used then.
pub struct Permitted<S, R, A> {
    inner: S,
    client: Client,
    cost: Cost<R>,
    used: Used<A>,
    requests: PhantomData<fn(R) -> A>,
}

/// Why a call has no response.
#[derive(Debug, Error)]
pub enum PermitError<E> {
    /// It was not made: [`ClientError::Limited`] if it was refused, and else why nobody could be asked.
    #[error(transparent)]
    Permit(ClientError),
    /// It was made and failed.
    #[error("{0}")]
    Call(E),
}

impl<R, A> PermitLayer<R, A> {
    /// A layer that asks for what `cost` says of each request.
    pub fn new(client: Client, cost: impl Fn(&R) -> AcquireRequest + Send + Sync + 'static) -> Self {
        Self { client, cost: Arc::new(cost), used: Arc::new(|_| CommitRequest::default()) }
    }

    /// Takes what was really used from each response; as much as was reserved unless said.
    #[must_use]
    pub fn used(self, used: impl Fn(&A) -> CommitRequest + Send + Sync + 'static) -> Self {
        Self { used: Arc::new(used), ..self }
    }
}

impl<S, R, A> Layer<S> for PermitLayer<R, A> {
    type Service = Permitted<S, R, A>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { client, cost, used } = self.clone();
        Permitted { inner, client, cost, used, requests: PhantomData }
    }
}

impl<S, R> Service<R> for Permitted<S, R, S::Response>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    S::Error: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = PermitError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(PermitError::Call)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The one that is ready makes the call; a clone need not be.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let (client, used, ask) = (self.client.clone(), self.used.clone(), (self.cost)(&request));
        Box::pin(async move {
            let permit = client.permit(&ask).await.map_err(PermitError::Permit)?;
            let response = inner.call(request).await.map_err(PermitError::Call)?;
            // What cannot be told counts as used.
            let _ = permit.commit(&used(&response)).await;
            Ok(response)
        })
    }
}

impl<R, A> Clone for PermitLayer<R, A> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), cost: self.cost.clone(), used: self.used.clone() }
    }
}

impl<S: Clone, R, A> Clone for Permitted<S, R, A> {
    fn clone(&self) -> Self {
        let Self { inner, client, cost, used, requests } = self;
        Self {
            inner: inner.clone(),
            client: client.clone(),
            cost: cost.clone(),
            used: used.clone(),
            requests: *requests,
        }
    }
}

impl<R, A> fmt::Debug for PermitLayer<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PermitLayer").field("client", &self.client).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R, A> fmt::Debug for Permitted<S, R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permitted")
            .field("inner", &self.inner)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
