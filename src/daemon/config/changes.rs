//! What of a configuration is different from another's.

use std::path::PathBuf;

use super::{Config, ConfigErrors, Overrides};

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

impl Config {
    /// The keys that differ from `other`, in the order of the configuration; pools and agents by name.
    pub fn differences(&self, other: &Self) -> Vec<String> {
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
            pools,
            agents,
            rls,
        } = self;
        let mut keys: Vec<String> = [
            ("node.name", *name == other.name),
            ("node.data_dir", *data_dir == other.data_dir),
            ("node.socket", *socket == other.socket),
            ("swarm.gossip", *gossip == other.gossip),
            ("swarm.seeds", *seeds == other.seeds),
            ("swarm.key_file", *key_file == other.key_file),
            ("swarm.policy", *policy == other.policy),
            ("swarm.forget_after", *forget_after == other.forget_after),
            ("swarm's founders, auto_vouch or trust", *vouching == other.vouching),
            ("swarm.discover", *mdns == other.mdns),
            ("access", *access == other.access),
            ("listen", *listen == other.listen),
            ("rls", *rls == other.rls),
        ]
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(key, _)| key.to_owned())
        .collect();
        let before = keys.len();
        for pool in pools {
            let same = other.pools.iter().find(|one| one.pool.name() == pool.pool.name());
            if same != Some(pool) {
                keys.push(format!("pool {:?}", pool.pool.name()));
            }
        }
        for pool in &other.pools {
            if !pools.iter().any(|one| one.pool.name() == pool.pool.name()) {
                keys.push(format!("pool {:?}", pool.pool.name()));
            }
        }
        if keys.len() == before && *pools != other.pools {
            keys.push("the order of pools".to_owned());
        }
        if *agents != other.agents {
            keys.push("agents".to_owned());
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "f", &Overrides::default()).unwrap()
    }

    #[test]
    fn differences_name_their_keys() {
        let base = "[node]\nname = \"n\"\n[[pool]]\nname = \"a\"\nrpm = 5\n[[pool]]\nname = \"b\"\nrpm = 6\n";
        let cases = [
            (base.to_owned(), vec![]),
            (format!("# of no account\n{base}"), vec![]),
            (base.replace("\"n\"", "\"m\""), vec!["node.name"]),
            (base.replace("rpm = 5", "rpm = 7"), vec!["pool \"a\""]),
            (base.replace("rpm = 5", "rpm = 5\nqueue_timeout = \"1s\""), vec!["pool \"a\""]),
            (base.replace("\"b\"", "\"c\""), vec!["pool \"c\"", "pool \"b\""]),
            (format!("{base}[[agent]]\nmatch = \"x\"\nweight = 2.0\n"), vec!["agents"]),
            (
                format!("[swarm]\npolicy = \"strict\"\ndiscover = \"none\"\n{base}"),
                vec!["swarm.policy", "swarm.discover"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(config(&text).differences(&config(base)), expected, "{text}");
        }
        let turned =
            "[node]\nname = \"n\"\n[[pool]]\nname = \"b\"\nrpm = 6\n[[pool]]\nname = \"a\"\nrpm = 5\n";
        assert_eq!(config(turned).differences(&config(base)), ["the order of pools"]);
    }
}
