//! The mistakes to plant, and the question that exposes each.
//!
//! An edit finds its place by a short piece of the text that a variant compiles. If the shaders change and an edit no
//! longer fits, its test fails; give the edit the new piece of text.

use truth::Case;
use wgpu_attention::Dtype;

use crate::matrix::in_f16;
use crate::questions::{
    all_features, all_weights, biased, bottom_right, causal, deep_bias, deep_weights, dropped, dropped_in_parts,
    dropped_weights, empty_rows, empty_tiles, even_f16, forty_columns, gappy, hidden_by_bias, huge_behind_band,
    huge_first, infinite_key, large, large_q, left_window, lengths_past_the_end, long, long_and_mostly_hidden,
    long_causal, long_masked, long_nan_behind_bias, long_staircase, long_window, lowest_bias, mask_keys_outermost,
    masked, masked_by_bytes, masked_by_hiding_words, nan_behind_band, nan_behind_bias, nearly_full, odd_bf16, odd_f16,
    odd_f32, padded, paged, plain, ragged, ring, softcapped, some_lengths, staircase, tall, tall_causal, tall_window,
    tiles, upside_down, weights_of_empty_rows, weights_of_stairs, weights_of_the_first, weights_of_the_last, wide,
    windowed,
};

/// A planted mistake: in the text, the first string of each pair is replaced by the second.
pub struct Mutation {
    pub edits: &'static [(&'static str, &'static str)],
    pub exposed_by: Question,
}

/// What is asked of the edited shader.
pub enum Question {
    /// The right result for this case.
    Case(fn() -> Case),
    /// The right result for this case, cut into as many dispatches as there are blocks of rows.
    Cut(fn() -> Case),
    /// The right result for this case, with its keys split over as many workgroups as possible.
    Split(fn() -> Case),
    /// That 16-bit outputs are the nearest.
    Rounding(Dtype),
}

const fn mutation(edits: &'static [(&'static str, &'static str)], exposed_by: fn() -> Case) -> Mutation {
    Mutation { edits, exposed_by: Question::Case(exposed_by) }
}

const fn split(edits: &'static [(&'static str, &'static str)], exposed_by: fn() -> Case) -> Mutation {
    Mutation { edits, exposed_by: Question::Split(exposed_by) }
}

/// Not an edit: it chooses the kernels that compute eight rows per thread.
const EIGHT_ROWS: (&str, &str) = ("const ROW_VECTORS = 2u;", "const ROW_VECTORS = 2u;");
/// Likewise, those that compute eight keys per thread.
const EIGHT_KEYS: (&str, &str) = ("const KEY_VECTORS = 2u;", "const KEY_VECTORS = 2u;");

pub const ATTENTION: &[Mutation] = &[
    // Dropout: what is dropped, what makes up for it, and the generator.
    mutation(&[("kept(row, keys_within(thread, kv, ", "kept(row, 0u * keys_within(thread, kv, ")], dropped),
    mutation(&[("numbers >= vec4(params.rng.w)", "numbers <= vec4(params.rng.w)")], dropped),
    mutation(&[("x * params.kept_scale", "x")], dropped),
    mutation(&[("const ROUNDS = 10u;", "const ROUNDS = 9u;")], dropped),
    mutation(&[("key += WEYL;", "")], dropped),
    mutation(&[("+ (low >> vec2(16u))", "")], dropped),
    mutation(&[("+ (middle & vec2(0xffffu))", "")], dropped),
    mutation(&[("+ (middle >> vec2(16u))", "")], dropped),
    mutation(&[("+ (other >> vec2(16u))", "")], dropped),
    mutation(&[("select(x.x, x.y, n == 1u)", "select(x.x, x.y, n == 0u)")], dropped),
    mutation(&[("select(x.z, x.w, n == 3u)", "x.z")], dropped),
    mutation(&[("* params.all_heads + position.y", "+ position.y")], dropped),
    mutation(&[("state.z)", "0u)")], dropped),
    mutation(&[("state.xy)", "state.yy)")], dropped),
    Mutation {
        edits: &[("vec3(params.first_batch + row.batch,", "vec3(row.batch,")],
        exposed_by: Question::Cut(dropped),
    },
    Mutation { edits: &[(" params.first_head + row.head,", " row.head,")], exposed_by: Question::Cut(dropped) },
    Mutation { edits: &[("params.first_row + row.query);", "row.query);")], exposed_by: Question::Cut(dropped) },
    // The order: scale, softcap, bias, mask.
    mutation(&[("product * params.score_scale", "product")], softcapped),
    mutation(&[("product * params.score_scale", "product * params.score_scale * 2.0")], softcapped),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 2.0")], plain),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 0.5")], plain),
    mutation(&[("* accurate_tanh(product * params.score_scale)", "* (product * params.score_scale)")], softcapped),
    mutation(&[("params.softcap_scale *", "1.1 *")], all_features),
    mutation(&[("sign(x) *", "")], softcapped),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], biased),
    mutation(&[("+= bias;", "+= params.softcap_scale * tanh(bias / params.softcap_scale);")], all_features),
    mutation(&[("= at + keys * params.bias_key", "= at + 1u + keys * params.bias_key")], biased),
    // The maximum, the sum, and rescaling from one maximum to another.
    mutation(
        &[("(*softmax).l[0u / 4u][0u % 4u] * factor[0u / 4u][0u % 4u];", "(*softmax).l[0u / 4u][0u % 4u];")],
        staircase,
    ),
    mutation(&[("*= factor[0u / 4u][0u % 4u];", "*= 1.0;")], staircase),
    mutation(&[("*= factor[3u / 4u][3u % 4u];", "*= factor[2u / 4u][2u % 4u];")], staircase),
    mutation(&[("return max(m, top);", "return top;")], || large(1e4)),
    mutation(&[("top[0u] = max(top[0u], tile[first + 7u / TOLD][7u % TOLD * ROW_VECTORS + 0u]);", "")], || large(1e5)),
    mutation(&[("sum[0u] += tile[first + 7u / TOLD][7u % TOLD * ROW_VECTORS + 0u];", "")], plain),
    mutation(&[("l[1u / 4u][1u % 4u], saw_any);", "l[0u / 4u][0u % 4u], saw_any);")], plain),
    mutation(&[("top[0u] = max(top[0u], subgroupShuffleXor(top[0u], 2u));", "")], || large(1e5)),
    mutation(&[("sum[0u] += subgroupShuffleXor(sum[0u], 4u);", "")], plain),
    mutation(&[("invocation.subgroup * invocation.size + invocation.lane", "invocation.lane")], plain),
    mutation(&[("exp2(below * params", "(below * params")], plain),
    // Which keys are seen.
    mutation(&[("scores.s, scores.seen);", "scores.s, !scores.seen);")], causal),
    mutation(&[("(j >= vec4(row.first))", "(j > vec4(row.first))")], windowed),
    mutation(&[("(j >= vec4(row.first))", "(j >= vec4(row.first - 1))")], windowed),
    mutation(&[("(j <= vec4(row.last))", "(j < vec4(row.last))")], causal),
    mutation(&[("(j <= vec4(row.last))", "(j <= vec4(row.last + 1))")], causal),
    mutation(&[("at + params.band_last;", "at + params.band_last + 1;")], causal),
    mutation(&[("at + params.band_last;", "at + params.band_last - 1;")], windowed),
    mutation(&[("at + params.band_first;", "at + params.band_first + 1;")], windowed),
    mutation(&[("at + params.band_first;", "at + params.band_first - 1;")], windowed),
    mutation(&[("(i32(valid) - i32(sequence.queries))", "(i32(params.len_kv) - i32(sequence.queries))")], bottom_right),
    mutation(&[("params.band_from_end)", "0u)")], bottom_right),
    mutation(&[("i32(site.end) - 1)", "i32(site.end))")], some_lengths),
    // Which queries and keys a sequence has, and where they lie.
    mutation(&[("min(q_lengths[params.first_batch + batch], params.all_queries)", "params.all_queries")], padded),
    mutation(&[("total_of(row, m, l, saw_any).lse, row.is_query)", "total_of(row, m, l, saw_any).lse, true)")], padded),
    mutation(&[("min(final_row.query, site.queries - 1u)", "min(final_row.query, 0u)")], padded),
    mutation(&[("return final_row.is_query &&", "return")], padded),
    mutation(&[("key / PAGE", "key / PAGE / 2u")], paged),
    mutation(&[("key % PAGE", "0u")], paged),
    mutation(&[("(params.first_batch + batch) * params.table_row", "0u")], paged),
    mutation(&[("max(valid, params.capacity) - params.capacity", "0u")], ring),
    mutation(&[("row >= params.capacity", "row > params.capacity")], ring),
    mutation(&[("i32(site.oldest));", "0);")], ring),
    mutation(&[("first_block(first + half) <= block", "first_block(first + half) < block")], ragged),
    mutation(&[("BLOCK_ROWS + sequence;", "BLOCK_ROWS;")], ragged),
    mutation(&[("sequence(first, block - first_block(first))", "sequence(first, 0u * block)")], ragged),
    mutation(&[("return (RAGGED &&", "return (false &&")], ragged),
    mutation(&[("Place(0u, keys_at + key)", "Place(0u, key)")], ragged),
    mutation(
        &[(
            "cu_seqlens_k[params.first_batch + batch + 1u], at) - at",
            "cu_seqlens_k[params.first_batch + batch + 1u], at)",
        )],
        ragged,
    ),
    mutation(&[("!= vec4(0u);", "== vec4(0u);")], masked),
    mutation(&[("& vec4(0xffu)", "& vec4(0x1u)")], masked_by_bytes),
    mutation(&[("keys * params.mask_key", "keys")], mask_keys_outermost),
    mutation(&[("return !is_set(at, keys);", "return is_set(at, keys);")], masked_by_hiding_words),
    mutation(&[("return vec4(mask[i.x], mask[i.y],", "return vec4(mask[i.x], mask[i.x],")], masked_by_hiding_words),
    mutation(&[("&votes) == 0u", "&votes) != 0u")], masked),
    // What a block mask says.
    mutation(&[("select(SOME_HIDDEN, tile, (tile & SOME_SEEN) != 0u)", "tile")], empty_tiles),
    mutation(&[("(tiles & vec4(SOME_SEEN)) != vec4(0u)", "vec4(true)")], tiles),
    mutation(&[("(tiles & vec4(SOME_HIDDEN)) != vec4(0u)", "vec4(true)")], tiles),
    mutation(&[("next) & SOME_SEEN) == 0u", "next) & SOME_HIDDEN) != 0u")], tiles),
    mutation(&[("(next / MASK_KEYS + 1u)", "(next / MASK_KEYS + 2u)")], tiles),
    mutation(&[("key) & SOME_HIDDEN) != 0u) { return false; }", "key) & SOME_HIDDEN) != 0u) {}")], tiles),
    mutation(&[("row <= tile_row(final_row); row++", "row < tile_row(final_row); row++")], tiles),
    mutation(&[("at + key / MASK_KEYS", "at")], tiles),
    Mutation {
        edits: &[("position_of(row).z / MASK_ROWS", "row.query / MASK_ROWS")],
        exposed_by: Question::Cut(tiles),
    },
    Mutation { edits: &[("params.first_head + head, tile_row)", "head, tile_row)")], exposed_by: Question::Cut(tiles) },
    mutation(&[("final_row.first <= i32(key)", "final_row.first <= i32(key) + 40")], left_window),
    mutation(&[("first.last >= i32(key", "first.last + 3 >= i32(key")], nearly_full),
    mutation(&[("u32(max(last + 1, 0))", "u32(max(last - 19, 0))")], plain),
    mutation(&[("/ tile * tile;", "/ tile * tile + tile;")], plain),
    mutation(&[(", params.len_kv); }", ", 0xffffffffu); }")], lengths_past_the_end),
    Mutation {
        edits: &[("kv_lengths[params.first_batch + batch]", "kv_lengths[batch]")],
        exposed_by: Question::Cut(some_lengths),
    },
    Mutation { edits: &[("i32(params.first_row) + ", "")], exposed_by: Question::Cut(tall_causal) },
    // Rows that see nothing, numbers below any sentinel, and what hidden rows hold.
    mutation(&[("let saw_any = ", "let saw_any = true || ")], empty_rows),
    mutation(
        &[("(*softmax).saw[0u / 4u][0u % 4u], 1.0, any(", "(*softmax).saw[0u / 4u][0u % 4u], 1.0, true || any(")],
        empty_rows,
    ),
    mutation(&[("(*softmax).saw[0u / 4u][0u % 4u], 1.0, any(", "(*softmax).saw[0u / 4u][0u % 4u], 0.0, any(")], plain),
    mutation(&[("select(params.negative_infinity, log", "select(0.0, log")], hidden_by_bias),
    mutation(&[("LOWEST = -3.4028234e38f", "LOWEST = -1e4f")], deep_bias),
    mutation(&[("params.exp2_scale), seen)", "params.exp2_scale), vec4(true))")], deep_weights),
    mutation(&[("== vec4(0xff800000u)", "== vec4(1u)")], nan_behind_bias),
    mutation(&[("v, weight > 0.0)", "v, true)")], nan_behind_band),
    mutation(&[("v, weight > 0.0)", "v, true)")], nan_behind_bias),
    mutation(&[("let full = !HAS", "let full = true || !HAS")], nan_behind_band),
    mutation(&[("let full = !HAS_HIDING_SCORES &&", "let full =")], nan_behind_bias),
    mutation(&[("select(vec4(LOWEST), scores.s, scores.seen)", "scores.s")], huge_behind_band),
    // A short row's last vector is read again for the dimensions after it.
    mutation(&[("select(vec4(0.0), x[1u], dim < params.dim_qk)", "x[1u]")], odd_f32),
    mutation(
        &[("2u * KEY_VECTORS] = select(vec4(0.0), x[2u], dim < params.dim_qk)", "2u * KEY_VECTORS] = x[2u]")],
        infinite_key,
    ),
    // Which number is in which unit.
    mutation(&[("m * params.natural_scale +", "m * params.exp2_scale +")], plain),
    mutation(&[("natural_log(l)", "log2(l)")], plain),
    mutation(&[("fma(n, 0.693145752,", "fma(n, 0.7,")], plain),
    mutation(&[("0.6666667)", "0.6)")], plain),
    mutation(&[("(f - 1.0) / (f + 1.0)", "(f - 1.0) / (f + 1.001)")], plain),
    mutation(&[("let m = softmax.m[", "let m = 0.0 * softmax.m[")], plain),
    // Which numbers are read and written.
    mutation(&[("select(n / params.group, n, GROUPED)", "select(0u, n, GROUPED)")], plain),
    mutation(&[("select(n / params.group, n, GROUPED)", "select(n % 2u, n, GROUPED)")], plain),
    mutation(&[("batch * view.y", "0u")], plain),
    mutation(&[("head * view.z", "0u")], plain),
    mutation(&[("return view.x +", "return ")], || gappy(Dtype::F32)),
    mutation(&[("sequence.block * BLOCK_ROWS", "0u")], tall),
    mutation(&[("x = transpose(x);", "")], plain),
    mutation(&[("P_AT + key / P_KEYS * DOWN + thread / ACROSS", "P_AT + key / P_KEYS * DOWN + thread % DOWN")], plain),
    mutation(&[("tile[q_group + 8u / Q_DIMS * DOWN]", "tile[q_group]")], plain),
    mutation(&[("tile[k_group + 8u / K_DIMS * ACROSS]", "tile[k_group]")], plain),
    mutation(&[("tile[v_group + 7u / V_GROUP * ACROSS]", "tile[v_group]")], wide),
    mutation(&[("vector * 4u + 1u))", "vector * 4u))")], plain),
    // In blocks of eight rows per thread.
    mutation(&[("+ vector % ROW_VECTORS", ""), EIGHT_ROWS], plain),
    mutation(&[("(thread % ACROSS + n * ACROSS) * 4u", "(thread % ACROSS) * 4u"), EIGHT_KEYS], forty_columns),
    mutation(&[("+ vector / ACROSS", ""), EIGHT_KEYS], forty_columns),
    mutation(&[("(thread % ACROSS + 1u * ACROSS) * 4u", "(thread % ACROSS) * 4u"), EIGHT_KEYS], forty_columns),
    mutation(&[("s[3u * KEY_VECTORS + 1u] = fma", "s[3u * KEY_VECTORS + 0u] = fma"), EIGHT_KEYS], forty_columns),
    mutation(&[("place + 2u * ROW_VECTORS + 1u]", "place + 2u * ROW_VECTORS]"), EIGHT_ROWS], plain),
    mutation(&[("tile[p_group + 5u / P_KEYS * DOWN]", "tile[p_group]"), EIGHT_ROWS], plain),
    mutation(&[("*= factor[5u / 4u][5u % 4u];", "*= factor[1u / 4u][1u % 4u];"), EIGHT_ROWS], staircase),
    mutation(&[("top[1u] = max(top[1u], subgroupShuffleXor(top[1u], 1u));", ""), EIGHT_ROWS], || large(1e5)),
    mutation(&[("tops[6u / 4u][6u % 4u] = top;", "tops[5u / 4u][5u % 4u] = top;"), EIGHT_ROWS], || large(1e5)),
    mutation(&[("accumulate(thread, done + step, step,", "accumulate(thread, step, step,")], wide),
    mutation(&[("stage_v(block, thread, kv + done)", "stage_v(block, thread, kv)")], wide),
    mutation(&[("stage_q(block, thread, slice, 0u)", "stage_q(block, thread, 0u, 0u)")], large_q),
    mutation(&[("dim < params.dim_v)", "dim + 4u < params.dim_v)")], plain),
    mutation(&[("let is_real = block.first + n <=", "let is_real = block.first + n <")], plain),
    // Elements that do not come in fours, or are not 32 bits wide.
    mutation(&[(", COMPONENTS < vec4(count))", ", COMPONENTS < vec4(9u))")], odd_f32),
    mutation(&[("if (count > 3u) { out[at + 3u] = x.w; }", "out[at + 3u] = x.w;")], || gappy(Dtype::F32)),
    mutation(&[("if (count > 3u) { store_half_out(at + 3u, x.w); }", "store_half_out(at + 3u, x.w);")], || {
        gappy(Dtype::F16)
    }),
    mutation(&[("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift)", "atomicAnd(&out[at >> 1u], 0u)")], odd_f16),
    mutation(&[("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift);", "")], odd_bf16),
    mutation(&[("let shift = (at & 1u) << 4u;", "let shift = 0u;")], odd_f16),
    mutation(&[("((i & vec4(1u)) << vec4(4u))", "vec4(0u)")], odd_bf16),
    mutation(
        &[(
            "vec4(widen_f16(q[(row + dim) >> 2u].x), widen_f16(q[(row + dim) >> 2u].y))",
            "vec4(widen_f16(q[(row + dim) >> 2u].y), vec2(0.0))",
        )],
        even_f16,
    ),
    // The bindings, and the parameters.
    mutation(
        &[
            ("@binding(1) var<storage, read> q", "@binding(2) var<storage, read> q"),
            ("@binding(2) var<storage, read> k", "@binding(1) var<storage, read> k"),
        ],
        plain,
    ),
    mutation(&[("    q: vec4<u32>,\n    k: vec4<u32>,", "    k: vec4<u32>,\n    q: vec4<u32>,")], plain),
    mutation(
        &[("    exp2_scale: f32,\n    natural_scale: f32,", "    natural_scale: f32,\n    exp2_scale: f32,")],
        plain,
    ),
    // Rounding.
    Mutation { edits: &[("word & 0xffff0000u", "word")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("0x7fffu + ", "0x7fffu + 0u * ")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("bits + 0x7fffu", "bits")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("0xfffu + ", "0xfffu + 0u * ")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("+ 0xfffu", "")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("bitcast<f32>(magnitude) + 0.5", "0.5")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("let sign = ", "let sign = 0u * ")], exposed_by: Question::Rounding(Dtype::F16) },
];

/// Mistakes in `weights.wgsl` itself, and in shared pieces that it uses differently.
pub const WEIGHTS: &[Mutation] = &[
    mutation(
        &[("compensated(kept(row, keys_within(thread, kv, ", "compensated(kept(row, 0u * keys_within(thread, kv, ")],
        dropped_weights,
    ),
    mutation(&[("x * params.kept_scale", "x")], dropped_weights),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 2.0")], all_weights),
    mutation(
        &[("let m = softmax.m[0u / 4u][0u % 4u];", "let m = 0.0 * softmax.m[0u / 4u][0u % 4u];")],
        weights_of_stairs,
    ),
    mutation(&[("m, softmax.l[1u / 4u][1u % 4u], true)", "m, softmax.l[0u / 4u][0u % 4u], true)")], all_weights),
    mutation(&[("all)), seen[", "all)), vec4(true) | seen[")], weights_of_empty_rows),
    mutation(
        &[("(*softmax).l[0u / 4u][0u % 4u] * factor[0u / 4u][0u % 4u];", "(*softmax).l[0u / 4u][0u % 4u];")],
        weights_of_stairs,
    ),
    mutation(&[("kv >= keys.x && ", "kv > keys.x && ")], all_weights),
    mutation(&[("kv < keys.y && kv ==", "kv + BLOCK_KV < keys.y && kv ==")], all_weights),
    mutation(&[("kv = 0u; kv < params.len_kv", "kv = keys.x; kv < params.len_kv")], weights_of_the_last),
    mutation(&[("kv = 0u; kv < params.len_kv", "kv = 0u; kv < keys.y")], weights_of_the_first),
    mutation(&[("&& key < params.len_kv)", "&& key + 4u < params.len_kv)")], all_weights),
    mutation(
        &[("let key = keys_within(thread, kv, 0u).x;", "let key = keys_within(THREADS - 1u - thread, kv, 0u).x;")],
        all_weights,
    ),
    mutation(&[("let key = keys_within(thread, kv, 0u).x;", "let key = keys_within(thread, 0u, 0u).x;")], all_weights),
    mutation(&[("/ params.group", "/ params.group * 0u")], all_weights),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], all_weights),
];

/// Mistakes in `lanes.wgsl`, whose loops are unrolled: an edit of a line edits every copy of it, or names one copy.
pub const LANES: &[Mutation] = &[
    mutation(&[("let used = kept(row, keys, p);", "let used = p;")], dropped),
    mutation(&[("sum_p += p[", "sum_p += used[")], dropped),
    mutation(&[("product * params.score_scale", "product * params.score_scale * 2.0")], softcapped),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 0.5")], plain),
    mutation(&[("sign(x) *", "")], softcapped),
    mutation(&[("(*s)[1u * KEYS + 1u % KEYS]", "0.0 * (*s)[1u * KEYS + 1u % KEYS]")], plain),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], biased),
    mutation(&[("seen &= !asked | attend(", "seen &= vec4(true) | attend(")], masked),
    mutation(&[("factor[2u] = rescale(before, m);", "factor[2u] = 1.0;")], staircase),
    mutation(&[("fma((*rows).l[1u], factor[1u],", "fma((*rows).l[1u], 1.0,")], staircase),
    mutation(&[("] * factor[3u];", "];")], staircase),
    mutation(&[("sum_p += p[1u];", "")], plain),
    mutation(&[("return select(m, top, leaps);", "return m;")], || large(1e4)),
    mutation(&[("(j >= vec4(row.first))", "(j > vec4(row.first))")], windowed),
    mutation(&[("(j <= vec4(row.last))", "(j < vec4(row.last))")], causal),
    mutation(&[("at + params.band_last;", "at + params.band_last + 1;")], causal),
    mutation(&[("i32(site.end) - 1)", "i32(site.end))")], some_lengths),
    mutation(&[("at + params.band_first;", "at + params.band_first - 1;")], windowed),
    mutation(&[("params.band_from_end)", "0u)")], bottom_right),
    mutation(&[("let tail = row_of(site, final_row);", "let tail = row_of(site, first);")], causal),
    mutation(&[("scores.seen &= !hides(bias)", "scores.seen |= !hides(bias)")], hidden_by_bias),
    mutation(&[("(*rows).saw[0u] |= scores.seen[", "(*rows).saw[0u] |= true || scores.seen[")], empty_rows),
    mutation(&[("params.exp2_scale), seen)", "params.exp2_scale), vec4(true))")], deep_weights),
    // NaN in the mark of a value, which rows that do not see it multiply by 0.
    mutation(
        &[("select(tile.v[0u * V_TEXELS].x, 0.0, tile.non_finite[0u])", "tile.v[0u * V_TEXELS].x")],
        nan_behind_bias,
    ),
    mutation(&[("scores.seen[0u] & (*tile).non_finite[0u]", "(*tile).non_finite[0u]")], nan_behind_bias),
    mutation(&[("select(n / params.group, n, GROUPED)", "select(0u, n, GROUPED)")], plain),
    mutation(&[("[5u % 4u], 5u / 4u % LANES)", "[5u % 4u], 0u)")], plain),
    mutation(&[("vec4((*o)[i], (*o)[i + 1u],", "vec4((*o)[i + 1u], (*o)[i],")], plain),
    mutation(&[("n / K_KEYS_PER_ROW)", "n / K_KEYS_PER_ROW + 1u)")], plain),
    mutation(&[("n % V_KEYS_PER_ROW", "n % 16u")], plain),
    mutation(&[("first + 1u * LANES + lane, site", "first + lane, site")], plain),
    mutation(&[("let first = site.first;", "let first = 0u;")], tall),
];

/// Mistakes in `stage.wgsl`.
pub const STAGE: &[Mutation] = &[
    mutation(&[("vec2(i, 0u), vec4(0.0))", "vec2(i, 0u), vec4(params.nan))")], nan_behind_bias),
    mutation(&[(">= INFINITY_BITS", "> 0xfffffffeu")], nan_behind_bias),
    mutation(&[("n % K_KEYS_PER_ROW", "0u")], plain),
    mutation(&[("i * 4u < params.dim_v", "i * 4u + 4u < params.dim_v")], plain),
    mutation(&[("key < end &&", "key + 1u < end &&")], plain),
    mutation(&[("(workgroup.x + 1u) * KEYS", "(workgroup.x + 1u) * THREADS")], long),
];

/// Mistakes in `decode.wgsl`, whose loops are unrolled.
pub const DECODE: &[Mutation] = &[
    mutation(&[("kept(row, keys, p)", "p")], dropped),
    mutation(&[("const IN_FOURS = false;", "const IN_FOURS = true;")], dropped),
    mutation(
        &[(
            "select(vec4(0.0), load_k(at, d, params.dim_qk - d), dim < params.dim_qk)",
            "load_k(at, d, params.dim_qk - d)",
        )],
        infinite_key,
    ),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 0.5")], plain),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], biased),
    mutation(&[("seen &= !asked | attend(", "seen &= vec4(true) | attend(")], masked),
    mutation(&[("fma((*softmax).l, factor,", "fma((*softmax).l, 1.0,")], long_staircase),
    mutation(&[("at + params.band_first;", "at + params.band_first + 1;")], windowed),
    mutation(&[("at + params.band_last;", "at + params.band_last + 1;")], causal),
    mutation(&[("params.band_from_end)", "0u)")], bottom_right),
    mutation(&[("min(span.end, begin + ", "min(span.end + 1u, begin + ")], some_lengths),
    mutation(&[("scores.seen &= !hides(bias)", "scores.seen |= !hides(bias)")], hidden_by_bias),
    mutation(&[("total.z > 0.0", "true")], empty_rows),
    mutation(&[("seen_value(m[1], p.y)", "m[1]")], nan_behind_bias),
    mutation(&[("let full = !HAS_HIDING_SCORES && ", "let full = ")], long_nan_behind_bias),
    mutation(&[("!HAS_MASKS && all_in_band(head,", "all_in_band(head,")], long_masked),
    mutation(&[("all_in_band(head, tail, kv, KEYS * 4u)", "true")], nan_behind_band),
    mutation(&[("all_in_band(head, tail,", "all_in_band(tail, tail,")], long_causal),
    mutation(&[("select(0u, n % params.group, GROUPED)", "0u")], plain),
    mutation(&[("select(n, n / params.group, GROUPED)", "n / params.group / 2u")], plain),
    mutation(&[("rescale(softmax.m, m)", "1.0")], staircase),
    mutation(&[("other.y * rescale(other.x, m)", "other.y")], staircase),
    mutation(
        &[("let wanted = site.first + row_of_entry(thread, 0u);", "let wanted = row_of_entry(thread, 0u);")],
        plain,
    ),
    mutation(&[("thread / SHARE * SHARE;", "thread % SHARE * SHARE;")], plain),
    mutation(&[("s[2u * 0u] += subgroupShuffleXor(s[2u * 0u + 1u], 1u);", "")], plain),
    mutation(&[("invocation.subgroup * invocation.size + invocation.lane", "invocation.lane")], plain),
    mutation(&[("params.dim_qk == Q_VECTORS", "params.dim_qk <= Q_VECTORS")], infinite_key),
    mutation(&[("gathered[thread ^ 1u]", "gathered[thread]")], plain),
    mutation(&[("(thread % ROWS) ^ j", "j")], plain),
    mutation(&[("s[4u * 0u] += subgroupShuffleXor(s[4u * 0u + 2u], 2u);", "")], plain),
    mutation(&[("sum += subgroupShuffleXor(sum, 4u);", "")], plain),
    mutation(&[("all.of_row[1u] = subgroupShuffleXor(x, 1u);", "all.of_row[1u] = x;")], plain),
    mutation(&[("all.factor[1u] = subgroupShuffleXor(factor, 1u);", "all.factor[1u] = factor;")], staircase),
    mutation(&[("gathered_factors[thread ^ 1u]", "gathered_factors[thread]")], staircase),
];

/// Mistakes in `streams.wgsl`, whose loops are unrolled.
pub const STREAMS: &[Mutation] = &[
    mutation(&[("kept(row, vec4(key), p).x", "p.x")], dropped),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 0.5")], plain),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], biased),
    mutation(&[("seen &= !asked | attend(", "seen &= vec4(true) | attend(")], masked),
    mutation(&[("fma((*rows).l[1u], taken.factor[1u],", "fma((*rows).l[1u], 1.0,")], staircase),
    mutation(&[("(*o)[to] * taken.factor[0u]", "(*o)[to]")], staircase),
    mutation(&[("at + params.band_first;", "at + params.band_first + 1;")], windowed),
    mutation(&[("at + params.band_last;", "at + params.band_last + 1;")], causal),
    mutation(&[("params.band_from_end)", "0u)")], bottom_right),
    mutation(&[("i32(site.end) - 1)", "i32(site.end))")], some_lengths),
    mutation(&[("scores.seen &= !hides(bias)", "scores.seen |= !hides(bias)")], hidden_by_bias),
    mutation(&[("let saw_any = ", "let saw_any = true || ")], empty_rows),
    mutation(&[("select(0.0, v4[1u], taken.seen[3u])", "v4[1u]")], nan_behind_bias),
    mutation(&[("params.exp2_scale), seen)", "params.exp2_scale), vec4(true))")], deep_weights),
    mutation(&[("+ TILE - 1u) / TILE * RUN;", "+ TILE - 1u) / TILE * RUN - 1u;")], || huge_first(127)),
    mutation(&[("(range.x - site.begin) / TILE * RUN;", "(range.x - site.begin) / TILE * RUN + 1u;")], || {
        huge_first(0)
    }),
    mutation(&[("+ lane * RUN +", "+ lane * (RUN - 1u) +")], plain),
    mutation(&[("select(0u, n % params.group, GROUPED)", "0u")], plain),
    mutation(&[("select(n, n / params.group, GROUPED)", "n / params.group / 2u")], plain),
    mutation(&[("rescale((*rows).m[3u], top)", "1.0")], staircase),
    mutation(&[("sum_of_lanes((*rows).l[2u] * factor)", "sum_of_lanes((*rows).l[2u])")], staircase),
    mutation(&[("sum += subgroupShuffleXor(sum, 2u);", "")], plain),
    mutation(&[("lane == 2u", "lane == 3u")], plain),
    mutation(&[("let first = site.first;", "let first = 0u;")], plain),
    split(&[("span.begin + part * span.part;", "span.begin;")], long),
    split(&[("min(span.end, begin + span.part);", "min(span.end, begin + span.part + 9u);")], long),
];

/// Mistakes in what `tiled.wgsl` does with a part of the keys.
pub const PARTS: &[Mutation] = &[
    split(&[("span.begin + part * span.part;", "span.begin;")], long),
    split(&[("min(span.end, begin + span.part)", "min(span.end, begin + span.part + 32u)")], long),
    split(&[("row.part * (1u +", "row.part * (0u +")], long),
    split(&[("parts[part_at(row)] = vec4(m, l,", "parts[part_at(row)] = vec4(m, 1.0,")], long),
    split(&[("select(0.0, 1.0, saw_any)", "1.0")], long_and_mostly_hidden),
    split(&[("workgroup.z / params.parts)", "workgroup.z)")], long),
    split(&[("(steps + params.parts - 1u) / params.parts", "steps / params.parts")], long_window),
    split(&[("diagonal + i32(sequence.queries) - 1)", "diagonal)")], long_window),
    split(&[("i32(oldest_key(valid))), 0, i32(valid))", "i32(oldest_key(valid))) + 4, 0, i32(valid))")], long_window),
];

/// Mistakes in `merge.wgsl`.
pub const MERGE: &[Mutation] = &[
    split(&[("x * params.kept_scale", "x")], dropped_in_parts),
    split(&[("m = max(m, parts", "m = min(m, 0.0 * parts")], long_staircase),
    split(&[("rescale(statistics.x, m)", "1.0")], long_staircase),
    split(&[("statistics.y, factor, l)", "1.0, factor, l)")], long),
    split(&[("let width = 1u +", "let width = 2u +")], long),
    split(&[("saw > 0.0", "true")], long_and_mostly_hidden),
    split(&[("for (var i = 0u; i < parts_count; i++)", "for (var i = 1u; i < parts_count; i++)")], long),
];

/// Mistakes in `matrix.wgsl` and its pieces.
pub const MATRIX: &[Mutation] = &[
    // The anchor, and rescaling what was accumulated under one anchor to another.
    mutation(&[("params.exp2_scale > LAG;", "params.exp2_scale > 100.0 * LAG;")], || in_f16(long_staircase())),
    mutation(&[("let factor = rescale(before, m);", "let factor = 1.0;")], || in_f16(staircase())),
    mutation(&[("(*softmax).l, factor,", "(*softmax).l, 1.0,")], || in_f16(staircase())),
    mutation(&[("(*softmax).l > 0.0) { atomicStore(&marks[MOVED], tile); }", "(*softmax).l > 0.0) {}")], || {
        in_f16(staircase())
    }),
    mutation(&[("scores(at) * factor", "scores(at)")], || in_f16(staircase())),
    mutation(&[("tops = max(tops, scores(row * S_STRIDE + 3u", "tops = max(tops, scores(row * S_STRIDE + 2u")], || {
        in_f16(large(1e4))
    }),
    mutation(&[("let m = follow(before, largest(tops));", "let m = largest(tops);")], || in_f16(tall_causal())),
    mutation(&[("const INVERSE_RAISE = 0.0078125;", "const INVERSE_RAISE = 1.0;")], || in_f16(plain())),
    mutation(&[("vec4(params.exp2_scale), vec4(RAISE)", "vec4(2.0 * params.exp2_scale), vec4(RAISE)")], || {
        in_f16(plain())
    }),
    // Which keys are seen.
    mutation(&[("sees, m);", "vec4(true), m);")], || in_f16(lowest_bias())),
    mutation(&[("(j >= vec4(row.first))", "(j > vec4(row.first))")], || in_f16(windowed())),
    mutation(&[("(j <= vec4(row.last))", "(j < vec4(row.last))")], || in_f16(causal())),
    mutation(&[("at + params.band_last;", "at + params.band_last + 1;")], || in_f16(causal())),
    mutation(&[("at + params.band_first;", "at + params.band_first - 1;")], || in_f16(windowed())),
    mutation(&[("i32(site.end) - 1)", "i32(site.end))")], || in_f16(some_lengths())),
    mutation(&[("(i32(valid) - i32(sequence.queries))", "(i32(params.len_kv) - i32(sequence.queries))")], || {
        in_f16(bottom_right())
    }),
    mutation(&[("final_row.first <= i32(key) &&", "")], || in_f16(left_window())),
    mutation(&[("&& first.last >= i32(key + count - 1u)", "")], || in_f16(causal())),
    mutation(
        &[(
            "all_seen(block_row(block, 0u), block_row(block, BLOCK_ROWS), kv",
            "all_seen(block_row(block, BLOCK_ROWS), block_row(block, BLOCK_ROWS), kv",
        )],
        || in_f16(causal()),
    ),
    mutation(
        &[(
            "block_row(block, 0u), block_row(block, BLOCK_ROWS), BLOCK_KV",
            "block_row(block, 0u), block_row(block, 0u), BLOCK_KV",
        )],
        || in_f16(causal()),
    ),
    mutation(
        &[(
            "block_row(block, 0u), block_row(block, BLOCK_ROWS), BLOCK_KV",
            "block_row(block, BLOCK_ROWS), block_row(block, BLOCK_ROWS), BLOCK_KV",
        )],
        || in_f16(tall_window()),
    ),
    mutation(&[("seen &= !asked | attend(", "let unseen = attend(")], || in_f16(masked())),
    mutation(&[(" | bits.w)", ")")], || in_f16(causal())),
    mutation(&[("scores.seen &= !hides(bias);", "")], || in_f16(hidden_by_bias())),
    mutation(&[("scores.s += bias;", "scores.s += 0.0 * bias;")], || in_f16(biased())),
    mutation(&[("Scores(shape_scores(products), seen)", "Scores(products, seen)")], || in_f16(softcapped())),
    mutation(&[("x *= f16(params.score_scale);", "")], || in_f16(upside_down())),
    mutation(&[("* select(1.0, params.score_scale, PLAIN)", "")], || in_f16(upside_down())),
    mutation(&[("total.y > 0.0);", "true);")], || in_f16(empty_rows())),
    mutation(&[("stage_v(thread, finite);", "stage_v(thread, values);")], || in_f16(nan_behind_bias())),
    // Where things lie.
    mutation(&[("select(0u, n % params.group, GROUPED)", "0u")], || in_f16(plain())),
    mutation(&[("0u * SIDE * K_STRIDE + 1u * SIDE_QUADS", "0u * SIDE * K_STRIDE + 0u * SIDE_QUADS")], || {
        in_f16(plain())
    }),
    mutation(&[("1u * SIDE * V_STRIDE + 0u * SIDE_QUADS", "0u * SIDE * V_STRIDE + 0u * SIDE_QUADS")], || {
        in_f16(plain())
    }),
    mutation(&[("let k = k_fragment(", "let k = v_fragment(")], || in_f16(plain())),
    mutation(&[("coopLoad<Right>(&k_tile", "coopLoadT<Right>(&k_tile")], || in_f16(plain())),
    mutation(&[("coopLoadT<Right>(&v_tile", "coopLoad<Right>(&v_tile")], || in_f16(plain())),
    mutation(&[("coopLoadT<Left>(&p_tile", "coopLoad<Left>(&p_tile")], || in_f16(plain())),
    mutation(&[("coopLoadT<Left>(&k_tile", "coopLoad<Left>(&k_tile")], || in_f16(plain())),
    mutation(&[("let next_k = fetch_k(block, thread, next,", "let next_k = fetch_k(block, thread, kv,")], || {
        in_f16(plain())
    }),
    mutation(
        &[
            ("all_found += scores(row * S_STRIDE + lane)", "all_found = scores(row * S_STRIDE + lane)"),
            // Where two threads share a row: not on every unit.
            ("const ROW_FRAGMENTS = 1u;", "const ROW_FRAGMENTS = 1u;"),
            ("own_column = ", "own_column = "),
        ],
        || in_f16(plain()),
    ),
    split(&[("vec2(max(begin, site.begin),", "vec2(begin,")], || in_f16(long())),
    split(&[("begin + span.part)", "span.end)")], || in_f16(long())),
    // The barriers.
    mutation(&[("multiply_keys(subgroup, &q);\n        workgroupBarrier();", "multiply_keys(subgroup, &q);")], || {
        in_f16(tall())
    }),
    mutation(&[("kv, seen, full);\n        workgroupBarrier();", "kv, seen, full);")], || in_f16(tall())),
    // Dropout. At the end, because the place of a mistake decides the device that it is planted on.
    mutation(&[("vec4<f16>(kept(owner, keys_of_quad(kv, quad), p))", "vec4<f16>(p)")], || in_f16(dropped())),
    mutation(&[("kept(owner, keys_of_quad(kv, quad), p)", "kept(owner, keys_of_quad(kv, 0u), p)")], || {
        in_f16(dropped())
    }),
];
