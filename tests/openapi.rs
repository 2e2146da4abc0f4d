//! The description of the HTTP interface: what the daemon answers, and what it takes, is what `proto/openapi.json` says.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;

use process::{Daemon, Reply, Setup, post, wait_until};
use serde_json::{Map, Value, json};

struct Description(Value);

impl Description {
    /// As the daemon serves it.
    fn of(node: &Daemon) -> Self {
        let served = node.http().get("/openapi.json");
        assert_eq!((served.status, served.headers["content-type"].as_str()), (200, "application/json"));
        assert_eq!(served.body, include_str!("../proto/openapi.json"));
        Self(served.json())
    }

    /// Fails unless the answer is one that the description has for this status and media type, in all its members.
    fn check(&self, template: &str, method: &str, reply: &Reply) {
        let operation = &self.0["paths"][template][method];
        let answer = &operation["responses"][reply.status.to_string()];
        let said = format!("{method} {template}: {} {}", reply.status, reply.body);
        assert!(answer.is_object(), "not described: {said}");
        let Some(kind) = reply.headers.get("content-type") else {
            assert!(answer.get("content").is_none() && reply.body.is_empty(), "{said}");
            return;
        };
        let kind = kind.split(';').next().unwrap();
        let schema = &answer["content"][kind]["schema"];
        assert!(schema.is_object(), "{kind} is not described: {said}");
        let body = if kind.ends_with("json") { reply.json() } else { Value::from(reply.body.as_str()) };
        self.fits(schema, &body, true).unwrap_or_else(|why| panic!("{why} in {said}"));
        for name in answer.get("headers").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let there = reply.headers.contains_key(&name.to_lowercase());
            // What never makes sense has no time at which it does.
            assert!(there || body["retry_after_ms"].is_null(), "no {name}: {said}");
        }
    }

    /// Whether a body is one that an operation takes.
    fn takes(&self, template: &str, body: &Value) -> Result<(), String> {
        let schema =
            &self.0["paths"][template]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{template} takes no body");
        self.fits(schema, body, false)
    }

    /// JSON Schema (2020-12), as far as the description uses it; any other keyword fails. If `all`, a member that is not
    /// described is wrong even where others are allowed.
    fn fits(&self, schema: &Value, value: &Value, all: bool) -> Result<(), String> {
        let schema = schema.as_object().expect("a schema");
        let wrong = |why: &str| Err(format!("{value} {why} {}", Value::from(schema.clone())));
        for (keyword, said) in schema {
            match keyword.as_str() {
                "$ref" => {
                    let name = said.as_str().unwrap().strip_prefix("#/components/schemas/").unwrap();
                    self.fits(&self.0["components"]["schemas"][name], value, all)?;
                }
                "type" => {
                    let kinds: Vec<&Value> =
                        said.as_array().map_or(vec![said], |kinds| kinds.iter().collect());
                    if !kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap())) {
                        return wrong("is not of the type of");
                    }
                }
                "enum" if !said.as_array().unwrap().contains(value) => return wrong("is none of"),
                "minimum" if value.as_f64().is_some_and(|value| value < said.as_f64().unwrap()) => {
                    return wrong("is below the least of");
                }
                "maximum" if value.as_f64().is_some_and(|value| value > said.as_f64().unwrap()) => {
                    return wrong("is above the most of");
                }
                "maxLength"
                    if value.as_str().is_some_and(|text| text.len() as u64 > said.as_u64().unwrap()) =>
                {
                    return wrong("is longer than");
                }
                "minItems"
                    if value.as_array().is_some_and(|list| (list.len() as u64) < said.as_u64().unwrap()) =>
                {
                    return wrong("has fewer items than");
                }
                "maxItems"
                    if value.as_array().is_some_and(|list| list.len() as u64 > said.as_u64().unwrap()) =>
                {
                    return wrong("has more items than");
                }
                "required" => {
                    let missing = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                    if value.is_object() && said.as_array().unwrap().iter().any(|name| missing(&name)) {
                        return wrong("misses a member of");
                    }
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.fits(said, item, all)?;
                    }
                }
                "oneOf" => {
                    let fitting = said.as_array().unwrap().iter();
                    if fitting.filter(|schema| self.fits(schema, value, all).is_ok()).count() != 1 {
                        return wrong("is not exactly one of");
                    }
                }
                "description"
                | "properties"
                | "additionalProperties"
                | "enum"
                | "minimum"
                | "maximum"
                | "maxLength"
                | "minItems"
                | "maxItems" => {}
                other => panic!("the test does not know {other:?}"),
            }
        }
        let members = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, member) in value.as_object().into_iter().flatten() {
            match (members.and_then(|members| members.get(name)), others) {
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                    self.fits(schema, member, all)?;
                }
                (None, Some(Value::Bool(false))) => {
                    return wrong(&format!("has the member {name:?}, unlike"));
                }
                (None, None) if all && members.is_some() => {
                    return wrong(&format!("has the member {name:?}, which is not described, of"));
                }
                (None, _) => {}
            }
        }
        Ok(())
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other:?}"),
    }
}

const POOLS: [&str; 5] = [
    "api:rph=10,tph=1000,max_concurrent=4",
    "day:calls=5/1d",
    "few:rph=1",
    "slot:max_concurrent=1",
    "words:tph=100",
];

#[test]
fn the_daemon_answers_as_the_description_says() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "n", &POOLS).config("# of no account\n");
    let mut node = setup.start();
    let peer = Setup::new(dir.path(), "peer", &POOLS).join(&node.token()).start();
    wait_until("they are linked", || {
        node.status().peers_connected == 1 && peer.status().peers_connected == 1
    });
    let described = Description::of(&node);
    let mut seen = BTreeSet::new();
    let mut check = |template: &str, method: &str, status: u16, reply: &Reply| {
        assert_eq!(reply.status, status, "{method} {template}: {}", reply.body);
        described.check(template, method, reply);
        seen.insert(template.to_owned());
    };
    let mut http = node.http();
    let acquire = "/v1/acquire";
    let admitted = http.post(acquire, r#"{"pool":"api","tokens":5,"agent":"a"}"#);
    check(acquire, "post", 200, &admitted);
    check(acquire, "post", 200, &http.post(acquire, r#"{"items":[{"pool":"api"},{"pool":"day"}]}"#));
    check(acquire, "post", 429, &http.post(acquire, r#"{"pool":"words","tokens":500}"#));
    http.post(acquire, r#"{"pool":"few"}"#);
    let refused = http.post(acquire, r#"{"pool":"few","wait_ms":0}"#);
    check(acquire, "post", 429, &refused);
    assert!(refused.headers.contains_key("retry-after"), "the headers were looked for");
    check(acquire, "post", 400, &http.post(acquire, r#"{"pool":"api","tokens":-1}"#));
    check(acquire, "post", 404, &http.post(acquire, r#"{"pool":"apo"}"#));
    check(acquire, "post", 413, &node.http().post(acquire, &format!("\"{}\"", "x".repeat(70_000))));

    let permit = admitted.acquired().permit.unwrap();
    for (verb, status) in [("commit", 200), ("release", 200)] {
        let (template, path) = (format!("/v1/permits/{{id}}/{verb}"), format!("/v1/permits/{permit}/{verb}"));
        check(&template, "post", status, &http.post(&path, ""));
        check(&template, "post", 400, &http.post(&path, r#"{"token":1}"#));
        check(&template, "post", 404, &http.post(&path.replace(&permit[24..], "00ffffff"), ""));
    }
    let short = http.post(acquire, r#"{"pool":"api","ttl_ms":1}"#).acquired().permit.unwrap();
    // Settled before it ends, it would have been settled for good.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut over = None;
    wait_until("it is over", || {
        let reply = node.http().post(&format!("/v1/permits/{short}/commit"), "");
        let is_over = reply.status == 410;
        over = Some(reply);
        is_over
    });
    check("/v1/permits/{id}/commit", "post", 410, &over.unwrap());

    for (template, body, status) in [
        ("/v1/observe", r#"{"pool":"api","outcome":"ok"}"#, 204),
        ("/v1/observe", r#"{"pool":"api"}"#, 400),
        ("/v1/pause", r#"{"pool":"few","for_ms":60000}"#, 204),
        ("/v1/pause", r#"{"pool":"fwe"}"#, 404),
        ("/v1/resume", r#"{"pool":"day"}"#, 204),
        ("/v1/resume", "{}", 400),
        ("/v1/vouch", r#"{"peer":"nobody","weight":2.5}"#, 404),
        ("/v1/vouch", "{}", 400),
        ("/v1/forget", r#"{"peer":"nobody"}"#, 404),
        ("/json", r#"{"domain":"gateway","descriptors":[{"entries":[{"key":"a","value":"b"}]}]}"#, 200),
        ("/json", r#"{"domain":5}"#, 400),
        ("/allow", r#"{"pool":"api"}"#, 200),
        ("/allow", "", 200),
        ("/allow", r#"{"cost":0}"#, 400),
        ("/allow", r#"{"pool":"nope"}"#, 404),
        ("/v1/reload", "", 204),
        ("/v1/reload", "[]", 400),
        ("/v1/leave", "[]", 400),
        ("/v1/leave", r#"{"wait_ms":60001}"#, 400),
    ] {
        check(template, "post", status, &http.post(template, body));
    }

    // Somebody waits, so that there is something to list.
    http.post(acquire, r#"{"pool":"slot"}"#);
    let mut waits = node.http();
    waits.send(post(acquire, r#"{"pool":"slot","wait_ms":20000,"priority":"high"}"#));
    wait_until("it waits", || node.waiting() == 1);
    for template in
        ["/v1/status", "/v1/limits", "/v1/peers", "/v1/queue", "/v1/ledger", "/v1/token", "/livez", "/readyz"]
    {
        check(template, "get", 200, &http.get(template));
    }
    check("/metrics", "get", 200, &http.get("/metrics"));
    check("/openapi.json", "get", 200, &http.get("/openapi.json"));
    for pool in ["api", "few", "slot"] {
        check("/v1/explain/{pool}", "get", 200, &http.get(&format!("/v1/explain/{pool}")));
    }
    check("/v1/explain/{pool}", "get", 404, &http.get("/v1/explain/nope"));
    let file = dir.path().join("n.toml");
    std::fs::write(&file, "[swarm]\nforget_after = \"59s\"\n").unwrap();
    check("/v1/reload", "post", 200, &http.post("/v1/reload", ""));
    std::fs::write(&file, "[nod]\n").unwrap();
    check("/v1/reload", "post", 409, &http.post("/v1/reload", ""));
    check("/v1/leave", "post", 204, &http.post("/v1/leave", ""));
    check("/v1/leave", "post", 200, &http.post("/v1/leave", r#"{"wait_ms":10000}"#));
    // A stream has no end; tests/http.rs reads it.
    seen.insert("/v1/events".to_owned());
    assert_eq!(node.ended(), 0);
    let described: BTreeSet<String> = described.0["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(seen, described, "every path was asked");
}

#[test]
fn the_daemon_takes_what_the_description_takes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &POOLS).start();
    let described = Description::of(&node);
    let mut http = node.http();
    let cases = [
        ("/v1/acquire", json!({"pool": "api"}), true),
        ("/v1/acquire", json!({"pool": ["api", "day"], "wait_ms": 0, "ttl_ms": 1, "bind": "none"}), true),
        ("/v1/acquire", json!({"pool": "api", "cost": {"tph": 3}, "priority": "low", "agent": "x"}), true),
        ("/v1/acquire", json!({"items": [{"pool": "api", "tokens": 1}]}), true),
        ("/v1/acquire", json!({"pool": "api", "wait": 3}), false),
        ("/v1/acquire", json!({"pool": 3}), false),
        ("/v1/acquire", json!({"pool": []}), false),
        ("/v1/acquire", json!({"pool": "api", "tokens": 1.5}), false),
        ("/v1/acquire", json!({"pool": "api", "cost": {"tph": -3}}), false),
        ("/v1/acquire", json!({"pool": "api", "priority": "urgent"}), false),
        ("/v1/acquire", json!({"pool": "api", "bind": "process"}), false),
        ("/v1/acquire", json!({"pool": "api", "ttl_ms": 0}), false),
        ("/v1/acquire", json!({"pool": "api", "wait_ms": 86_400_001}), false),
        ("/v1/acquire", json!({"pool": "api", "agent": "x".repeat(129)}), false),
        ("/v1/acquire", json!({"items": [{"pool": "api", "wait_ms": 1}]}), false),
        ("/v1/observe", json!({"pool": "api", "outcome": "throttled", "retry_after_ms": 0}), true),
        ("/v1/observe", json!({"pool": "api", "limit": "rph", "remaining": 3, "limit_value": 10}), true),
        ("/v1/observe", json!({"pool": "api", "outcome": "good"}), false),
        ("/v1/pause", json!({"pool": "day", "for_ms": 0}), false),
        ("/v1/pause", json!({"pool": "day", "for_ms": 604_800_001}), false),
        ("/v1/pause", json!({"pool": "day", "for_ms": 604_800_000}), true),
        ("/v1/resume", json!({"pool": "day"}), true),
        ("/v1/resume", json!({}), false),
        ("/v1/forget", json!({"name": "x"}), false),
        ("/allow", json!({"pool": "api", "cost": 1}), true),
        ("/allow", json!({"cost": 0}), false),
        ("/allow", json!({"pool": "api", "key": "k"}), false),
    ];
    for (template, body, good) in cases {
        assert_eq!(described.takes(template, &body).is_ok(), good, "{template} {body}");
        let reply = http.post(template, &body.to_string());
        assert_eq!(reply.status != 400, good, "{template} {body}: {}", reply.body);
    }
}
