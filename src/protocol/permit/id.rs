//! What callers name a permit by.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::protocol::id::Incarnation;

/// Names one permit of one life of this node. Opaque to callers; its text form is 32 hexadecimal digits.
///
/// It is no secret: whether a caller may settle it is for the daemon to know. An id of a former life never names a permit
/// of this one, since the life is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId {
    /// The life in which it was issued.
    pub(super) incarnation: Incarnation,
    /// Which use of the slot it was.
    pub(super) generation: u32,
    /// Where it is kept.
    pub(super) slot: u32,
}

/// Why a text is no permit's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PermitIdError {
    /// Too short or too long; in bytes.
    #[error("a permit id has {DIGITS} hexadecimal digits, this has {0} bytes; pass it on as acquire gave it")]
    Length(usize),
    /// Something other than a hexadecimal digit; at this byte, from zero.
    #[error("a permit id has {DIGITS} hexadecimal digits, byte {0} is none; pass it on as acquire gave it")]
    Digit(usize),
}

/// Digits of the text form: four bits each.
const DIGITS: usize = u128::BITS as usize / 4;

impl fmt::Display for PermitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let halves = u64::from(self.generation) << 32 | u64::from(self.slot);
        write!(f, "{:032x}", u128::from(self.incarnation.0) << 64 | u128::from(halves))
    }
}

impl FromStr for PermitId {
    type Err = PermitIdError;

    /// Reads what [`Display`](fmt::Display) writes; capital digits too.
    fn from_str(text: &str) -> Result<Self, PermitIdError> {
        if text.len() != DIGITS {
            return Err(PermitIdError::Length(text.len()));
        }
        let bits = text.bytes().enumerate().try_fold(0_u128, |bits, (place, byte)| {
            let digit = char::from(byte).to_digit(16).ok_or(PermitIdError::Digit(place))?;
            Ok(bits << 4 | u128::from(digit))
        })?;
        Ok(Self {
            incarnation: Incarnation((bits >> 64) as u64),
            generation: (bits >> 32) as u32,
            slot: bits as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_form_is_read_back(incarnation: u64, generation: u32, slot: u32) {
            let id = PermitId { incarnation: Incarnation(incarnation), generation, slot };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_says_why() {
        let id = PermitId { incarnation: Incarnation(7), generation: 8, slot: 9 }.to_string();
        assert_eq!(id, "00000000000000070000000800000009");
        assert_eq!("".parse::<PermitId>(), Err(PermitIdError::Length(0)));
        assert_eq!(id[1..].parse::<PermitId>(), Err(PermitIdError::Length(31)));
        assert_eq!(format!("0{id}").parse::<PermitId>(), Err(PermitIdError::Length(33)));
        assert_eq!(format!("+{}", &id[1..]).parse::<PermitId>(), Err(PermitIdError::Digit(0)));
        assert_eq!(format!("{}é", &id[2..]).parse::<PermitId>(), Err(PermitIdError::Digit(30)));
    }
}
