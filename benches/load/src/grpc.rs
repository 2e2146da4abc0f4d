//! Load of unary gRPC calls over HTTP/2 without TLS, closed loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request};
use rustix::fd::OwnedFd;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinSet, LocalSet};

use crate::codec::{Outcome, keys};
use crate::plan::{Address, Load};
use crate::sockets::connect;
use crate::tally::{Tally, Window};

/// What is called.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Envoy's `ShouldRateLimit`: domain `load`, one descriptor `key` = the key.
    EnvoyRls,
    /// throttlecrab's `Throttle`: a million a second, a million at once.
    Throttlecrab,
}

impl Service {
    fn path(self) -> &'static str {
        match self {
            Self::EnvoyRls => "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            Self::Throttlecrab => "/throttlecrab.RateLimiter/Throttle",
        }
    }

    /// The message, with gRPC's five bytes before it.
    fn request(self, key: &str) -> Bytes {
        let message = match self {
            Self::EnvoyRls => {
                let entry = [text(1, b"key"), text(2, key.as_bytes())].concat();
                [text(1, b"load"), text(2, &text(1, &entry)), number(3, 1)].concat()
            }
            Self::Throttlecrab => [
                text(1, key.as_bytes()),
                number(2, 1_000_000),
                number(3, 1_000_000),
                number(4, 1),
                number(5, 1),
            ]
            .concat(),
        };
        let length = (message.len() as u32).to_be_bytes();
        [&[0][..], &length, &message].concat().into()
    }
}

/// A protobuf field of bytes.
fn text(field: u8, bytes: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2], &varint(bytes.len() as u64)[..], bytes].concat()
}

/// A protobuf field that is a varint.
fn number(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3], &varint(value)[..]].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Puts the load on the server until the window ends.
///
/// # Errors
///
/// No connection, or one that ended; an open loop, which this has not.
pub fn drive(address: &Address, service: Service, load: &Load, window: Window) -> Result<Tally> {
    if load.rate.is_some() {
        bail!("open loops speak no gRPC");
    }
    let caller = Caller {
        path: service.path(),
        requests: keys().map(|key| service.request(&key)).collect(),
        window,
        tally: Rc::new(RefCell::new(Tally::new(window))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut calls = JoinSet::new();
        for connection in 0..load.connections {
            let socket = connect(address)?;
            let sender = match address {
                Address::Unix(_) => {
                    handshake(tokio::net::UnixStream::from_std(nonblocking(socket)?.into())?).await?
                }
                Address::Tcp(_) => {
                    handshake(tokio::net::TcpStream::from_std(nonblocking(socket)?.into())?).await?
                }
            };
            for stream in 0..load.depth {
                let random = fastrand::Rng::with_seed((connection * load.depth + stream) as u64);
                calls.spawn_local(caller.clone().call(sender.clone(), random));
            }
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })?;
    let tally = Rc::into_inner(caller.tally).context("BUG! a call has not ended")?;
    Ok(tally.into_inner())
}

fn nonblocking(socket: OwnedFd) -> Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

async fn handshake(socket: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Result<SendRequest<Bytes>> {
    let (sender, connection) = Builder::new().handshake(socket).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

#[derive(Clone)]
struct Caller {
    path: &'static str,
    requests: Rc<[Bytes]>,
    window: Window,
    tally: Rc<RefCell<Tally>>,
}

impl Caller {
    /// One call after the other.
    async fn call(self, mut sender: SendRequest<Bytes>, mut random: fastrand::Rng) -> Result<()> {
        while Instant::now() < self.window.end {
            let asked = Instant::now();
            let request = Request::post(format!("http://localhost{}", self.path))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?;
            sender = sender.ready().await?;
            let (response, mut stream) = sender.send_request(request, false)?;
            stream.send_data(self.requests[random.usize(..self.requests.len())].clone(), true)?;
            let response = response.await?;
            let mut succeeded = succeeded(response.headers());
            let mut body = response.into_body();
            let mut message = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                body.flow_control().release_capacity(part.len())?;
                message.extend_from_slice(&part);
            }
            if let Some(trailers) = body.trailers().await? {
                succeeded |= self::succeeded(&trailers);
            }
            // Field 1 is 1 in both: the code OK, and true.
            let outcome = match (succeeded, message.get(5..7)) {
                (true, Some([0x08, 0x01])) => Outcome::Allowed,
                (true, _) => Outcome::Refused,
                (false, _) => Outcome::Failed,
            };
            self.tally.borrow_mut().answered(asked, Instant::now(), outcome);
        }
        Ok(())
    }
}

fn succeeded(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "0")
}
