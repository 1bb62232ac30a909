//! The parameters that vary between dispatches of one pipeline. Everything that changes code or arrays is a `const` in
//! the shader's text.

use bytemuck::{Pod, Zeroable};

/// Declares the struct for the host and, from the same list, for the shaders.
macro_rules! params {
    ($($(#[doc = $doc:literal])* $field:ident: $rust:ty = $wgsl:literal,)*) => {
        /// The parameters of one dispatch, as shaders see them.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        pub(crate) struct Params {
            $($(#[doc = $doc])* pub(crate) $field: $rust,)*
        }

        impl Params {
            /// The same struct in WGSL.
            pub(crate) const WGSL: &str = concat!(
                "struct Params {\n",
                $($("    //", $doc, "\n",)* "    ", stringify!($field), ": ", $wgsl, ",\n",)*
                "}\n",
            );
        }

        // WGSL aligns vectors to their size, and the struct to that of a vector of four.
        const _: () = assert!(size_of::<Params>() % 16 == 0);
        $(const _: () = assert!(std::mem::offset_of!(Params, $field) % size_of::<$rust>() == 0);)*
    };
}

params! {
    /// Operands inside their bindings, in elements: offset, then strides of batch, head and row.
    q: [u32; 4] = "vec4<u32>",
    k: [u32; 4] = "vec4<u32>",
    v: [u32; 4] = "vec4<u32>",
    out: [u32; 4] = "vec4<u32>",
    lse: [u32; 4] = "vec4<u32>",
    mask: [u32; 4] = "vec4<u32>",
    bias: [u32; 4] = "vec4<u32>",
    alibi: [u32; 4] = "vec4<u32>",
    sinks: [u32; 4] = "vec4<u32>",
    /// All tiles of the block mask, whatever the dispatch.
    block_mask: [u32; 4] = "vec4<u32>",
    /// Split keys: for each part of a row, its statistics and then its columns.
    part: [u32; 4] = "vec4<u32>",
    /// Staged keys and values; offset and strides are in keys.
    staged: [u32; 4] = "vec4<u32>",
    /// Pairs to merge: the first of each row.
    pair_out: [u32; 4] = "vec4<u32>",
    pair_lse: [u32; 4] = "vec4<u32>",
    /// What is appended.
    new_q: [u32; 4] = "vec4<u32>",
    new_k: [u32; 4] = "vec4<u32>",
    new_v: [u32; 4] = "vec4<u32>",
    /// Gradients, and each row's statistics that they share.
    dout: [u32; 4] = "vec4<u32>",
    dlse: [u32; 4] = "vec4<u32>",
    dq: [u32; 4] = "vec4<u32>",
    dk: [u32; 4] = "vec4<u32>",
    dv: [u32; 4] = "vec4<u32>",
    dbias: [u32; 4] = "vec4<u32>",
    dsinks: [u32; 4] = "vec4<u32>",
    sums: [u32; 4] = "vec4<u32>",
    staged_rows: [u32; 4] = "vec4<u32>",
    /// How many batches, heads, blocks of rows and tiles of keys share an element of the bias.
    shared_by: [u32; 4] = "vec4<u32>",
    /// Dropout: the seed of the generator and its offset, and the number below which a random number drops its weight.
    rng: [u32; 4] = "vec4<u32>",
    /// Query rows of this dispatch, or keys if it stages them. Ragged queries are not counted by it.
    len_q: u32 = "u32",
    len_kv: u32 = "u32",
    /// Queries of each sequence, at most.
    all_queries: u32 = "u32",
    /// Number of sequences, and the first block of ragged queries of this dispatch.
    sequences: u32 = "u32",
    first_block: u32 = "u32",
    /// Keys that a ring holds per sequence, and pages that the block table lists per sequence.
    capacity: u32 = "u32",
    table_row: u32 = "u32",
    dim_qk: u32 = "u32",
    dim_v: u32 = "u32",
    /// The first column of the values that this dispatch uses.
    first_column: u32 = "u32",
    /// Elements of a query or a key that are rotated.
    rotary_dims: u32 = "u32",
    /// Query heads per KV head. A dispatch starts at the first head of a group, or stays within one group.
    group: u32 = "u32",
    /// The first query row of this dispatch, within the sequence.
    first_row: u32 = "u32",
    /// The first batch of this dispatch, within the problem.
    first_batch: u32 = "u32",
    /// The first query head of this dispatch, within the problem.
    first_head: u32 = "u32",
    /// Strides along the keys.
    mask_key: u32 = "u32",
    bias_key: u32 = "u32",
    /// Row i sees keys i + first ..= i + last; if `band_from_end` is 1, the number of valid keys minus that of queries is
    /// added to both ends.
    band_first: i32 = "i32",
    band_last: i32 = "i32",
    band_from_end: u32 = "u32",
    /// Row i stands at key i + diagonal_offset, to which the same is added if `band_from_end` is 1.
    diagonal_offset: i32 = "i32",
    /// S = score_scale · Q Kᵀ, or softcap_scale · tanh(score_scale · Q Kᵀ), plus any bias, in the unit that costs
    /// least: P = exp2(exp2_scale · (S − max S)), and natural_scale · S is the score in natural units. The difference
    /// is taken before the scale is applied, which keeps the digits of large scores.
    score_scale: f32 = "f32",
    softcap_scale: f32 = "f32",
    exp2_scale: f32 = "f32",
    natural_scale: f32 = "f32",
    /// WGSL has no literals for these.
    negative_infinity: f32 = "f32",
    nan: f32 = "f32",
    /// Number of workgroups that share the keys of a row, or number of pairs to merge; and the step in which each workgroup's keys
    /// are counted.
    parts: u32 = "u32",
    part_step: u32 = "u32",
    /// Strides from pair to pair.
    pair_out_stride: u32 = "u32",
    pair_lse_stride: u32 = "u32",
    /// The first key, block of ragged keys or row of the bias whose gradient this dispatch computes.
    gradient_begin: u32 = "u32",
    /// Columns of the gradient that this dispatch computes, from `first_column` on.
    columns: u32 = "u32",
    /// Tiles of keys along the gradient of the bias, and its stride along the keys.
    key_tiles: u32 = "u32",
    dbias_key: u32 = "u32",
    /// The factor on Q Kᵀ.
    gradient_scale: f32 = "f32",
    /// Query heads of the problem, and the factor on what dropout keeps.
    all_heads: u32 = "u32",
    kept_scale: f32 = "f32",
    /// Rounds the size up to a multiple of 16.
    padding: [u32; 2] = "vec2<u32>",
}
