//! Traces: requests that were recorded elsewhere, as CSV.

use serde::Serialize;
use thiserror::Error;

/// One recorded request: a line `time,node,agent,cost`. Empty lines and those that begin with `#` are skipped, and so
/// is a first line that is just these words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// When, in seconds from where the workload begins.
    pub at: f64,
    /// At which of the workload's nodes; goes round if there are fewer.
    pub node: usize,
    /// Of which agent.
    pub agent: u32,
    /// What it takes, in units.
    pub units: u64,
}

/// A line that is not a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {what}; a line is time,node,agent,cost such as 0.25,3,0,1")]
pub struct TraceError {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Row {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first line that is not a request.
    pub fn read_all(text: &str) -> Result<Vec<Self>, TraceError> {
        let lines = text.lines().enumerate().filter(|(index, line)| {
            let header = *index == 0 && line.trim() == "time,node,agent,cost";
            !(line.trim().is_empty() || line.starts_with('#') || header)
        });
        lines
            .map(|(index, line)| Self::read(line).map_err(|what| TraceError { line: index + 1, what }))
            .collect()
    }

    fn read(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [at, node, agent, units] = fields[..] else {
            return Err(format!("has {} fields", fields.len()));
        };
        let at: f64 = field("time", at)?;
        let units: u64 = field("cost", units)?;
        if !at.is_finite() || at < 0.0 {
            return Err(format!("time is {at}, must be 0 or more"));
        }
        if units == 0 {
            return Err("cost is 0, must be 1 or more".to_owned());
        }
        Ok(Self { at, node: field("node", node)?, agent: field("agent", agent)?, units })
    }
}

fn field<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} is {text:?}, which is not a number that it can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_and_what_is_not_a_request_is_named_by_its_line() {
        let rows = Row::read_all("time,node,agent,cost\n# morning\n0.5, 1,2,30\n\n1,0,0,1\n").unwrap();
        assert_eq!(rows[0], Row { at: 0.5, node: 1, agent: 2, units: 30 });
        assert_eq!(rows.len(), 2);
        let line = |text| Row::read_all(text).unwrap_err();
        assert_eq!((line("0,0,0,1\n0,0,1").line, line("0,0,0,1\n0,0,1").what.as_str()), (2, "has 3 fields"));
        assert!(line("0,x,0,1").what.contains("node is \"x\""));
        assert!(line("-1,0,0,1").what.contains("time is -1"));
        assert!(line("nan,0,0,1").what.contains("time is NaN"));
        assert!(line("0,0,0,0").what.contains("cost is 0"));
    }
}
