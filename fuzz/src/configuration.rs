//! The configuration file.

use std::time::Duration;

use aquifer::daemon::config::{Config, Overrides, parse_duration, show_duration};
use aquifer::daemon::settings::node_config;
use aquifer::protocol::id::Incarnation;
use aquifer::protocol::node::{Node, Start};
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ed25519;

use super::bound::{Bound, DECODER};

/// The operator's own file: the tree of a TOML document takes some hundred bytes for each value, and every mistake is told
/// in a sentence or two.
const FILE: Bound = Bound(1_024, 256 << 10);
/// Fuzzing finds nothing in longer ones that it does not in these.
const LENGTH_MAX: usize = 16 << 10;

/// A file. Whatever is valid makes a node.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if text.len() > LENGTH_MAX {
        return;
    }
    let config = FILE.of(bytes.len(), || Config::parse(text, "file", &Overrides::default()));
    match config {
        Ok(config) => {
            let config = node_config(&config, Ed25519::new(&[7; 32], [9; 32]), Incarnation(1));
            let now = Instant::from_nanos(1);
            let node = Node::new(config, Start::Join, [1; 32], now);
            assert!(node.pools() > 0);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            let told = errors.to_string();
            assert!(!told.chars().any(|letter| letter.is_control() && letter != '\n'), "{told:?}");
        }
    }
}

/// A length of time. What is shown is read as the same, to the millisecond.
pub fn duration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(time) = DECODER.of(bytes.len(), || parse_duration(text)) else { return };
    let millis = time.as_millis() as u64;
    // Beyond, numbers are read with fewer digits than they have.
    if millis < 1 << 48 {
        let shown = show_duration(time);
        assert_eq!(
            parse_duration(&shown),
            Ok(Duration::from_millis(millis)),
            "{text:?} is shown as {shown:?}"
        );
    }
}
