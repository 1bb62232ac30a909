//! One head's attention weights as coloured cells, or as shades of grey where there are no colours.

use std::io::Write;

use anyhow::Result;
use console::Style;

use crate::heatmap::{self, Maps};

/// Cells are two characters wide, to be about square.
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];

/// Prints each row of the map on a line, after its token. The tokens of the keys are printed vertically below.
pub(crate) fn draw(maps: &Maps, head: u32, stdout: &mut dyn Write) -> Result<()> {
    let (rows, keys) = (maps.row_labels(), maps.key_labels());
    let margin = rows.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let panel = maps.panel(head);
    let largest = heatmap::largest(panel);
    writeln!(
        stdout,
        "Head {head}: how much each token (row) attends to each token (column); the brightest cell is {largest:.2}.\n"
    )?;
    for (label, weights) in rows.iter().zip(panel.chunks(maps.keys())) {
        write!(stdout, "{}{label} ", " ".repeat(margin - label.chars().count()))?;
        for &weight in weights {
            write!(stdout, "{}", cell(weight, largest))?;
        }
        writeln!(stdout)?;
    }
    let height = keys.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    for line in 0..height {
        let letters = keys.iter().map(|label| label.chars().nth(line).unwrap_or(' '));
        let text: String = letters.flat_map(|letter| [letter, ' ']).collect();
        writeln!(stdout, "{} {}", " ".repeat(margin), text.trim_end())?;
    }
    Ok(())
}

fn cell(weight: f32, largest: f32) -> String {
    if !console::colors_enabled() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a saturating cast, then clamped")]
        let shade = (heatmap::height(weight, largest) * SHADES.len() as f32) as usize;
        return SHADES[shade.min(SHADES.len() - 1)].into();
    }
    let colorous::Color { r, g, b } = heatmap::color(weight, largest);
    let style = if console::true_colors_enabled() {
        Style::new().on_true_color(r, g, b)
    } else {
        // The 6 × 6 × 6 cube of 256-colour terminals.
        let level = |channel: u8| (u16::from(channel) * 5 + 127) / 255;
        let index = 16 + 36 * level(r) + 6 * level(g) + level(b);
        Style::new().on_color256(u8::try_from(index).unwrap_or(u8::MAX))
    };
    style.apply_to("  ").to_string()
}
