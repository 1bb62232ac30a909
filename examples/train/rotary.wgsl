// The rotary embedding: pairs of elements of queries and keys are rotated by angles that grow with their position. The pairs
// and the table are those of the crate's `Rotary` with `RotaryPairs::Halves`, so that the crate rotates alike when it decodes.
// A rotation's gradient is the rotation by the opposite angle.
//
// A row has the heads of queries, then of keys, then of values. A thread computes one pair.

override ROWS: u32;
override LENGTH: u32;        // the tokens of a sequence
override HEADS: u32;         // of queries
override KV_HEADS: u32;
override HALF: u32;          // half of a head

@group(0) @binding(0) var<storage, read> table: array<vec2<f32>>;        // per position and pair: cosine, sine
@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;          // or its gradient

@group(0) @binding(2) var<storage, read> dq: array<f32>;
@group(0) @binding(3) var<storage, read> dk: array<f32>;
@group(0) @binding(4) var<storage, read> dv: array<f32>;

fn rotated(pair: vec2<f32>, cosine: f32, sine: f32) -> vec2<f32> {
    return vec2(pair.x * cosine - pair.y * sine, pair.y * cosine + pair.x * sine);
}

@compute @workgroup_size(64) fn rotate(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.x / HALF % (HEADS + KV_HEADS);
    let row = id.x / HALF / (HEADS + KV_HEADS);
    if (row >= ROWS) { return; }
    let angle = table[row % LENGTH * HALF + id.x % HALF];
    let at = (row * (HEADS + 2u * KV_HEADS) + head) * 2u * HALF + id.x % HALF;
    let pair = rotated(vec2(qkv[at], qkv[at + HALF]), angle.x, angle.y);
    qkv[at] = pair.x;
    qkv[at + HALF] = pair.y;
}

// Also packs the gradients of queries, keys and values, which attention leaves in a buffer each.
@compute @workgroup_size(64) fn rotate_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.x / HALF % (HEADS + 2u * KV_HEADS);
    let row = id.x / HALF / (HEADS + 2u * KV_HEADS);
    if (row >= ROWS) { return; }
    let angle = table[row % LENGTH * HALF + id.x % HALF];
    let at = (row * (HEADS + 2u * KV_HEADS) + head) * 2u * HALF + id.x % HALF;
    var pair: vec2<f32>;
    if (head < HEADS) {
        let source = (row * HEADS + head) * 2u * HALF + id.x % HALF;
        pair = rotated(vec2(dq[source], dq[source + HALF]), angle.x, -angle.y);
    } else if (head < HEADS + KV_HEADS) {
        let source = (row * KV_HEADS + head - HEADS) * 2u * HALF + id.x % HALF;
        pair = rotated(vec2(dk[source], dk[source + HALF]), angle.x, -angle.y);
    } else {
        let source = (row * KV_HEADS + head - HEADS - KV_HEADS) * 2u * HALF + id.x % HALF;
        pair = vec2(dv[source], dv[source + HALF]);
    }
    qkv[at] = pair.x;
    qkv[at + HALF] = pair.y;
}
