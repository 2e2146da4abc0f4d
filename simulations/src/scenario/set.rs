//! Changes to a scenario from the command line, by name.

use toml::{Table, Value};

use super::error::similar;
use super::{Scenario, ScenarioError};

/// Short names, and the fields that they stand for. `load` is that of every workload.
const SHORT: [(&str, &str); 15] = [
    ("nodes", "nodes"),
    ("seconds", "seconds"),
    ("warmup", "warmup"),
    ("hop_ms", "links.hop_ms"),
    ("loss", "links.loss"),
    ("duplicate", "links.duplicate"),
    ("jitter", "links.jitter"),
    ("drift_ppm", "clocks.drift_ppm"),
    ("per_second", "limit.per_second"),
    ("burst", "limit.burst"),
    ("policy", "policy"),
    ("start", "start"),
    ("probe_every", "probe_every"),
    ("load", "workload.load"),
    ("liars", "liars"),
];

/// All short names, for errors.
pub(super) fn names() -> String {
    SHORT.map(|(short, _)| short).join(", ")
}

impl Scenario {
    /// Sets a field by its short name, or by its path such as `links.loss`; in lists, it is set for every entry.
    ///
    /// # Errors
    /// There is no such field, or it cannot have this value. Nothing is changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ScenarioError> {
        let short = SHORT.iter().find(|(short, _)| *short == key).map(|(_, path)| *path);
        let Some(path) = short.or(key.contains('.').then_some(key)) else {
            let similar = similar(key, SHORT.iter().map(|(short, _)| *short));
            return Err(ScenarioError::Key { key: key.to_owned(), similar });
        };
        let origin = || format!("{} with {key} = {value}", self.name);
        // By way of TOML, so that a field is read and refused here as in a file.
        let mut fields = Table::try_from(&*self).expect("BUG! a scenario that is not TOML");
        let parsed = toml::from_str(&format!("value = {value}")).ok();
        let parsed = parsed.and_then(|mut table: Table| table.remove("value"));
        set(&mut fields, path, &parsed.unwrap_or_else(|| Value::String(value.to_owned())));
        let mut changed: Self = fields
            .try_into()
            .map_err(|error| ScenarioError::Parse { origin: origin(), source: Box::new(error) })?;
        changed.name.clone_from(&self.name);
        for (new, old) in changed.workload.iter_mut().zip(&self.workload) {
            new.rows.clone_from(&old.rows);
        }
        changed.check_as(&origin())?;
        *self = changed;
        Ok(())
    }
}

fn set(fields: &mut Table, path: &str, value: &Value) {
    let Some((first, rest)) = path.split_once('.') else {
        fields.insert(path.to_owned(), value.clone());
        return;
    };
    match fields.entry(first).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        Value::Array(list) => {
            list.iter_mut().filter_map(Value::as_table_mut).for_each(|inner| set(inner, rest, value));
        }
        // Replaced by a table, which reading the whole refuses with the field's name.
        other => *other = Value::Table(Table::from_iter([(rest.to_owned(), value.clone())])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn every_short_name_sets_what_it_stands_for() {
        for (key, value) in [
            ("nodes", "20"),
            ("seconds", "7.5"),
            ("warmup", "1"),
            ("hop_ms", "33"),
            ("loss", "5"),
            ("duplicate", "2"),
            ("jitter", "0.25"),
            ("drift_ppm", "100"),
            ("per_second", "77"),
            ("burst", "78"),
            ("policy", "available"),
            ("start", "alone"),
            ("probe_every", "1"),
            ("load", "3"),
            ("liars", "0.3"),
        ] {
            let mut scenario = Scenario::default();
            scenario.set(key, value).unwrap_or_else(|error| panic!("{error}"));
            assert_ne!(scenario, Scenario::default(), "{key} changed nothing");
        }
    }

    #[test]
    fn a_load_is_set_for_every_workload_and_names_and_traces_stay() {
        let mut scenario = Scenario::default();
        let row = crate::workload::Row { at: 1.0, node: 0, agent: 0, units: 1 };
        scenario.workload.push(Workload { rows: vec![row], ..Workload::default() });
        scenario.set("load", "3").unwrap();
        assert!(scenario.workload.iter().all(|workload| (workload.load - 3.0).abs() < 1e-9));
        assert_eq!((scenario.name.as_str(), scenario.workload[1].rows.len()), ("default", 1));
    }

    #[test]
    fn what_cannot_be_set_changes_nothing_and_says_why() {
        let mut scenario = Scenario::default();
        let mut refused = |key, value| scenario.set(key, value).expect_err("it cannot be set").to_string();
        assert!(refused("lose", "1").starts_with("there is no \"lose\" to set, did you mean \"loss\"?"));
        assert!(refused("nodes", "0").contains("default with nodes = 0: nodes: it is 0, must be"));
        assert!(refused("nodes", "many").contains("many"));
        assert!(refused("links.foo", "1").contains("foo"));
        assert!(refused("nodes.foo", "1").contains("expected usize"));
        assert_eq!(scenario, Scenario::default());
    }
}
