//! The figures as a table.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use wgpu_attention::Dtype;

use crate::{Row, Workload};

/// A line of the table: what was measured, or why nothing was.
#[derive(Debug)]
pub(crate) enum Line {
    Measured { shape: String, row: Box<Row> },
    Refused { shape: String, dtype: Dtype, reason: String },
}

impl Line {
    pub(crate) fn measured(workload: &Workload, row: Row) -> Self {
        Self::Measured { shape: workload.to_string(), row: Box::new(row) }
    }

    pub(crate) fn refused(workload: &Workload, dtype: Dtype, reason: String) -> Self {
        Self::Refused { shape: workload.to_string(), dtype, reason }
    }

    pub(crate) fn row(&self) -> Option<&Row> {
        match self {
            Self::Measured { row, .. } => Some(row),
            Self::Refused { .. } => None,
        }
    }

    fn cells(&self) -> Vec<String> {
        match self {
            Self::Measured { shape, row } => vec![
                shape.clone(),
                row.variant.clone(),
                milliseconds(row.median_ms),
                format!("{}–{}", milliseconds(row.min_ms), milliseconds(row.max_ms)),
                row.cold_ms.map_or_else(String::new, milliseconds),
                milliseconds(row.wall_ms),
                speed(row.tflops),
                format!("{:.1}", row.gbps),
                format!("{:.0} %", row.share_of_fma * 100.0),
                row.share_of_matrix.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0)),
                format!("{:.0} %", row.share_of_read * 100.0),
                format!("{:.1}", row.extra_bytes as f64 / f64::from(1 << 20)),
            ],
            Self::Refused { shape, dtype, reason } => vec![shape.clone(), format!("none for {dtype}: {reason}")],
        }
    }
}

/// Makes the table. Its lines are not wrapped.
pub(crate) fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "shape",
        "variant",
        "ms",
        "spread",
        "cold",
        "wall",
        "FLOP/s",
        "GB/s",
        "of FMA",
        "of matrix",
        "of read",
        "extra MiB",
    ]);
    for line in lines {
        table.add_row(line.cells());
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Milliseconds with three digits, whatever their size.
fn milliseconds(ms: f64) -> String {
    let decimals = if ms < 1.0 { 3 } else { usize::from(ms < 100.0) + usize::from(ms < 10.0) };
    format!("{ms:.decimals$}")
}

/// A speed in G or T, so that a reader need not count zeros.
pub(crate) fn speed(tflops: f64) -> String {
    if tflops < 1.0 { format!("{:.1} G", tflops * 1e3) } else { format!("{tflops:.1} T") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([0.0123, 1.234, 12.34, 123.4].map(milliseconds), ["0.012", "1.23", "12.3", "123"]);
        assert_eq!([0.0515, 41.26].map(speed), ["51.5 G", "41.3 T"]);
    }
}
