// The result of a state that has taken in all keys.

// A row's sum of weights, a sink's included; the factor that rescales O to the m of that sum; and the LSE.
struct Total {
    l: f32,
    factor: f32,
    lse: f32,
}

// x / l. If a row sees keys, l is 0 only if all their scores are −∞: the row is then NaN.
fn normalized(x: vec4<f32>, l: f32) -> vec4<f32> { return select(x / l, vec4(params.nan), l == 0.0); }

// The natural logarithm of a positive number. A driver's own may be off by 2⁻²¹ between ½ and 2, where most sums of weights are.
//
//     x = 2ⁿ f, 1/√2 < f < √2;  ln f = 2 artanh t, t = (f − 1) / (f + 1)
fn natural_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let above = bits - 0x3f3504f3u;                            // bits of x less those of 1/√2
    let n = f32(bitcast<i32>(above) >> 23u);
    let f = bitcast<f32>((above & 0x007fffffu) + 0x3f3504f3u);
    let t = (f - 1.0) / (f + 1.0);
    let y = t * t;
    let series = fma(y, fma(y, fma(y, fma(y, 0.22222222, 0.2857143), 0.4), 0.6666667), 2.0);
    // ln 2 is the sum of two numbers. The first is short enough for n times it to be exact.
    let log = fma(n, 0.693145752, fma(n, 1.42860682e-6, t * series));
    return select(log, x, (bits & 0x7f800000u) == 0x7f800000u);
}

fn log_sum_exp(m: f32, l: f32) -> f32 {
    return select(m * params.natural_scale + natural_log(l), params.nan, l == 0.0);
}
