//! `bench`.

use crate::harness::{command, folder, refused};

#[test]
fn bench_writes_a_row_for_each_shape_and_a_plot() {
    let folder = folder();
    let files = ["--json", "rows.json", "--plot", "roof.svg"];
    let shapes = ["--shape", "1,4,2,64,64,32,causal", "--shape", "2,2,2,1,96,32,mask"];
    let args: Vec<&str> = ["bench", "--dtype", "f16"].into_iter().chain(shapes).chain(files).collect();
    let output = command(folder.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let rows = std::fs::read_to_string(folder.path().join("rows.json")).expect("rows");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).expect("an array");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        for figure in
            ["median_ms", "tflops", "gbps", "share_of_fma", "share_of_read", "wall_ms", "plan_us", "record_us"]
        {
            assert!(row[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} of {row}");
        }
        assert_eq!(row["dtype"], "f16");
    }
    assert!(rows[0]["cold_ms"].is_null() && rows[1]["cold_ms"].is_f64());
    assert!(std::fs::read_to_string(folder.path().join("roof.svg")).expect("a plot").ends_with("</svg>\n"));
}

#[test]
fn bench_compares_what_serving_costs() {
    let folder = folder();
    let output = command(folder.path(), &["bench", "--suite", "serving", "--only", "append", "--json", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("an array");
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    for figure in ["ratio", "this_ms", "other_ms", "record_us", "rebind_us"] {
        assert!(row[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} of {row}");
    }
    assert_eq!(row["suite"], "serving");
    assert!(row["variants"][0].as_str().is_some_and(|name| name.starts_with("append.")), "{row}");
    let serving = ["bench", "--suite", "serving"];
    refused(folder.path(), &[&serving[..], &["--dtype", "f16"]].concat(), "leave out --shape, --dtype");
    refused(folder.path(), &[&serving[..], &["--only", "nothing"]].concat(), "no row of --suite serving");
    refused(folder.path(), &["bench", "--only", "append"], "rows of --suite serving");
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let folder = folder();
    refused(folder.path(), &["bench", "--device", "cpu"], "measures kernels");
    refused(folder.path(), &["bench", "--shape", "1,8,8,512,64"], "six whole numbers");
    refused(folder.path(), &["bench", "--plot", "roof.png"], "SVG");
    refused(folder.path(), &["--json", "bench"], "--json FILE after");
}
