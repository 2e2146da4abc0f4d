//! Pictures that compare: one bar for each scheme.

use super::number::{shown, tick};
use super::svg::{Frame, SCHEMES, Svg, ticks};
use super::{Group, Report};
use crate::measure::{FIGURES, Figure};
use crate::scheme::Scheme;

const WIDTH: f64 = 760.0;
const ROW: f64 = 26.0;

/// Bars of one figure, with the spread over the seeds as a line across the end of each; nothing if no group has it.
pub fn bars(report: &Report, key: &str, title: &str) -> Option<String> {
    let figure = FIGURES.iter().find(|figure| figure.key == key)?;
    chart(report, &[(figure, "")], title)
}

/// Two bars for each group: the median wait of the admitted, and that which 99 % were below.
pub fn waits(report: &Report) -> Option<String> {
    let figure = |key| FIGURES.iter().find(|figure| figure.key == key);
    let pair = [(figure("wait")?, "p50"), (figure("wait_p99")?, "p99")];
    chart(report, &pair, "How long admitted requests waited")
}

/// The colour of a scheme, the same in every picture.
pub fn colour(scheme: Scheme) -> &'static str {
    Scheme::ALL.iter().position(|known| *known == scheme).map_or(SCHEMES[0], |place| SCHEMES[place])
}

fn chart(report: &Report, figures: &[(&Figure, &str)], title: &str) -> Option<String> {
    let groups = report.groups();
    let rows: Vec<(&Group, &Figure, &str)> = groups
        .iter()
        .flat_map(|group| figures.iter().map(move |(figure, name)| (group, *figure, *name)))
        .collect();
    let summary = |row: &(&Group, &Figure, &str)| row.0.figures.get(row.1.key).copied();
    let most = rows.iter().filter_map(|row| Some(summary(row)?.max)).reduce(f64::max)?;
    let bottom = 34.0 + ROW * rows.len() as f64;
    let frame = Frame {
        edges: [130.0, 30.0, WIDTH - 110.0, bottom],
        across: (0.0, if most > 0.0 { most * 1.02 } else { 1.0 }),
        up: (0.0, 1.0),
    };
    let mut svg = Svg::new(WIDTH, bottom + 26.0, title);
    let [left, top, ..] = frame.edges;
    for value in ticks(frame.across, 6) {
        let x = frame.x(value);
        svg.line([x, top, x, bottom], "grid");
        svg.text((x, bottom + 18.0), "middle", "", &tick(value, figures[0].0.unit, most));
    }
    for (place, row) in rows.iter().enumerate() {
        let (group, figure, name) = row;
        let y = top + 4.0 + ROW * place as f64;
        let middle = y + ROW / 2.0 - 2.0;
        let label = format!("{} {name}", group.scheme);
        svg.text((left - 8.0, middle + 4.0), "end", "", label.trim_end());
        let Some(summary) = summary(row) else {
            svg.text((left + 6.0, middle + 4.0), "start", "", "none");
            continue;
        };
        let show = |value| shown(value, figure.unit);
        let hover = format!(
            "{}: median {}, from {} to {} over {} runs",
            label.trim_end(),
            show(summary.median),
            show(summary.min),
            show(summary.max),
            summary.runs
        );
        let wide = (frame.x(summary.median) - left).max(1.0);
        svg.rect([left, y, wide, ROW - 6.0], colour(group.scheme), &hover);
        if summary.min < summary.max {
            let (from, to) = (frame.x(summary.min), frame.x(summary.max));
            svg.line([from, middle, to, middle], "limit");
            [from, to].into_iter().for_each(|x| svg.line([x, middle - 4.0, x, middle + 4.0], "limit"));
        }
        svg.text((frame.x(summary.max).max(left) + 8.0, middle + 4.0), "start", "", &show(summary.median));
    }
    svg.line([left, top, left, bottom], "line");
    Some(svg.element())
}

#[cfg(test)]
mod tests {
    use super::super::examples::{report, run};
    use super::*;

    #[test]
    fn every_group_has_a_bar_with_its_numbers() {
        let runs = [(Scheme::Aquifer, 1, 0.5), (Scheme::Aquifer, 2, 1.0), (Scheme::Ideal, 1, 1.0)];
        let report = report(runs.map(|(scheme, seed, value)| run(scheme, None, seed, value)).to_vec());
        let picture = bars(&report, "utilisation", "Used").unwrap();
        assert!(
            picture.contains("aquifer: median 75.00 %, from 50.00 % to 100.00 % over 2 runs"),
            "{picture}"
        );
        assert!(picture.contains("ideal: median 100.00 %"));
        assert_eq!(bars(&report, "jain", "Fair"), None);
        assert_eq!(waits(&report), None);
    }
}
