//! What the core is told of the configuration.

use super::config::{AgentConfig, Config, PoolConfig};
use crate::protocol::agents::{AgentRule, Agents};
use crate::protocol::breaker::{BreakerConfig, MILLION};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::limit::Pool;
use crate::protocol::node::NodeConfig;

/// A node that runs with this configuration.
pub fn node_config(config: &Config, id: NodeId, incarnation: Incarnation) -> NodeConfig {
    NodeConfig {
        id,
        incarnation,
        name: config.name.clone(),
        pools: config.pools.iter().map(core_pool).collect(),
        policy: config.policy,
        forget_after: config.forget_after,
        weight: 1,
        agents: agents(&config.agents),
    }
}

/// A pool with all that the core needs to know of it.
fn core_pool(config: &PoolConfig) -> Pool {
    let mut pool = config.pool.clone();
    pool.ageing = config.ageing;
    pool.breaker = config.breaker.map(|settings| BreakerConfig {
        failure_rate: (settings.failure_rate * f64::from(MILLION)).round() as u32,
        window: settings.window,
        min_count: settings.min_count,
        open_for: settings.open_for,
    });
    pool
}

fn agents(configs: &[AgentConfig]) -> Agents {
    let rule = |config: &AgentConfig| {
        if !config.limits.is_empty() {
            tracing::warn!("the own limits of agent {:?} are not kept by this version", config.matches);
        }
        AgentRule {
            matches: config.matches.clone(),
            weight: config.weight_thousandths,
            max_share: config.max_share_millionths,
        }
    };
    Agents::new(configs.iter().map(rule).collect()).expect("BUG! the configuration passed unchecked agents")
}
