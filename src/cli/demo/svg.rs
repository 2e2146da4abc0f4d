//! As much of SVG as the picture needs.

use std::fmt::{Display, Write as _};

/// A picture in the making: elements are drawn over those before them.
pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

/// How a line of text stands and looks.
#[derive(Clone, Copy)]
pub struct Style {
    /// Height of the letters in pixels.
    pub size: f64,
    /// Its colour.
    pub fill: &'static str,
    /// Where the point is that it hangs on: `start`, `middle` or `end`.
    pub anchor: &'static str,
    /// Whether it is bold.
    pub bold: bool,
}

impl Svg {
    /// A white sheet.
    pub fn new(width: f64, height: f64) -> Self {
        let mut svg = Self { body: String::new(), width, height };
        svg.element("rect", &[("width", &width), ("height", &height), ("rx", &8), ("fill", &"#ffffff")]);
        svg
    }

    /// Any element without content.
    pub fn element(&mut self, name: &str, attributes: &[(&str, &dyn Display)]) {
        let _ = write!(self.body, "<{name}");
        for (attribute, value) in attributes {
            let _ = write!(self.body, " {attribute}=\"{}\"", escape(&value.to_string()));
        }
        self.body.push_str("/>\n");
    }

    /// A filled rectangle.
    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str) {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(short);
        self.element(
            "rect",
            &[("x", &x), ("y", &y), ("width", &width), ("height", &height), ("fill", &fill)],
        );
    }

    /// A straight line; `dashes` as SVG has them, empty for none.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], stroke: &str, width: f64, dashes: &str) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(short);
        let mut attributes: Vec<(&str, &dyn Display)> = vec![
            ("x1", &x1),
            ("y1", &y1),
            ("x2", &x2),
            ("y2", &y2),
            ("stroke", &stroke),
            ("stroke-width", &width),
        ];
        if !dashes.is_empty() {
            attributes.push(("stroke-dasharray", &dashes));
        }
        self.element("line", &attributes);
    }

    /// The area between two lines of points with the same number of points.
    pub fn area(&mut self, top: &[(f64, f64)], bottom: &[(f64, f64)], fill: &str) {
        let points = top.iter().chain(bottom.iter().rev());
        let path = points.fold(String::new(), |mut path, (x, y)| {
            let sign = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{sign}{} {}", short(*x), short(*y));
            path
        });
        // The thin outline in its own colour closes the hairlines between neighbours.
        self.element(
            "path",
            &[
                ("d", &format!("{path}Z")),
                ("fill", &fill),
                ("stroke", &fill),
                ("stroke-width", &0.4),
                ("stroke-linejoin", &"round"),
            ],
        );
    }

    /// One line of text with a white rim, so that it is readable on anything.
    pub fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let weight = if style.bold { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{}\"{weight}>{}</text>",
            short(x),
            short(y),
            style.size,
            style.fill,
            style.anchor,
            escape(text)
        );
    }

    /// Puts another picture below this one.
    pub fn below(&mut self, other: &Self) {
        let _ = writeln!(self.body, "<g transform=\"translate(0 {})\">\n{}</g>", self.height, other.body);
        self.height += other.height;
        self.width = self.width.max(other.width);
    }

    /// The whole document. `title` is what screen readers and tooltips say.
    pub fn finish(self, title: &str) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n\
             <title>{}</title>\n\
             <style>text {{ paint-order: stroke; stroke: #ffffff; stroke-width: 3px; \
             stroke-linejoin: round; }}</style>\n{body}</svg>\n",
            escape(title)
        )
    }
}

/// Tenths of a pixel are enough, and keep the file small.
fn short(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Every element is closed, and no markup comes from a label.
#[cfg(test)]
pub fn assert_well_formed(document: &str) {
    let mut open = Vec::new();
    for tag in document.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("every tag ends");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_cannot_break_out() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text(1.0, 2.0, "<b> & \"c\"", Style { size: 12.0, fill: "#000", anchor: "start", bold: true });
        svg.element("g", &[("id", &"\"><script>")]);
        let document = svg.finish("a < b");
        assert!(document.contains(">&lt;b&gt; &amp; &quot;c&quot;</text>"));
        assert!(!document.contains("<script>") && !document.contains("<b>"));
        assert!(document.contains("<title>a &lt; b</title>"));
    }

    #[test]
    fn an_area_goes_there_on_top_and_back_below() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.area(&[(0.0, 1.0), (5.0, 2.04)], &[(0.0, 9.0), (5.0, 9.0)], "#123456");
        assert!(svg.finish("").contains("d=\"M0 1L5 2L5 9L0 9Z\""));
    }
}
