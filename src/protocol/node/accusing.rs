//! Evidence against peers: found, told, heard, acted upon.

use super::Node;
use crate::protocol::audit::{Case, Contradiction, Lie};
use crate::protocol::id::NodeId;
use crate::protocol::record::{Key, Value};
use crate::protocol::time::Instant;

impl Node {
    /// What is held against a peer, if anything is.
    pub fn case(&self, peer: &NodeId) -> Option<&Case> {
        self.audit.case(peer)
    }

    /// What is held against a peer or speaks against it now, in words.
    pub fn reasons(&self, peer: &NodeId) -> Vec<String> {
        self.audit.reasons(peer)
    }

    /// Whether a later life of this node runs elsewhere: see the notice that it gave.
    pub fn is_doubled(&self) -> bool {
        self.doubled
    }

    /// Holds a proven lie against a peer. Who finds it tells all the others.
    pub(super) fn convict(
        &mut self,
        accused: NodeId,
        proof: (Contradiction, Lie),
        told_by: Option<NodeId>,
        now: Instant,
    ) {
        // Whoever runs a copy of this node's directory contradicts it; nobody lends to himself.
        if accused == self.config.id || !self.audit.convict(accused, proof.clone(), told_by) {
            return;
        }
        if told_by.is_none() && self.pages.publish(Key::Evidence(accused), Value::Evidence(proof.0), now) {
            self.peers_should_hear(now);
        }
        self.believe_less(now);
        let reasons = self.audit.case(&accused).map(Case::reasons).unwrap_or_default().join("; ");
        let vouched = self.ledger.gift(&self.config.id, &accused).is_some();
        let advice = if vouched { "; this node vouched for it" } else { "" };
        self.notice(format!(
            "{} lied: it {reasons}. Nothing is lent to it any more{advice}",
            accused.short()
        ));
    }

    /// Somebody shows what it says is proof of a lie.
    pub(super) fn hear_evidence(
        &mut self,
        from: NodeId,
        accused: NodeId,
        proof: &Contradiction,
        now: Instant,
    ) {
        let Some(ledger) = self.ledger_id else { return };
        if self.audit.case(&accused).is_some_and(|case| case.contradiction.is_some()) {
            return;
        }
        if let Some(lie) = proof.proves(accused, ledger, &*self.config.keys) {
            self.convict(accused, (proof.clone(), lie), Some(from), now);
        }
    }
}
