//! The clients of the library against a real daemon.
#![cfg(all(feature = "daemon", feature = "tower"))]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use aquifer::api::{AcquireRequest, CommitRequest, Priority, Reason, Status};
use aquifer::client::{Client, ClientError, PermitError, PermitLayer, blocking};
use process::{Daemon, PATIENCE, Setup, wait_until};
use tempfile::TempDir;
use tower_layer::Layer;
use tower_service::Service;

const MODEL: &str = "model:rph=10,tph=1000,max_concurrent=2";

fn founder(dir: &TempDir) -> Daemon {
    Setup::new(dir.path(), "n", &[MODEL]).start()
}

fn ask(tokens: u64) -> AcquireRequest {
    AcquireRequest::new("model").tokens(tokens).wait(Duration::ZERO).agent("a").priority(Priority::High)
}

/// Requests, tokens and slots that are left.
fn left(status: &Status) -> [u64; 3] {
    let limits: BTreeMap<_, _> =
        status.pools[0].limits.iter().map(|limit| (limit.now.name.as_str(), limit.now.remaining)).collect();
    [limits["rph"], limits["tph"], limits["max_concurrent"]]
}

#[tokio::test]
async fn permits_are_settled_or_count_as_used() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir);
    let client = Client::new(node.socket());
    let now = async || left(&client.status().await.unwrap());

    let permit = client.permit(&ask(500)).await.unwrap();
    assert!(permit.answer().permit.is_some());
    let settled = permit.commit(&CommitRequest::default().tokens(120)).await.unwrap();
    assert_eq!((settled.refunded["tph"], settled.ended.as_str()), (380, "committed"));
    assert_eq!(now().await, [9, 880, 2]);

    let settled = client.permit(&ask(80)).await.unwrap().release().await.unwrap();
    assert_eq!((settled.refunded["tph"], now().await), (80, [9, 880, 2]));

    let permit = client.permit(&ask(80)).await.unwrap();
    assert_eq!(now().await, [8, 800, 1]);
    drop(permit);
    let until = Instant::now() + PATIENCE;
    while now().await != [8, 800, 2] {
        assert!(Instant::now() < until, "its slot is free: {:?}", now().await);
    }

    let held = [client.permit(&ask(1)).await.unwrap(), client.permit(&ask(1)).await.unwrap()];
    let Err(ClientError::Limited(refusal)) = client.permit(&ask(1)).await else {
        panic!("there were two slots")
    };
    assert_eq!(
        (refusal.reason, refusal.limited_by.as_deref()),
        (Some(Reason::Limit), Some("max_concurrent"))
    );
    assert!(refusal.retry_after_ms.is_some());
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.permit(&ask(1).wait(PATIENCE)).await }
    });
    while client.queue().await.unwrap().pools.is_empty() {}
    for permit in held {
        permit.commit(&CommitRequest::default()).await.unwrap();
    }
    let settled =
        waiting.await.unwrap().unwrap().commit(&CommitRequest::default().cost("tph", 3)).await.unwrap();
    assert_eq!(settled.debt["tph"], 2);

    let Err(ClientError::Problem(problem, 404)) = client.permit(&AcquireRequest::new("modle")).await else {
        panic!("there is no such pool")
    };
    assert!(problem.detail.contains("\"model\""), "{problem:?}");
}

#[tokio::test]
async fn tasks_share_a_few_connections() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &["fast:rps=100000"]).start();
    let client = Client::new(node.socket());
    let one = async |client: Client| {
        client
            .permit(&AcquireRequest::new("fast"))
            .await
            .unwrap()
            .commit(&CommitRequest::default())
            .await
            .unwrap()
    };
    let tasks: Vec<_> = (0..20).map(|_| tokio::spawn(one(client.clone()))).collect();
    for task in tasks {
        assert!(!task.await.unwrap().repeated);
    }
    let before = client.status().await.unwrap().callers.connections;
    for _ in 0..50 {
        one(client.clone()).await;
    }
    assert!(client.status().await.unwrap().callers.connections <= before, "each connection was used again");
}

#[test]
fn threads_do_the_same_without_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = founder(&dir);
    let client = blocking::Client::new(node.socket());
    let now = || left(&client.status().unwrap());
    let settled = client.permit(&ask(500)).unwrap().commit(&CommitRequest::default().tokens(120)).unwrap();
    assert_eq!((settled.refunded["tph"], now()), (380, [9, 880, 2]));
    assert_eq!(client.permit(&ask(80)).unwrap().release().unwrap().refunded["tph"], 80);
    drop(client.permit(&ask(80)).unwrap());
    wait_until("its slot is free", || now() == [8, 800, 2]);
    let Err(ClientError::Limited(refusal)) = client.permit(&ask(2_000)) else { panic!("it is too much") };
    assert_eq!(refusal.reason, Some(Reason::Never));
    assert!(client.explain("model").unwrap().admitted);

    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || client.permit(&ask(1).wait(PATIENCE)).unwrap().release().unwrap())
        })
        .collect();
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().ended, "released"));
    assert_eq!(now(), [8, 800, 2]);

    // A client outlives its daemon.
    let setup = node.setup.clone();
    assert_eq!(node.stop(), 0);
    assert!(matches!(client.status(), Err(ClientError::NoDaemon { .. })));
    let _node = setup.start();
    assert_eq!(client.status().unwrap().pools.len(), 1);
    assert!(client.acquire(&ask(1)).is_ok());
}

/// Counts calls, and fails those of an odd number of tokens.
#[derive(Clone)]
struct Provider {
    calls: Arc<AtomicUsize>,
}

impl Service<u64> for Provider {
    type Response = u64;
    type Error = String;
    type Future = Ready<Result<u64, String>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, tokens: u64) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(if tokens.is_multiple_of(2) { Ok(tokens / 2) } else { Err("odd".to_owned()) })
    }
}

#[tokio::test]
async fn a_layer_asks_before_each_call() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir);
    let client = Client::new(node.socket());
    let provider = Provider { calls: Arc::default() };
    let layer = PermitLayer::new(client.clone(), |tokens: &u64| ask(*tokens))
        .used(|used: &u64| CommitRequest::default().tokens(*used));
    let mut service = layer.layer(provider.clone());
    let call = async |service: &mut aquifer::client::Permitted<Provider, u64, u64>, tokens| {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        service.call(tokens).await
    };
    assert_eq!(call(&mut service, 100).await.unwrap(), 50);
    assert_eq!(left(&client.status().await.unwrap()), [9, 950, 2]);
    // What failed may have been counted by the provider; its slot is free.
    assert!(matches!(call(&mut service, 101).await, Err(PermitError::Call(why)) if why == "odd"));
    let until = Instant::now() + PATIENCE;
    while left(&client.status().await.unwrap()) != [8, 849, 2] {
        assert!(Instant::now() < until, "{:?}", left(&client.status().await.unwrap()));
    }
    assert_eq!(provider.calls.load(Ordering::Relaxed), 2);
    let refused = call(&mut service, 900).await;
    assert!(matches!(refused, Err(PermitError::Permit(ClientError::Limited(_)))), "{refused:?}");
    assert_eq!(provider.calls.load(Ordering::Relaxed), 2, "it was not made");
    // To be ready takes nothing, nor does a call that nobody waits for.
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    drop(service.call(10));
    assert_eq!(left(&client.status().await.unwrap()), [8, 849, 2]);
}
