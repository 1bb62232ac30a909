//! Text as filled outlines, at any size and angle. The font is bundled: a fresh machine may have none.

use anyhow::{Context as _, Result};
use tiny_skia::{Color, FillRule, Paint, PathBuilder, Pixmap, Transform};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// Where they come from and their licence: `cli/data/README.md`.
const REGULAR: &[u8] = include_bytes!("../data/Roboto-Regular.ttf");
const MEDIUM: &[u8] = include_bytes!("../data/Roboto-Medium.ttf");

/// One weight of the font.
pub(crate) struct Font {
    face: Face<'static>,
}

/// Which point of the text stands at its position.
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
    /// Clockwise, in degrees.
    pub(crate) turn: f32,
}

impl Font {
    pub(crate) fn regular() -> Result<Self> {
        Ok(Self { face: Face::parse(REGULAR, 0).context("the bundled font does not parse")? })
    }

    pub(crate) fn medium() -> Result<Self> {
        Ok(Self { face: Face::parse(MEDIUM, 0).context("the bundled font does not parse")? })
    }

    /// How wide `text` is at `size`.
    pub(crate) fn width(&self, text: &str, size: f32) -> f32 {
        let advance = |letter| f32::from(self.face.glyph_hor_advance(self.glyph(letter)).unwrap_or(0));
        text.chars().map(advance).sum::<f32>() * self.scale(size)
    }

    /// Draws `text` with its anchor at (x, y), centred on the height of its capitals.
    pub(crate) fn draw(&self, canvas: &mut Pixmap, text: &str, (x, y): (f32, f32), style: Style) {
        let Style { size, color, anchor, turn } = style;
        let start = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -self.width(text, size) / 2.0,
            Anchor::End => -self.width(text, size),
        };
        let capitals = f32::from(self.face.capital_height().unwrap_or(0)) * self.scale(size);
        // Fonts count upwards, pictures downwards.
        let place = Transform::from_scale(self.scale(size), -self.scale(size))
            .post_translate(start, capitals / 2.0)
            .post_rotate(turn)
            .post_translate(x, y);
        let mut outline = Outline { path: PathBuilder::new(), pen: 0.0 };
        for letter in text.chars() {
            let glyph = self.glyph(letter);
            self.face.outline_glyph(glyph, &mut outline);
            outline.pen += f32::from(self.face.glyph_hor_advance(glyph).unwrap_or(0));
        }
        let mut paint = Paint { anti_alias: true, ..Paint::default() };
        paint.set_color(color);
        // There is no path where the text is blank.
        if let Some(path) = outline.path.finish() {
            canvas.fill_path(&path, &paint, FillRule::Winding, place, None);
        }
    }

    fn glyph(&self, letter: char) -> GlyphId {
        self.face.glyph_index(letter).unwrap_or(GlyphId(0))
    }

    fn scale(&self, size: f32) -> f32 {
        size / f32::from(self.face.units_per_em())
    }
}

/// Glyphs one after another.
struct Outline {
    path: PathBuilder,
    pen: f32,
}

impl OutlineBuilder for Outline {
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
