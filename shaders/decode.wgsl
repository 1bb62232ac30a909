// Exact attention for few query rows, as in decoding, where reading K and V takes most of the time.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// The query heads that share a KV head are computed together: row n is query n / group of the group's head n mod group.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   KEYS × SHARE threads. SHARE neighbouring threads share a key: thread t of them reads its vectors of four
//             dimensions t, t + SHARE, …, so that neighbours read neighbours. It keeps the same dimensions of Q and O in
//             registers, for all rows
// memory      16 · ROWS · KEYS · SHARE bytes
// barriers    per iteration none (share_subgroup.wgsl) or 2 (share_workgroup.wgsl); at the end 4 + 2 · V_VECTORS
//
//     for each 4 · KEYS keys of this part that some row may see, four per thread:
//         S ← Q Kᵀ, scaled, capped, biased, masked                                  no masks where every row sees every key
//         m′ ← max(m, max S);  P ← exp(S − m′);  l ← l·exp(m − m′) + sum P          over this thread's keys only
//         O ← O·exp(m − m′) + P V
//     m ← max over the threads of all keys;  l, O ← sums over them                 as merge.wgsl does for the parts
//     O ← O / l;  lse ← m + ln l                                                   a row that sees no key: 0 and −∞
//
// Splitting the keys: Dao et al., Flash-Decoding, 2023; rows of a group together: Ainslie et al., GQA, 2023.

// From the host: ROWS, KEYS, SHARE; Q_VECTORS and V_VECTORS, the vectors of four that a thread holds of a row of Q and of O;
// Q_ARRAY and O_ARRAY, those of all rows.
const GROUPED = true;
const BLOCK_ROWS = ROWS;
const LAG = 0.0;                                               // m is the largest score
const RAISE = 0.0;
const IN_FOURS = false;
const THREADS = KEYS * SHARE;
const EXCHANGED = ROWS * THREADS;

// The buffer in which threads exchange one vector per row.
alias Rows = array<vec4<f32>, ROWS>;
var<workgroup> exchanged: array<vec4<f32>, EXCHANGED>;         // [row][thread]

fn exchange(thread: u32, x: Rows) {
    workgroupBarrier();  // the last readers are done
    // unroll
    for (var r = 0u; r < ROWS; r++) { exchanged[r * THREADS + thread] = x[r]; }
    workgroupBarrier();
}

// The maximum over the threads that hold the same dimensions for different keys, component by component.
fn largest_of_keys(thread: u32, x: Rows) -> Rows {
    exchange(thread, x);
    var most = x;
    for (var i = 0u; i < KEYS; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { most[r] = max(most[r], exchanged[r * THREADS + thread % SHARE + i * SHARE]); }
    }
    return most;
}

// The sum over the same threads. All threads add in the same order, so they get the same bits.
fn sum_of_keys(thread: u32, x: Rows) -> Rows {
    exchange(thread, x);
    var sum = Rows();
    for (var i = 0u; i < KEYS; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { sum[r] += exchanged[r * THREADS + thread % SHARE + i * SHARE]; }
    }
    return sum;
}

// sum + m x, as four fused multiply-adds.
fn accumulate(m: mat4x4<f32>, x: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(m[3], vec4(x.w), fma(m[2], vec4(x.z), fma(m[1], vec4(x.y), fma(m[0], vec4(x.x), sum))));
}

// The same for the values of four keys, of which the row may not see some.
fn accumulate_seen(m: mat4x4<f32>, p: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return accumulate(mat4x4(seen_value(m[0], p.x), seen_value(m[1], p.y), seen_value(m[2], p.z), seen_value(m[3], p.w)), p, sum);
}

// Four elements of one key's row of K or V. Dimensions of K past the end are zero; columns of V past the end may be anything,
// as they are not stored. Keys past the valid ones may be anything: their scores and their values are hidden.
fn key_vector(at: u32, dim: u32) -> vec4<f32> {
    let d = within_row(dim, params.dim_qk);
    return select(vec4(0.0), load_k(at, d, params.dim_qk - d), dim < params.dim_qk);
}
fn value_vector(at: u32, dim: u32) -> vec4<f32> {
    let d = within_row(dim, params.dim_v);
    return load_v(at, d, params.dim_v - d);
}

alias Query = array<vec4<f32>, Q_ARRAY>;                       // a thread's dimensions of Q: [row][vector]
alias Output = array<vec4<f32>, O_ARRAY>;                      // its dimensions of O: [row][vector]

// The rows' softmax so far, over this thread's keys only.
struct Softmax {
    m: array<f32, ROWS>,
    l: array<f32, ROWS>,
    saw: u32,                                                  // bit r is set if row r sees a key
}

fn nothing_yet() -> Softmax {
    var softmax = Softmax();
    // unroll
    for (var r = 0u; r < ROWS; r++) { softmax.m[r] = LOWEST; }
    return softmax;
}

fn load_queries(site: Site, first: u32, dim: u32) -> Query {
    var q = Query();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let n = min(first + r, site.rows - 1u);
        let at = q_address(row_of(site, n));
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            if ((first + r == n) & (i < params.dim_qk)) { q[r * Q_VECTORS + d] = load_q(at, i, params.dim_qk - i); }
        }
    }
    return q;
}

// The products of all rows with four keys, over this thread's dimensions.
fn products(site: Site, keys: vec4<u32>, dim: u32, q: ptr<function, Query>) -> Rows {
    let k_at = vec4(k_address(site, keys.x), k_address(site, keys.y), k_address(site, keys.z), k_address(site, keys.w));
    var s = Rows();
    // unroll
    for (var d = 0u; d < Q_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let k = transpose(mat4x4(key_vector(k_at.x, i), key_vector(k_at.y, i), key_vector(k_at.z, i), key_vector(k_at.w, i)));
        // unroll
        for (var r = 0u; r < ROWS; r++) { s[r] = accumulate(k, (*q)[r * Q_VECTORS + d], s[r]); }
    }
    return s;
}

// O ← O·factor + P V, for this thread's dimensions. `full` says that every row sees every key.
fn accumulate_values(site: Site, keys: vec4<u32>, dim: u32, taken: Taken, full: bool, o: ptr<function, Output>) {
    let v_at = vec4(v_address(site, keys.x), v_address(site, keys.y), v_address(site, keys.z), v_address(site, keys.w));
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let v = mat4x4(value_vector(v_at.x, i), value_vector(v_at.y, i), value_vector(v_at.z, i), value_vector(v_at.w, i));
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let at = r * V_VECTORS + d;
            let before = (*o)[at] * taken.factor[r];
            if (full) {
                (*o)[at] = accumulate(v, taken.p[r], before);
            } else {
                (*o)[at] = accumulate_seen(v, taken.p[r], before);
            }
        }
    }
}

// The weights of an iteration's scores, and the factors that rescale the earlier sums to the new m.
struct Taken {
    p: Rows,
    factor: array<f32, ROWS>,
}

fn take_in(site: Site, first: u32, keys: vec4<u32>, s: Rows, full: bool, softmax: ptr<function, Softmax>) -> Taken {
    var taken = Taken();
    var product = s;
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = row_of(site, min(first + r, site.rows - 1u));
        var seen = vec4(true);
        if (!full) { seen = sees(row, keys); }
        let scores = score(row, keys, product[r], seen);
        let before = (*softmax).m[r];
        let m = follow(before, largest(scores.s));
        let p = weigh(scores.s, scores.seen, m);
        taken.p[r] = kept(row, keys, p);
        taken.factor[r] = rescale(before, m);
        (*softmax).m[r] = m;
        (*softmax).l[r] = fma((*softmax).l[r], taken.factor[r], sum(p));
        (*softmax).saw |= select(0u, 1u << r, any(scores.seen));
    }
    return taken;
}

// Rescales all threads' states to one m, adds them up and stores the result.
fn finish(site: Site, thread: u32, first: u32, dim: u32, softmax: ptr<function, Softmax>, o: ptr<function, Output>) {
    var tops = Rows();
    var sums = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) { tops[r] = vec4((*softmax).m[r], f32(((*softmax).saw >> r) & 1u), 0.0, 0.0); }
    tops = largest_of_keys(thread, tops);
    var factor = array<f32, ROWS>();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        factor[r] = rescale((*softmax).m[r], tops[r].x);
        sums[r] = vec4((*softmax).l[r] * factor[r]);
    }
    sums = sum_of_keys(thread, sums);
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        var all_o = Rows();
        // unroll
        for (var r = 0u; r < ROWS; r++) { all_o[r] = (*o)[r * V_VECTORS + d] * factor[r]; }
        all_o = sum_of_keys(thread, all_o);
        let i = dim + d * SHARE * 4u;
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let stored = (thread < SHARE) & (first + r < site.rows) & (i < params.dim_v);
            if (stored) { store_columns(row_of(site, first + r), i, all_o[r], tops[r].x, sums[r].x, tops[r].y > 0.0); }
        }
    }
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        if ((thread == 0u) & (first + r < site.rows)) {
            store_statistics(row_of(site, first + r), tops[r].x, sums[r].x, tops[r].y > 0.0);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let dim = thread % SHARE * 4u;                             // of the first vector; the next ones are SHARE · 4 apart
    let site = site_of(workgroup);
    if (is_idle(site)) { return; }
    let first = site.first;
    let final_row = min(first + ROWS, site.rows) - 1u;

    var q = load_queries(site, first, dim);
    var o = Output();
    var softmax = nothing_yet();
    let head = row_of(site, first);
    let tail = row_of(site, final_row);
    let range = keys_of(site, head, tail, KEYS * 4u);
    for (var kv = range.x; kv < range.y; kv += KEYS * 4u) {
        let keys = kv + thread / SHARE + vec4(0u, 1u, 2u, 3u) * KEYS;
        let s = sum_of_share(thread, products(site, keys, dim, &q));
        if (!HAS_HIDING_SCORES && !HAS_MASKS && all_in_band(head, tail, kv, KEYS * 4u)) {
            let taken = take_in(site, first, keys, s, true, &softmax);
            accumulate_values(site, keys, dim, taken, true, &o);
        } else {
            let taken = take_in(site, first, keys, s, false, &softmax);
            accumulate_values(site, keys, dim, taken, false, &o);
        }
    }
    finish(site, thread, first, dim, &softmax, &o);
}
