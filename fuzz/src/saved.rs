//! The saved state, and the node that resumes from it.

use aquifer::protocol::node::Start;
use aquifer::wire::decode_saved;

use super::bound::Bound;
use super::swarm::Fuzzed;

/// Our own file, no peer's word: serde reserves up to a mebibyte for a list, and another for one inside.
const FILE: Bound = Bound(16, 2 << 20);
/// A node that knows a thousand members a little: it indexes each record several times over.
const RESUME: Bound = Bound(64, 1 << 20);

/// A node resumes from anything that is well formed, and runs on for some seconds.
pub fn saved(bytes: &[u8]) {
    let Ok(saved) = FILE.of(bytes.len(), || decode_saved(bytes)) else { return };
    RESUME.of(bytes.len(), || {
        let mut fuzzed = Fuzzed::new(Start::Resume(saved));
        for _ in 0..16 {
            fuzzed.pass(200);
        }
    });
}
