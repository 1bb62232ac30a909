//! Which kernels are tried on which kind of device, best first, and from how many rows on.

use wgpu_attention::testing::{access, weights_candidates};
use wgpu_attention::{
    BlockMask, Caps, Diagonal, Dtype, Fragment, Layout, MatrixUnit, Multiplier, Operand, PlanError, Problem,
    ProblemBuilder, Quantization, ScoreLayout, Shape, Tiles, Variant, testing,
};

use super::{Kind, build, noop_with_features};
use crate::record::noop;

/// The part of a kernel's name that does not come from the problem: its schedule, its sizes and how its threads exchange
/// data.
pub(super) fn name(variant: &Variant) -> String {
    let name = variant.to_string();
    let (name, _) = name.split_once('.').unwrap();
    match name.split_once('x') {
        // How many threads share a key does not vary.
        Some((decode, rest)) if decode.starts_with("decode") => {
            format!("{decode}{}", if rest.ends_with("-sub") { "-sub" } else { "" })
        }
        _ => name.to_owned(),
    }
}

/// The candidates, best first, without repeating those that differ only in their access.
fn names(caps: &Caps, problem: &Problem) -> String {
    let mut names: Vec<String> = wgpu_attention::candidates(problem, caps).unwrap().iter().map(name).collect();
    names.dedup();
    names.join(" ")
}

#[test]
fn each_kind_of_device_has_its_kernels() {
    let (device, _queue) = noop_with_features();
    let few = "decode4 tiled";
    let few_by_subgroups = "decode4-sub decode4 tiled-sub tiled";
    for (kind, few, many) in [
        (Kind::Plain, few, "tiled decode4"),
        // Shuffles go over eight threads.
        (Kind::Subgroups { least: 4 }, few, "tiled decode4"),
        (Kind::Subgroups { least: 7 }, few, "tiled decode4"),
        (Kind::Subgroups { least: 8 }, few_by_subgroups, "tiled-sub tiled decode4-sub decode4"),
        (Kind::Subgroups { least: 32 }, few_by_subgroups, "tiled-sub tiled decode4-sub decode4"),
        (Kind::Software { lanes: 4 }, "streams4x4 lanes4 tiled", "lanes4 tiled streams4x4"),
        (Kind::Software { lanes: 8 }, "streams8x4 lanes8 tiled", "lanes8 tiled streams8x4"),
        // There is no kernel for such a CPU, nor for one whose subgroup size is unknown.
        (Kind::Software { lanes: 16 }, "decode2-sub decode2 tiled", "tiled decode2-sub"),
        (Kind::Software { lanes: 2 }, "decode2 tiled", "tiled"),
    ] {
        let problem = |rows| build(Problem::builder(Shape::new(1, 1, rows, 32)));
        assert_eq!(names(&kind.caps(&device), &problem(9)), few, "{kind:?}");
        assert_eq!(names(&kind.caps(&device), &problem(100)), many, "{kind:?}");
    }
    // Many threads of a GPU share a subgroup of a CPU's size, and it is no CPU.
    let mut small = Kind::Subgroups { least: 8 }.caps(&device);
    small.subgroup_size = Some(8);
    assert_eq!(names(&small, &build(Problem::builder(Shape::new(1, 1, 9, 32)))), few_by_subgroups);
    let mut unknown = Kind::Software { lanes: 8 }.caps(&device);
    unknown.subgroup_size = None;
    assert_eq!(names(&unknown, &build(Problem::builder(Shape::new(1, 1, 100, 32)))), "tiled decode2-sub");
}

#[test]
fn few_rows_are_those_of_a_group_together() {
    let (device, _queue) = noop_with_features();
    let plain = Kind::Plain.caps(&device);
    let first = |caps: &Caps, problem| names(caps, &problem).split(' ').next().unwrap().to_owned();
    type Change = fn(ProblemBuilder) -> ProblemBuilder;
    let [full, half, bf16]: [Change; 3] =
        [|problem| problem, |problem| problem.dtype(Dtype::F16), |problem| problem.dtype(Dtype::Bf16)];
    let cache_of_half: Change = |problem| problem.kv_dtype(Dtype::F16);
    let [int8, int4, fp8]: [Change; 3] = [
        |problem| problem.kv_quantized(Quantization::Int8),
        |problem| problem.kv_quantized(Quantization::Int4),
        |problem| problem.kv_quantized(Quantization::Fp8E4m3),
    ];
    for (registers, change, shape, best) in [
        (128, full, Shape::new(1, 1, 16, 32), "decode4"),
        (128, full, Shape::new(1, 1, 17, 32), "tiled"),
        (128, full, Shape::new(7, 8, 2, 32).kv_heads(1), "decode4"),
        (128, full, Shape::new(7, 9, 2, 32).kv_heads(1), "tiled"),
        (128, full, Shape::new(7, 9, 2, 32).kv_heads(3), "decode4"),
        // The rows at once: as many as there are, or one more.
        (128, full, Shape::new(1, 1, 1, 32), "decode1"),
        (128, full, Shape::new(1, 1, 2, 32), "decode2"),
        (128, full, Shape::new(1, 1, 3, 32), "decode4"),
        (128, full, Shape::new(1, 1, 4, 32), "decode4"),
        (128, full, Shape::new(1, 1, 1 << 29, 32), "tiled"),
        (128, full, Shape::new(1, 1 << 20, 1 << 20, 32).kv_heads(1), "tiled"),
        // Or as many as the registers hold, which keys of some types fill too.
        (191, half, Shape::new(1, 1, 5, 32), "decode4"),
        (191, half, Shape::new(1, 1, 5, 256), "decode4"),
        (191, half, Shape::new(1, 1, 5, 257), "decode2"),
        (191, cache_of_half, Shape::new(1, 1, 5, 256), "decode4"),
        (191, int8, Shape::new(1, 1, 5, 256), "decode4"),
        (191, int4, Shape::new(1, 1, 5, 256), "decode4"),
        (191, fp8, Shape::new(1, 1, 5, 128), "decode4"),
        (191, fp8, Shape::new(1, 1, 5, 256), "decode2"),
        (191, bf16, Shape::new(1, 1, 5, 128), "decode4"),
        (191, bf16, Shape::new(1, 1, 5, 129), "decode2"),
        (191, full, Shape::new(1, 1, 5, 128), "decode4"),
        (191, full, Shape::new(1, 1, 5, 129), "decode2"),
        (192, full, Shape::new(1, 5, 1, 64).kv_heads(1), "decode8"),
        (192, full, Shape::new(1, 1, 5, 64).value_dim(65), "decode8"),
        (192, full, Shape::new(1, 1, 5, 128), "decode8"),
        (192, full, Shape::new(1, 1, 5, 129), "decode4"),
        (254, half, Shape::new(1, 1, 5, 256), "decode4"),
        (255, half, Shape::new(1, 1, 5, 256), "decode8"),
        (255, full, Shape::new(1, 1, 5, 257), "decode4"),
    ] {
        let mut caps = plain;
        caps.thread_registers = registers;
        let problem = build(change(Problem::builder(shape)));
        assert_eq!(first(&caps, problem.clone()), best, "{registers}, {problem:?}");
    }
    // Software: a stream of 4 rows costs 2, staging 3, and 24 rows of it 3 more.
    let software = Kind::Software { lanes: 8 }.caps(&device);
    for (shape, best) in [
        (Shape::new(1, 1, 1, 32), "streams8x1"),
        (Shape::new(1, 1, 2, 32), "streams8x2"),
        (Shape::new(1, 1, 3, 32), "streams8x4"),
        (Shape::new(1, 1, 3, 129), "streams8x3"),
        (Shape::new(1, 1, 3, 1).value_dim(129), "streams8x3"),
        (Shape::new(1, 1, 3, 256), "streams8x2"),
        (Shape::new(1, 1, 3, 170), "streams8x2"),
        (Shape::new(1, 1, 12, 32), "streams8x4"),
        (Shape::new(1, 1, 13, 32), "lanes8"),
        (Shape::new(1, 3, 8, 32).kv_heads(1), "streams8x4"),
        (Shape::new(1, 3, 9, 32).kv_heads(1), "lanes8"),
        (Shape::new(1, 2, 25, 32).kv_heads(1), "lanes8"),
        (Shape::new(1, 2, 10, 32).kv_heads(1), "lanes8"),
        // A lane has room for rows of 256, and values come from textures 256 at a time.
        (Shape::new(1, 1, 100, 256), "lanes8"),
        (Shape::new(1, 1, 100, 257).value_dim(32), "streams8x1"),
        (Shape::new(1, 1, 100, 32).value_dim(257), "streams8x2"),
    ] {
        let names = names(&software, &build(Problem::builder(shape)));
        assert_eq!(names.split(' ').next(), Some(best), "{shape:?}: {names}");
    }
}

/// Four at a time if everything lies in fours. As two 64-bit words if the device has them and is a CPU, which gains by it.
#[test]
fn elements_move_in_fours_where_they_lie_in_fours() {
    let (device, _queue) = noop_with_features();
    let accesses = |caps: &Caps, problem: &Problem, wanted: &str| {
        let variants = wgpu_attention::candidates(problem, caps).unwrap();
        let of_kind = variants.iter().filter(|variant| name(variant) == wanted);
        of_kind.map(access).collect::<Vec<_>>()
    };
    let even = Problem::builder(Shape::new(2, 4, 20, 32).kv_heads(2));
    let both = ["x4", "x1"];
    let plain = Kind::Plain.caps(&device);
    assert_eq!(accesses(&plain, &build(even.clone()), "tiled"), both);
    let [q, k, v] = wgpu_attention::Layout::packed_qkv(&Shape::new(2, 4, 20, 32).kv_heads(2));
    let odd = wgpu_attention::Layout { offset: 4, batch: 9001, ..k };
    for (problem, wanted) in [
        (even.clone().q(q).k(k).v(v), &both[..]),
        (even.clone().q(q.at(2)), &both[1..]),
        (even.clone().k(k.at(1)), &both[1..]),
        (even.clone().v(v.at(3)), &both[1..]),
        (even.clone().out(q.at(2)), &both[1..]),
        (even.clone().k(odd), &both[1..]),
        (even.clone().k(wgpu_attention::Layout { batch: 9000, head: 34, ..odd }), &both[1..]),
        (even.clone().k(wgpu_attention::Layout { batch: 9000, row: 258, ..odd }), &both[1..]),
    ] {
        assert_eq!(accesses(&plain, &build(problem.clone()), "tiled"), wanted, "{problem:?}");
    }
    for (dim_qk, dim_v) in [(30, 32), (32, 30)] {
        let problem = build(Problem::builder(Shape::new(1, 1, 20, dim_qk).value_dim(dim_v)));
        assert_eq!(accesses(&plain, &problem, "tiled"), ["x1"]);
        let subgroups = Kind::Subgroups { least: 8 }.caps(&device);
        assert!(accesses(&subgroups, &problem, "tiled-sub").is_empty());
    }
    // Weights are written four at a time where their rows are as long, whatever the output.
    let weights = |len_kv| {
        let problem = build(Problem::builder(Shape::new(1, 1, 5, 32).value_dim(3).kv_len(len_kv)).weights());
        let variants = weights_candidates(&problem, &plain).unwrap();
        variants.iter().map(access).collect::<Vec<_>>()
    };
    assert_eq!((weights(8), weights(9)), (both.to_vec(), vec!["x1"]));

    let mut software = Kind::Software { lanes: 8 }.caps(&device);
    assert_eq!(accesses(&software, &build(even.clone()), "lanes8"), both);
    software.has_int64 = true;
    assert_eq!(accesses(&software, &build(even.clone()), "lanes8"), ["x4w", "x1"]);
    assert_eq!(accesses(&software, &build(even.clone()), "streams8x4"), ["x4w", "x1"]);
    assert_eq!(accesses(&software, &build(even), "tiled"), both);
}

/// Wider values are computed some columns at a time, by a kernel that has room for those.
#[test]
fn wide_values_take_kernels_of_256_columns() {
    let (device, _queue) = noop_with_features();
    let problem = build(Problem::builder(Shape::new(1, 1, 20, 64).value_dim(300)));
    for kind in [Kind::Plain, Kind::Subgroups { least: 8 }, Kind::Software { lanes: 8 }] {
        let variants = wgpu_attention::candidates(&problem, &kind.caps(&device)).unwrap();
        assert!(variants.iter().all(|variant| variant.to_string().contains("v256")), "{kind:?}: {variants:?}");
    }
}

/// A kernel binds `aux` only if a program may read it.
#[test]
fn numbers_of_no_program_are_not_bound() {
    let (device, _queue) = noop_with_features();
    let text = "fn mask_mod(at: At) -> bool { return at.key > 0u; }";
    let plain = Problem::builder(Shape::new(1, 1, 20, 64));
    for (problem, is_bound) in
        [(plain.clone().aux(3), false), (plain.clone().mask_mod(text), false), (plain.mask_mod(text).aux(3), true)]
    {
        let variants = wgpu_attention::candidates(&build(problem), &Kind::Plain.caps(&device)).unwrap();
        assert!(variants.iter().all(|variant| variant.operands().any(|o| o == Operand::Aux) == is_bound));
    }
}

/// Where registers allow, a thread computes more rows. Where they do not, wide values are spread over more threads.
#[test]
fn registers_decide_what_a_thread_of_tiled_computes() {
    let (device, _queue) = noop_with_features();
    for (registers, least, dim, wanted) in [
        (255, 7, 64, "tiled8x8of8x8 tiled8x4of8x8 tiled"),
        (255, 8, 64, "tiled8x8of8x8-sub tiled8x8of8x8 tiled8x4of8x8-sub tiled8x4of8x8 tiled"),
        (254, 8, 64, "tiled8x4of8x8-sub tiled8x4of8x8 tiled"),
        (255, 8, 32, "tiled8x4of8x8-sub tiled8x4of8x8 tiled"),
        (256, 8, 128, "tiled8x4of8x16 tiled8x4of4x16 tiled"),
        (256, 16, 128, "tiled8x4of8x16-sub tiled8x4of8x16 tiled8x4of4x16-sub tiled8x4of4x16 tiled"),
        (254, 16, 128, "tiled8x4of4x16-sub tiled8x4of4x16 tiled"),
        (256, 32, 132, "tiled8x4of8x16-sub tiled8x4of8x16 tiled4x4of8x16-sub tiled4x4of8x16 tiled"),
        (254, 32, 132, "tiled4x4of8x16-sub tiled4x4of8x16 tiled"),
        (191, 32, 64, "tiled-sub tiled"),
        (128, 32, 96, "tiled-sub tiled"),
        (128, 32, 100, "tiled4x4of8x16-sub tiled4x4of8x16 tiled"),
        (128, 32, 192, "tiled4x4of8x16-sub tiled4x4of8x16 tiled"),
        (128, 32, 300, "tiled4x4of4x32-sub tiled4x4of4x32 tiled"),
        (128, 16, 300, "tiled4x4of4x32 tiled"),
    ] {
        let mut caps = Kind::Subgroups { least }.caps(&device);
        (caps.thread_registers, caps.workgroup_bytes) = (registers, 32 << 10);
        let names = names(&caps, &build(Problem::builder(Shape::new(1, 1, 100, 64).value_dim(dim))));
        assert_eq!(names.split_once(" decode").map(|(tiled, _)| tiled), Some(wanted), "{registers} {least} {dim}");
    }
    // A tile of keys lies within one of the block mask.
    let mut caps = Kind::Subgroups { least: 32 }.caps(&device);
    (caps.thread_registers, caps.workgroup_bytes) = (256, 32 << 10);
    for (keys, dim, wanted) in [
        (32, 128, "tiled-sub tiled"),
        (64, 128, "tiled8x4of8x16-sub tiled8x4of8x16 tiled8x4of4x16-sub tiled8x4of4x16 tiled"),
        (64, 256, "tiled8x4of8x16-sub tiled8x4of8x16 tiled4x4of8x16-sub tiled4x4of8x16 tiled"),
        (96, 64, "tiled8x4of8x8-sub tiled8x4of8x8 tiled"),
        (128, 64, "tiled8x8of8x8-sub tiled8x8of8x8 tiled8x4of8x8-sub tiled8x4of8x8 tiled"),
    ] {
        let problem = Problem::builder(Shape::new(1, 1, 100, 64).value_dim(dim)).block_mask(BlockMask::new(32, keys));
        let names = names(&caps, &build(problem));
        assert_eq!(names.split_once(" decode").map(|(tiled, _)| tiled), Some(wanted), "{keys} {dim}");
    }
    // Wide values take fewer rows where there is little workgroup memory.
    let mut caps = Kind::Subgroups { least: 32 }.caps(&device);
    caps.workgroup_bytes = 16 << 10;
    let names = names(&caps, &build(Problem::builder(Shape::new(1, 1, 100, 64).value_dim(300))));
    assert!(names.starts_with("tiled4x4of4x16-sub tiled4x4of4x16 tiled decode2-sub"), "{names}");
}

/// Where registers and memory allow, a thread computes more scores and sums. Where they do not, wide sums are spread over more
/// threads.
#[test]
fn registers_decide_what_a_thread_of_a_gradient_computes() {
    let (device, _queue) = noop_with_features();
    let names = |caps: &Caps, problem: ProblemBuilder| -> Vec<String> {
        let gradients = build(problem.lse()).gradients().build().unwrap();
        let variants = testing::gradients(&gradients, caps).unwrap();
        let most = if caps.workgroup_bytes < 28 << 10 { 16 << 10 } else { 28 << 10 };
        assert!(variants.iter().all(|variant| variant.workgroup_bytes() <= most));
        let names = variants.iter().map(|variant| variant.to_string().split('.').next().unwrap().to_owned());
        names.filter_map(|name| name.strip_prefix("gradient_").map(str::to_owned)).collect()
    };
    let shape = |dim| Problem::builder(Shape::new(1, 1, 100, dim).value_dim(32));
    let mut caps = Kind::Plain.caps(&device);
    let [enough, less] = [28 << 10, (28 << 10) - 1];
    for (registers, bytes, dim, queries, keys) in [
        (255, enough, 64, "8x4of8x16", "4x8of16x8"),
        (192, enough, 64, "8x4of8x16", "4x8of16x8"),
        (191, enough, 64, "", ""),
        (255, less, 64, "8x4of8x8", "4x8of8x8"),
        (255, enough, 65, "8x4of8x16", "4x8of16x8"),
        (255, less, 65, "8x4of4x16", "4x8of16x4"),
        (254, enough, 65, "", ""),
        (255, enough, 192, "8x4of8x16", "4x8of16x8"),
        (255, enough, 193, "8x4of4x32", "4x8of32x4"),
        (255, less, 129, "", ""),
        (192, enough, 129, "4x4of8x16", "4x4of16x8"),
        (128, enough, 65, "4x4of8x16", "4x4of16x8"),
        (128, enough, 129, "4x4of4x32", "4x4of32x4"),
        (128, less, 129, "4x4of4x16", "4x4of16x4"),
    ] {
        (caps.thread_registers, caps.workgroup_bytes) = (registers, bytes);
        let names = names(&caps, shape(dim));
        let wanted = [format!("queries{queries}"), format!("keys{keys}")];
        assert_eq!(names[..2], wanted, "{registers} registers, {bytes} bytes, {dim} columns");
        // Values have a number of columns of their own.
        let of_values = if registers < 192 {
            "values"
        } else if bytes < enough {
            "values4x8of8x8"
        } else {
            "values4x8of16x8"
        };
        assert_eq!(names[2], of_values);
    }
    // A tile of keys lies within one of the block mask.
    (caps.thread_registers, caps.workgroup_bytes) = (255, 32 << 10);
    for (keys, wanted) in [(32, ["queries", "keys"]), (64, ["queries8x4of8x16", "keys4x8of16x8"])] {
        assert_eq!(names(&caps, shape(64).block_mask(BlockMask::new(32, keys)))[..2], wanted);
    }
    // A workgroup has no more threads than the device allows.
    for (invocations, wanted) in [(127, ["queries", "keys"]), (128, ["queries8x4of8x16", "keys4x8of16x8"])] {
        caps.invocations = invocations;
        assert_eq!(names(&caps, shape(64))[..2], wanted);
    }
    // A software GPU has no registers to fill.
    caps.is_software = true;
    assert_eq!(names(&caps, shape(64)), ["queries", "keys", "values"]);
}

/// Sizes that wrap around would look like few rows, or panic.
#[test]
fn absurd_sizes_are_not_few() {
    let (device, _queue) = noop_with_features();
    let many = build(Problem::builder(Shape::new(1, 1 << 20, 1 << 12, 32).kv_heads(1)));
    assert_eq!(names(&Kind::Plain.caps(&device), &many), "tiled decode4");
    let software = Kind::Software { lanes: 8 }.caps(&device);
    assert_eq!(names(&software, &many), "lanes8 tiled streams8x4");
    // 2⁶⁵ keys fit no texture.
    let still = Layout { offset: 0, batch: 0, head: 0, row: 0 };
    let long = Problem::builder(Shape::new(1 << 18, 1 << 18, 4, 32).kv_len(1 << 29)).k(still).v(still);
    assert_eq!(names(&software, &build(long)), "streams8x4 tiled");
    let mut on_matrices = Kind::Plain.caps(&device);
    let (fragment, tiles, multiplier) = (Fragment::Side16, Tiles::Vectors, Multiplier::Unit);
    on_matrices.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
    let sizes = [(u32::MAX, 1), (1, u32::MAX)].into_iter().flat_map(|sizes| [1, 5, 100].map(|rows| (rows, sizes)));
    for (rows, (dim_qk, dim_v)) in sizes {
        let shape = Shape::new(1, 1, rows, dim_qk).kv_len(1).value_dim(dim_v);
        let wide = build(Problem::builder(shape).dtype(Dtype::F16));
        let plain = Kind::Plain.caps(&device);
        let mut registers = plain;
        registers.thread_registers = 255;
        for caps in [plain, registers, Kind::Subgroups { least: 8 }.caps(&device), on_matrices, software] {
            let refused = wgpu_attention::candidates(&wide, &caps);
            assert!(matches!(refused, Err(PlanError::HeadSize { dim: u32::MAX, .. })), "{refused:?}");
        }
        // Its masks do not depend on its head sizes.
        let tiles = build(wide.to_builder().block_mask(BlockMask::new(32, 32)));
        assert!(testing::block_mask(&tiles, &software).is_ok());
    }
}

/// Kernels that have no alternative have no rank.
#[test]
fn only_candidates_tell_why_they_are_ranked() {
    let (device, _queue) = noop_with_features();
    let software = Kind::Software { lanes: 8 }.caps(&device);
    let problem = build(Problem::builder(Shape::new(1, 1, 40, 31)).weights().block_mask(BlockMask::new(32, 32)));
    let candidates = wgpu_attention::candidates(&problem, &software).unwrap();
    let kernels = testing::kernels(&problem, &candidates[0], &software).unwrap();
    let schedules: Vec<_> = kernels.iter().map(testing::schedule).collect();
    assert_eq!(schedules, ["stage", "lanes", "merge", "weights"]);
    let tiles = testing::block_mask(&problem, &software).unwrap();
    for kernel in kernels.into_iter().chain([tiles]).filter(|kernel| !candidates.contains(kernel)) {
        // In parts, `lanes` is ranked like the whole.
        let is_alone = testing::schedule(&kernel) != "lanes";
        assert_eq!(kernel.provenance() == "the only kernel for its purpose", is_alone, "{kernel}");
    }
}

/// A vote takes three barriers, which only a mask can be worth.
#[test]
fn threads_vote_on_tiles_that_a_mask_may_hide() {
    let (device, _queue) = noop_with_features();
    let votes = |problem: ProblemBuilder| {
        let variants = wgpu_attention::candidates(&build(problem), &Kind::Plain.caps(&device)).unwrap();
        let tiled = variants.iter().find(|variant| testing::schedule(variant) == "tiled").unwrap();
        tiled.wgsl().contains("atomicOr(&votes")
    };
    let plain = Problem::builder(Shape::new(1, 1, 100, 32));
    assert!(!votes(plain.clone().causal(Diagonal::TopLeft).kv_lengths()));
    assert!(votes(plain.clone().mask(ScoreLayout::broadcast([1; 4]))));
    assert!(votes(plain.mask_mod("fn mask_mod(at: At) -> bool { return at.key > 0u; }")));
}

#[test]
fn the_widest_heads_are_576() {
    let (device, _queue) = noop_with_features();
    let caps = Kind::Plain.caps(&device);
    let of = |dim| wgpu_attention::candidates(&build(Problem::builder(Shape::new(1, 1, 20, dim))), &caps);
    assert!(of(576).is_ok());
    assert!(matches!(of(577), Err(PlanError::HeadSize { dim: 577, most: 576, .. })));
}

/// The facts of a device are what it was created with. Nothing is guessed.
#[test]
fn facts_of_a_device() {
    let (device, _queue) = noop();
    let caps = Caps::of(&device);
    let info = device.adapter_info();
    assert!(info.subgroup_min_size < info.subgroup_max_size, "else nothing is unknown: {info:?}");
    assert_eq!(
        (caps.subgroup_size, caps.min_subgroup_size, caps.has_int64),
        (None, None, false),
        "without the features"
    );
    assert_eq!((caps.is_software, caps.workgroups_to_fill, caps.loop_iterations), (true, 16, u32::MAX));
    let (device, _queue) = noop_with_features();
    let caps = Caps::of(&device);
    assert_eq!(caps.min_subgroup_size, Some(info.subgroup_min_size));
    assert_eq!(caps.subgroup_size, None, "there are several, and no kernel knows which");
    assert!(caps.has_int64);
    for device in crate::device::all() {
        let (caps, info) = (Caps::of(device.attention.device()), device.attention.device().adapter_info());
        let has_subgroups = device.attention.device().features().contains(wgpu::Features::SUBGROUP);
        let is_one_size = info.subgroup_min_size == info.subgroup_max_size;
        assert_eq!(caps.subgroup_size, (has_subgroups && is_one_size).then_some(info.subgroup_min_size));
        assert_eq!(caps.loop_iterations < u32::MAX, info.name.contains("llvmpipe"));
        assert_eq!(caps.is_software, info.device_type == wgpu::DeviceType::Cpu);
    }
    // Without the feature, a device cannot use subgroups even if they all have one size.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    for adapter in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())) {
        let (bare, _queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
        assert_eq!((Caps::of(&bare).subgroup_size, Caps::of(&bare).min_subgroup_size), (None, None));
    }
}

#[test]
fn limits_become_facts() {
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 1,
        max_buffer_size: 2,
        min_storage_buffer_offset_alignment: 3,
        min_uniform_buffer_offset_alignment: 4,
        max_storage_buffers_per_shader_stage: 5,
        max_compute_workgroup_storage_size: 6,
        max_compute_invocations_per_workgroup: 7,
        max_compute_workgroup_size_x: 8,
        max_compute_workgroups_per_dimension: 9,
        max_texture_dimension_2d: 10,
        ..Default::default()
    };
    let caps = Caps::from_limits(&limits);
    assert_eq!((caps.binding_bytes, caps.buffer_bytes, caps.binding_alignment, caps.uniform_alignment), (1, 2, 3, 4));
    assert_eq!((caps.storage_buffers, caps.workgroup_bytes, caps.invocations), (5, 6, 7));
    assert_eq!((caps.workgroups, caps.texture_side), (9, 10));
    assert_eq!(Caps::from_limits(&wgpu::Limits { max_compute_workgroup_size_x: 6, ..limits }).invocations, 6);
}
