//! A roofline plot: the figures below the limits of the device, as operations per second over operations per byte, both
//! logarithmic.

use std::fmt::Write as _;

use crate::Row;
use crate::samples::Samples;
use crate::table::speed;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 62.0;
/// Colours that most colour-blind people can tell apart.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The limits that are drawn as roofs: GFLOP/s, and GB/s of reading and of copying.
#[derive(Clone, Copy)]
struct Roofs {
    fma: f64,
    read: f64,
    copy: f64,
}

/// Maps figures to positions in the plot.
struct Axes {
    /// Decimal logarithms of the ends.
    x: [f64; 2],
    y: [f64; 2],
}

impl Axes {
    fn new(rows: &[Row], roofs: Roofs) -> Self {
        let x = range(rows.iter().map(Row::intensity).chain([roofs.fma / roofs.read]));
        let y = range(rows.iter().map(|row| row.tflops * 1e3).chain([roofs.fma]));
        Self { x: [x[0] - 0.15, x[1] + 0.15], y: [y[0] - 0.2, y[1] + 0.25] }
    }

    fn x(&self, intensity: f64) -> f64 {
        LEFT + (intensity.log10() - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, gflops: f64) -> f64 {
        HEIGHT - BOTTOM - (gflops.log10() - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)
    }
}

fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.map(f64::log10).fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
}

/// Draws `rows`, of which there is at least one.
pub(crate) fn svg(rows: &[Row]) -> String {
    let middle = |figure: fn(&Row) -> f64| Samples::from(rows.iter().map(figure).collect::<Vec<_>>()).median();
    let roofs =
        Roofs { fma: middle(|r| r.fma_tflops) * 1e3, read: middle(|r| r.read_gbps), copy: middle(|r| r.copy_gbps) };
    let axes = Axes::new(rows, roofs);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"Helvetica, Arial, DejaVu Sans, sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    title(&mut svg, &rows[0]);
    grid(&mut svg, &axes);
    draw_roofs(&mut svg, &axes, roofs);
    points(&mut svg, &axes, rows);
    legend(&mut svg, rows);
    svg + "</svg>\n"
}

fn title(svg: &mut String, row: &Row) {
    let day = row.date.split('T').next().unwrap_or_default();
    text(svg, [LEFT, 30.0], "font-size=\"17\" font-weight=\"600\"", &row.device);
    let origin =
        format!("attention below the limits measured in the same run · {} · {} · {day}", row.backend, row.driver);
    text(svg, [LEFT, 50.0], "fill=\"#777\"", &origin);
}

/// Lines at 1, 2 and 5 of each decade, with their numbers.
fn grid(svg: &mut String, axes: &Axes) {
    let [left, right, top, bottom] = [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM];
    for value in ticks(axes.x) {
        let x = axes.x(value);
        line(svg, [x, top, x, bottom], "stroke=\"#eee\"");
        text(svg, [x, bottom + 18.0], "text-anchor=\"middle\"", &number(value));
    }
    for value in ticks(axes.y) {
        let y = axes.y(value);
        line(svg, [left, y, right, y], "stroke=\"#eee\"");
        text(svg, [left - 8.0, y + 4.0], "text-anchor=\"end\"", &number(value));
    }
    line(svg, [left, bottom, right, bottom], "stroke=\"#999\"");
    line(svg, [left, top, left, bottom], "stroke=\"#999\"");
    text(
        svg,
        [f64::midpoint(left, right), bottom + 42.0],
        "text-anchor=\"middle\"",
        "operations per byte (q, k, v and output once each)",
    );
    let centre = f64::midpoint(top, bottom);
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 22 {centre:.1})\"");
    text(svg, [22.0, centre], &turned, "GFLOP/s");
}

fn ticks([low, high]: [f64; 2]) -> Vec<f64> {
    let few: &[f64] = if high - low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut ticks = Vec::new();
    let mut decade = low.floor();
    while decade <= high {
        ticks.extend(few.iter().map(|step| step * 10_f64.powf(decade)));
        decade += 1.0;
    }
    ticks.retain(|tick| (low..=high).contains(&tick.log10()));
    ticks
}

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{}k", value / 1000.0) } else { format!("{}", (value * 1e4).round() / 1e4) }
}

fn draw_roofs(svg: &mut String, axes: &Axes, roofs: Roofs) {
    let [start, end] = axes.x.map(|exponent| 10_f64.powf(exponent));
    let floor = 10_f64.powf(axes.y[0]);
    let ridge = roofs.fma / roofs.read;
    line(svg, [axes.x(ridge), axes.y(roofs.fma), axes.x(end), axes.y(roofs.fma)], "stroke=\"#333\" stroke-width=\"2\"");
    let label = format!("multiply-add {}FLOP/s", speed(roofs.fma / 1e3));
    text(svg, [axes.x(end) - 6.0, axes.y(roofs.fma) - 7.0], "text-anchor=\"end\"", &label);
    for (rate, name, dash) in [(roofs.read, "read", ""), (roofs.copy, "copy", "stroke-dasharray=\"5 4\"")] {
        // The slope starts where it enters the plot and ends at the roof.
        let from = start.max(floor / rate);
        let to = (roofs.fma / rate).min(end);
        if from >= to {
            continue;
        }
        let ends = [axes.x(from), axes.y(from * rate), axes.x(to), axes.y(to * rate)];
        line(svg, ends, &format!("stroke=\"#333\" stroke-width=\"2\" {dash}"));
        let angle = (ends[3] - ends[1]).atan2(ends[2] - ends[0]).to_degrees();
        // The label of the slower one is below its line and that of the faster one above, because the lines may be close
        // together.
        let below = (name == "read") == (roofs.read <= roofs.copy);
        let (along, off) = if below { (0.3, 15.0) } else { (0.3, -7.0) };
        let at = [ends[0] + along * (ends[2] - ends[0]), ends[1] + along * (ends[3] - ends[1])];
        let turned = format!("transform=\"rotate({angle:.1} {:.1} {:.1}) translate(0 {off})\"", at[0], at[1]);
        text(svg, at, &turned, &format!("{name} {rate:.1} GB/s"));
    }
}

fn points(svg: &mut String, axes: &Axes, rows: &[Row]) {
    let families = distinct(rows, Row::family);
    for row in rows {
        let [x, y] = [axes.x(row.intensity()), axes.y(row.tflops * 1e3)];
        let colour = colour(&families, row.family());
        marker(svg, [x, y], &row.dtype, colour, &format!("{} {:.3} ms", row.variant, row.median_ms));
    }
    // Names are drawn last, so that no point covers them.
    let halo = "font-size=\"11\" font-weight=\"600\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\"";
    let mut placed: Vec<[f64; 2]> = Vec::new();
    let named = rows.iter().filter_map(|row| Some((row, row.name.as_ref()?)));
    for (row, name) in named {
        let mut at = [axes.x(row.intensity()) + 8.0, axes.y(row.tflops * 1e3) + 4.0];
        while placed.iter().any(|other| (other[0] - at[0]).abs() < 18.0 && (other[1] - at[1]).abs() < 12.0) {
            at[1] += 12.0;
        }
        placed.push(at);
        text(svg, at, halo, name);
    }
}

fn legend(svg: &mut String, rows: &[Row]) {
    let families = distinct(rows, Row::family);
    let x = WIDTH - RIGHT + 24.0;
    let mut y = TOP + 14.0;
    for family in &families {
        marker(svg, [x, y], "f32", colour(&families, family), family);
        text(svg, [x + 14.0, y + 4.0], "", family);
        y += 22.0;
    }
    let mut dtypes = distinct(rows, |row| &row.dtype);
    if dtypes == ["f32"] {
        dtypes.clear();
    }
    y += 12.0;
    for dtype in dtypes {
        marker(svg, [x, y], dtype, "#777", dtype);
        text(svg, [x + 14.0, y + 4.0], "", dtype);
        y += 22.0;
    }
}

fn distinct<'a>(rows: &'a [Row], key: impl Fn(&'a Row) -> &'a str) -> Vec<&'a str> {
    let mut keys = Vec::new();
    for key in rows.iter().map(key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn colour(families: &[&str], family: &str) -> &'static str {
    let at = families.iter().position(|other| *other == family).unwrap_or_default();
    COLOURS[at % COLOURS.len()]
}

/// A circle, a square or a triangle, depending on the element type.
fn marker(svg: &mut String, [x, y]: [f64; 2], dtype: &str, colour: &str, tip: &str) {
    let shape = match dtype {
        "f32" => format!("circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\""),
        "f16" => format!("rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"", x - 4.5, y - 4.5),
        _ => {
            let (left, right, base) = (x - 5.5, x + 5.5, y + 4.5);
            format!("polygon points=\"{left:.1},{base:.1} {right:.1},{base:.1} {x:.1},{:.1}\"", y - 5.5)
        }
    };
    let name = shape.split(' ').next().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<{shape} fill=\"{colour}\" fill-opacity=\"0.8\" stroke=\"#fff\"><title>{}</title></{name}>",
        escaped(tip)
    );
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], style: &str) {
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>");
}

fn text(svg: &mut String, [x, y]: [f64; 2], style: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stay_between_the_ends() {
        assert_eq!(
            ticks([0.5, 2.1]).iter().map(|tick| number(*tick)).collect::<Vec<_>>(),
            ["5", "10", "20", "50", "100"]
        );
        assert_eq!(number(2000.0), "2k");
    }
}
