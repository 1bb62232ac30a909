// Exact attention for few query rows: decoding, where reading K and V once is all the time there is.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl
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
const GROUPED = true;
const LAG = 0.0;                                               // m is the largest score
const RAISE = 0.0;
const THREADS = KEYS * SHARE;
const TOLD = ROWS * THREADS;

const_assert Q_VECTORS * SHARE * 4u == DIM_QK && V_VECTORS * SHARE * 4u == DIM_V;

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

alias Query = array<vec4<f32>, Q_ARRAY>;                       // a thread's dimensions of Q: [row][vector]
alias Output = array<vec4<f32>, O_ARRAY>;                      // and of O

// The rows' softmax so far, over this thread's keys alone.
struct Softmax {
    m: array<f32, ROWS>,
    l: array<f32, ROWS>,
    saw: array<f32, ROWS>,                                     // 1 where the row sees a key
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
        let n = min(first + r, row_count() - 1u);
        let at = q_address(row_of(site, n));
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = dim + d * SHARE * 4u;
            if ((first + r == n) & (i < params.dim_qk)) { q[r * Q_VECTORS + d] = load_q(at + i, params.dim_qk - i); }
        }
    }
    return q;
}

// This thread's share of the products of all rows with four keys.
fn products(site: Site, keys: vec4<u32>, readable: vec4<bool>, dim: u32, q: ptr<function, Query>) -> Rows {
    let k_at = k_address(site, 0u) + within(keys) * params.k.w;
    var s = Rows();
    // unroll
    for (var d = 0u; d < Q_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let k = transpose(mat4x4(key_vector(k_at.x, i, readable.x), key_vector(k_at.y, i, readable.y),
                                 key_vector(k_at.z, i, readable.z), key_vector(k_at.w, i, readable.w)));
        // unroll
        for (var r = 0u; r < ROWS; r++) { s[r] = accumulate(k, (*q)[r * Q_VECTORS + d], s[r]); }
    }
    return s;
}

// O ← O·factor + P V, this thread's dimensions.
fn accumulate_values(site: Site, keys: vec4<u32>, readable: vec4<bool>, dim: u32, taken: Taken, o: ptr<function, Output>) {
    let v_at = v_address(site, 0u) + within(keys) * params.v.w;
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        let i = dim + d * SHARE * 4u;
        let v = mat4x4(value_vector(v_at.x, i, readable.x), value_vector(v_at.y, i, readable.y),
                       value_vector(v_at.z, i, readable.z), value_vector(v_at.w, i, readable.w));
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let at = r * V_VECTORS + d;
            (*o)[at] = accumulate_seen(v, taken.p[r], taken.seen[r], (*o)[at] * taken.factor[r]);
        }
    }
}

// What a round's scores become: weights, and the factors for what was accumulated before.
struct Taken {
    p: Rows,
    seen: array<vec4<bool>, ROWS>,
    factor: array<f32, ROWS>,
}

fn take_in(site: Site, first: u32, keys: vec4<u32>, s: Rows, softmax: ptr<function, Softmax>) -> Taken {
    var taken = Taken();
    var product = s;
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = row_of(site, min(first + r, row_count() - 1u));
        let scores = score(row, keys, product[r], sees(row, keys));
        let before = (*softmax).m[r];
        let m = follow(before, largest(scores.s));
        let p = weigh(scores.s, scores.seen, m);
        taken.p[r] = p;
        taken.seen[r] = scores.seen;
        taken.factor[r] = rescale(before, m);
        (*softmax).m[r] = m;
        (*softmax).l[r] = fma((*softmax).l[r], taken.factor[r], sum(p));
        (*softmax).saw[r] = select((*softmax).saw[r], 1.0, any(scores.seen));
    }
    return taken;
}

// Brings all threads' states to one m, adds them up and stores what they come to.
fn finish(site: Site, thread: u32, first: u32, dim: u32, softmax: ptr<function, Softmax>, o: ptr<function, Output>) {
    var tops = Rows();
    var sums = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) { tops[r] = vec4((*softmax).m[r], (*softmax).saw[r], 0.0, 0.0); }
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
            let stored = (thread < SHARE) & (first + r < row_count()) & (i < params.dim_v);
            if (stored) { store_columns(row_of(site, first + r), i, all_o[r], tops[r].x, sums[r].x, tops[r].y > 0.0); }
        }
    }
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        if ((thread == 0u) & (first + r < row_count())) {
            store_statistics(row_of(site, first + r), tops[r].x, sums[r].x, tops[r].y > 0.0);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let dim = thread % SHARE * 4u;                             // and SHARE · 4 further for each next vector
    let site = site_of(workgroup);
    let first = workgroup.x * ROWS;
    let final_row = min(first + ROWS, row_count()) - 1u;

    var q = load_queries(site, first, dim);
    var o = Output();
    var softmax = nothing_yet();
    let range = keys_of(site, row_of(site, first), row_of(site, final_row), KEYS * 4u);
    for (var kv = range.x; kv < range.y; kv += KEYS * 4u) {
        let keys = kv + thread / SHARE + vec4(0u, 1u, 2u, 3u) * KEYS;
        let readable = keys < vec4(range.y);
        let s = sum_of_share(thread, products(site, keys, readable, dim, &q));
        let taken = take_in(site, first, keys, s, &softmax);
        accumulate_values(site, keys, readable, dim, taken, &o);
    }
    finish(site, thread, first, dim, &softmax, &o);
}
