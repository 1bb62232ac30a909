//! The records as a table for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::linux::record::Record;

/// A row per kernel.
pub(crate) fn table(records: &[Record], maker: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "for",
        "kernel",
        "registers",
        "spills",
        "resident",
        "shared KiB",
        "compile s",
        "useful",
        "issued per multiply-add",
        "shared B per multiply-add",
        "global B per multiply-add",
        "barriers",
        &format!("predicted on {maker}"),
    ]);
    for record in records {
        let steady = record.steady.as_ref();
        #[expect(clippy::cast_precision_loss, reason = "counts of instructions")]
        let per_add =
            |count: u64| steady.map_or("?".into(), |each| format!("{:.2}", count as f64 / each.multiply_adds as f64));
        #[expect(clippy::cast_precision_loss, reason = "counts of instructions")]
        let useful =
            steady.map_or("?".into(), |each| format!("{:.0} %", 100.0 * each.multiplying as f64 / each.all as f64));
        let predicted = match (&record.predicted, &record.not_found) {
            (Some(bound), _) => format!("{:.0} %, by {}", 100.0 * bound.share, bound.by),
            (None, why) => why.clone().unwrap_or_default(),
        };
        table.add_row([
            record.problem.clone(),
            record.variant.clone(),
            record.registers.to_string(),
            record.spills.to_string(),
            record.resident.to_string(),
            format!("{:.1}", f64::from(record.workgroup_bytes) / 1024.0),
            format!("{:.2}", record.compile_seconds),
            useful,
            per_add(steady.map_or(0, |each| each.all)),
            per_add(steady.map_or(0, |each| each.shared_bytes)),
            per_add(steady.map_or(0, |each| each.global_bytes)),
            steady.map_or(0, |each| each.barriers).to_string(),
            predicted,
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(10) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
