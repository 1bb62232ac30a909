// Sinks: one learned logit per head, which takes part in the softmax and has no value. The LSE of a row that sees no key is
// its sink. Everything here is in natural units, as the sinks are.
fn total_of(row: Row, m: f32, l: f32, saw_any: bool) -> Total {
    let sink = sinks[address(params.sinks, 0u, row.head, 0u)];
    let own = m * params.natural_scale;
    let top = select(sink, max(own, sink), saw_any);
    let factor = select(0.0, exp(own - top), saw_any);
    let all_l = l * factor + select(exp(sink - top), 0.0, sink == params.negative_infinity);
    return Total(all_l, factor, select(top + natural_log(all_l), params.nan, saw_any && all_l == 0.0));
}
