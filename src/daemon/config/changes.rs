//! What of a configuration is different from another's, and what of that a running node can take up.

use std::path::PathBuf;

use super::{AccessConfig, AgentConfig, Config, ConfigErrors, Overrides, PoolConfig, Vouching};

/// Where a configuration comes from, to read it again.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What is said over it.
    pub overrides: Overrides,
}

impl ConfigSource {
    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.file.as_deref(), &self.overrides)
    }
}

/// From what a node runs with to what it should.
#[derive(Clone, Debug)]
pub struct Changes {
    /// What it can run with from now on: as before, but for what is `applied`.
    pub config: Config,
    /// The keys that are taken up, in the order of the configuration; of pools `pool "name".key`.
    pub applied: Vec<String>,
    /// The keys that stay as they were until the node starts again.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What becomes of a node that runs with this when it should run with `wanted`.
    pub fn changes_to(&self, wanted: &Self) -> Changes {
        let mut changes = Changes { config: self.clone(), applied: Vec::new(), needs_restart: Vec::new() };
        // All members are named, so that a new one is not forgotten here.
        let Self {
            name,
            data_dir,
            socket,
            gossip,
            seeds,
            key_file,
            policy,
            forget_after,
            vouching,
            mdns,
            access,
            listen,
            pools: _,
            agents: _,
            rls: _,
        } = wanted;
        changes.applies("node.name", |config| &mut config.name, name);
        changes.restarts("node.data_dir", *data_dir == self.data_dir);
        changes.restarts("node.socket", *socket == self.socket);
        changes.restarts("swarm.gossip", *gossip == self.gossip);
        changes.restarts("swarm.seeds", *seeds == self.seeds);
        changes.restarts("swarm.key_file", *key_file == self.key_file);
        changes.restarts("swarm.policy", *policy == self.policy);
        changes.restarts("swarm.forget_after", *forget_after == self.forget_after);
        let Vouching { founders, auto_vouch, trust } = vouching;
        changes.restarts("swarm.founder", *founders == self.vouching.founders);
        changes.applies("swarm.auto_vouch", |config| &mut config.vouching.auto_vouch, auto_vouch);
        changes.applies("swarm.trust", |config| &mut config.vouching.trust, trust);
        changes.restarts("swarm.discover", *mdns == self.mdns);
        changes.access(access);
        changes.restarts("listen", *listen == self.listen);
        let same_pools = changes.pools(&self.pools, &wanted.pools);
        changes.agents(&self.agents, &wanted.agents);
        // Rules name pools by their places, and were checked against their limits.
        if same_pools {
            changes.applies("rls", |config| &mut config.rls, &wanted.rls);
        } else {
            changes.restarts("rls", wanted.rls == self.rls);
        }
        changes
    }
}

impl Changes {
    fn applies<T: Clone + PartialEq>(&mut self, key: &str, of: impl Fn(&mut Config) -> &mut T, wanted: &T) {
        let now = of(&mut self.config);
        if now != wanted {
            now.clone_from(wanted);
            self.applied.push(key.to_owned());
        }
    }

    fn restarts(&mut self, key: &str, same: bool) {
        if !same {
            self.needs_restart.push(key.to_owned());
        }
    }

    fn access(&mut self, wanted: &AccessConfig) {
        let AccessConfig {
            group,
            operators,
            operator_groups,
            observe_needs_operator,
            max_connections_per_user,
            max_waiting_per_user,
        } = wanted;
        self.restarts("access.group", *group == self.config.access.group);
        self.applies("access.operators", |config| &mut config.access.operators, operators);
        self.applies("access.operator_groups", |config| &mut config.access.operator_groups, operator_groups);
        self.applies(
            "access.observe",
            |config| &mut config.access.observe_needs_operator,
            observe_needs_operator,
        );
        self.applies(
            "access.max_connections_per_user",
            |config| &mut config.access.max_connections_per_user,
            max_connections_per_user,
        );
        self.applies(
            "access.max_waiting_per_user",
            |config| &mut config.access.max_waiting_per_user,
            max_waiting_per_user,
        );
    }

    /// Whether there are the same pools with the same limits, in the same order.
    fn pools(&mut self, running: &[PoolConfig], wanted: &[PoolConfig]) -> bool {
        let before = self.needs_restart.len();
        for (place, pool) in running.iter().enumerate() {
            match wanted.iter().find(|other| other.pool.name() == pool.pool.name()) {
                Some(other) => self.pool(place, pool, other),
                None => self.needs_restart.push(format!("pool {:?} (removed)", pool.pool.name())),
            }
        }
        let is_there = |name: &str| running.iter().any(|pool| pool.pool.name() == name);
        let added = wanted.iter().map(|pool| pool.pool.name()).filter(|name| !is_there(name));
        self.needs_restart.extend(added.map(|name| format!("pool {name:?} (added)")));
        let names = |pools: &[PoolConfig]| -> Vec<String> {
            pools.iter().map(|pool| pool.pool.name().to_owned()).collect()
        };
        if self.needs_restart.len() == before {
            self.restarts("the order of pools", names(running) == names(wanted));
        }
        self.needs_restart.len() == before
    }

    /// The pool at this place of what runs.
    fn pool(&mut self, place: usize, running: &PoolConfig, wanted: &PoolConfig) {
        let PoolConfig { pool, overflow_wait, queue_timeout, ageing, keyed, breaker } = wanted;
        let key = |key: &str| format!("pool {:?}.{key}", pool.name());
        self.restarts(&key("limits"), pool.limits() == running.pool.limits());
        self.applies(&key("overflow"), |config| &mut config.pools[place].overflow_wait, overflow_wait);
        self.applies(&key("queue_timeout"), |config| &mut config.pools[place].queue_timeout, queue_timeout);
        self.applies(&key("max_queue"), |config| &mut config.pools[place].pool.max_queue, &pool.max_queue);
        self.applies(&key("ageing"), |config| &mut config.pools[place].ageing, ageing);
        // Whether there are keys, or a breaker and with it the right to probe, is what the pool is made of.
        if keyed.is_some() == running.keyed.is_some() {
            self.applies(&key("max_keys"), |config| &mut config.pools[place].keyed, keyed);
        } else {
            self.restarts(&key("keyed"), false);
        }
        if breaker.is_some() == running.breaker.is_some() {
            self.applies(&key("breaker"), |config| &mut config.pools[place].breaker, breaker);
        } else {
            self.restarts(&key("breaker"), false);
        }
    }

    fn agents(&mut self, running: &[AgentConfig], wanted: &[AgentConfig]) {
        // Limits of agents are pools, each with a place.
        let with_limits = |agents: &[AgentConfig]| -> Vec<_> {
            let limited = agents.iter().filter(|agent| !agent.limits.is_empty());
            limited.map(|agent| (agent.matches.clone(), agent.limits.clone())).collect()
        };
        if with_limits(running) == with_limits(wanted) {
            self.applies("agents", |config| &mut config.agents, &wanted.to_vec());
        } else {
            self.restarts("agents (their limits)", false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "f", &Overrides::default()).unwrap()
    }

    const BASE: &str =
        "[node]\nname = \"n\"\n[[pool]]\nname = \"a\"\nrpm = 5\n[[pool]]\nname = \"b\"\nrpm = 6\n";

    /// From which configuration to which, what applies, and what needs a restart.
    type Case<'a> = (String, String, &'a [&'a str], &'a [&'a str]);

    #[test]
    fn what_is_this_nodes_own_applies_and_what_is_the_swarms_needs_a_restart() {
        let breaker = |count: u32| format!("rpm = 5\nbreaker = {{ min_count = {count} }}");
        let rls = "[[rls]]\ndomain = \"d\"\nentries = [{ key = \"k\" }]\npool = \"a\"\n";
        let agent = |more: &str| format!("{BASE}[[agent]]\nmatch = \"x\"\n{more}\n");
        let cases: &[Case<'_>] = &[
            (BASE.to_owned(), format!("# of no account\n{BASE}"), &[], &[]),
            (BASE.to_owned(), BASE.replace("\"n\"", "\"m\""), &["node.name"], &[]),
            (BASE.to_owned(), BASE.replace("rpm = 5", "rpm = 7"), &[], &["pool \"a\".limits"]),
            (
                BASE.to_owned(),
                BASE.replace(
                    "rpm = 5",
                    "rpm = 5\nqueue_timeout = \"1s\"\nmax_queue = 3\noverflow = \"refuse\"",
                ),
                &["pool \"a\".overflow", "pool \"a\".queue_timeout", "pool \"a\".max_queue"],
                &[],
            ),
            (
                BASE.to_owned(),
                BASE.replace("\"b\"", "\"c\""),
                &[],
                &["pool \"b\" (removed)", "pool \"c\" (added)"],
            ),
            (BASE.to_owned(), BASE.replace("rpm = 5", &breaker(5)), &[], &["pool \"a\".breaker"]),
            (
                BASE.replace("rpm = 5", &breaker(6)),
                BASE.replace("rpm = 5", &breaker(5)),
                &["pool \"a\".breaker"],
                &[],
            ),
            (BASE.to_owned(), agent("weight = 2.0"), &["agents"], &[]),
            (agent("weight = 2.0"), agent("weight = 2.0\nrpm = 9"), &[], &["agents (their limits)"]),
            (agent("rpm = 9"), agent("weight = 2.0\nrpm = 9"), &["agents"], &[]),
            (BASE.to_owned(), format!("{BASE}{rls}"), &["rls"], &[]),
            (
                BASE.to_owned(),
                format!("{}{rls}", BASE.replace("rpm = 6", "rpm = 9")),
                &[],
                &["pool \"b\".limits", "rls"],
            ),
            (
                BASE.to_owned(),
                format!(
                    "[access]\nobserve = \"operators\"\n[swarm]\npolicy = \"strict\"\ntrust = \"weight\"\n{BASE}"
                ),
                &["swarm.trust", "access.observe"],
                &["swarm.policy"],
            ),
        ];
        for (from, to, applied, needs_restart) in cases {
            let (running, wanted) = (config(from), config(to));
            let changes = running.changes_to(&wanted);
            assert_eq!(
                (&changes.applied[..], &changes.needs_restart[..]),
                (&strings(applied)[..], &strings(needs_restart)[..]),
                "{to}"
            );
            let rest = changes.config.changes_to(&wanted);
            assert_eq!(
                (rest.applied, rest.needs_restart),
                (vec![], strings(needs_restart)),
                "what applies is applied: {to}"
            );
            let kept = changes.config.changes_to(&running);
            assert_eq!(
                (kept.applied, kept.needs_restart),
                (strings(applied), vec![]),
                "and nothing else: {to}"
            );
        }
        let turned =
            "[node]\nname = \"n\"\n[[pool]]\nname = \"b\"\nrpm = 6\n[[pool]]\nname = \"a\"\nrpm = 5\n";
        assert_eq!(config(BASE).changes_to(&config(turned)).needs_restart, ["the order of pools"]);
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}
