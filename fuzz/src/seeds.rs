//! Where fuzzing begins: a few well-formed inputs for each target, small and the same every time.

use std::time::Duration;

use aquifer::daemon::identity::SwarmKey;
use aquifer::daemon::token::Token;
use aquifer::daemon::transport::frame::encode;
use aquifer::protocol::calendar::UnixNanos;
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::Cost;
use aquifer::protocol::node::{Input, Node, Output, Saved, Start};
use aquifer::protocol::time::Instant;
use aquifer::wire::{encode_message, encode_saved};

use super::swarm::{LIFE, ME, PEER, config};

/// Inputs, each with its target.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let (said, saved) = conversation();
    let mut seeds: Vec<(&str, Vec<u8>)> = said.iter().map(|bytes| ("message", bytes.clone())).collect();
    let with_time = |bytes: &Vec<u8>| {
        let [high, low] = (bytes.len() as u16).to_be_bytes();
        [&[high, low, 5], &bytes[..]].concat()
    };
    seeds.push(("node", said.iter().flat_map(with_time).collect()));
    seeds.push(("node", with_time(&said[0])));
    seeds.extend(saved.iter().map(|saved| ("saved", encode_saved(saved).expect("it fits"))));
    let mut stream = vec![7];
    [&b"one"[..], &[0; 300], b"three"].iter().for_each(|frame| encode(frame, &mut stream));
    seeds.push(("frame", stream));
    // Numbers of no meaning, all of them: what they become is decided as they are read.
    for (target, step) in [("records", 37), ("records", 101), ("pages", 59), ("pages", 113)] {
        seeds.push((target, (0..600_u32).map(|place| (place * place / 7 + place * step) as u8).collect()));
    }
    let addresses = ["/ip4/10.0.0.1/tcp/4160", "/dns4/host.example/tcp/1", "/ip6/::1/tcp/9"];
    for count in [0, addresses.len()] {
        let addresses =
            addresses[..count].iter().map(|address| address.parse().expect("it is one")).collect();
        let token = Token { swarm_key: SwarmKey([5; 32]), founder: ME, addresses };
        seeds.push(("token", token.to_string().into_bytes()));
    }
    seeds.extend(TEXTS.iter().map(|(target, text)| (*target, text.as_bytes().to_vec())));
    seeds
}

/// What a node that joins says to the founder in the first second, while both have requests that wait; and what they save.
fn conversation() -> (Vec<Vec<u8>>, Vec<Saved>) {
    let mut now = Instant::ZERO + Duration::from_secs(1_000);
    let ids = [ME, PEER];
    let starts = [(LIFE, Start::Found), (Incarnation(1), Start::Join)];
    let mut nodes: Vec<Node> = ids
        .into_iter()
        .zip(starts)
        .map(|(id, (life, start))| Node::new(config(id, life), start, [id.0[0]; 32], now))
        .collect();
    for (node, other) in nodes.iter_mut().zip([PEER, ME]) {
        node.set_wall(UnixNanos(1_800_000_000_000_000_000), now);
        node.set_addresses(vec!["/ip4/10.0.0.1/tcp/4160".to_owned()], now);
        node.handle(Input::Up(other), now);
    }
    let (mut said, mut saved) = (Vec::new(), Vec::new());
    for step in 0..100 {
        now = now + Duration::from_millis(10);
        for place in 0..2 {
            if step == 40 {
                nodes[place].acquire(0, &Cost::requests(30), Duration::from_secs(5), now);
            }
            nodes[place].handle(Input::Timeout, now);
            while let Some(output) = nodes[place].poll_output() {
                match output {
                    Output::Send(to, message) => {
                        if to == ME {
                            said.push(encode_message(&message).expect("it fits"));
                        }
                        nodes[1 - place].handle(Input::Message(NodeId(ids[place].0), message), now);
                    }
                    Output::Save(state) => saved.push(*state),
                    _ => {}
                }
            }
        }
    }
    said.truncate(12);
    let last = saved.pop().expect("a member saves");
    (said, vec![saved.swap_remove(0), last])
}

const TEXTS: &[(&str, &str)] = &[
    (
        "ask",
        r#"{"pool":"api","tokens":1200,"requests":1,"agent":"researcher-7","priority":"high","wait_ms":30}"#,
    ),
    ("ask", r#"{"items":[{"pool":"api","tokens":900},{"pool":"users","key":"user-42"}],"ttl_ms":1000}"#),
    ("ask", r#"{"pool":["api","model/large"],"cost":{"tps":7},"bind":"connection"}"#),
    ("ask", r#"{"pool":"api","cost":3}"#),
    ("ask", ""),
    (
        "http",
        "0POST /v1/acquire HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n{\"pool\":\"api\",\"tokens\":12000  }\nGET /v1/status HTTP/1.1\r\n\r\n",
    ),
    ("http", "1POST /allow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    (
        "http",
        "1POST /v1/permits/00/commit HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{\"tokens\":1012}",
    ),
    (
        "http",
        "0POST /v1/observe HTTP/1.1\r\nHost: a\r\nContent-Length: 59\r\n\r\n{\"pool\":\"api\",\"outcome\":\"throttled\",\"retry_after_ms\":20000}",
    ),
    (
        "http",
        "0POST /v1/pause HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\n{\"pool\":\"api\",\"for_ms\":6000}",
    ),
    (
        "http",
        "0GET /v1/explain/model%2Flarge HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/token HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("http", "1GET /livez HTTP/1.0\r\n\r\n"),
    ("command", "*5\r\n$11\r\nCL.THROTTLE\r\n$4\r\nuser\r\n$2\r\n15\r\n$2\r\n30\r\n$2\r\n60\r\n"),
    ("command", "PING  hello\r\n*1\r\n$4\r\nINFO\r\n*0\r\n\n"),
    (
        "resp",
        "0\u{7}HELLO 3\r\nCL.THROTTLE user 15 30 60 3\r\n*6\r\n$11\r\ncl.throttle\r\n$4\r\nuser\r\n$1\r\n1\r\n$1\r\n1\r\n$2\r\n60\r\n$1\r\n9\r\n",
    ),
    (
        "resp",
        "1\u{40}AQ.ACQUIRE api TOKENS 12 WAIT 1000 PRIORITY high AGENT slow-1 BIND\r\nAQ.STATUS\r\nPING\r\n",
    ),
    ("resp", "0\u{40}AQ.ACQUIRE users KEY k COST rps 1 TTL 5\r\nAQ.COMMIT 00 TOKENS 1\r\nAQ.RELEASE 00\r\n"),
    (
        "resp",
        "1\u{20}COMMAND DOCS\r\nCOMMAND INFO cl.throttle get\r\nCLIENT SETNAME me\r\nCLIENT INFO\r\nCONFIG GET save\r\nSELECT 1\r\nRESET\r\nECHO x\r\nGET x\r\nQUIT\r\nPING\r\n",
    ),
    ("duration", "1h30m"),
    ("duration", "1.5s"),
    (
        "config",
        "[swarm]\npolicy = \"strict\"\nseeds = [\"/ip4/10.0.0.11/tcp/4160\"]\nforget_after = \"30s\"\n\n[node]\nname = \"a\"\n\n[access]\nobserve = \"operators\"\noperators = [1001]\n",
    ),
    (
        "config",
        "[[pool]]\nname = \"api\"\nrpm = { amount = 500, burst = 50 }\ntpd = { amount = 5_000_000, zone = \"Europe/Berlin\" }\nmax_concurrent = { amount = 8, ttl = \"10m\" }\nbreaker = { failure_rate = 0.5, min_count = 20, window = \"30s\", open_for = \"15s\" }\nheadroom = 0.1\n\n[[pool.limit]]\nname = \"per-10s\"\nkind = \"window\"\nunit = \"requests\"\namount = 100\nper = \"10s\"\n",
    ),
    (
        "config",
        "[[pool]]\nname = \"u\"\nkeyed = true\nrps = 2\n\n[[agent]]\nmatch = \"r-*\"\nweight = 2.0\nmax_share = 0.4\nrpm = 20\n",
    ),
];
