//! The requests of one connection, which run on its task.
//!
//! Hyper hands each request of a connection to an executor. With a task for each, a request that is answered at once costs
//! three turns of the runtime: the connection's, its own, and the connection's again to send what was answered. Here it is
//! one; whatever waits is woken by itself all the same.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;

/// Requests that are being answered.
#[derive(Default)]
pub struct Streams {
    running: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    begun: Begun,
}

/// Where the connection leaves those that begin.
#[derive(Clone, Default)]
pub struct Begun(Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>);

impl Streams {
    /// What the connection begins requests with.
    pub fn executor(&self) -> Begun {
        self.begun.clone()
    }

    /// Drives the connection and its requests until the connection ends; a request that is not answered by then never is.
    pub async fn run<C: Future>(&mut self, mut connection: Pin<&mut C>) -> C::Output {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                // What was answered is to be sent.
                if !self.have_answered(cx) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn have_answered(&mut self, cx: &mut Context<'_>) -> bool {
        self.running.extend(self.begun.0.borrow_mut().drain(..));
        let mut some = false;
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
            some = true;
        }
        some
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Begun {
    fn execute(&self, future: F) {
        self.0.borrow_mut().push(Box::pin(future));
    }
}
