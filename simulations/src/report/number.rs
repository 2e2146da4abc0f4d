//! Numbers for people, with their units.

use crate::measure::Unit;

/// A value with three digits or so and its unit.
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Units => digits(value),
        Unit::Part => format!("{:.2} %", value * 100.0),
        Unit::Index => format!("{value:.4}"),
        Unit::Seconds if value < 1.0 => format!("{} ms", digits(value * 1_000.0)),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::Rounds => format!("{value:.1}"),
        Unit::Count => format!("{value:.0}"),
        Unit::Messages => format!("{}/s", digits(value)),
        Unit::Bytes if value < 1_000.0 => format!("{} B/s", digits(value)),
        Unit::Bytes => format!("{} kB/s", digits(value / 1_000.0)),
    }
}

/// A round value of an axis that goes up to `most`: no more digits than it needs.
pub fn tick(value: f64, unit: Unit, most: f64) -> String {
    match unit {
        Unit::Part => format!("{} %", short(value * 100.0)),
        Unit::Index | Unit::Rounds => short(value),
        Unit::Seconds if most >= 1.0 => format!("{} s", digits(value)),
        Unit::Bytes if most >= 1_000.0 => format!("{} kB/s", digits(value / 1_000.0)),
        unit => shown(value, unit),
    }
}

/// What a heading says of the unit that its numbers do not say themselves.
pub fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Units => ", units",
        Unit::Rounds => ", rounds",
        Unit::Messages | Unit::Bytes => " per node",
        Unit::Part | Unit::Index | Unit::Seconds | Unit::Count => "",
    }
}

/// Three significant digits, or all of the whole part.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size >= 99.95 => return format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if !(0.000_5..0.9995).contains(&size) => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Up to four digits after the point.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_their_unit() {
        let all = [
            shown(0.0, Unit::Units),
            shown(1234.4, Unit::Units),
            shown(0.99537, Unit::Part),
            shown(0.99996, Unit::Index),
            shown(0.16, Unit::Seconds),
            shown(12.34, Unit::Seconds),
            shown(3.96, Unit::Rounds),
            shown(2.0, Unit::Count),
            shown(10.0, Unit::Messages),
            shown(188.4, Unit::Bytes),
            shown(4912.0, Unit::Bytes),
        ];
        let expected = [
            "0",
            "1234",
            "99.54 %",
            "1.0000",
            "160 ms",
            "12.3 s",
            "4.0",
            "2",
            "10/s",
            "188 B/s",
            "4.91 kB/s",
        ];
        assert_eq!(all, expected);
        let ticks = [tick(0.0, Unit::Part, 1.0), tick(0.995, Unit::Part, 1.0), tick(0.5, Unit::Seconds, 2.0)];
        assert_eq!(ticks, ["0 %", "99.5 %", "0.5 s"]);
    }
}
