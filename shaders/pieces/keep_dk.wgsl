// The gradient of the keys is wanted.
const HAS_DK = true;

fn keep_dk(place: Place, kv_head: u32, dim: u32, x: vec4<f32>) {
    store_dk(address(params.dk, place.batch, kv_head, place.row) + dim, params.dim_qk - dim, x * params.gradient_scale);
}
