// Scores, backwards: turns the gradients of scores into those of the scaled products.
//
//     mask ← − ALiBi ← + bias ← score_mod ← softcap            what is added has slope 1

fn product_gradients(row: Row, keys: vec4<u32>, products: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> {
    return softcap_slopes(products) * unmodified(row, within(keys), shape_scores(products), gradient);
}
