// What varies from one dispatch to the next of the same pipeline. Everything that changes code or arrays is a `const`.

// An operand inside its binding, in elements: offset, then strides of batch, head and row.
alias View = vec4<u32>;

struct Params {
    q: View,
    k: View,
    v: View,
    out: View,
    lse: View,
    mask: View,
    bias: View,
    part: View,              // of split keys: statistics and columns of each part of a row, in turn
    staged: View,            // in keys

    len_q: u32,              // query rows of this dispatch
    len_kv: u32,
    dim_qk: u32,
    dim_v: u32,

    group: u32,              // query heads per KV head; a dispatch starts at a group's first, or stays in one
    first_row: u32,          // of this dispatch, within the sequence
    first_batch: u32,        // of this dispatch, within kv_lengths
    mask_key: u32,           // stride along the keys

    bias_key: u32,           // stride along the keys
    band_first: i32,         // row i sees keys i + first ..= i + last, from the end of the keys where so marked
    band_last: i32,
    band_from_end: u32,      // 0 or 1

    // S = score_scale · Q Kᵀ, or softcap_scale · tanh(score_scale · Q Kᵀ), plus any bias, in a unit that costs least:
    // P = exp2(exp2_scale · (S − max S)), and natural_scale · S is the score in natural units. The difference is taken
    // before the scale is put on, which keeps the digits of large scores.
    score_scale: f32,
    softcap_scale: f32,
    exp2_scale: f32,
    natural_scale: f32,

    negative_infinity: f32,  // WGSL has no literals for these
    nan: f32,
    parts: u32,              // workgroups that see the keys of a row between them
    part_keys: u32,          // of each
}

fn address(view: View, batch: u32, head: u32, row: u32) -> u32 {
    return view.x + batch * view.y + head * view.z + row * view.w;
}

// A query row, as far as one part of the keys goes.
struct Row {
    batch: u32,
    head: u32,
    query: u32,
    part: u32,
}
