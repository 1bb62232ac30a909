// Each row's log-sum-exp, natural logarithm.
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;  // (B, Hq, Lq)

fn store_lse(at: u32, x: f32) { lse[at] = x; }
