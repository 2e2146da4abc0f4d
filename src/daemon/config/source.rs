//! Reads typed values out of parsed TOML, and notes what is wrong with its line and key.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Place, Set};
use super::units::{nearest, parse_duration};

/// A file that is being read, and what was wrong with it so far.
pub(super) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub errors: &'a mut Vec<ConfigError>,
}

/// One `key = value` of a table.
pub(super) struct Entry<'a> {
    pub key: &'a str,
    pub place: Place,
    pub value: &'a DeValue<'a>,
}

impl Source<'_> {
    /// The entries of `table`, which is at `path`, in the order of the file.
    pub fn entries<'t>(&self, table: &'t DeTable<'t>, path: &str) -> Vec<Entry<'t>> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &Cow<'t, str> = key.get_ref();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            Entry { key: name, place: self.place(key.span().start, path), value: value.get_ref() }
        };
        entries.into_iter().map(entry).collect()
    }

    /// The place of the byte `offset`.
    pub fn place(&self, offset: usize, key: String) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.split(|byte| *byte == b'\n').count();
        Place { source: format!("{}:{line}", self.name), key }
    }

    /// Notes that a table has no such key as `entry`, but `known` ones.
    pub fn unknown(&mut self, entry: &Entry, known: &[&str]) {
        let hint = match nearest(entry.key, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        self.errors.push(entry.place.error(format!("unknown key; {hint}")));
    }

    pub fn string(&mut self, entry: &Entry) -> Option<Set<String>> {
        match entry.value {
            DeValue::String(text) => Some(entry.set(text.to_string())),
            _ => self.wrong(entry, "a text in quotes"),
        }
    }

    /// A path, which an empty text is not.
    pub fn path(&mut self, entry: &Entry) -> Option<PathBuf> {
        match entry.value {
            DeValue::String(text) if !text.is_empty() => Some(PathBuf::from(text.as_ref())),
            _ => self.wrong(entry, "a path in quotes"),
        }
    }

    pub fn strings(&mut self, entry: &Entry) -> Option<Vec<Set<String>>> {
        let DeValue::Array(items) = entry.value else {
            return self.wrong(entry, "a list of texts, such as [\"…\", \"…\"]");
        };
        let mut texts = Vec::new();
        for item in items {
            let place = self.place(item.span().start, entry.place.key.clone());
            let item = Entry { key: entry.key, place, value: item.get_ref() };
            texts.push(self.string(&item)?);
        }
        Some(texts)
    }

    pub fn one_or_more_strings(&mut self, entry: &Entry) -> Option<Vec<Set<String>>> {
        match entry.value {
            DeValue::String(text) => Some(vec![entry.set(text.to_string())]),
            _ => self.strings(entry),
        }
    }

    pub fn whole(&mut self, entry: &Entry) -> Option<Set<u64>> {
        let number = match entry.value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.map(|number| entry.set(number)).or_else(|| {
            let example = format!("a whole number, such as {} = 50", entry.key);
            self.wrong(entry, &example)
        })
    }

    pub fn fraction(&mut self, entry: &Entry) -> Option<Set<f64>> {
        let number = match entry.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        number.map(|number| entry.set(number)).or_else(|| self.wrong(entry, "a number, such as 0.1"))
    }

    pub fn boolean(&mut self, entry: &Entry) -> Option<Set<bool>> {
        match entry.value {
            DeValue::Boolean(value) => Some(entry.set(*value)),
            _ => self.wrong(entry, "true or false"),
        }
    }

    pub fn duration(&mut self, entry: &Entry) -> Option<Set<Duration>> {
        let DeValue::String(text) = entry.value else {
            return self.wrong(entry, "a time with its unit in quotes, such as \"30s\"");
        };
        let time = parse_duration(text).map_err(|reason| self.errors.push(entry.place.error(reason)));
        Some(entry.set(time.ok()?))
    }

    /// A `[table]`.
    pub fn table<'t>(&mut self, entry: &Entry<'t>) -> Option<&'t DeTable<'t>> {
        match entry.value {
            DeValue::Table(table) => Some(table),
            _ => self.wrong(entry, &format!("a section: [{}]", entry.place.key)),
        }
    }

    /// Each `[[table]]` of a list, and where it begins.
    pub fn tables<'t>(&mut self, entry: &Entry<'t>) -> Vec<(Place, &'t DeTable<'t>)> {
        let wanted = format!("a list of sections, each under [[{}]]", entry.place.key);
        let DeValue::Array(items) = entry.value else {
            return self.wrong(entry, &wanted).unwrap_or_default();
        };
        let mut tables = Vec::new();
        for item in items {
            let place = self.place(item.span().start, entry.place.key.clone());
            match item.get_ref() {
                DeValue::Table(table) => tables.push((place, table)),
                value => {
                    let item = Entry { key: entry.key, place, value };
                    self.wrong::<()>(&item, &wanted);
                }
            }
        }
        tables
    }

    pub fn wrong<T>(&mut self, entry: &Entry, wanted: &str) -> Option<T> {
        let is = match entry.value {
            DeValue::String(text) => format!("the text {text:?}"),
            // The parser takes more for a number than digits.
            DeValue::Integer(number) => format!("the number {}", number.to_string().escape_debug()),
            DeValue::Float(number) => format!("the number {}", number.to_string().escape_debug()),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a section".to_owned(),
        };
        self.errors.push(entry.place.error(format!("is {is}, must be {wanted}")));
        None
    }
}

impl Entry<'_> {
    pub fn set<T>(&self, value: T) -> Set<T> {
        Set { value, place: self.place.clone() }
    }
}

/// Whether `key` is written in `table`, well or not.
pub(super) fn has(table: &DeTable, key: &str) -> bool {
    table.iter().any(|(written, _)| written.get_ref() == key)
}
