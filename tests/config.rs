//! Configurations: what they say, and what is said of those that are wrong.
#![cfg(feature = "daemon")]

use std::time::Duration;

use aquifer::daemon::config::{BreakerSettings, Config, Overrides, Policy, PoolConfig};
use aquifer::protocol::calendar::{Calendar, Every, Zone};
use aquifer::protocol::limit::{Concurrency, Kind, Window};

fn read(text: &str) -> Result<Config, Vec<String>> {
    let config = Config::parse(text, "a.toml", &Overrides::default());
    config.map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

fn pools(flags: &[&str]) -> Result<Vec<PoolConfig>, String> {
    let pools = flags.iter().map(ToString::to_string).collect();
    let config = Config::parse("", "", &Overrides { pools, ..Overrides::default() });
    config.map(|config| config.pools).map_err(|errors| errors.to_string())
}

/// Each limit as (name, unit, amount, period in seconds, burst).
fn limits(pool: &PoolConfig) -> Vec<(&str, &str, u64, f64, u64)> {
    let limits = pool.pool.limits().iter();
    let row = |limit: &'_ aquifer::protocol::limit::Limit| {
        (limit.kind.amount(), limit.kind.per().as_secs_f64(), limit.kind.capacity())
    };
    limits
        .map(|limit| {
            let (amount, per, burst) = row(limit);
            (limit.name.as_str(), limit.unit.as_str(), amount, per, burst)
        })
        .collect()
}

#[test]
fn every_key_is_read() {
    let config = read(
        r#"
        [node]
        name = "ci-runner-2"
        data_dir = "/var/lib/a"
        socket = "/run/a.sock"
        [swarm]
        gossip = "/ip4/127.0.0.1/tcp/0"
        seeds = ["/ip4/10.0.0.11/tcp/4160", "/dns4/agents.internal/tcp/4160"]
        key_file = "/etc/a.key"
        policy = "strict"
        forget_after = "90s"
        discover = "none"
        [[pool]]
        name = "anthropic/sonnet"
        rpm = 50
        tpm = { amount = 40_000, burst = 10_000 }
        itpm = 1_000
        headroom = 0.1
        overflow = "refuse"
        queue_timeout = "500ms"
        max_queue = 7
        [[pool.limit]]
        name = "per-second"
        kind = "rate"
        unit = "images"
        amount = 10
        per = "2s"
        burst = 20
        "#,
    )
    .unwrap();
    assert_eq!(config.name, "ci-runner-2");
    assert_eq!((config.data_dir.to_str(), config.socket.to_str()), (Some("/var/lib/a"), Some("/run/a.sock")));
    assert_eq!(config.gossip.to_string(), "/ip4/127.0.0.1/tcp/0");
    assert_eq!(config.seeds[1].to_string(), "/dns4/agents.internal/tcp/4160");
    assert_eq!(config.key_file.unwrap().to_str(), Some("/etc/a.key"));
    assert_eq!(config.policy, Policy::Strict);
    assert_eq!(config.forget_after, Duration::from_secs(90));
    assert!(!config.mdns);
    let pool = &config.pools[0];
    assert_eq!(pool.pool.name(), "anthropic/sonnet");
    assert_eq!(
        limits(pool),
        [
            ("rpm", "requests", 45, 60.0, 45),
            ("tpm", "tokens", 36_000, 60.0, 9_000),
            ("itpm", "input_tokens", 900, 60.0, 900),
            ("per-second", "images", 9, 2.0, 18),
        ]
    );
    assert!(!pool.overflow_wait);
    assert_eq!((pool.queue_timeout, pool.pool.max_queue), (Duration::from_millis(500), 7));
}

#[test]
fn nothing_at_all_is_a_node_with_one_pool_to_try() {
    let config = read("").unwrap();
    assert_eq!((config.policy, config.mdns), (Policy::Available, true));
    assert_eq!(config.forget_after, Duration::from_secs(60));
    assert_eq!(config.gossip.to_string(), "/ip4/0.0.0.0/tcp/4160");
    assert!(!config.name.is_empty() && config.seeds.is_empty());
    assert_eq!(config.pools.len(), 1);
    assert_eq!(config.pools[0].pool.name(), "default");
    assert_eq!(limits(&config.pools[0]), [("rpm", "requests", 60, 60.0, 60)]);
    assert!(config.pools[0].overflow_wait);
    assert_eq!(config.pools[0].queue_timeout, Duration::from_secs(30));
}

#[test]
fn limits_are_of_four_kinds() {
    let config = read(
        r#"
        [[pool]]
        name = "x"
        rpd = 7
        rpm = { amount = 5, zone = "asia/kathmandu" }
        rph = { amount = 6, zone = "UTC" }
        tpd = { amount = 1_000, zone = "Europe/Berlin" }
        max_concurrent = 8
        headroom = 0.5
        [[pool.limit]]
        name = "window"
        kind = "window"
        amount = 3
        per = "2s"
        [[pool.limit]]
        name = "monthly"
        kind = "calendar"
        unit = "euros"
        amount = 100
        every = "month"
        [[pool.limit]]
        name = "gpu"
        kind = "concurrency"
        amount = 1
        unit = "gpus"
        [[pool]]
        name = "y"
        max_concurrent = { amount = 4, ttl = "90s" }
        [[pool.limit]]
        name = "quarter"
        kind = "calendar"
        amount = 2
        every = "hour"
        zone = "Asia/Kathmandu"
        [[pool.limit]]
        name = "gpu"
        kind = "concurrency"
        amount = 3
        ttl = "1h"
        "#,
    )
    .unwrap();
    let calendar =
        |amount, every, zone| Kind::Calendar(Calendar::new(amount, every, Zone::new(zone).unwrap()).unwrap());
    let concurrency =
        |amount, seconds| Kind::Concurrency(Concurrency::new(amount, Duration::from_secs(seconds)).unwrap());
    let kinds = |index: usize| {
        let limits = config.pools[index].pool.limits().iter();
        limits.map(|limit| (limit.name.as_str(), limit.unit.as_str(), limit.kind.clone())).collect::<Vec<_>>()
    };
    assert_eq!(limits(&config.pools[0])[0], ("rpd", "requests", 3, 86_400.0, 3));
    assert_eq!(
        kinds(0)[1..],
        [
            ("rpm", "requests", calendar(2, Every::Minute, "Asia/Kathmandu")),
            ("rph", "requests", calendar(3, Every::Hour, "UTC")),
            ("tpd", "tokens", calendar(500, Every::Day, "Europe/Berlin")),
            ("max_concurrent", "requests", concurrency(4, 600)),
            ("window", "requests", Kind::Window(Window::new(1, Duration::from_secs(2)).unwrap())),
            ("monthly", "euros", calendar(50, Every::Month, "UTC")),
            ("gpu", "gpus", concurrency(1, 600)),
        ]
    );
    assert_eq!(
        kinds(1),
        [
            ("max_concurrent", "requests", concurrency(4, 90)),
            ("quarter", "requests", calendar(2, Every::Hour, "Asia/Kathmandu")),
            ("gpu", "requests", concurrency(3, 3_600)),
        ]
    );
}

#[test]
fn pools_have_keys_ageing_and_a_breaker() {
    let config = read(
        r#"
        [[pool]]
        name = "plain"
        rpm = 1
        [[pool]]
        name = "users"
        rpm = 1
        keyed = true
        ageing = "1m"
        breaker = {}
        [[pool]]
        name = "few"
        rpm = 1
        keyed = true
        max_keys = 9
        [pool.breaker]
        failure_rate = 1
        window = "1m"
        min_count = 5
        open_for = "2s"
        "#,
    );
    let pools = config.unwrap().pools;
    let seconds = Duration::from_secs;
    assert_eq!((pools[0].keyed, pools[0].ageing, pools[0].breaker), (None, seconds(10), None));
    let breaker =
        BreakerSettings { failure_rate: 0.5, window: seconds(30), min_count: 20, open_for: seconds(15) };
    assert_eq!(
        (pools[1].keyed, pools[1].ageing, pools[1].breaker),
        (Some(1_000_000), seconds(60), Some(breaker))
    );
    let breaker =
        BreakerSettings { failure_rate: 1.0, window: seconds(60), min_count: 5, open_for: seconds(2) };
    assert_eq!((pools[2].keyed, pools[2].breaker), (Some(9), Some(breaker)));
}

#[test]
fn agents_are_read_in_order() {
    let config = read(
        r#"
        [[agent]]
        match = "researcher-*"
        weight = 2.0
        max_share = 0.4
        tpm = { amount = 50, burst = 5 }
        [[agent.limit]]
        name = "search"
        amount = 1
        per = "1s"
        [[agent]]
        match = "*"
        "#,
    );
    let agents = config.unwrap().agents;
    let names: Vec<_> = agents[0].limits.iter().map(|limit| (&*limit.name, limit.kind.capacity())).collect();
    assert_eq!(names, [("tpm", 5), ("search", 1)]);
    let [first, last] = &agents[..] else { panic!("{agents:?}") };
    assert_eq!(
        (&*first.matches, first.weight_thousandths, first.max_share_millionths),
        ("researcher-*", 2_000, Some(400_000))
    );
    assert_eq!((&*last.matches, last.weight_thousandths, last.max_share_millionths), ("*", 1_000, None));
    assert!(last.limits.is_empty());
}

#[test]
fn each_mistake_says_its_line_its_key_and_what_to_write() {
    let cases = [
        ("[swarm]\npolcy = \"strict\"", "a.toml:2: swarm.polcy: unknown key; did you mean \"policy\"?"),
        ("[nod]\n", "a.toml:1: nod: unknown key; did you mean \"node\"?"),
        ("[swarm]\npolicy = \"majority\"", "a.toml:2: swarm.policy: \"majority\" is not supported yet"),
        (
            "[swarm]\npolicy = \"strikt\"",
            "a.toml:2: swarm.policy: is \"strikt\", must be \"strict\" or \"available\"; did you mean \"strict\"?",
        ),
        (
            "[swarm]\nforget_after = 60",
            "a.toml:2: swarm.forget_after: is the number 60, must be a time with its unit",
        ),
        (
            "[swarm]\nforget_after = \"60\"",
            "a.toml:2: swarm.forget_after: is \"60\", must be a time with its unit",
        ),
        (
            "[swarm]\nforget_after = \"1ms\"",
            "a.toml:2: swarm.forget_after: is 1ms, must be from 100ms to 31d",
        ),
        ("[swarm]\ndiscover = \"dns\"", "a.toml:2: swarm.discover: is \"dns\", must be \"mdns\" or \"none\""),
        ("[swarm]\ngossip = \"0.0.0.0:4160\"", "write one such as \"/ip4/0.0.0.0/tcp/4160\""),
        (
            "[swarm]\ngossip = \"/dns4/x/tcp/1\"",
            "a.toml:2: swarm.gossip: is \"/dns4/x/tcp/1\", must be an IP address and a TCP port",
        ),
        (
            "[swarm]\nseeds = [\n  \"/ip4/10.0.0.1/tcp/1\",\n  \"a.b:4160\",\n]",
            "a.toml:4: swarm.seeds: \"a.b:4160\" is not a multiaddr; write one such as \"/dns4/a.b/tcp/4160\"",
        ),
        ("[swarm]\nseeds = [\"/ip4/10.0.0.1/udp/1\"]", "must be a host and a TCP port"),
        ("[node]\nname = \"\"", "a.toml:2: node.name: must be 1 to 128 bytes"),
        ("[node]\nsocket = 3", "a.toml:2: node.socket: is the number 3, must be a path in quotes"),
        ("[[pool]]\nrpm = 1", "a.toml:1: pool.name: is missing"),
        ("[[pool]]\nname = \"x\"", "a.toml:1: pool: has no limit; add one, such as rpm = 50"),
        ("[[pool]]\nname = \"x\"\nrpm = 0", "a.toml:3: pool.rpm: amount is 0, must be from 1"),
        ("[[pool]]\nname = \"x\"\nrpm = -5", "a.toml:3: pool.rpm: is the number -5, must be a whole number"),
        (
            "[[pool]]\nname = \"x\"\nrpm = 0.5",
            "a.toml:3: pool.rpm: is the number 0.5, must be a whole number",
        ),
        ("[[pool]]\nname = \"x\"\nrpm = { burst = 3 }", "a.toml:3: pool.rpm: has no amount"),
        (
            "[[pool]]\nname = \"x\"\nrpm = { amount = 3, brust = 3 }",
            "a.toml:3: pool.rpm.brust: unknown key; did you mean \"burst\"?",
        ),
        ("[[pool]]\nname = \"x\"\nrpm = { amount = 3, burst = 0 }", "a.toml:3: pool.rpm.burst: burst is 0"),
        ("[[pool]]\nname = \"x\"\nrpn = 1", "a.toml:3: pool.rpn: unknown key; did you mean \"rpm\"?"),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\nheadroom = 1.0",
            "a.toml:4: pool.headroom: is 1, must be from 0.0 to less than 1.0",
        ),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\noverflow = \"drop\"",
            "a.toml:4: pool.overflow: is \"drop\", must be \"wait\" or \"refuse\"",
        ),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\nqueue_timeout = \"2d\"",
            "a.toml:4: pool.queue_timeout: is 2d, must be from 0s to 1d",
        ),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\n[[pool.limit]]\nname = \"y\"\namount = 1",
            "a.toml:4: pool.limit.per: is missing; add per = \"1s\"",
        ),
        (
            "[[pool]]\nname = \"x\"\n[[pool.limit]]\nname = \"y\"\namount = 1\nper = \"0s\"",
            "a.toml:6: pool.limit.per: per is 0ns",
        ),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\n[[pool.limit]]\nname = \"rpm\"\namount = 1\nper = \"1s\"",
            "a.toml:5: pool.limit.name: limit \"rpm\" is there twice",
        ),
        (
            "[[pool]]\nname = \"x\"\nrpm = 1\n[[pool]]\nname = \"x\"\nrpm = 2",
            "a.toml:5: pool.name: pool \"x\" is there twice, first at a.toml:2",
        ),
        (
            "[pool]\nname = \"x\"",
            "a.toml:1: pool: is a section, must be a list of sections, each under [[pool]]",
        ),
        ("[node]\nname = ", "a.toml:2: "),
        ("[node]\nname = \"a\"\nname = \"b\"", "a.toml:3: "),
    ];
    for (text, expected) in cases {
        refused(text, expected);
    }
}

/// Checks that one thing is wrong with `text`: `expected`.
fn refused(text: &str, expected: &str) {
    let errors = read(text).expect_err(text);
    assert!(errors.len() == 1 && errors[0].contains(expected), "{text}\n{expected}\n{errors:#?}");
}

#[test]
fn each_kind_of_limit_has_its_own_keys() {
    for (limit, expected) in [
        (
            "rpm = { amount = 1, zone = \"UTC\", burst = 2 }",
            "a.toml:3: pool.rpm.burst: with a zone, all of a calendar period's amount may be spent at once; \
             remove burst or zone",
        ),
        (
            "rps = { amount = 1, zone = \"UTC\" }",
            "a.toml:3: pool.rps.zone: rps counts by the second, which no time zone changes; remove zone",
        ),
        (
            "tpd = { amount = 1, zone = \"Europe/Berln\" }",
            "a.toml:3: pool.tpd.zone: no time zone \"Europe/Berln\": did you mean \"Europe/Berlin\"?",
        ),
        (
            "tpd = { amount = 1, ttl = \"1m\" }",
            "a.toml:3: pool.tpd.ttl: tpd is a rate limit, whose keys here are amount, burst, zone; remove ttl",
        ),
        ("tpd = { amount = 0, zone = \"UTC\" }", "a.toml:3: pool.tpd.amount: amount is 0, must be from 1"),
        ("max_concurrent = 0", "a.toml:3: pool.max_concurrent: amount is 0, must be from 1"),
        ("max_concurrent = { ttl = \"1m\" }", "a.toml:3: pool.max_concurrent: has no amount"),
        (
            "max_concurrent = { amount = 1, ttl = \"32d\" }",
            "a.toml:3: pool.max_concurrent.ttl: is 32d, must be from 1ms to 31d",
        ),
        (
            "max_concurrent = { amount = 1, burst = 3 }",
            "a.toml:3: pool.max_concurrent.burst: max_concurrent is a concurrency limit, whose keys here are \
             amount, ttl; remove burst",
        ),
        (
            "max_concurrent = { amount = 1, ttk = \"1m\" }",
            "a.toml:3: pool.max_concurrent.ttk: unknown key; did you mean \"ttl\"?",
        ),
        ("max_concurent = 1", "a.toml:3: pool.max_concurent: unknown key; did you mean \"max_concurrent\"?"),
    ] {
        refused(&format!("[[pool]]\nname = \"x\"\n{limit}"), expected);
    }
    for (limit, expected) in [
        ("kind = \"windov\"", "a.toml:6: pool.limit.kind: is \"windov\", must be \"rate\", \"window\", "),
        (
            "kind = \"window\"\nper = \"1s\"\nburst = 1",
            "a.toml:8: pool.limit.burst: a window limit has no burst: all of its amount may be spent at once",
        ),
        ("kind = \"window\"", "a.toml:3: pool.limit.per: is missing; add per = \"1m\""),
        ("kind = \"window\"\nper = \"32d\"", "a.toml:7: pool.limit.per: per is "),
        (
            "kind = \"window\"\nevery = \"day\"",
            "a.toml:7: pool.limit.every: a window limit has no every: write per = \"1m\"",
        ),
        ("kind = \"calendar\"", "a.toml:3: pool.limit.every: is missing; add every = \"day\""),
        (
            "kind = \"calendar\"\nper = \"1d\"",
            "a.toml:7: pool.limit.per: a calendar limit has no per: write every = \"day\"",
        ),
        (
            "kind = \"calendar\"\nevery = \"days\"",
            "a.toml:7: pool.limit.every: is \"days\", must be \"minute\", \"hour\", \"day\" or \"month\"; did you \
             mean \"day\"?",
        ),
        (
            "kind = \"calendar\"\nevery = \"day\"\nzone = \"Berlin\"",
            "a.toml:8: pool.limit.zone: no time zone \"Berlin\": did you mean \"Europe/Berlin\"?",
        ),
        (
            "kind = \"concurrency\"\nper = \"1m\"",
            "a.toml:7: pool.limit.per: a concurrency limit has no per: write ttl = \"10m\"",
        ),
        ("kind = \"concurrency\"\nttl = \"0s\"", "a.toml:7: pool.limit.ttl: is 0s, must be from 1ms to 31d"),
        (
            "per = \"1s\"\nzone = \"UTC\"",
            "a.toml:7: pool.limit.zone: a rate limit has no zone: remove zone, or write kind = \"calendar\"",
        ),
        ("ttl = \"1s\"", "a.toml:6: pool.limit.ttl: a rate limit has no ttl: write per = \"1s\""),
        (
            "kind = \"calendar\"\nevery = \"day\"\nzoen = \"UTC\"",
            "a.toml:8: pool.limit.zoen: unknown key; did you mean \"zone\"?",
        ),
    ] {
        let text = format!("[[pool]]\nname = \"x\"\n[[pool.limit]]\nname = \"y\"\namount = 1\n{limit}");
        refused(&text, expected);
    }
}

#[test]
fn what_is_wrong_with_a_pool_is_said() {
    for (pool, expected) in [
        ("keyed = 1", "a.toml:4: pool.keyed: is the number 1, must be true or false"),
        ("max_keys = 5", "a.toml:4: pool.max_keys: is for pools with limits for each key; add keyed = true"),
        ("keyed = false\nmax_keys = 5", "a.toml:5: pool.max_keys: is for pools with limits for each key"),
        ("keyed = true\nmax_keys = 0", "a.toml:5: pool.max_keys: is 0, must be from 1 to 10000000"),
        ("keyed = true\nmax_keys = 10_000_001", "a.toml:5: pool.max_keys: is 10000001, must be from 1"),
        (
            "keyed = true\nmax_concurrent = 5",
            "a.toml:5: pool.max_concurrent: \"max_concurrent\" is a concurrency limit; a keyed pool has rate \
             limits only; move it to a pool that is not keyed",
        ),
        (
            "keyed = true\ntpd = { amount = 5, zone = \"UTC\" }",
            "\"tpd\" is a calendar limit; a keyed pool has rate limits only",
        ),
        ("ageing = \"0s\"", "a.toml:4: pool.ageing: is 0s, must be from 100ms to 1d"),
        ("ageing = \"2d\"", "a.toml:4: pool.ageing: is 2d, must be from 100ms to 1d"),
        ("agein = \"2d\"", "a.toml:4: pool.agein: unknown key; did you mean \"ageing\"?"),
        ("breaker = 0.5", "a.toml:4: pool.breaker: is the number 0.5, must be a section"),
        (
            "breaker = { failure_rate = 0.0 }",
            "a.toml:4: pool.breaker.failure_rate: is 0, must be from 0.000001 to 1",
        ),
        ("breaker = { failure_rate = nan }", "a.toml:4: pool.breaker.failure_rate: is NaN, must be from"),
        ("breaker = { window = \"2h\" }", "a.toml:4: pool.breaker.window: is 2h, must be from 1s to 1h"),
        ("breaker = { min_count = 0 }", "a.toml:4: pool.breaker.min_count: is 0, must be from 1 to 1000000"),
        (
            "breaker = { open_for = \"0s\" }",
            "a.toml:4: pool.breaker.open_for: is 0s, must be from 100ms to 1h",
        ),
        (
            "breaker = { open = \"1s\" }",
            "a.toml:4: pool.breaker.open: unknown key; the keys here are failure_rate",
        ),
    ] {
        refused(&format!("[[pool]]\nname = \"x\"\nrpm = 1\n{pool}"), expected);
    }
}

#[test]
fn what_is_wrong_with_an_agent_is_said() {
    for (agent, expected) in [
        ("weight = 1", "a.toml:1: agent.match: is missing; add match = \"researcher-*\""),
        ("match = 1", "a.toml:2: agent.match: is the number 1, must be a text in quotes"),
        ("match = \"\"", "a.toml:2: agent.match: must be 1 to 128 bytes without control characters"),
        ("match = \"a\"\nweight = 0", "a.toml:3: agent.weight: is 0, must be from 0.001 to 1000"),
        ("match = \"a\"\nweight = 1000.1", "a.toml:3: agent.weight: is 1000.1, must be from 0.001 to 1000"),
        ("match = \"a\"\nmax_share = 0.0", "a.toml:3: agent.max_share: is 0, must be from 0.000001 to 1"),
        ("match = \"a\"\nmax_share = 1.1", "a.toml:3: agent.max_share: is 1.1, must be from 0.000001 to 1"),
        ("match = \"a\"\nweigth = 1", "a.toml:3: agent.weigth: unknown key; did you mean \"weight\"?"),
        ("match = \"a\"\nrpm = 0", "a.toml:3: agent.rpm: amount is 0, must be from 1"),
        (
            "match = \"a\"\nmax_concurrent = 1",
            "a.toml:3: agent.max_concurrent: \"max_concurrent\" is a concurrency limit; agents have rate limits \
             only; move it to a pool",
        ),
        (
            "match = \"a\"\n[[agent.limit]]\nname = \"w\"\nkind = \"window\"\namount = 1\nper = \"1s\"",
            "a.toml:4: agent.limit.name: \"w\" is a window limit; agents have rate limits only",
        ),
        (
            "match = \"a\"\n[[agent.limit]]\nname = \"w\"\namount = 1",
            "a.toml:3: agent.limit.per: is missing; add per = \"1s\"",
        ),
        (
            "match = \"a\"\n[[agent]]\nmatch = \"a\"",
            "a.toml:4: agent.match: \"a\" never counts: \"a\" at a.toml:2 comes first and matches as much",
        ),
        (
            "match = \"*\"\n[[agent]]\nmatch = \"a\"",
            "a.toml:4: agent.match: \"a\" never counts: \"*\" at a.toml:2",
        ),
    ] {
        refused(&format!("[[agent]]\n{agent}"), expected);
    }
    let many: String = (0..257).map(|number| format!("[[agent]]\nmatch = \"{number}\"\n")).collect();
    refused(&many, "a.toml:513: agent: is one of more than 256; leave some out");
    let many: String =
        (0..17).map(|n| format!("[[agent.limit]]\nname = \"{n}\"\namount = 1\nper = \"1s\"\n")).collect();
    refused(&format!("[[agent]]\nmatch = \"a\"\n{many}"), "a.toml:1: agent: has 17 limits, may have 16");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = read(
        "[swarm]\npolicy = \"x\"\nforget = 1\n[[pool]]\nname = \"a\"\nrpm = 0\n[[pool]]\nname = \"b\"\nrpm = 0",
    );
    let errors = errors.unwrap_err();
    for line in [2, 3, 6, 9] {
        assert!(
            errors.iter().any(|error| error.starts_with(&format!("a.toml:{line}: "))),
            "{line}: {errors:#?}"
        );
    }
}

#[test]
fn flags_beat_the_file_which_beats_the_defaults() {
    let text = "[node]\nname = \"file\"\nsocket = \"/file\"\n[swarm]\npolicy = \"strict\"\nseeds = [\"/ip4/1.1.1.1/tcp/1\"]\n\
                [[pool]]\nname = \"a\"\nrpm = 1\n[[pool]]\nname = \"b\"\nrpm = 2";
    let overrides = Overrides {
        name: Some("flag".to_owned()),
        seeds: vec!["/ip4/2.2.2.2/tcp/2".to_owned()],
        pools: vec!["b:rpm=3".to_owned(), "c:rpm=4".to_owned()],
        no_mdns: true,
        ..Overrides::default()
    };
    let config = Config::parse(text, "a.toml", &overrides).unwrap();
    assert_eq!((config.name.as_str(), config.socket.to_str()), ("flag", Some("/file")));
    assert_eq!((config.policy, config.mdns), (Policy::Strict, false));
    assert_eq!(config.seeds[0].to_string(), "/ip4/2.2.2.2/tcp/2");
    let pools: Vec<_> =
        config.pools.iter().map(|pool| (pool.pool.name(), pool.pool.limits()[0].kind.amount())).collect();
    assert_eq!(pools, [("a", 1), ("b", 3), ("c", 4)]);

    let overrides = Overrides { policy: Some("lax".to_owned()), ..Overrides::default() };
    let errors = Config::parse(text, "a.toml", &overrides).unwrap_err().to_string();
    assert_eq!(errors, "--policy: is \"lax\", must be \"strict\" or \"available\"");
}

#[test]
fn a_pool_flag_is_a_pool() {
    let pools = pools(&["a:b/c:rpm=500,burst=50,tpm=80_000,x=5000/1s,burst=3,headroom=0.5,overflow=refuse"]);
    let pools = pools.unwrap();
    assert_eq!(pools[0].pool.name(), "a:b/c");
    assert_eq!(
        limits(&pools[0]),
        [
            ("rpm", "requests", 250, 60.0, 25),
            ("tpm", "tokens", 40_000, 60.0, 40_000),
            ("x", "requests", 2_500, 1.0, 1)
        ]
    );
    assert!(!pools[0].overflow_wait);
}

#[test]
fn a_pool_flag_takes_every_shorthand_and_the_keys_of_a_pool() {
    let pools =
        pools(&["a:rpd=500,burst=5,max_concurrent=8", "b:tpm=5,keyed=true,max_keys=3,ageing=2s"]).unwrap();
    assert_eq!(
        limits(&pools[0]),
        [("rpd", "requests", 500, 86_400.0, 5), ("max_concurrent", "requests", 8, 600.0, 8)]
    );
    assert!(matches!(pools[0].pool.limits()[1].kind, Kind::Concurrency(_)));
    assert_eq!((pools[1].keyed, pools[1].ageing), (Some(3), Duration::from_secs(2)));
}

#[test]
fn a_wrong_pool_flag_says_what_to_write() {
    for (flag, expected) in [
        ("api", "--pool: \"api\" must be NAME:LIMIT=AMOUNT"),
        (":rpm=5", "must be NAME:LIMIT=AMOUNT"),
        ("api:burst=5", "--pool: api.burst: comes before any limit"),
        ("api:rpm=5,burst=1,burst=2", "--pool: api.burst: is there twice for rpm"),
        ("api:rpm=many", "--pool: api.rpm: is \"many\", must be a whole number"),
        ("api:rmp=5", "--pool: api.rmp: unknown key; did you mean \"rpm\"?"),
        ("api:rpm=5/1s", "--pool: api.rpm: has a period already"),
        ("api:max_concurrent=5/1s", "--pool: api.max_concurrent: has no period; write max_concurrent=AMOUNT"),
        (
            "api:max_concurrent=5,burst=2",
            "--pool: api.burst: follows max_concurrent, a concurrency limit, which has none",
        ),
        ("api:rpm=5,keyed=yes", "--pool: api.keyed: is \"yes\", must be true or false"),
        ("api:rpm=5,keyed=true,max_keys=0", "--pool: api.max_keys: is 0, must be from 1 to 10000000"),
        ("api:rpm=5,breaker=0.5", "--pool: api.breaker: has several numbers, which only a file can say"),
        ("api:rpm=5,keyd=true", "--pool: api.keyd: unknown key; did you mean \"keyed\"?"),
        ("api:x=5/1", "--pool: api.x: is \"1\", must be a time with its unit"),
        ("api:rpm=5,tpm", "\"tpm\" must be KEY=VALUE"),
        ("api:rpm=0", "--pool: api.rpm: amount is 0"),
        ("api:rpm=5,rpm=6", "--pool: api.rpm: limit \"rpm\" is there twice"),
    ] {
        let error = pools(&[flag]).expect_err(flag);
        assert!(error.contains(expected), "{flag}: {error}");
    }
    assert!(pools(&["a:rpm=1", "a:rpm=2"]).unwrap_err().contains("pool \"a\" is there twice"));
}

#[test]
fn headroom_leaves_at_least_one() {
    assert_eq!(
        limits(&pools(&["a:rpm=100,burst=2,headroom=0.9"]).unwrap()[0])[0],
        ("rpm", "requests", 10, 60.0, 1)
    );
}
