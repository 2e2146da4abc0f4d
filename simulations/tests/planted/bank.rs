//! The bank: what the bugs are, and how they get into the core.

use serde::Deserialize;

/// All planted bugs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bank {
    /// Numbered from 1 in this order.
    pub bug: Vec<Bug>,
}

/// A mistake that somebody could make.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// Its name in the table.
    pub name: String,
    /// What is wrong, in a sentence.
    pub what: String,
    /// The names of the properties as one of which it must be found.
    pub property: Vec<String>,
    /// The most nodes of the swarms that are to find it.
    #[serde(default = "four")]
    pub nodes: u64,
    /// The scenario that is to find it, if not the swarm: a file in `planted`, without its ending.
    pub scenario: Option<String>,
    /// Where it is.
    pub edit: Vec<Edit>,
}

/// A place in the core, and what is there instead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Below `src/protocol`.
    pub file: String,
    /// Occurs exactly once: statements, if it ends in `;` or `}`, else an expression.
    pub find: String,
    /// What the bug has in its place.
    pub replace: String,
}

/// So few nodes find most bugs, many times as fast as larger swarms.
fn four() -> u64 {
    4
}

impl Bank {
    pub fn read(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("planted.toml: {error}"))
    }

    /// The text of a file of the core with all bugs in it, each behind its switch.
    pub fn plant(&self, file: &str, text: &str) -> String {
        let mut planted = text.to_owned();
        for (bug, number) in self.bug.iter().zip(1..) {
            for edit in bug.edit.iter().filter(|edit| edit.file == file) {
                let places = [text, &planted].map(|text| text.matches(&edit.find).count());
                assert!(
                    places == [1, 1],
                    "the bank is out of date: {:?}: what it changes occurs {places:?} times, not once, in {file} \
                     without and with the bugs before it:\n{}",
                    bug.name,
                    edit.find
                );
                planted = planted.replace(&edit.find, &edit.switched(number));
            }
        }
        planted
    }
}

impl Edit {
    fn switched(&self, number: usize) -> String {
        let Self { find, replace, .. } = self;
        let switch = format!("if crate::planted::is({number}) {{ {replace} }} else {{ {find} }}");
        let is_statement = find.trim_end().ends_with([';', '}']);
        if is_statement { switch } else { format!("({switch})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> Bank {
        Bank::read(
            r#"
            [[bug]]
            name = "off by one"
            what = "It counts too far."
            property = ["Bounded"]
            [[bug.edit]]
            file = "a.rs"
            find = "x + 1"
            replace = "x + 2"
            "#,
        )
    }

    #[test]
    fn an_edit_goes_behind_its_switch() {
        let text = bank().plant("a.rs", "let y = x + 1;");
        assert_eq!(text, "let y = (if crate::planted::is(1) { x + 2 } else { x + 1 });");
        assert_eq!(bank().plant("b.rs", "x + 1; x + 1"), "x + 1; x + 1", "another file");
    }

    #[test]
    #[should_panic(expected = "the bank is out of date: \"off by one\"")]
    fn a_place_that_is_gone_is_named() {
        bank().plant("a.rs", "let y = x;");
    }

    #[test]
    #[should_panic(expected = "the bank is out of date: \"off by one\"")]
    fn a_place_that_is_not_the_only_one_is_named() {
        bank().plant("a.rs", "x + 1; x + 1");
    }
}
