//! The text formats of metrics: `OpenMetrics` 1.0, and Prometheus 0.0.4, which differ in names of counters and in the end.

use std::fmt::{Display, Write};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Prometheus,
}

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows only; its sample's name ends with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Always 1, with labels that say something; its sample's name ends with `_info`.
    Info,
}

/// A page that is being written: families, each with its samples after it.
pub struct Page {
    format: Format,
    text: String,
    family: &'static str,
    suffix: &'static str,
}

impl Format {
    /// The better one that a scraper with this `Accept` header takes.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The page's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Page {
    /// An empty page.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(1 << 14), family: "", suffix: "" }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        self.suffix = match kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let (called, kind) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::Prometheus, Kind::Info) => (self.suffix, "gauge"),
            (Format::Prometheus, Kind::Counter) => (self.suffix, "counter"),
            (_, Kind::Gauge) => ("", "gauge"),
            (_, Kind::Histogram) => ("", "histogram"),
        };
        let _ = writeln!(self.text, "# HELP {name}{called} {help}\n# TYPE {name}{called} {kind}");
    }

    /// A sample of the family: `part` is what a histogram's is of.
    pub fn sample(&mut self, part: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{}{part}", self.family, self.suffix);
        for (place, (name, said)) in labels.iter().enumerate() {
            let said = said.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{name}=\"{said}\"", if place == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: f64) {
        self.family(name, Kind::Gauge, help);
        self.sample("", &[], value);
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help);
        self.sample("", &[], value);
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.family("a", Kind::Info, "What.");
        page.sample("", &[("version", "1")], 1);
        page.counter("b", "How often.", 3);
        page.family("c", Kind::Histogram, "How long.");
        page.sample("_bucket", &[("pool", "x\"\\\n"), ("le", "1.0")], 2);
        page.gauge("d", "How much.", 0.5);
        page.finish()
    }

    #[test]
    fn formats_differ_as_they_must() {
        let samples =
            ["a_info{version=\"1\"} 1", "b_total 3", "c_bucket{pool=\"x\\\"\\\\\\n\",le=\"1.0\"} 2", "d 0.5"];
        let (open, old) = (page(Format::OpenMetrics), page(Format::Prometheus));
        for text in [&open, &old] {
            let found: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(found, samples);
        }
        assert!(open.contains("# TYPE b counter\n") && open.ends_with("\n# EOF\n"));
        assert!(old.contains("# TYPE b_total counter\n") && old.contains("# TYPE a_info gauge\n"));
        assert!(!old.contains("EOF"));
    }

    #[test]
    fn scrapers_get_what_they_take() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!((Format::accepted("*/*"), Format::accepted("")), (Format::Prometheus, Format::Prometheus));
    }
}
