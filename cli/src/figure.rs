//! The heat map as a figure for a paper: panels on a grid, labels along its left and lower edges, one colour bar.

use anyhow::{Context as _, Result};
use tiny_skia::{Color, Paint, Pixmap, Rect, Transform};

use crate::heatmap::{self, Maps, color};
use crate::lettering::{Anchor, Font, Style};

// In pixels, about 300 per inch when printed across a page.
const MARGIN: f32 = 56.0;
const GAP: f32 = 30.0;
const TITLE: f32 = 40.0;
const TEXT: f32 = 27.0;
const SMALLEST_TEXT: f32 = 15.0;
const POSITION_TEXT: f32 = 21.0;
const HEADER: f32 = 116.0;
const PANEL_TITLE: f32 = 48.0;
const BAR: f32 = 26.0;
const SHORTEST_BAR: f32 = 280.0;

/// The figure as a PNG.
pub(crate) fn png(maps: &Maps) -> Result<Vec<u8>> {
    Figure::new(maps)?.draw()?.encode_png().context("cannot encode the heat map")
}

/// The layout of the figure.
struct Figure<'a> {
    maps: &'a Maps,
    regular: Font,
    medium: Font,
    /// Panels across and down.
    columns: u32,
    lines: u32,
    keys: Axis,
    rows: Axis,
    label_size: f32,
    /// The upper left corner of the first panel.
    origin: (f32, f32),
}

/// One axis of a panel.
#[derive(Clone, Copy)]
struct Axis {
    /// Pixels per weight, or per group of weights.
    cell: usize,
    /// Weights per cell, more than 1 if there are more weights than pixels.
    pool: usize,
    /// The number of cells.
    count: usize,
}

impl Axis {
    /// `longest`, the longer of the two axes, sets the scale, but a panel is never thinner than a line of text.
    fn new(weights: usize, longest: usize, room: usize) -> Self {
        let pool = longest.div_ceil(room);
        let count = weights.div_ceil(pool);
        Self { cell: (room / longest).clamp(1, 56).max(32_usize.div_ceil(count)), pool, count }
    }

    fn len(&self) -> f32 {
        (self.cell * self.count) as f32
    }

    /// Pixels per weight.
    fn pitch(&self) -> f32 {
        self.cell as f32 / self.pool as f32
    }

    /// The position of the middle of a weight.
    fn middle(&self, weight: usize) -> f32 {
        (weight as f32 + 0.5) * self.pitch()
    }

    /// The number of weights from one label to the next.
    fn label_step(&self, label_size: f32, tokens: bool) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        nice_step((label_size * if tokens { 1.15 } else { 2.0 } / self.pitch()).ceil() as usize, tokens)
    }
}

impl<'a> Figure<'a> {
    fn new(maps: &'a Maps) -> Result<Self> {
        let (regular, medium) = (Font::regular()?, Font::medium()?);
        let (columns, lines) = grid(maps.heads());
        let longest = maps.rows().max(maps.keys());
        // The labels of tokens need large cells; a long sequence needs all pixels.
        let (room, smallest) = if maps.has_tokens() { (570, SMALLEST_TEXT) } else { (640, POSITION_TEXT) };
        let room = (2400 / columns as usize).clamp(150, room);
        let (keys, rows) = (Axis::new(maps.keys(), longest, room), Axis::new(maps.rows(), longest, room));
        let label_size = (keys.pitch().min(rows.pitch()) * 0.8).clamp(smallest, TEXT);
        let labels = widest(&regular, &maps.row_labels(), label_size);
        let origin = ((MARGIN + TEXT + 18.0 + labels + 12.0).round(), MARGIN + HEADER + PANEL_TITLE);
        Ok(Self { maps, regular, medium, columns, lines, keys, rows, label_size, origin })
    }

    fn corner(&self, column: u32, line: u32) -> (f32, f32) {
        let (width, height) = (self.keys.len(), self.rows.len());
        let x = self.origin.0 + column as f32 * (width + GAP);
        (x, self.origin.1 + line as f32 * (height + PANEL_TITLE + GAP / 2.0))
    }

    fn draw(&self) -> Result<Pixmap> {
        let (last_x, last_y) = self.corner(self.columns - 1, self.lines - 1);
        let (right, bottom) = (last_x + self.keys.len(), last_y + self.rows.len());
        let bar_bottom = bottom.max(self.origin.1 + SHORTEST_BAR);
        let below = 12.0 + widest(&self.regular, &self.maps.key_labels(), self.label_size) + 18.0 + TEXT;
        let bar_width = GAP + BAR + 14.0 + self.widest_tick() + 18.0 + TEXT;
        let title = self.medium.width(self.maps.title(), TITLE);
        let heading = MARGIN * 2.0 + title.max(self.regular.width(self.maps.subtitle(), TEXT));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating, and checked below")]
        let [canvas_width, canvas_height] =
            [(right + bar_width + MARGIN).max(heading), (bottom + below).max(bar_bottom) + MARGIN]
                .map(|size| size.ceil() as u32);
        let mut canvas = Pixmap::new(canvas_width, canvas_height)
            .with_context(|| format!("a heat map of {canvas_width} × {canvas_height} pixels is too large to draw"))?;
        canvas.fill(Color::WHITE);

        self.header(&mut canvas);
        for head in 0..self.maps.heads() {
            self.head(&mut canvas, head);
        }
        self.axes(&mut canvas, (right, bottom), below);
        self.color_bar(&mut canvas, right + GAP, (self.origin.1, bar_bottom));
        Ok(canvas)
    }

    fn widest_tick(&self) -> f32 {
        let ticks: Vec<String> = ticks(self.maps.largest(), 0.0).iter().map(f32::to_string).collect();
        widest(&self.regular, &ticks, TEXT)
    }

    fn header(&self, canvas: &mut Pixmap) {
        let title = Style { size: TITLE, color: ink(), anchor: Anchor::Start, turn: 0.0 };
        let x = MARGIN;
        self.medium.draw(canvas, self.maps.title(), (x, MARGIN + TITLE / 2.0), title);
        let below = Style { size: TEXT, color: pale_ink(), ..title };
        self.regular.draw(canvas, self.maps.subtitle(), (x, MARGIN + TITLE + 34.0), below);
    }

    /// Draws one panel with its title, and with labels if it is at the left or lower edge of the grid.
    fn head(&self, canvas: &mut Pixmap, head: u32) {
        let (column, line) = (head % self.columns, head / self.columns);
        let (x, y) = self.corner(column, line);
        let (width, height) = (self.keys.len(), self.rows.len());
        let title = Style { size: TEXT, color: ink(), anchor: Anchor::Middle, turn: 0.0 };
        self.regular.draw(canvas, &format!("head {head}"), (x + width / 2.0, y - 24.0), title);
        fill(canvas, (x - 2.0, y - 2.0, width + 4.0, height + 4.0), pale_ink());
        self.cells(canvas, head, (x, y));

        let label = Style { size: self.label_size, color: ink(), anchor: Anchor::End, turn: 0.0 };
        let steps = [self.rows, self.keys].map(|axis| axis.label_step(self.label_size, self.maps.has_tokens()));
        if column == 0 {
            for (index, text) in self.maps.row_labels().iter().enumerate().step_by(steps[0]) {
                self.regular.draw(canvas, text, (x - 14.0, y + self.rows.middle(index)), label);
            }
        }
        // The lowest panel of each column carries the key labels.
        if head + self.columns >= self.maps.heads() {
            for (index, text) in self.maps.key_labels().iter().enumerate().step_by(steps[1]) {
                let turned = Style { turn: -90.0, ..label };
                self.regular.draw(canvas, text, (x + self.keys.middle(index), y + height + 14.0), turned);
            }
        }
    }

    /// Draws one cell per weight. If several weights share a cell, it shows the largest.
    fn cells(&self, canvas: &mut Pixmap, head: u32, (x, y): (f32, f32)) {
        let (keys, largest) = (self.maps.keys(), self.maps.largest());
        let Axis { cell: width, pool, count } = self.keys;
        for (line, rows) in self.maps.panel(head).chunks(keys * self.rows.pool).enumerate() {
            for column in 0..count {
                let pooled = rows.chunks(keys).flat_map(|row| row.iter().skip(column * pool).take(pool));
                let weight = pooled.copied().fold(f32::NAN, f32::max);
                // A cell in which every weight is NaN is white.
                let shade = if weight.is_nan() { [255; 3] } else { color(weight, largest).into_array() };
                let [r, g, b] = shade;
                let corner = (x + (column * width) as f32, y + (line * self.rows.cell) as f32);
                let size = (width as f32, self.rows.cell as f32);
                fill(canvas, (corner.0, corner.1, size.0, size.1), Color::from_rgba8(r, g, b, 255));
            }
        }
    }

    fn axes(&self, canvas: &mut Pixmap, (right, bottom): (f32, f32), below: f32) {
        let style = Style { size: TEXT, color: pale_ink(), anchor: Anchor::Middle, turn: 0.0 };
        let (left, top) = self.origin;
        self.regular.draw(canvas, "key", (f32::midpoint(left, right), bottom + below - TEXT / 2.0), style);
        let turned = Style { turn: -90.0, ..style };
        self.regular.draw(canvas, "query", (MARGIN + TEXT / 2.0, f32::midpoint(top, bottom)), turned);
    }

    fn color_bar(&self, canvas: &mut Pixmap, x: f32, (top, bottom): (f32, f32)) {
        let height = bottom - top;
        let largest = self.maps.largest();
        fill(canvas, (x - 2.0, top - 2.0, BAR + 4.0, height + 4.0), pale_ink());
        let mut y = 0.0;
        while y < height {
            let colorous::Color { r, g, b } = color((1.0 - y / height).powi(2), 1.0);
            fill(canvas, (x, top + y, BAR, 1.0), Color::from_rgba8(r, g, b, 255));
            y += 1.0;
        }
        let label = Style { size: TEXT, color: ink(), anchor: Anchor::Start, turn: 0.0 };
        for tick in ticks(largest, 1.15 * TEXT / height) {
            let y = bottom - height * heatmap::height(tick, largest);
            fill(canvas, (x + BAR + 2.0, y.round() - 1.0, 7.0, 2.0), pale_ink());
            self.regular.draw(canvas, &tick.to_string(), (x + BAR + 16.0, y), label);
        }
        let name = Style { color: pale_ink(), anchor: Anchor::Middle, turn: 90.0, ..label };
        let beside = x + BAR + 14.0 + self.widest_tick() + 18.0 + TEXT / 2.0;
        self.regular.draw(canvas, "attention weight", (beside, f32::midpoint(top, bottom)), name);
    }
}

fn ink() -> Color {
    Color::from_rgba8(28, 28, 32, 255)
}

fn pale_ink() -> Color {
    Color::from_rgba8(98, 98, 108, 255)
}

fn fill(canvas: &mut Pixmap, (x, y, width, height): (f32, f32, f32, f32), color: Color) {
    let mut paint = Paint { anti_alias: false, ..Paint::default() };
    paint.set_color(color);
    if let Some(rect) = Rect::from_xywh(x, y, width, height) {
        canvas.fill_rect(rect, &paint, Transform::identity(), None);
    }
}

fn widest(font: &Font, labels: &[String], size: f32) -> f32 {
    labels.iter().map(|label| font.width(label, size)).fold(0.0, f32::max)
}

/// Panels across and down: near 4 : 3, with few places left empty.
fn grid(heads: u32) -> (u32, u32) {
    let cost = |columns: u32| {
        let lines = heads.div_ceil(columns);
        let shape = (columns as f32 / lines as f32 / 1.4).ln().abs();
        shape + 4.0 * (columns * lines - heads) as f32 / heads as f32
    };
    let columns = (1..=heads).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1);
    (columns, heads.div_ceil(columns))
}

/// Positions are labelled at round numbers, tokens as densely as they fit.
fn nice_step(least: usize, tokens: bool) -> usize {
    if tokens || least <= 1 {
        return least.max(1);
    }
    let mut round = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_usize.pow(power)));
    round.find(|&step| step >= least).unwrap_or(least)
}

/// Zero, and the round numbers up to `largest` that are at least `gap` apart, as a fraction of the bar's height.
fn ticks(largest: f32, gap: f32) -> Vec<f32> {
    let mut ticks = Vec::new();
    let mut above = 1.0 + gap;
    for power in 0..=6 {
        for digit in [5, 2, 1] {
            // Parsed from text, so that the f32 prints as this round number.
            let tick: f32 = format!("{digit}e-{power}").parse().unwrap_or(0.0);
            let height = heatmap::height(tick, largest);
            if tick <= largest && height <= above - gap && height >= gap.max(0.09) {
                ticks.push(tick);
                above = height;
            }
        }
    }
    ticks.push(0.0);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_hold_every_head() {
        for heads in 1..=130 {
            let (columns, lines) = grid(heads);
            assert!(columns * lines >= heads && columns * (lines - 1) < heads, "{heads} heads on {columns} × {lines}");
        }
        assert_eq!(grid(12), (4, 3));
        assert_eq!(grid(32), (8, 4));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.93, 0.03), [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0]);
        assert_eq!(ticks(0.004, 0.1), [0.002, 0.001, 0.0005, 0.0002, 0.00005, 0.0]);
    }
}
