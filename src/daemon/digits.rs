//! Numbers as callers write them.

/// The number that these digits are; none if there is anything else among them, or none of them, or too many.
pub fn digits(text: &[u8]) -> Option<u64> {
    // A u64 has twenty digits; a check for each of them would cost more than the number.
    let (safe, rest) = text.split_at(text.len().min(19));
    let mut number = 0;
    for byte in safe {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    let last = match rest {
        [] if text.is_empty() => return None,
        [] => return Some(number),
        [digit @ b'0'..=b'9'] => u64::from(digit - b'0'),
        _ => return None,
    };
    number.checked_mul(10)?.checked_add(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_read_as_the_standard_library_does(text in "[0-9]{0,20}|[0-9]{0,10}[-+ a/:][0-9]{0,10}") {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(digits(text.as_bytes()), text.parse().ok().filter(|_| plain));
        }

        #[test]
        fn all_numbers_are_read(number: u64) {
            prop_assert_eq!(digits(number.to_string().as_bytes()), Some(number));
        }
    }
}
