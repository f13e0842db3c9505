//! A curve over the time of a run, as SVG, with the times shaded in which the program was not up.

use std::fmt::Write as _;

use millpond_sim::report::Point;

use crate::commands::sim::words::{bytes, time};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
/// Room for the labels below and above the curve.
const FOOT: f64 = 18.0;
const HEAD: f64 = 22.0;

pub struct Chart {
    pub title: &'static str,
    pub class: &'static str,
    pub value: fn(&Point) -> u64,
}

impl Chart {
    /// `curve` has at least one point.
    pub fn draw(&self, curve: &[Point]) -> String {
        let most = curve.iter().map(self.value).max().unwrap_or_default();
        let end = curve.last().map_or(1.0, |point| point.at_s).max(1e-9);
        let x = |at_s: f64| at_s / end * WIDTH;
        let floor = HEIGHT - FOOT;
        let y = |value: u64| floor - value as f64 / most.max(1) as f64 * (floor - HEAD);
        let mut svg = format!(
            "<figure><svg class=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}, at most {}\">\n",
            self.class,
            self.title,
            bytes(most)
        );
        for (from, to) in outages(curve) {
            let width = (x(to) - x(from)).max(1.0);
            let _ = writeln!(
                svg,
                "<rect class=\"down\" x=\"{:.1}\" y=\"{HEAD}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                x(from),
                floor - HEAD
            );
        }
        for part in [0.0, 0.5, 1.0] {
            let at = floor - part * (floor - HEAD);
            let _ = writeln!(svg, "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        }
        let mut line = String::new();
        for point in curve {
            let _ = write!(line, "{:.1},{:.1} ", x(point.at_s), y((self.value)(point)));
        }
        let first = curve.first().map_or(0.0, |point| x(point.at_s));
        let _ = writeln!(svg, "<polygon points=\"{first:.1},{floor} {line}{WIDTH},{floor}\"/>");
        let _ = writeln!(svg, "<polyline points=\"{}\"/>", line.trim_end());
        let _ = writeln!(svg, "<text x=\"0\" y=\"13\" class=\"title\">{}</text>", self.title);
        let _ = writeln!(svg, "<text x=\"{WIDTH}\" y=\"13\" text-anchor=\"end\">at most {}</text>", bytes(most));
        for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let anchor = if part == 0.0 {
                "start"
            } else if part == 1.0 {
                "end"
            } else {
                "middle"
            };
            let label = time((end * part) as u64 * 1_000_000_000);
            let at = part * WIDTH;
            let _ = writeln!(svg, "<text x=\"{at:.0}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>", HEIGHT - 4.0);
        }
        svg.push_str("</svg></figure>\n");
        svg
    }
}

/// From the first point at which it was down to the next at which it was up again.
fn outages(curve: &[Point]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    let mut since = None;
    for point in curve {
        match (point.up, since) {
            (false, None) => since = Some(point.at_s),
            (true, Some(from)) => {
                all.push((from, point.at_s));
                since = None;
            }
            _ => {}
        }
    }
    if let (Some(from), Some(last)) = (since, curve.last()) {
        all.push((from, last.at_s));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at_s: f64, up: bool, disk_used: u64) -> Point {
        Point { at_s, up, disk_used, in_flight: 0, buffered: 0 }
    }

    #[test]
    fn each_stretch_without_the_program_is_shaded_once() {
        let up = [true, false, false, true, false];
        let curve: Vec<Point> = (0..).zip(up).map(|(at, up)| point(f64::from(at), up, 10)).collect();
        assert_eq!(outages(&curve), [(1.0, 3.0), (4.0, 4.0)]);
    }

    #[test]
    fn the_highest_point_touches_the_top_and_nothing_the_floor() {
        let curve = [point(0.0, true, 0), point(50.0, true, 200), point(100.0, true, 100)];
        let svg = Chart { title: "disk used", class: "disk", value: |point| point.disk_used }.draw(&curve);
        assert!(svg.contains("<polyline points=\"0.0,132.0 360.0,22.0 720.0,77.0\"/>"), "{svg}");
        let empty = Chart { title: "nothing", class: "disk", value: |_| 0 }.draw(&curve);
        assert!(empty.contains("0.0,132.0 360.0,132.0 720.0,132.0") && !empty.contains("NaN"), "{empty}");
    }
}
