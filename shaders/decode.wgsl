// Exact attention for few query rows, as in decoding, where reading K and V takes most of the time.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// The query heads that share a KV head are computed together: row n is query n / group of the group's head n mod group.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   KEYS × SHARE threads. SHARE neighbouring threads share a key: thread t of them reads its vectors of four
//             dimensions t, t + SHARE, …, so that neighbours read neighbours. It keeps the same dimensions of Q and O in
//             registers, for all rows, and the softmax of its own row, t mod ROWS
// memory      16 · ROWS · KEYS · SHARE bytes; share_workgroup.wgsl takes 16 · ROWS + 20 · KEYS · SHARE more
// barriers    per iteration none (share_subgroup.wgsl) or 2 (share_workgroup.wgsl); at the end 1 or 2, and 2 · V_VECTORS
//
//     for each 4 · KEYS keys of this part that some row may see, four per thread:
//         S ← Q Kᵀ, summed over the threads of a key                                each thread gets its own row of S
//         S ← scaled, capped, biased, masked                                        no masks where every row sees every key
//         m′ ← max(m, max S);  P ← exp(S − m′);  l ← l·exp(m − m′) + sum P          over this thread's keys only
//         O ← O·exp(m − m′) + P V                                                   P and the factors from the rows' threads
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
const EXCHANGED = ROWS * STRIDE;

// Entry j of what thread t keeps per row belongs to row (t mod ROWS) xor j: entry 0 is its own row, and entry j is the own row
// of thread t xor j, with which it is exchanged. So every index of an entry is a constant, and entries stay in registers.
const_assert ROWS <= SHARE && (ROWS & (ROWS - 1u)) == 0u;
fn row_of_entry(thread: u32, j: u32) -> u32 { return (thread % ROWS) ^ j; }

alias Rows = array<vec4<f32>, ROWS>;                           // one vector per entry
var<workgroup> exchanged: array<vec4<f32>, EXCHANGED>;         // one vector per row and thread

// What the threads of all rows have for their own row.
struct Gathered {
    of_row: Rows,
    factor: array<f32, ROWS>,
}

// The sum over the threads that hold the same dimensions for different keys. All of them add in the same order, so they get the
// same bits.
fn sum_of_keys(thread: u32, x: Rows) -> Rows {
    workgroupBarrier();  // the last readers are done
    // unroll
    for (var j = 0u; j < ROWS; j++) { exchanged[j * STRIDE + thread] = x[j]; }
    workgroupBarrier();
    var sum = Rows();
    for (var i = 0u; i < KEYS; i++) {
        // unroll
        for (var j = 0u; j < ROWS; j++) { sum[j] += exchanged[j * STRIDE + thread % SHARE + i * SHARE]; }
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

// Four elements of one key's row of K or V. Dimensions of K past the end are zero, unless `whole` says that every thread's
// dimensions exist. Columns of V past the end may be anything, as they are not stored. Keys past the valid ones may be
// anything: their scores and their values are hidden.
fn key_vector(at: u32, dim: u32, whole: bool) -> vec4<f32> {
    if (whole) { return load_k(at, dim, params.dim_qk - dim); }
    let d = within_row(dim, params.dim_qk);
    return select(vec4(0.0), load_k(at, d, params.dim_qk - d), dim < params.dim_qk);
}
fn value_vector(at: u32, dim: u32) -> vec4<f32> {
    let d = within_row(dim, params.dim_v);
    return load_v(at, d, params.dim_v - d);
}

alias Query = array<vec4<f32>, Q_ARRAY>;                       // a thread's dimensions of Q: [entry][vector]
alias Output = array<vec4<f32>, O_ARRAY>;                      // its dimensions of O: [entry][vector]

// The softmax of the thread's own row so far, over its keys only.
struct Softmax {
    m: f32,
    l: f32,
    saw_any: bool,
}

fn load_queries(site: Site, thread: u32, dim: u32) -> Query {
    var q = Query();
    // unroll
    for (var j = 0u; j < ROWS; j++) {
        let wanted = site.first + row_of_entry(thread, j);
        let n = min(wanted, site.rows - 1u);
        let at = q_address(row_of(site, n));
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            if ((wanted == n) & (i < params.dim_qk)) { q[j * Q_VECTORS + d] = load_q(at, i, params.dim_qk - i); }
        }
    }
    return q;
}

// The products of all rows with four keys, over this thread's dimensions.
fn products(site: Site, keys: vec4<u32>, dim: u32, whole: bool, q: ptr<function, Query>) -> Rows {
    let k_at = vec4(k_address(site, keys.x), k_address(site, keys.y), k_address(site, keys.z), k_address(site, keys.w));
    var s = Rows();
    // unroll
    for (var d = 0u; d < Q_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let k = transpose(mat4x4(
            key_vector(k_at.x, i, whole),
            key_vector(k_at.y, i, whole),
            key_vector(k_at.z, i, whole),
            key_vector(k_at.w, i, whole),
        ));
        // unroll
        for (var j = 0u; j < ROWS; j++) { s[j] = accumulate(k, (*q)[j * Q_VECTORS + d], s[j]); }
    }
    return s;
}

// The weights of four keys, and the factor that rescales the earlier sums to the new m.
struct Taken {
    p: vec4<f32>,
    factor: f32,
}

fn take_in(row: Row, keys: vec4<u32>, product: vec4<f32>, seen: vec4<bool>, softmax: ptr<function, Softmax>) -> Taken {
    let scores = score(row, keys, product, seen);
    let before = (*softmax).m;
    let m = follow(before, largest(scores.s));
    let factor = rescale(before, m);
    let p = weigh(scores.s, scores.seen, m);
    (*softmax).m = m;
    (*softmax).l = fma((*softmax).l, factor, sum(p));
    (*softmax).saw_any |= any(scores.seen);
    return Taken(kept(row, keys, p), factor);
}

// O ← O·factor + P V, for this thread's dimensions. `full` says that every row sees every key.
fn accumulate_values(site: Site, keys: vec4<u32>, dim: u32, weights: Gathered, full: bool, o: ptr<function, Output>) {
    let v_at = vec4(v_address(site, keys.x), v_address(site, keys.y), v_address(site, keys.z), v_address(site, keys.w));
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let v = mat4x4(value_vector(v_at.x, i), value_vector(v_at.y, i), value_vector(v_at.z, i), value_vector(v_at.w, i));
        // unroll
        for (var j = 0u; j < ROWS; j++) {
            let at = j * V_VECTORS + d;
            let before = (*o)[at] * weights.factor[j];
            if (full) {
                (*o)[at] = accumulate(v, weights.of_row[j], before);
            } else {
                (*o)[at] = accumulate_seen(v, weights.of_row[j], before);
            }
        }
    }
}

// Rescales all threads' states to one m, adds them up and stores the result.
fn finish(site: Site, thread: u32, dim: u32, softmax: Softmax, o: ptr<function, Output>) {
    exchanged[thread] = vec4(softmax.m, softmax.l, select(0.0, 1.0, softmax.saw_any), 0.0);
    workgroupBarrier();
    var m = LOWEST;
    for (var i = 0u; i < KEYS; i++) { m = max(m, exchanged[thread % SHARE + i * SHARE].x); }
    var l = 0.0;
    var saw = 0.0;
    for (var i = 0u; i < KEYS; i++) {
        let other = exchanged[thread % SHARE + i * SHARE];
        l += other.y * rescale(other.x, m);
        saw = max(saw, other.z);
    }
    let rows = gather(thread, vec4(m, l, saw, 0.0), rescale(softmax.m, m));
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        var all_o = Rows();
        // unroll
        for (var j = 0u; j < ROWS; j++) { all_o[j] = (*o)[j * V_VECTORS + d] * rows.factor[j]; }
        all_o = sum_of_keys(thread, all_o);
        let i = dim + d * SHARE * 4u;
        // unroll
        for (var j = 0u; j < ROWS; j++) {
            let n = site.first + row_of_entry(thread, j);
            let stored = (thread < SHARE) & (n < site.rows) & (i < params.dim_v);
            let total = rows.of_row[j];
            if (stored) { store_columns(row_of(site, n), i, all_o[j], total.x, total.y, total.z > 0.0); }
        }
    }
    let n = site.first + thread;
    if ((thread < ROWS) & (n < site.rows)) { store_statistics(row_of(site, n), m, l, saw > 0.0); }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let dim = thread % SHARE * 4u;                             // of the first vector; the next ones are SHARE · 4 apart
    let site = site_of(workgroup);
    if (is_idle(site)) { return; }
    let final_row = min(site.first + ROWS, site.rows) - 1u;

    let whole = params.dim_qk == Q_VECTORS * SHARE * 4u;
    var q = load_queries(site, thread, dim);
    var o = Output();
    var softmax = Softmax(LOWEST, 0.0, false);
    let row = row_of(site, min(site.first + row_of_entry(thread, 0u), final_row));
    let head = row_of(site, site.first);
    let tail = row_of(site, final_row);
    let range = keys_of(site, head, tail, KEYS * 4u);
    for (var kv = range.x; kv < range.y; kv += KEYS * 4u) {
        let keys = kv + thread / SHARE + vec4(0u, 1u, 2u, 3u) * KEYS;
        // With a literal, the compiler drops what the other case needs.
        var s = Rows();
        if (whole) { s = products(site, keys, dim, true, &q); } else { s = products(site, keys, dim, false, &q); }
        let product = sum_of_share(thread, s);
        let full = !HAS_HIDING_SCORES && !HAS_MASKS && all_in_band(head, tail, kv, KEYS * 4u);
        var seen = vec4(true);
        if (!full) { seen = sees(row, keys); }
        let taken = take_in(row, keys, product, seen, &softmax);
        let weights = gather(thread, taken.p, taken.factor);
        if (full) {
            accumulate_values(site, keys, dim, weights, true, &o);
        } else {
            accumulate_values(site, keys, dim, weights, false, &o);
        }
    }
    finish(site, thread, dim, softmax, &o);
}
