//! Which endpoint a path is.

use hyper::Method;

use crate::daemon::access::Right;

/// The path of the one answer that does not end.
pub const EVENTS: &str = "/v1/events";

/// An endpoint, with what its path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/acquire`.
    Acquire,
    /// `POST /v1/permits/{id}/commit`.
    Commit(String),
    /// `POST /v1/permits/{id}/release`.
    Release(String),
    /// `POST /allow`.
    Allow,
    /// `POST /json`.
    Json,
    /// `POST /v1/pause`.
    Pause,
    /// `POST /v1/resume`.
    Resume,
    /// `POST /v1/vouch`.
    Vouch,
    /// `POST /v1/forget`.
    Forget,
    /// `GET /v1/ledger`.
    Ledger,
    /// `POST /v1/observe`.
    Observe,
    /// `GET /v1/status`.
    Status,
    /// `GET /v1/peers`.
    Peers,
    /// `GET /v1/limits`.
    Limits,
    /// `GET /v1/queue`.
    Queue,
    /// `GET /v1/explain/{pool}`; the pool's name may hold slashes.
    Explain(String),
    /// `GET /v1/token`.
    Token,
    /// `POST /v1/leave`.
    Leave,
    /// `POST /v1/reload`.
    Reload,
    /// `GET /v1/events`.
    Events,
    /// `GET /metrics`.
    Metrics,
    /// `GET /openapi.json`.
    OpenApi,
    /// `GET /livez`.
    Live,
    /// `GET /readyz`.
    Ready,
}

/// All endpoints, as people are told of them.
pub fn endpoints() -> String {
    let [first @ .., last] = TEMPLATES;
    format!("{} and {last}", first.join(", "))
}

/// Their paths; braces are for what is named.
const TEMPLATES: [&str; 24] = [
    "/v1/acquire",
    "/v1/permits/{id}/commit",
    "/v1/permits/{id}/release",
    "/v1/observe",
    "/v1/pause",
    "/v1/resume",
    "/v1/vouch",
    "/v1/forget",
    "/v1/leave",
    "/v1/reload",
    "/v1/ledger",
    "/v1/status",
    "/v1/peers",
    "/v1/limits",
    "/v1/queue",
    "/v1/explain/{pool}",
    "/v1/token",
    EVENTS,
    "/allow",
    "/json",
    "/metrics",
    "/openapi.json",
    "/livez",
    "/readyz",
];

impl Route {
    /// The endpoint at this path, if there is one.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/acquire" => Self::Acquire,
            "/allow" => Self::Allow,
            "/json" => Self::Json,
            "/v1/pause" => Self::Pause,
            "/v1/resume" => Self::Resume,
            "/v1/vouch" => Self::Vouch,
            "/v1/forget" => Self::Forget,
            "/v1/ledger" => Self::Ledger,
            "/v1/observe" => Self::Observe,
            "/v1/status" => Self::Status,
            "/v1/peers" => Self::Peers,
            "/v1/limits" => Self::Limits,
            "/v1/queue" => Self::Queue,
            "/v1/token" => Self::Token,
            "/v1/leave" => Self::Leave,
            "/v1/reload" => Self::Reload,
            EVENTS => Self::Events,
            "/metrics" => Self::Metrics,
            "/openapi.json" => Self::OpenApi,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            _ => {
                if let Some(pool) = path.strip_prefix("/v1/explain/") {
                    return Some(Self::Explain(decoded(pool)));
                }
                let (id, verb) = path.strip_prefix("/v1/permits/")?.split_once('/')?;
                match verb {
                    "commit" => Self::Commit(decoded(id)),
                    "release" => Self::Release(decoded(id)),
                    _ => return None,
                }
            }
        })
    }

    /// How it is asked; `HEAD` is as good as `GET`.
    pub fn method(&self) -> Method {
        match self {
            Self::Acquire
            | Self::Commit(_)
            | Self::Release(_)
            | Self::Allow
            | Self::Json
            | Self::Pause
            | Self::Resume
            | Self::Vouch
            | Self::Forget
            | Self::Leave
            | Self::Reload
            | Self::Observe => Method::POST,
            Self::Status
            | Self::Peers
            | Self::Limits
            | Self::Ledger
            | Self::Queue
            | Self::Explain(_)
            | Self::Token
            | Self::Events
            | Self::Metrics
            | Self::OpenApi
            | Self::Live
            | Self::Ready => Method::GET,
        }
    }
}

impl Route {
    /// Who may ask for it: the one table of what is for operators.
    pub fn needs(&self) -> Right {
        match self {
            Self::Acquire
            | Self::Commit(_)
            | Self::Release(_)
            | Self::Allow
            | Self::Json
            | Self::Status
            | Self::Peers
            | Self::Ledger
            | Self::Limits
            | Self::Queue
            | Self::Explain(_)
            | Self::Events
            | Self::Metrics
            | Self::OpenApi
            | Self::Live
            | Self::Ready => Right::Use,
            Self::Observe => Right::Observe,
            // The token is the swarm's key.
            Self::Pause
            | Self::Resume
            | Self::Vouch
            | Self::Forget
            | Self::Leave
            | Self::Reload
            | Self::Token => Right::Operate,
        }
    }
}

/// A part of a path without percent-encoding (RFC 3986, section 2.1). What is encoded wrongly stays as it is.
fn decoded(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let digit = |offset: usize| char::from(*bytes.get(place + offset)?).to_digit(16);
        if let (b'%', Some(high), Some(low)) = (byte, digit(1), digit(2)) {
            decoded.push((high * 16 + low) as u8);
            place += 3;
        } else {
            decoded.push(byte);
            place += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pools_and_permits() {
        let explain = |name: &str| Some(Route::Explain(name.to_owned()));
        assert_eq!(Route::of("/v1/explain/anthropic/sonnet"), explain("anthropic/sonnet"));
        assert_eq!(Route::of("/v1/explain/a%2Fb%20%C3%A9"), explain("a/b é"));
        assert_eq!(Route::of("/v1/explain/50%/%zz%4"), explain("50%/%zz%4"));
        assert_eq!(Route::of("/v1/permits/01ab/commit"), Some(Route::Commit("01ab".to_owned())));
        for nothing in
            ["/", "/v1/permits/01ab", "/v1/permits/01ab/renew", "/v1/permits/a/b/commit", "/v2/acquire"]
        {
            assert_eq!(Route::of(nothing), None, "{nothing}");
        }
    }

    /// Its path as the description has it. Whoever adds an endpoint is made to come here.
    fn template(route: &Route) -> &'static str {
        match route {
            Route::Acquire => "/v1/acquire",
            Route::Commit(_) => "/v1/permits/{id}/commit",
            Route::Release(_) => "/v1/permits/{id}/release",
            Route::Allow => "/allow",
            Route::Json => "/json",
            Route::Pause => "/v1/pause",
            Route::Resume => "/v1/resume",
            Route::Vouch => "/v1/vouch",
            Route::Forget => "/v1/forget",
            Route::Ledger => "/v1/ledger",
            Route::Observe => "/v1/observe",
            Route::Status => "/v1/status",
            Route::Peers => "/v1/peers",
            Route::Limits => "/v1/limits",
            Route::Queue => "/v1/queue",
            Route::Explain(_) => "/v1/explain/{pool}",
            Route::Token => "/v1/token",
            Route::Leave => "/v1/leave",
            Route::Reload => "/v1/reload",
            Route::Events => "/v1/events",
            Route::Metrics => "/metrics",
            Route::OpenApi => "/openapi.json",
            Route::Live => "/livez",
            Route::Ready => "/readyz",
        }
    }

    #[test]
    fn the_description_has_every_endpoint_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let described = described["paths"].as_object().unwrap();
        for (path, methods) in described {
            let route = Route::of(path).unwrap_or_else(|| panic!("there is no {path}"));
            assert_eq!(template(&route), path);
            let methods: Vec<String> =
                methods.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
            assert_eq!(methods, [route.method().as_str()], "{path}");
            let operators =
                described[path][route.method().as_str().to_lowercase()]["description"] == "For operators.";
            assert_eq!(operators, route.needs() == Right::Operate, "{path}");
        }
        let described: Vec<&str> = described.keys().map(String::as_str).collect();
        let mut served = TEMPLATES.to_vec();
        served.sort_unstable();
        assert_eq!(described, served);
    }
}
