//! The curve of the losses, as a drawing.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;

/// Draws the loss of each step, and a line at each of the named losses.
pub(crate) fn draw(path: &Path, losses: &[f32], lines: &[(&str, f32)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let steps = losses.len() as f32;
    let highest = losses.iter().copied().fold(0.0, f32::max).ceil();
    let area = SVGBackend::new(path, (760, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("A small language model learns in {} steps", losses.len());
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..steps, 1.0..highest)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss, nats per character")
        .label_style(("sans-serif", 14))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let of_steps = (0u16..).map(f32::from).zip(losses.iter().copied());
    chart.draw_series(LineSeries::new(of_steps, RGBColor(0, 90, 160).stroke_width(2)))?;
    for &(name, loss) in lines {
        chart.draw_series(LineSeries::new([(0.0, loss), (steps, loss)], BLACK.mix(0.5)))?;
        let place = (steps * 0.99, loss + 0.02 * highest);
        let anchor = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Bottom,
        );
        let style = ("sans-serif", 14).into_text_style(&area).pos(anchor);
        chart.draw_series([Text::new(name.to_owned(), place, style)])?;
    }
    area.present()?;
    Ok(())
}
