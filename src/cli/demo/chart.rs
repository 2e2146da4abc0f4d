//! What the pictures of both acts have in common: the sheet, its colours, and the time axis.

use std::time::Duration;

use super::svg::{Style, Svg};

/// How wide a picture is.
pub const WIDTH: f64 = 960.0;
/// Where the time axis begins.
pub const LEFT: f64 = 62.0;
/// Where the time axis ends.
pub const RIGHT: f64 = 936.0;

/// Of what is read first.
pub const INK: &str = "#1f2933";
/// Of what is read second.
pub const GREY: &str = "#5f6b7a";
/// Of lines to read off values by.
pub const GRID: &str = "#e3e7ec";

/// Of a picture.
pub const TITLE: Style = Style { size: 20.0, fill: INK, anchor: "start", bold: true };
/// Of a panel.
pub const HEADING: Style = Style { size: 14.0, fill: INK, anchor: "start", bold: true };
/// What explains.
pub const NOTE: Style = Style { size: 12.0, fill: GREY, anchor: "start", bold: false };
/// What names.
pub const LABEL: Style = Style { size: 12.0, fill: INK, anchor: "start", bold: false };

/// A line to read off values by.
pub fn scale(svg: &mut Svg, y: f64, label: &str) {
    svg.line([LEFT, y, RIGHT, y], GRID, 1.0, "");
    svg.text(LEFT - 8.0, y + 4.0, label, Style { anchor: "end", ..NOTE });
}

/// The time axis, from the start until `length`.
pub fn time_axis(svg: &mut Svg, length: Duration, y: f64) {
    svg.line([LEFT, y, RIGHT, y], GREY, 1.0, "");
    let seconds = length.as_secs_f64();
    let step = tick_step(seconds, 12).max(1.0);
    for tick in (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= seconds) {
        let x = x(tick, length);
        svg.line([x, y, x, y + 4.0], GREY, 1.0, "");
        svg.text(x, y + 17.0, &format!("{tick:.0} s"), Style { anchor: "middle", ..NOTE });
    }
}

/// Where a moment is on the time axis.
pub fn x(seconds: f64, length: Duration) -> f64 {
    LEFT + (RIGHT - LEFT) * (seconds / length.as_secs_f64()).clamp(0.0, 1.0)
}

/// A round distance between the marks of a scale up to `high`, so that there are at most `most`.
pub fn tick_step(high: f64, most: u32) -> f64 {
    let rough = high / f64::from(most);
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999);
    round.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_a_scale_are_round() {
        for (high, step) in [(125.0, 50.0), (22.0, 5.0), (1.0, 0.2), (100.0, 20.0)] {
            assert!((tick_step(high, 5) - step).abs() < 1e-9, "{high}");
        }
    }
}
