// The gradient of the values is wanted.
const HAS_DV = true;

fn keep_dv(place: Place, kv_head: u32, dim: u32, x: vec4<f32>) {
    store_dv(address(params.dv, place.batch, kv_head, place.row) + dim, params.dim_v - dim, x);
}
