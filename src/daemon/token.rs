//! The text that lets another machine join: `aq1…`.

use std::fmt;
use std::str::FromStr;

use libp2p::Multiaddr;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::identity::SwarmKey;
use crate::protocol::id::NodeId;

/// What a machine needs to join a swarm. It holds the swarm's key: a secret, as its text is.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Lets it speak to the nodes at all.
    pub swarm_key: SwarmKey,
    /// Whose ledger it joins.
    pub founder: NodeId,
    /// Where nodes are reached, the most promising first. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<Multiaddr>,
}

/// The most addresses that a token can hold.
pub const ADDRESSES_MAX: usize = 16;
/// The longest text that is looked at.
pub const TOKEN_MAX: usize = 4096;

const PREFIX: &str = "aq1";
const CHECK: usize = 4;

/// Why a text is no token. Nothing of the text is repeated: it may be nearly a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Another text altogether, or a token of a later version.
    #[error(
        "this is not a join token of this version: those begin with {PREFIX}; print one with `aquifer token`"
    )]
    Prefix,
    /// Longer than any token.
    #[error("this is longer than any join token; copy only the {PREFIX}… word")]
    Long,
    /// Letters that no token has.
    #[error("the join token has letters that no token has; copy it again, whole")]
    Letters,
    /// The checksum does not fit.
    #[error("the join token was cut off or changed on the way; copy it again, whole")]
    Checksum,
    /// The checksum fits, but not what it is of.
    #[error("the join token holds something else; print a new one with `aquifer token`")]
    Content,
}

/// The key, the founder, and for each address one byte of length and its binary form; then the beginning of
/// the SHA-256 of all that; in base64 for URLs without padding.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        bytes.extend(self.swarm_key.0);
        bytes.extend(self.founder.0);
        for address in self.addresses.iter().filter(|address| fits(address)).take(ADDRESSES_MAX) {
            bytes.push(address.len() as u8);
            bytes.extend_from_slice(address.as_ref());
        }
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", encode(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_MAX {
            return Err(TokenError::Long);
        }
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if !body.bytes().all(|letter| value_of(letter).is_some()) {
            return Err(TokenError::Letters);
        }
        let bytes = decode(body).ok_or(TokenError::Checksum)?;
        let (bytes, check) = bytes.split_last_chunk::<CHECK>().ok_or(TokenError::Checksum)?;
        if *check != checksum(bytes) {
            return Err(TokenError::Checksum);
        }
        let (swarm_key, rest) = bytes.split_first_chunk().ok_or(TokenError::Content)?;
        let (founder, mut rest) = rest.split_first_chunk().ok_or(TokenError::Content)?;
        let mut addresses = Vec::new();
        while let Some((length, after)) = rest.split_first() {
            let (address, after) = after.split_at_checked((*length).into()).ok_or(TokenError::Content)?;
            addresses.push(Multiaddr::try_from(address.to_vec()).map_err(|_| TokenError::Content)?);
            rest = after;
        }
        if addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Content);
        }
        Ok(Self { swarm_key: SwarmKey(*swarm_key), founder: NodeId(*founder), addresses })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut token = f.debug_struct("Token");
        token.field("founder", &self.founder).field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A longer address is left out: real ones are not.
fn fits(address: &Multiaddr) -> bool {
    address.len() <= ADDRESS_MAX
}

/// Sixteen of them, the keys and the checksum stay below [`TOKEN_MAX`] in base64.
const ADDRESS_MAX: usize = 180;

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|index| digest[index])
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letters = (0..=chunk.len()).map(|index| ALPHABET[(group >> (18 - 6 * index)) as usize & 63]);
        text.extend(letters.map(char::from));
    }
    text
}

/// `None` unless `text` is exactly what [`encode`] makes of some bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for letter in chunk {
            group = group << 6 | value_of(*letter)?;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, decoded @ ..] = group.to_be_bytes();
        bytes.extend_from_slice(&decoded[..chunk.len() - 1]);
    }
    (encode(&bytes) == text).then_some(bytes)
}

fn value_of(letter: u8) -> Option<u32> {
    let value = ALPHABET.iter().position(|known| *known == letter)?;
    u32::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = Multiaddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| {
                format!("/ip4/{}/tcp/{port}", std::net::Ipv4Addr::from(ip)).parse().unwrap()
            }),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| {
                format!("/ip6/{}/tcp/{port}", std::net::Ipv6Addr::from(ip)).parse().unwrap()
            }),
            ("[a-z]{1,60}", any::<u16>())
                .prop_map(|(host, port)| format!("/dns4/{host}/tcp/{port}").parse().unwrap()),
        ]
    }

    prop_compose! {
        fn token()(
            key: [u8; 32], founder: [u8; 32], addresses in prop::collection::vec(address(), 0..=ADDRESSES_MAX),
        ) -> Token {
            Token { swarm_key: SwarmKey(key), founder: NodeId(founder), addresses }
        }
    }

    proptest! {
        #[test]
        fn every_token_comes_back_from_its_text(token in token()) {
            let text = token.to_string();
            prop_assert!(text.len() <= TOKEN_MAX);
            prop_assert!(text.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_".contains(&letter)));
            prop_assert_eq!(format!(" {text}\n").parse(), Ok(token));
        }

        #[test]
        fn every_cut_and_every_changed_letter_is_noticed(token in token(), at in any::<prop::sample::Index>()) {
            let text = token.to_string();
            let at = PREFIX.len() + at.index(text.len() - PREFIX.len());
            prop_assert_eq!(text[..at].parse::<Token>(), Err(TokenError::Checksum));
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(changed.parse::<Token>(), Err(TokenError::Checksum));
        }

        #[test]
        fn any_bytes_have_one_text(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_brings_the_reader_down(text in "(aq1)?[A-Za-z0-9_ é-]{0,200}") {
            let _ = text.parse::<Token>();
        }
    }

    #[test]
    fn other_texts_are_told_apart() {
        assert_eq!("".parse::<Token>(), Err(TokenError::Prefix));
        assert_eq!("aq2abc".parse::<Token>(), Err(TokenError::Prefix));
        assert_eq!("aq1abc=".parse::<Token>(), Err(TokenError::Letters));
        assert_eq!("a".repeat(TOKEN_MAX + 1).parse::<Token>(), Err(TokenError::Long));
        let nothing = format!("{PREFIX}{}", encode(&checksum(&[])));
        assert_eq!(nothing.parse::<Token>(), Err(TokenError::Content));
    }

    #[test]
    fn the_key_is_not_in_the_debug_form() {
        let token = Token { swarm_key: SwarmKey([7; 32]), founder: NodeId([1; 32]), addresses: Vec::new() };
        assert_eq!(format!("{token:?}"), "Token { founder: 01010101, addresses: [], .. }");
    }

    #[test]
    fn the_largest_token_is_read_again() {
        let host = "h".repeat(ADDRESS_MAX - 3 - 3);
        let long: Multiaddr = format!("/dns4/{host}/tcp/1").parse().unwrap();
        let token = Token {
            swarm_key: SwarmKey([1; 32]),
            founder: NodeId([2; 32]),
            addresses: vec![long; ADDRESSES_MAX],
        };
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}
