//! Lists as they are read from a peer: no longer than any honest one, and no memory before the bytes are there.
//!
//! What a list says of its length comes before its items. Room for all of them at once would let a few bytes take a
//! mebibyte (serde's own lists reserve as much), and room for very many small ones lets a message take seventy times its
//! size. So a length beyond the bound is refused, and room is made as the items come.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Bytes of memory that are reserved before the first item has come.
const AHEAD: usize = 2 * 1024;

/// Reads a list of at most `MAX` items, for `#[serde(deserialize_with = "…")]`.
///
/// # Errors
/// A longer one, or a malformed item.
pub fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let said = items.size_hint().unwrap_or(0);
            if said > MAX {
                return Err(A::Error::invalid_length(said, &self));
            }
            let mut list = Vec::with_capacity(said.min(AHEAD / size_of::<T>().max(1)));
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}
