//! Patterns for names.

/// Whether `name` matches `pattern`: `*` stands for any text, `?` for any one character, all else for itself.
/// Takes at most O(pattern x name).
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What comes after the last star, and the name from where that was tried last: only the last star can
    // help.
    let mut retry = None;
    loop {
        let left = name.clone();
        match (pattern.next(), name.next()) {
            (Some('*'), _) => {
                retry = Some((pattern.clone(), left.clone()));
                name = left;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
            _ => {
                let Some((after, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in
            [("*", ""), ("", ""), ("a*", "a"), ("?ü*", "aüb"), ("*-*7", "r-7-7"), ("**b", "aab")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("?", ""), ("", "a"), ("a*b", "abc"), ("a?c", "ac"), ("*-7", "r-77"), ("[a]", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    /// By the definition.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', pattern @ ..], name) => (0..=name.len()).any(|from| naive(pattern, &name[from..])),
            ([wanted, pattern @ ..], [found, name @ ..]) => {
                (*wanted == b'?' || wanted == found) && naive(pattern, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
