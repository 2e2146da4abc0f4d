//! What a node can change while it runs: how it queues, whom it favours, when it stops calling, and what it gives away by
//! itself.
//!
//! Limits cannot be changed: levels, permits and leases belong to them, and peers know them by their numbers. Nothing here
//! moves a unit or a share, so that whatever holds of these (T1 to T3) holds across a change; what is decided by the changed
//! numbers is decided anew with the next request, and whoever waits already keeps the place that it was given.

use super::{Node, Scope};
use crate::protocol::agents::AgentRule;
use crate::protocol::limit::Pool;
use crate::protocol::policy::Vouching;
use crate::protocol::time::Instant;

/// The numbers of a [`NodeConfig`](super::NodeConfig) that can be changed.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Shown to people.
    pub name: String,
    /// The pools that the node has, in their order, with the same limits. Of each the bounds of the queue, the ageing, the
    /// most keys and the numbers of the breaker count; pools are keyed or have a breaker as before.
    pub pools: Vec<Pool>,
    /// The rules for agents. Those that name limits of their own name the same pools as before.
    pub agents: Vec<AgentRule>,
    /// What is vouched for by itself, and how far members are believed; the founders are as before.
    pub vouching: Vouching,
}

impl Node {
    /// Goes by other numbers from now on.
    ///
    /// # Panics
    /// If the pools have other names or limits than before, or if a number is out of its bounds.
    pub fn tune(&mut self, tuning: Tuning, now: Instant) {
        self.expire(now);
        let Tuning { name, pools, agents, vouching } = tuning;
        assert!(pools.len() == self.config.pools.len(), "BUG! other pools than before");
        for (place, pool) in pools.iter().enumerate() {
            self.tune_pool(place, pool, now);
        }
        self.agents.set_rules(agents).expect("BUG! rules for agents were passed unchecked");
        (self.config.name, self.config.pools, self.config.vouching) = (name, pools, vouching);
        self.publish_profile(now);
        self.stale = true;
        self.wake(now);
        self.finish(now);
    }

    fn tune_pool(&mut self, place: usize, pool: &Pool, now: Instant) {
        let is_its = |scope: &Scope| matches!(scope, Scope::Key(promoted) if promoted.template == place);
        for (at, state) in self.pools.iter_mut().enumerate() {
            if at != place && !is_its(&state.scope) {
                continue;
            }
            if at == place {
                let same = state.pool.name() == pool.name() && state.pool.limits() == pool.limits();
                assert!(same, "BUG! a pool with other limits than before");
                if let (Scope::Keyed(keys), Some(most)) = (&mut state.scope, pool.keyed) {
                    keys.set_keys_max(most);
                    state.pool.keyed = pool.keyed;
                }
                if let Some(breaker) = pool.breaker {
                    state.gate.set_breaker(breaker, now);
                    state.pool.breaker = pool.breaker;
                }
            }
            (state.pool.max_queue, state.pool.ageing) = (pool.max_queue, pool.ageing);
            state.queue.set_ageing(pool.ageing);
        }
    }
}
