//! Configurations: what they say, and what is said of those that are wrong.
#![cfg(feature = "daemon")]

use std::time::Duration;

use aquifer::daemon::config::{Config, Overrides, Policy, PoolConfig};

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
            "[[pool]]\nname = \"x\"\nrpm = 1\nrpd = 9",
            "a.toml:4: pool.rpd: limits by the day are not supported yet",
        ),
        (
            "[[pool]]\nname = \"x\"\ntpd = { amount = 9, zone = \"UTC\" }",
            "a.toml:3: pool.tpd: limits by the day are not supported yet",
        ),
        (
            "[[pool]]\nname = \"x\"\nmax_concurrent = 9",
            "a.toml:3: pool.max_concurrent: limits on concurrency are not supported yet",
        ),
        ("[[agent]]\nmatch = \"x\"", "a.toml:1: agent: [[agent]] is not supported yet"),
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
            "[[pool]]\nname = \"x\"\n[[pool.limit]]\nkind = \"window\"\nname = \"y\"\namount = 1\nper = \"1s\"",
            "a.toml:4: pool.limit.kind: \"window\" is not supported yet",
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
        let errors = read(text).expect_err(text);
        assert!(errors.iter().any(|error| error.contains(expected)), "{text}\n{expected}\n{errors:#?}");
        assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    }
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
        config.pools.iter().map(|pool| (pool.pool.name(), pool.pool.limits()[0].rate.amount())).collect();
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
fn a_wrong_pool_flag_says_what_to_write() {
    for (flag, expected) in [
        ("api", "--pool: \"api\" must be NAME:LIMIT=AMOUNT"),
        (":rpm=5", "must be NAME:LIMIT=AMOUNT"),
        ("api:burst=5", "--pool: api.burst: comes before any limit"),
        ("api:rpm=5,burst=1,burst=2", "--pool: api.burst: is there twice for rpm"),
        ("api:rpm=many", "--pool: api.rpm: is \"many\", must be a whole number"),
        ("api:rmp=5", "--pool: api.rmp: unknown key; did you mean \"rpm\"?"),
        ("api:rpm=5/1s", "--pool: api.rpm: has a period already"),
        ("api:rpd=5", "--pool: api.rpd: limits by the day are not supported yet"),
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
