//! `[access]`: what is said of the machine's users, with their names looked up.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use nix::unistd::{Group, User};
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Set};
use super::source::{Entry, Source};
use crate::daemon::access::{OVERFLOW_ID, Peer};

/// Who may use the socket besides the daemon's owner and root, who may administer, and what one user may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// The id of the group whose members may connect; only the owner and root may unless said.
    pub group: Option<u32>,
    /// Ids of users that may administer.
    pub operators: BTreeSet<u32>,
    /// Ids of groups whose members may administer.
    pub operator_groups: BTreeSet<u32>,
    /// Whether only operators may tell how calls ended (`observe = "operators"`).
    pub observe_needs_operator: bool,
    /// Connections that one user may have at once: 1 to 1,000,000. Unless said, a quarter of all with a `group`, else as
    /// many as all.
    pub max_connections_per_user: Option<usize>,
    /// Requests of one user that may wait for one pool: 1 to 1,000,000. Unless said, half of the pool's `max_queue` with a
    /// `group`, else all of it.
    pub max_waiting_per_user: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct AccessSection {
    group: Option<Set<Name>>,
    operators: Vec<Set<Name>>,
    operator_groups: Vec<Set<Name>>,
    observe: Option<Set<String>>,
    max_connections_per_user: Option<Set<u64>>,
    max_waiting_per_user: Option<Set<u64>>,
}

/// A user or a group, as it is written.
#[derive(Clone, Debug)]
enum Name {
    Id(u32),
    Word(String),
}

const KEYS: [&str; 6] =
    ["group", "operators", "operator_groups", "observe", "max_connections_per_user", "max_waiting_per_user"];
const QUOTA: RangeInclusive<u64> = 1..=1_000_000;

impl Source<'_> {
    pub fn access(&mut self, table: &DeTable) -> AccessSection {
        let mut access = AccessSection::default();
        for entry in self.entries(table, "access") {
            match entry.key {
                "group" => access.group = self.name(&entry, "group"),
                "operators" => access.operators = self.names(&entry, "user"),
                "operator_groups" => access.operator_groups = self.names(&entry, "group"),
                "observe" => access.observe = self.string(&entry),
                "max_connections_per_user" => access.max_connections_per_user = self.whole(&entry),
                "max_waiting_per_user" => access.max_waiting_per_user = self.whole(&entry),
                _ => self.unknown(&entry, &KEYS),
            }
        }
        access
    }

    fn names(&mut self, entry: &Entry, what: &str) -> Vec<Set<Name>> {
        let DeValue::Array(items) = entry.value else {
            let example = format!("a list of {what}s, such as {} = [\"wheel\", 1000]", entry.key);
            return self.wrong(entry, &example).unwrap_or_default();
        };
        let mut names = Vec::new();
        for item in items {
            let place = self.place(item.span().start, entry.place.key.clone());
            names.extend(self.name(&Entry { key: entry.key, place, value: item.get_ref() }, what));
        }
        names
    }

    fn name(&mut self, entry: &Entry, what: &str) -> Option<Set<Name>> {
        let name = match entry.value {
            DeValue::String(text) if !text.is_empty() => Some(Name::Word(text.to_string())),
            DeValue::Integer(number) => {
                u32::from_str_radix(number.as_str(), number.radix()).ok().map(Name::Id)
            }
            _ => None,
        };
        name.map(|name| entry.set(name))
            .or_else(|| self.wrong(entry, &format!("the name of a {what} in quotes, or its number")))
    }
}

/// Leaves out what is wrong.
pub(super) fn validate(section: AccessSection, errors: &mut Vec<ConfigError>) -> AccessConfig {
    let mut keep = |error: ConfigError| errors.push(error);
    let group = section.group.map(|group| group_named(&group)).transpose();
    let group = group.map_err(&mut keep).ok().flatten();
    let mut operators = BTreeSet::new();
    for user in &section.operators {
        operators.extend(user_named(user).map_err(&mut keep).ok());
    }
    let mut operator_groups = BTreeSet::new();
    for group in &section.operator_groups {
        let Ok(group) = group_named(group).map_err(&mut keep) else { continue };
        operators.extend(group.members());
        operator_groups.insert(group.id);
    }
    let observe_needs_operator = match section.observe {
        None => false,
        Some(observe) => match observe.value.as_str() {
            "all" => false,
            "operators" => true,
            other => {
                keep(observe.place.choice(other, &["all", "operators"]));
                false
            }
        },
    };
    let mut quota = |written: Option<Set<u64>>| {
        let quota = written.map(|quota| quota.within(&QUOTA)).transpose();
        quota.map_err(&mut keep).ok().flatten().map(|quota| quota as usize)
    };
    AccessConfig {
        group: group.map(|group| group.id),
        operators,
        operator_groups,
        observe_needs_operator,
        max_connections_per_user: quota(section.max_connections_per_user),
        max_waiting_per_user: quota(section.max_waiting_per_user),
    }
}

struct Members {
    id: u32,
    names: Vec<String>,
}

impl Members {
    /// The ids of those that the system lists as members. A name that it does not know is of nobody who could connect.
    fn members(&self) -> impl Iterator<Item = u32> {
        let user = |name: &String| User::from_name(name).ok().flatten();
        self.names.iter().filter_map(user).map(|user| user.uid.as_raw())
    }
}

fn user_named(user: &Set<Name>) -> Result<u32, ConfigError> {
    let id = match &user.value {
        Name::Id(id) => *id,
        Name::Word(name) => match User::from_name(name) {
            Ok(Some(user)) => user.uid.as_raw(),
            Ok(None) => {
                return Err(user.place.error(format!("there is no user {name:?} on this machine")));
            }
            Err(error) => return Err(user.place.error(format!("cannot look up user {name:?}: {error}"))),
        },
    };
    somebody(id, user)
}

fn group_named(group: &Set<Name>) -> Result<Members, ConfigError> {
    let (found, said) = match &group.value {
        // A number need not have a name, and then has no members but whoever runs with it.
        Name::Id(id) => (Group::from_gid((*id).into()), id.to_string()),
        Name::Word(name) => (Group::from_name(name), format!("{name:?}")),
    };
    let found = found.map_err(|error| group.place.error(format!("cannot look up group {said}: {error}")))?;
    let members = match (found, &group.value) {
        (Some(found), _) => Members { id: found.gid.as_raw(), names: found.mem },
        (None, Name::Id(id)) => Members { id: *id, names: Vec::new() },
        (None, Name::Word(_)) => {
            return Err(group.place.error(format!("there is no group {said} on this machine")));
        }
    };
    somebody(members.id, group)?;
    Ok(members)
}

fn somebody(id: u32, named: &Set<Name>) -> Result<u32, ConfigError> {
    if id == OVERFLOW_ID {
        let reason = format!("is number {id}, which stands for everybody whom a container does not know");
        return Err(named.place.error(reason));
    }
    if id == Peer::UNKNOWN.uid {
        return Err(named.place.error(format!("is number {id}, which no system gives out")));
    }
    Ok(id)
}
