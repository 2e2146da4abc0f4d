//! The saved state, and the node that resumes from it.

use aquifer::protocol::node::Start;
use aquifer::wire::decode_saved;

use super::bound::{Bound, DECODER};
use super::swarm::Fuzzed;

/// A node that knows a thousand members a little: it indexes each record several times over.
const RESUME: Bound = Bound(64, 512 << 10);

/// A node resumes from anything that is well formed, and runs on for some seconds.
pub fn saved(bytes: &[u8]) {
    let Ok(saved) = DECODER.of(bytes.len(), || decode_saved(bytes)) else { return };
    RESUME.of(bytes.len(), || {
        let mut fuzzed = Fuzzed::new(Start::Resume(saved));
        for _ in 0..16 {
            fuzzed.pass(200);
        }
    });
}
