//! The curve of the losses, as a drawing.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::train::{SMOOTHED, smoothed};

/// Draws the loss of each step, the smoothed losses as a thicker line, and a line at each of the named losses.
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
        .margin_right(30)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..steps, 1.0..highest)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss, nats per character")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .label_style(("sans-serif", 14))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let blue = RGBColor(0, 90, 160);
    let of_steps = || (1u16..).map(f32::from);
    chart.draw_series(LineSeries::new(of_steps().zip(losses.iter().copied()), blue.mix(0.3)))?;
    let means = of_steps().skip(SMOOTHED / 2).zip(smoothed(losses));
    chart.draw_series(LineSeries::new(means, blue.stroke_width(2)))?;
    let right = ("sans-serif", 14).into_text_style(&area).pos(Pos::new(HPos::Right, VPos::Bottom));
    for &(name, loss) in lines {
        chart.draw_series(LineSeries::new([(0.0, loss), (steps, loss)], BLACK.mix(0.5)))?;
        chart.draw_series([Text::new(name.to_owned(), (steps, loss), right.clone())])?;
    }
    area.present()?;
    Ok(())
}
