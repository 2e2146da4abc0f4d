//! What is said of configurations that are wrong: where, which key, and what to write.

use super::{pools, read};

#[test]
fn each_mistake_says_its_line_its_key_and_what_to_write() {
    let cases = [
        ("[swarm]\npolcy = \"strict\"", "a.toml:2: swarm.polcy: unknown key; did you mean \"policy\"?"),
        ("[nod]\n", "a.toml:1: nod: unknown key; did you mean \"node\"?"),
        (
            "[swarm]\npolicy = \"majority\"\nforget_after = \"9s\"",
            "a.toml:3: swarm.forget_after: must be at least 10s under policy \"majority\"",
        ),
        (
            "[swarm]\ntrust = \"nobody\"",
            "a.toml:2: swarm.trust: is \"nobody\", must be \"members\" or \"weight\"",
        ),
        ("[swarm]\nauto_vouch = 1.5", "a.toml:2: swarm.auto_vouch: is 1.5, must be from 0 to 1"),
        (
            "[[swarm.founder]]\nid = \"ab\"\nshare = 1",
            "a.toml:2: swarm.founder.id: must be the 64 hexadecimal digits",
        ),
        ("[[swarm.founder]]\nshare = 1", "a.toml:1: swarm.founder.id: is missing"),
        (
            "[[swarm.founder]]\nid = \"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\"\nshare = 0.6\n[[swarm.founder]]\nid = \"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\"\nshare = 0.4",
            "a.toml:5: swarm.founder.id: is the id of a founder above",
        ),
        (
            "[[swarm.founder]]\nid = \"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\"\nshare = 0.6\n[[swarm.founder]]\nid = \"0000000000000000000000000000000000000000000000000000000000000000\"\nshare = 0.5",
            "a.toml:6: swarm.founder.share: makes the shares of all founders more than 1 together",
        ),
        (
            "[swarm]\npolicy = \"strikt\"",
            "a.toml:2: swarm.policy: is \"strikt\", must be \"strict\", \"majority\" or \"available\"; did you mean \"strict\"?",
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
        (
            "[listen]\ngrpc = \"run/grpc.sock\"",
            "a.toml:2: listen.grpc: is \"run/grpc.sock\", must be a Unix socket or an IP address and a port",
        ),
        (
            "[listen]\ngrpc = \"unix:grpc.sock\"",
            "a.toml:2: listen.grpc: \"unix:grpc.sock\" has no absolute path",
        ),
        (
            "[listen]\ngrpc = \"0.0.0.0:8081\"",
            "a.toml:2: listen.grpc: \"0.0.0.0:8081\" is reached by other machines",
        ),
        ("[listen]\ngrcp = \"127.0.0.1:1\"", "a.toml:2: listen.grcp: unknown key; did you mean \"grpc\"?"),
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
fn what_is_wrong_with_users_is_said() {
    for (access, expected) in [
        ("group = \"no such group\"", "a.toml:2: access.group: there is no group \"no such group\" on this"),
        ("group = -1", "a.toml:2: access.group: is the number -1, must be the name of a group in quotes, or"),
        ("group = \"\"", "a.toml:2: access.group: is the text \"\", must be the name of a group"),
        ("operators = \"root\"", "a.toml:2: access.operators: is the text \"root\", must be a list of users"),
        (
            "operators = [\n\"root\",\n\"no such user\"]",
            "a.toml:4: access.operators: there is no user \"no such user\" on this machine",
        ),
        ("operators = [65534]", "a.toml:2: access.operators: is number 65534, which stands for everybody"),
        (
            "operator_groups = [true]",
            "a.toml:2: access.operator_groups: is true, must be the name of a group",
        ),
        (
            "observe = \"everyone\"",
            "a.toml:2: access.observe: is \"everyone\", must be \"all\" or \"operators\"",
        ),
        (
            "max_connections_per_user = 0",
            "a.toml:2: access.max_connections_per_user: is 0, must be from 1 to 1000000",
        ),
        (
            "max_waiting_per_user = \"5\"",
            "a.toml:2: access.max_waiting_per_user: is the text \"5\", must be a whole number",
        ),
        ("operator = [1000]", "a.toml:2: access.operator: unknown key; did you mean \"operators\"?"),
    ] {
        refused(&format!("[access]\n{access}"), expected);
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
        "[swarm]\npolicy = \"x\"\nforget = 1\n[[pool]]\nname = \"a\"\nrpm = 0\noverflow = \"x\"\nageing = \"0s\"\n\
         [[pool]]\nname = \"b\"\nrpm = 0\n[[agent]]\nweight = 0",
    );
    let errors = errors.unwrap_err();
    for line in [2, 3, 6, 7, 8, 11, 12, 13] {
        assert!(
            errors.iter().any(|error| error.starts_with(&format!("a.toml:{line}: "))),
            "{line}: {errors:#?}"
        );
    }
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
fn what_is_wrong_with_rules_for_envoy_is_said() {
    let pools = "[[pool]]\nname = \"api\"\nrpm = 5\n[[pool]]\nname = \"each\"\nrpm = 5\nkeyed = true\n\
                 [[pool]]\nname = \"few\"\nmax_concurrent = 5\n";
    let domain = "domain = \"d\"\n";
    let path = "entries = [{ key = \"path\", value = \"/a\" }]\n";
    let two = "entries = [{ key = \"path\" }, { key = \"user\" }]\n";
    for (rule, wanted) in [
        (format!("{domain}{path}"), "a.toml:11: rls.pool: is missing"),
        (format!("{domain}pool = \"api\"\n"), "a.toml:11: rls.entries: is missing"),
        (format!("{domain}pool = \"api\"\nentries = []"), "a.toml:11: rls.entries: is empty"),
        (format!("{domain}pool = \"api\"\nentries = [{{}}]"), "a.toml:14: rls.entries.key: is missing"),
        (format!("{domain}{path}pool = \"apy\"\n"), "a.toml:14: rls.pool: is \"apy\", must be"),
        (
            format!("{domain}{path}pool = \"api\"\nunit = \"tokens\""),
            "a.toml:15: rls.unit: pool \"api\" does not count",
        ),
        (
            format!("{domain}{path}pool = \"api\"\nkey = \"path\""),
            "a.toml:15: rls.key: pool \"api\" is not keyed",
        ),
        (format!("{domain}{path}pool = \"each\""), "say which entry's value that is: key = \"path\""),
        (format!("{domain}{two}pool = \"each\""), "say which entry's value that is: key = \"path\""),
        (format!("{domain}{two}pool = \"each\"\nkey = \"usr\""), "did you mean \"user\"?"),
        (
            format!("{domain}{path}pool = \"few\"\ncharge = true"),
            "at once, which nobody can have used already",
        ),
        (format!("{domain}{path}pool = \"api\"\nhedaers = true"), "did you mean \"headers\"?"),
    ] {
        let errors = read(&format!("{pools}[[rls]]\n{rule}")).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(wanted), "{rule}: {errors:?}");
    }
    let one =
        format!("{pools}[[rls]]\n{domain}entries = [{{ key = \"user\", value = \"a*\" }}]\npool = \"each\"");
    assert_eq!(read(&one).unwrap().rls[0].key, Some(0));
}
