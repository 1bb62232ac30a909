// Each row's log-sum-exp, natural logarithm.

fn store_lse(at: u32, x: f32) { lse[at] = x; }
