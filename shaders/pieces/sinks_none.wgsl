// No sinks: only keys take part in the softmax.
fn total_of(row: Row, m: f32, l: f32, saw_any: bool) -> Total {
    return Total(l, 1.0, select(params.negative_infinity, log_sum_exp(m, l), saw_any));
}
