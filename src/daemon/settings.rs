//! What the core is told of the configuration.

use std::sync::Arc;

use super::config::{AgentConfig, Config, PoolConfig};
use crate::protocol::agents::{AGENTS_MAX, AgentRule, Agents};
use crate::protocol::breaker::{BreakerConfig, MILLION};
use crate::protocol::id::Incarnation;
use crate::protocol::limit::Pool;
use crate::protocol::node::{NodeConfig, Tuning};
use crate::wire::signing::Ed25519;

/// A node that runs with this configuration.
pub fn node_config(config: &Config, keys: Ed25519, incarnation: Incarnation) -> NodeConfig {
    let Tuning { name, pools, agents, vouching } = tuning(config);
    NodeConfig {
        id: keys.id(),
        incarnation,
        name,
        pools,
        policy: config.policy,
        forget_after: config.forget_after,
        weight: 1,
        agents: Agents::new(agents).expect("BUG! the configuration passed unchecked agents"),
        keys: Arc::new(keys),
        vouching,
    }
}

/// What of it can be changed while the node runs.
pub fn tuning(config: &Config) -> Tuning {
    let own_limits = config.agents.iter().filter_map(own_limits);
    Tuning {
        name: config.name.clone(),
        pools: config.pools.iter().map(core_pool).chain(own_limits).collect(),
        agents: agent_rules(config),
        vouching: config.vouching.clone(),
    }
}

/// A pool with all that the core needs to know of it.
fn core_pool(config: &PoolConfig) -> Pool {
    let mut pool = config.pool.clone();
    pool.ageing = config.ageing;
    pool.keyed = config.keyed;
    pool.breaker = config.breaker.map(|settings| BreakerConfig {
        failure_rate: (settings.failure_rate * f64::from(MILLION)).round() as u32,
        window: settings.window,
        min_count: settings.min_count,
        open_for: settings.open_for,
    });
    pool
}

/// The own limits of the agents that a rule matches: a keyed pool after all others, one key for each name.
fn own_limits(config: &AgentConfig) -> Option<Pool> {
    if config.limits.is_empty() {
        return None;
    }
    let mut pool = Pool::new(format!("agent {}", config.matches), config.limits.clone())
        .expect("BUG! the configuration passed unchecked limits of agents");
    pool.keyed = Some(AGENTS_MAX);
    Some(pool)
}

fn agent_rules(config: &Config) -> Vec<AgentRule> {
    let mut next = config.pools.len();
    let rule = |agent: &AgentConfig| {
        let own_limits = (!agent.limits.is_empty()).then_some(next);
        next += usize::from(own_limits.is_some());
        AgentRule {
            matches: agent.matches.clone(),
            weight: agent.weight_thousandths,
            max_share: agent.max_share_millionths,
            own_limits,
        }
    };
    config.agents.iter().map(rule).collect()
}
