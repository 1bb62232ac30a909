//! Text as filled outlines, at any size and angle. The font is bundled, because a fresh machine may have none.

use anyhow::{Context as _, Result};
use skrifa::instance::{LocationRef, Size};
use skrifa::metrics::{GlyphMetrics, Metrics};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider as _};
use tiny_skia::{Color, FillRule, Paint, PathBuilder, Pixmap, Transform};

/// Their origin and licence are in `cli/data/README.md`.
const REGULAR: &[u8] = include_bytes!("../data/Roboto-Regular.ttf");
const MEDIUM: &[u8] = include_bytes!("../data/Roboto-Medium.ttf");

/// One weight of the font, with metrics in font units.
pub(crate) struct Font {
    font: FontRef<'static>,
    metrics: Metrics,
    advances: GlyphMetrics<'static>,
}

/// The point of the text that lies at its position.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How text looks.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) size: f32,
    pub(crate) color: Color,
    pub(crate) anchor: Anchor,
    /// The rotation, clockwise, in degrees.
    pub(crate) turn: f32,
}

impl Font {
    pub(crate) fn regular() -> Result<Self> {
        Self::parse(REGULAR)
    }

    pub(crate) fn medium() -> Result<Self> {
        Self::parse(MEDIUM)
    }

    fn parse(bytes: &'static [u8]) -> Result<Self> {
        let font = FontRef::new(bytes).context("the bundled font does not parse")?;
        let (size, location) = (Size::unscaled(), LocationRef::default());
        let (metrics, advances) = (font.metrics(size, location), font.glyph_metrics(size, location));
        Ok(Self { font, metrics, advances })
    }

    /// How wide `text` is at `size`.
    pub(crate) fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|letter| self.advance(self.glyph(letter))).sum::<f32>() * self.scale(size)
    }

    /// Draws `text` with its anchor at (x, y), centred on the height of its capitals.
    pub(crate) fn draw(&self, canvas: &mut Pixmap, text: &str, (x, y): (f32, f32), style: Style) {
        let Style { size, color, anchor, turn } = style;
        let start = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -self.width(text, size) / 2.0,
            Anchor::End => -self.width(text, size),
        };
        let capitals = self.metrics.cap_height.unwrap_or(0.0) * self.scale(size);
        // In fonts y points up, in pictures it points down.
        let place = Transform::from_scale(self.scale(size), -self.scale(size))
            .post_translate(start, capitals / 2.0)
            .post_rotate(turn)
            .post_translate(x, y);
        let mut outline = Outline { path: PathBuilder::new(), pen: 0.0 };
        for letter in text.chars() {
            let glyph = self.glyph(letter);
            if let Some(shape) = self.font.outline_glyphs().get(glyph) {
                // A glyph that does not parse is left out.
                let _ = shape.draw(DrawSettings::unhinted(Size::unscaled(), LocationRef::default()), &mut outline);
            }
            outline.pen += self.advance(glyph);
        }
        let mut paint = Paint { anti_alias: true, ..Paint::default() };
        paint.set_color(color);
        // There is no path where the text is blank.
        if let Some(path) = outline.path.finish() {
            canvas.fill_path(&path, &paint, FillRule::Winding, place, None);
        }
    }

    /// The glyph of a letter, or glyph 0 if the font lacks the letter.
    fn glyph(&self, letter: char) -> GlyphId {
        self.font.charmap().map(letter).unwrap_or(GlyphId::NOTDEF)
    }

    fn advance(&self, glyph: GlyphId) -> f32 {
        self.advances.advance_width(glyph).unwrap_or(0.0)
    }

    fn scale(&self, size: f32) -> f32 {
        size / f32::from(self.metrics.units_per_em)
    }
}

/// Collects the outlines of glyphs side by side.
struct Outline {
    path: PathBuilder,
    pen: f32,
}

impl OutlinePen for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.pen + x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.pen + x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.path.quad_to(self.pen + x1, y1, self.pen + x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.path.cubic_to(self.pen + x1, y1, self.pen + x2, y2, self.pen + x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
