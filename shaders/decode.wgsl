// Exact attention for few query rows: decoding, where reading K and V once is all the time there is.
//
//     O = softmax(S) V,   S = softcap(scale · Q Kᵀ) + bias, masked
//
// The query heads that share a KV head are rows like any other: row n of a KV head is query n / group, head n mod group.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   KEYS × SHARE threads; the SHARE threads of a key take a vector of four dimensions each in turn, so that
//             neighbours read neighbours. A thread keeps its dimensions of Q and O for all rows in its registers
// memory      16 bytes a thread and row
// barriers    a round: none or 2 (share_*.wgsl); at the end 2 for each sum over the keys
//
//     for each 4 · KEYS keys of this part that some row may see, four to a thread:
//         S ← Q Kᵀ, scaled, capped, biased, masked
//         m′ ← max(m, max S);  P ← exp(S − m′);  l ← l·exp(m − m′) + sum P          of this thread's keys alone
//         O ← O·exp(m − m′) + P V
//     m ← max over all keys' threads;  l, O ← sums over them                       as merge.wgsl does for the parts
//     O ← O / l;  lse ← m + ln l                                                   a row that saw no key: 0 and −∞
//
// Splitting the keys: Dao et al., Flash-Decoding, 2023; rows of a group together: Ainslie et al., GQA, 2023.

// From the host: ROWS, KEYS, SHARE; Q_VECTORS and V_VECTORS of a row that a thread holds.
const THREADS = KEYS * SHARE;
const TOLD = ROWS * THREADS;
const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything

const_assert Q_VECTORS * SHARE * 4u == DIM_QK && V_VECTORS * SHARE * 4u == DIM_V;

@group(0) @binding(0) var<uniform> params: Params;

// What the threads of a workgroup tell each other: a vector for each row.
alias Rows = array<vec4<f32>, ROWS>;
var<workgroup> told: array<vec4<f32>, TOLD>;                   // [row][thread]

fn tell(thread: u32, x: Rows) {
    workgroupBarrier();  // the last readers are done
    // unroll
    for (var r = 0u; r < ROWS; r++) { told[r * THREADS + thread] = x[r]; }
    workgroupBarrier();
}

// The largest of what the threads of all keys bring, dimension for dimension.
fn largest_of_keys(thread: u32, x: Rows) -> Rows {
    tell(thread, x);
    var most = x;
    for (var i = 0u; i < KEYS; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { most[r] = max(most[r], told[r * THREADS + thread % SHARE + i * SHARE]); }
    }
    return most;
}

// And their sum, in one order for all.
fn sum_of_keys(thread: u32, x: Rows) -> Rows {
    tell(thread, x);
    var sum = Rows();
    for (var i = 0u; i < KEYS; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { sum[r] += told[r * THREADS + thread % SHARE + i * SHARE]; }
    }
    return sum;
}

// sum + m x, as four fused multiply-adds.
fn accumulate(m: mat4x4<f32>, x: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(m[3], vec4(x.w), fma(m[2], vec4(x.z), fma(m[1], vec4(x.y), fma(m[0], vec4(x.x), sum))));
}

// The same for values that a row does not see, and which may hold anything: they are not touched.
fn accumulate_seen(m: mat4x4<f32>, p: vec4<f32>, seen: vec4<bool>, sum: vec4<f32>) -> vec4<f32> {
    let none = vec4(0.0);
    return accumulate(mat4x4(select(none, m[0], seen.x), select(none, m[1], seen.y),
                             select(none, m[2], seen.z), select(none, m[3], seen.w)), p, sum);
}

fn sum(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }
fn largest(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

// Four of K's or V's numbers of one key; zeroes past the valid keys, which may hold anything.
fn key_vector(at: u32, dim: u32, readable: bool) -> vec4<f32> {
    var x = vec4(0.0);
    if (readable & (dim < params.dim_qk)) { x = load_k(at + dim, params.dim_qk - dim); }
    return x;
}
fn value_vector(at: u32, dim: u32, readable: bool) -> vec4<f32> {
    var x = vec4(0.0);
    if (readable & (dim < params.dim_v)) { x = load_v(at + dim, params.dim_v - dim); }
    return x;
}

fn row_of(batch: u32, kv_head: u32, row: u32, part: u32) -> Row {
    return Row(batch, kv_head * params.group + row % params.group, row / params.group, part);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let batch = workgroup.z / params.parts;
    let part = workgroup.z % params.parts;
    let kv_head = workgroup.y;
    let lane = thread / SHARE;
    let dim = thread % SHARE * 4u;                             // and SHARE · 4 further for each next vector
    let valid = valid_keys(batch);
    let diagonal = i32(params.first_row) + i32(valid * params.band_from_end);
    let rows = params.len_q * params.group;
    let first_row = workgroup.x * ROWS;
    let final_row = min(first_row + ROWS, rows) - 1u;

    var q = array<vec4<f32>, Q_ARRAY>();                       // [row][vector]
    var o = array<vec4<f32>, O_ARRAY>();                       // [row][vector]
    var m = array<f32, ROWS>();                                // the largest score of this thread's keys
    var l = array<f32, ROWS>();                                // the sum of weights relative to it
    var saw = array<f32, ROWS>();                              // 1 where the row sees a key, which no sum tells
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = min(first_row + r, final_row);
        let at = address(params.q, batch, kv_head * params.group + row % params.group, row / params.group);
        m[r] = LOWEST;
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            if ((row < rows) & (i < params.dim_qk)) { q[r * Q_VECTORS + d] = load_q(at + i, params.dim_qk - i); }
        }
    }

    let first_key = i32(first_row / params.group) + diagonal + params.band_first;
    let last_key = i32(final_row / params.group) + diagonal + params.band_last;
    let begin = max(u32(max(first_key, 0)) / (KEYS * 4u) * (KEYS * 4u), part * params.part_keys);
    let end = min(u32(max(last_key + 1, 0)), min(valid, (part + 1u) * params.part_keys));
    for (var kv = begin; kv < end; kv += KEYS * 4u) {
        let keys = kv + lane + vec4(0u, 1u, 2u, 3u) * KEYS;
        let readable = keys < vec4(end);
        let within = min(keys, vec4(params.len_kv - 1u));
        let k_at = address(params.k, batch, kv_head, 0u) + within * params.k.w;
        let v_at = address(params.v, batch, kv_head, 0u) + within * params.v.w;

        var s = Rows();
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            let k = transpose(mat4x4(key_vector(k_at.x, i, readable.x), key_vector(k_at.y, i, readable.y),
                                     key_vector(k_at.z, i, readable.z), key_vector(k_at.w, i, readable.w)));
            // unroll
            for (var r = 0u; r < ROWS; r++) { s[r] = accumulate(k, q[r * Q_VECTORS + d], s[r]); }
        }

        s = sum_of_share(thread, s);
        var seen = array<vec4<bool>, ROWS>();
        var rescale = array<f32, ROWS>();
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let row = min(first_row + r, final_row);
            let query = row / params.group;
            let head = kv_head * params.group + row % params.group;
            let stands_at = i32(query) + diagonal;
            let j = vec4<i32>(keys);
            seen[r] = readable & (j >= vec4(stands_at + params.band_first)) & (j <= vec4(stands_at + params.band_last));
            s[r] = shape_scores(s[r]);
            if (HAS_MASK) { seen[r] &= attend(address(params.mask, batch, head, query), within); }
            if (HAS_BIAS) {
                let bias = load_bias(address(params.bias, batch, head, query), within);
                s[r] += bias;
                seen[r] &= bitcast<vec4<u32>>(bias) != vec4(0xff800000u);  // −∞ hides
            }
            s[r] = select(vec4(LOWEST), s[r], seen[r]);
            let before = m[r];
            m[r] = max(before, largest(s[r]));
            // Keys of which a row sees none leave its bits alone: the factor is then 1, whatever exp2(0) is.
            rescale[r] = select(exp2((before - m[r]) * params.exp2_scale), 1.0, before == m[r]);
            s[r] = select(vec4(0.0), exp2((s[r] - vec4(m[r])) * params.exp2_scale), seen[r]);
            l[r] = fma(l[r], rescale[r], sum(s[r]));
            saw[r] = select(saw[r], 1.0, any(seen[r]));
        }

        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            let v = mat4x4(value_vector(v_at.x, i, readable.x), value_vector(v_at.y, i, readable.y),
                           value_vector(v_at.z, i, readable.z), value_vector(v_at.w, i, readable.w));
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                o[r * V_VECTORS + d] = accumulate_seen(v, s[r], seen[r], o[r * V_VECTORS + d] * rescale[r]);
            }
        }
    }

    // Each thread's results become relative to the largest score of all.
    var tops = Rows();
    var sums = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) { tops[r] = vec4(m[r], saw[r], 0.0, 0.0); }
    tops = largest_of_keys(thread, tops);
    var rescale = array<f32, ROWS>();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        rescale[r] = select(exp2((m[r] - tops[r].x) * params.exp2_scale), 1.0, m[r] == tops[r].x);
        sums[r] = vec4(l[r] * rescale[r]);
    }
    sums = sum_of_keys(thread, sums);
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        var all_o = Rows();
        // unroll
        for (var r = 0u; r < ROWS; r++) { all_o[r] = o[r * V_VECTORS + d] * rescale[r]; }
        all_o = sum_of_keys(thread, all_o);
        let i = dim + d * SHARE * 4u;
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let at = row_of(batch, kv_head, first_row + r, part);
            let stored = (lane == 0u) & (first_row + r < rows) & (i < params.dim_v);
            if (stored) { store_columns(at, i, all_o[r], sums[r].x, tops[r].y > 0.0); }
        }
    }
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let at = row_of(batch, kv_head, first_row + r, part);
        if ((thread == 0u) & (first_row + r < rows)) { store_statistics(at, tops[r].x, sums[r].x, tops[r].y > 0.0); }
    }
}
