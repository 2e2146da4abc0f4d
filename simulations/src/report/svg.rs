//! As much of SVG as the pictures need: elements, and a frame with axes.

use std::fmt::{Display, Write as _};

use super::number::digits;

/// Looks of everything but the bands and bars, by light and dark. In each picture, so that one cut out of the page
/// looks the same.
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#3c4043}.title{font-size:14px;font-weight:600}\
.line{stroke:#80868b;fill:none}.grid{stroke:#dadce0;fill:none}.limit{stroke:#202124;stroke-width:1.5;fill:none}\
.mark{stroke:#5f6368;stroke-dasharray:3 3;fill:none}.badge{fill:#5f6368}.number{fill:#fff;font-size:10px}\
.flight{fill:#9aa0a6}\
@media(prefers-color-scheme:dark){text{fill:#d2d5d9}.line{stroke:#9aa0a6}.grid{stroke:#3c4043}\
.limit{stroke:#f1f3f4}.mark{stroke:#bdc1c6}.badge{fill:#bdc1c6}.number{fill:#202124}.flight{fill:#70757a}}";

/// A colour for each of the schemes: Okabe and Ito 2008, which people with any colour vision can tell apart.
pub const SCHEMES: [&str; 7] = ["#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#8A8A8A"];

/// A picture in the making: elements are drawn over those before them.
pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    /// An empty sheet with a title.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self { body: String::new(), width, height };
        svg.text((0.0, 16.0), "start", "title", title);
        svg
    }

    /// A rectangle. `look` is a class or, if it begins with `#`, a colour; `hover` is shown when the mouse is over it.
    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], look: &str, hover: &str) {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(short);
        let look = painted(look);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {look}>{}</rect>",
            hovering(hover)
        );
    }

    /// A disc.
    pub fn disc(&mut self, (x, y): (f64, f64), radius: f64, look: &str, hover: &str) {
        let (x, y, look) = (short(x), short(y), painted(look));
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" {look}>{}</circle>",
            hovering(hover)
        );
    }

    /// A straight line of a class.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], class: &str) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(short);
        let _ = writeln!(self.body, "<path class=\"{class}\" d=\"M{x1} {y1}L{x2} {y2}\"/>");
    }

    /// A line through points in a colour.
    pub fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let _ = writeln!(
            self.body,
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"{}\"/>",
            path(points.iter())
        );
    }

    /// The area between two lines with the same number of points.
    pub fn area(&mut self, top: &[(f64, f64)], bottom: &[(f64, f64)], look: &str, hover: &str) {
        let (shape, look) = (path(top.iter().chain(bottom.iter().rev())), painted(look));
        let _ = writeln!(self.body, "<path d=\"{shape}Z\" {look}>{}</path>", hovering(hover));
    }

    /// A line of text; `anchor` is where its point is: `start`, `middle` or `end`.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
        let (x, y) = (short(x), short(y));
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let text = escape(text);
        let _ =
            writeln!(self.body, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{class}>{text}</text>");
    }

    /// Text that runs upwards with its middle at a point.
    pub fn upwards(&mut self, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (short(x), short(y), escape(text));
        let _ = writeln!(
            self.body,
            "<text transform=\"translate({x} {y}) rotate(-90)\" text-anchor=\"middle\">{text}</text>"
        );
    }

    /// The element to put into a page. Without a namespace, which HTML does not need.
    pub fn element(self) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\">\n<style>{STYLE}</style>\n{}</svg>\n",
            self.width, self.height, self.body
        )
    }
}

/// Where values are in a picture: a rectangle with an axis below and one at its left.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Left, top, right and bottom edge.
    pub edges: [f64; 4],
    /// The values at the left and the right edge.
    pub across: (f64, f64),
    /// The values at the bottom and the top.
    pub up: (f64, f64),
}

impl Frame {
    /// Where a value of the lower axis is.
    pub fn x(&self, value: f64) -> f64 {
        let [left, _, right, _] = self.edges;
        left + (right - left) * (value - self.across.0)
            / (self.across.1 - self.across.0).max(f64::MIN_POSITIVE)
    }

    /// Where a value of the left axis is.
    pub fn y(&self, value: f64) -> f64 {
        let [_, top, _, bottom] = self.edges;
        bottom - (bottom - top) * (value - self.up.0) / (self.up.1 - self.up.0).max(f64::MIN_POSITIVE)
    }

    /// The left axis with a grid, and what it counts in.
    pub fn draw_up(&self, svg: &mut Svg, unit: &str, shown: impl Fn(f64) -> String) {
        let [left, top, right, bottom] = self.edges;
        for value in ticks(self.up, 5) {
            let y = self.y(value);
            svg.line([left, y, right, y], "grid");
            svg.text((left - 8.0, y + 4.0), "end", "", &shown(value));
        }
        svg.upwards((12.0, f64::midpoint(top, bottom)), unit);
    }

    /// The lower axis with its ticks, and what it counts in.
    pub fn draw_across(&self, svg: &mut Svg, unit: &str) {
        let [left, _, right, bottom] = self.edges;
        svg.line([left, bottom, right, bottom], "line");
        for value in ticks(self.across, 10) {
            svg.line([self.x(value), bottom, self.x(value), bottom + 4.0], "line");
            svg.text((self.x(value), bottom + 18.0), "middle", "", &digits(value));
        }
        svg.text((f64::midpoint(left, right), bottom + 36.0), "middle", "", unit);
    }
}

/// Round values from the first to the last, some `count` of them (Heckbert, Nice Numbers for Graph Labels, 1990).
pub fn ticks((from, to): (f64, f64), count: usize) -> Vec<f64> {
    let raw = (to - from) / count.max(1) as f64;
    if !raw.is_finite() || raw <= 0.0 {
        return vec![from];
    }
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|nice| nice * power).find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(power);
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// `text` so that it is text in HTML and SVG whatever it is.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn painted(look: &str) -> String {
    let attribute = if look.starts_with('#') { "fill" } else { "class" };
    format!("{attribute}=\"{look}\"")
}

fn hovering(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<title>{}</title>", escape(text)) }
}

fn path<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> String {
    points.enumerate().fold(String::new(), |mut path, (place, (x, y))| {
        let sign = if place == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{sign}{} {}", short(*x), short(*y));
        path
    })
}

/// A tenth of a pixel is enough.
fn short(value: f64) -> impl Display {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((0.0, 60.0), 6), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(ticks((0.0, 130.0), 5), [0.0, 50.0, 100.0]);
        assert_eq!(ticks((3.0, 3.0), 5), [3.0]);
        assert_eq!(ticks((0.0, f64::NAN), 5), [0.0]);
    }

    #[test]
    fn text_cannot_become_an_element() {
        let mut svg = Svg::new(10.0, 10.0, "<script>");
        svg.rect([0.0, 0.0, 1.0, -1.0], "#fff", "\"&");
        let text = svg.element();
        assert!(text.contains("&lt;script&gt;") && text.contains("<title>&quot;&amp;</title>"));
        assert!(text.contains("height=\"0\""), "no height below zero");
    }
}
