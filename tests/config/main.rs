//! Configurations and what they say.
#![cfg(feature = "daemon")]

use std::time::Duration;

use aquifer::daemon::config::{
    AccessConfig, BreakerSettings, Config, Listen, ListenConfig, Overrides, Policy, PoolConfig,
};
use aquifer::protocol::calendar::{Calendar, Every, Zone};
use aquifer::protocol::limit::{Concurrency, Kind, Window};

mod mistakes;

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
        [access]
        group = 100
        operators = ["root", 1000]
        operator_groups = [2_000_000]
        observe = "operators"
        max_connections_per_user = 40
        max_waiting_per_user = 5
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
    let access = &config.access;
    assert_eq!((access.group, access.observe_needs_operator), (Some(100), true));
    assert!([0, 1_000].iter().all(|user| access.operators.contains(user)), "{access:?}");
    assert_eq!(access.operator_groups, [2_000_000].into());
    assert_eq!((access.max_connections_per_user, access.max_waiting_per_user), (Some(40), Some(5)));
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
    assert_eq!(config.access, AccessConfig::default());
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
    assert_eq!(errors, "--policy: is \"lax\", must be \"strict\", \"majority\" or \"available\"");
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
fn headroom_leaves_at_least_one() {
    assert_eq!(
        limits(&pools(&["a:rpm=100,burst=2,headroom=0.9"]).unwrap()[0])[0],
        ("rpm", "requests", 10, 60.0, 1)
    );
}

#[test]
fn callers_are_answered_elsewhere_if_the_file_says_so() {
    let grpc = |text: &str| read(text).unwrap().listen.grpc;
    assert_eq!(read("").unwrap().listen, ListenConfig::default());
    let unix = Some(Listen::Unix("/run/a/grpc.sock".into()));
    assert_eq!(grpc("[listen]\ngrpc = \"unix:/run/a/grpc.sock\""), unix);
    assert_eq!(grpc("[listen]\ngrpc = \"unix:///run/a/grpc.sock\""), unix);
    for (address, remote) in [("127.0.0.1:8081", false), ("[::1]:0", false), ("0.0.0.0:8081", true)] {
        let text = format!("[listen]\nremote = {remote}\ngrpc = \"{address}\"");
        assert_eq!(grpc(&text), Some(Listen::Tcp(address.parse().unwrap())));
    }
}
