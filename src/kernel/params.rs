//! What varies from one dispatch to the next of the same pipeline. Everything that changes code or arrays is a `const` in the
//! shader's text.

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
    /// Of split keys: statistics and columns of each part of a row, in turn.
    part: [u32; 4] = "vec4<u32>",
    /// Of staged keys and values, in keys.
    staged: [u32; 4] = "vec4<u32>",
    /// Query rows of this dispatch; keys, where it stages them.
    len_q: u32 = "u32",
    len_kv: u32 = "u32",
    dim_qk: u32 = "u32",
    dim_v: u32 = "u32",
    /// Query heads per KV head; a dispatch starts at a group's first, or stays in one.
    group: u32 = "u32",
    /// The first query row of this dispatch, within the sequence.
    first_row: u32 = "u32",
    /// The first batch of this dispatch, of all there are.
    first_batch: u32 = "u32",
    /// The first query head of this dispatch, of all there are.
    first_head: u32 = "u32",
    /// Strides along the keys.
    mask_key: u32 = "u32",
    bias_key: u32 = "u32",
    /// Row i sees keys i + first ..= i + last, counted from the end of the keys where `band_from_end` is 1 and not 0.
    band_first: i32 = "i32",
    band_last: i32 = "i32",
    band_from_end: u32 = "u32",
    /// Row i stands at key i + diagonal_offset, counted likewise.
    diagonal_offset: i32 = "i32",
    /// S = score_scale · Q Kᵀ, or softcap_scale · tanh(score_scale · Q Kᵀ), plus any bias, in a unit that costs least:
    /// P = exp2(exp2_scale · (S − max S)), and natural_scale · S is the score in natural units. The difference is taken
    /// before the scale is put on, which keeps the digits of large scores.
    score_scale: f32 = "f32",
    softcap_scale: f32 = "f32",
    exp2_scale: f32 = "f32",
    natural_scale: f32 = "f32",
    /// WGSL has no literals for these.
    negative_infinity: f32 = "f32",
    nan: f32 = "f32",
    /// Workgroups that see the keys of a row between them, and how many keys each sees.
    parts: u32 = "u32",
    part_keys: u32 = "u32",
    padding: [u32; 2] = "vec2<u32>",
}
