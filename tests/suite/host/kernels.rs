//! What each kernel says of itself, number by number (`kernels.txt`), and which kernels each device is offered, best first
//! (`offered.txt`), compared with files that were reviewed.
//!
//! A number that changes is not wrong, but the change must be intended. `BLESS=1 cargo test --release --test suite
//! host::kernels` writes the files again, and the reviewer checks the difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use wgpu_attention::{
    Append, Attention, BlockMask, Caps, Dtype, Fragment, Gradients, Layout, MaskFormat, MatrixUnit, Merge, Multiplier,
    Operand, Pages, Philox, Problem, ProblemBuilder, Quantization, RngState, Rotary, RotaryPairs, ScoreLayout, Shape,
    Slopes, Tiles, Variant, candidates, testing,
};

use super::{Kind, build, noop_with_features};
use crate::facts;
use crate::record::without_error;

/// Head sizes on both sides of where something changes, for few rows and for many; and everything else that changes a kernel.
fn problems() -> Vec<(String, Problem)> {
    let sized = |len_q: u32, dim_qk: u32, dim_v: u32| {
        Problem::builder(Shape::new(1, 4, len_q, dim_qk).kv_heads(2).kv_len(64).value_dim(dim_v))
    };
    let mut problems = Vec::new();
    let mut add = |name: String, problem: ProblemBuilder| problems.push((name, build(problem)));
    let few = [(1, 32, 32), (2, 64, 64), (3, 64, 300), (3, 576, 32), (8, 128, 128), (8, 60, 30)];
    let many = [32, 33, 48, 64, 65, 96, 97, 128, 129, 160, 192, 193, 224, 256].map(|dim| (40, dim, dim));
    let others = [(40, 5, 3), (40, 96, 32), (40, 32, 96), (40, 256, 32), (40, 32, 300), (9, 32, 32), (17, 576, 512)];
    for (rows, dim_qk, dim_v) in few.into_iter().chain(many).chain(others) {
        add(format!("{rows} rows, {dim_qk} and {dim_v}"), sized(rows, dim_qk, dim_v));
    }
    for (rows, dim_qk, dim_v) in
        [(1, 32, 32), (40, 64, 64), (40, 130, 130), (40, 257, 16), (3, 64, 300), (40, 64, 500), (40, 5, 3)]
    {
        add(format!("f16, {rows} rows, {dim_qk} and {dim_v}"), sized(rows, dim_qk, dim_v).dtype(Dtype::F16));
    }
    // Where a matrix unit's registers are just enough for a shape, or just too few.
    for (dim_qk, dim_v) in [(160, 224), (192, 208), (144, 256)] {
        add(format!("f16, 40 rows, {dim_qk} and {dim_v}"), sized(40, dim_qk, dim_v).dtype(Dtype::F16));
    }
    let mask = ScoreLayout::broadcast([1; 4]);
    let plain = sized(40, 32, 32);
    add("many keys".to_owned(), Problem::builder(Shape::new(1, 4, 1, 32).kv_heads(2).kv_len(2048)));
    add("LSE, weights, mask".to_owned(), plain.clone().lse().weights().mask(mask));
    add("softcap, bias, lengths".to_owned(), plain.clone().softcap(2.0).bias(Dtype::F32, mask).kv_lengths());
    add("dropout".to_owned(), plain.clone().dropout(0.5, RngState::Fixed(Philox::default())).lse());
    add("dropout by a buffer, few rows".to_owned(), sized(2, 64, 64).dropout(0.5, RngState::Buffer));
    add("ALiBi, sinks".to_owned(), plain.clone().alibi(Slopes::PerHead).sinks());
    let program = "fn mask_mod(at: At) -> bool { return aux[0] > 0.0; }";
    add("weights of wide heads".to_owned(), sized(40, 256, 64).weights());
    add("f16, tiles".to_owned(), plain.clone().dtype(Dtype::F16).block_mask(BlockMask::new(32, 64)));
    add("mask_mod".to_owned(), plain.clone().aux(3).mask_mod(program));
    add("shared buffers".to_owned(), plain.clone().shared_buffers().kv_lengths().mask_as(MaskFormat::WordsHide, mask));
    add("pages".to_owned(), plain.clone().kv_lengths().paged_kv(Pages { count: 4, size: 16 }));
    add("ragged".to_owned(), plain.clone().ragged_q(100).ragged_kv(200));
    add("a cache in f16".to_owned(), plain.clone().kv_dtype(Dtype::F16).out_dtype(Dtype::Bf16));
    for dim in [64, 128, 160] {
        add(format!("mask, 40 rows, {dim} and {dim}"), sized(40, dim, dim).mask(mask));
    }
    for (rows, keys) in [(1, 32), (7, 64), (32, 32), (128, 128), (1000, 96)] {
        let tiles = BlockMask::new(rows, keys);
        add(format!("tiles of {rows} and {keys}"), plain.clone().block_mask(tiles));
        add(
            format!("tiles of {rows} and {keys}, mask, 2 rows"),
            sized(2, 64, 64).mask(mask).block_mask(tiles.per_head()),
        );
    }
    problems
}

/// What appends, rotates and quantizes, with head sizes around those at which a thread has another cell.
fn appending() -> Vec<Problem> {
    let sized = |[dim_qk, dim_v]: [u32; 2]| {
        Problem::builder(Shape::new(1, 4, 3, dim_qk).kv_heads(2).kv_len(64).value_dim(dim_v)).kv_lengths()
    };
    let rotary = |pairs| Append { rotary: Some(Rotary { dims: 8, pairs, positions: 64 }), ..Append::default() };
    let plain = || sized([64, 64]);
    let few_buffers = |problem: ProblemBuilder| {
        problem.paged_kv(Pages { count: 4, size: 16 }).q_lengths().append(rotary(RotaryPairs::Halves))
    };
    let mut problems: Vec<_> = [[64, 64], [30, 30], [512, 64], [520, 64], [64, 512], [64, 520]].map(sized).into();
    problems.push(plain().dtype(Dtype::F16));
    problems.push(plain().kv_quantized(Quantization::Int8));
    problems.push(plain().kv_quantized(Quantization::Int4));
    let rotated = [RotaryPairs::Halves, RotaryPairs::Neighbours].map(|pairs| plain().append(rotary(pairs)));
    let mut problems: Vec<_> = problems.into_iter().map(|problem| problem.append(Append::default())).collect();
    problems.extend(rotated);
    problems.extend([few_buffers(plain()), few_buffers(plain().kv_quantized(Quantization::Int8))]);
    problems.into_iter().map(build).collect()
}

/// Gradients, by head size and by what scores have.
fn of_gradients() -> Vec<Gradients> {
    let sized = |dim_qk: u32, dim_v: u32| {
        Problem::builder(Shape::new(1, 4, 40, dim_qk).kv_heads(2).kv_len(64).value_dim(dim_v)).lse()
    };
    let same = [5, 32, 64, 65, 96, 128, 129, 192, 256, 257].map(|dim| sized(dim, dim));
    let others = [(32, 300), (300, 32), (576, 512)].map(|(dim_qk, dim_v)| sized(dim_qk, dim_v));
    let bias = ScoreLayout::broadcast([1, 4, 40, 64]);
    let plain = sized(64, 64);
    let scores = [
        plain.clone().dtype(Dtype::F16),
        plain.clone().softcap(2.0).bias(Dtype::F32, bias).kv_lengths(),
        plain.clone().sinks().mask(bias),
        plain.clone().sinks().kv_lengths(),
        plain.clone().alibi(Slopes::PerHead).q_lengths(),
        plain.dropout(0.5, RngState::Buffer),
    ];
    let tiles =
        [(1, 32), (32, 64), (1000, 96)].map(|(rows, keys)| sized(32, 32).block_mask(BlockMask::new(rows, keys)));
    let problems = same.into_iter().chain(others).chain(scores).chain(tiles);
    let all = problems.map(|problem| build(problem).gradients().build().unwrap());
    let some = [Operand::Dq, Operand::Dk, Operand::Dv]
        .map(|operand| build(sized(64, 64)).gradients().dlse().of([operand]).build().unwrap());
    all.chain(some).collect()
}

/// Every kind of adapter; and GPUs with what is just enough of something, or just too little.
fn devices() -> Vec<(String, Caps)> {
    let mut devices: Vec<_> = facts::adapters().into_iter().map(|(name, caps)| (name.to_owned(), caps)).collect();
    let mut add = |name: String, like: &str, change: &dyn Fn(&mut Caps)| {
        let (_, mut caps) = devices.iter().find(|(name, _)| name == like).cloned().unwrap();
        change(&mut caps);
        devices.push((name, caps));
    };
    add("a matrix unit of 8 in 64".to_owned(), "NVIDIA's matrix unit", &|caps| {
        let (tiles, multiplier) = (Tiles::Vectors, Multiplier::Unit);
        caps.matrix_unit = Some(MatrixUnit { fragment: Fragment::Side8, subgroup: 64, tiles, multiplier });
    });
    for registers in [191, 192, 254, 255] {
        add(format!("{registers} registers"), "NVIDIA", &|caps| {
            caps.thread_registers = registers;
            caps.workgroup_bytes = 24 << 10;
        });
    }
    add("few registers".to_owned(), "NVIDIA", &|caps| caps.thread_registers = 128);
    for bytes in [(19 << 10) - 1, 19 << 10, (24 << 10) - 1, 24 << 10, (28 << 10) - 1, 28 << 10, 32 << 10] {
        for like in ["NVIDIA", "few registers", "NVIDIA's matrix unit"] {
            add(format!("{like}, {bytes} bytes"), like, &|caps| caps.workgroup_bytes = bytes);
        }
    }
    for least in [4, 8, 15, 16, 32, 64] {
        for like in ["NVIDIA", "NVIDIA, 32768 bytes", "few registers, 32768 bytes"] {
            add(format!("{like}, subgroups of {least}"), like, &|caps| caps.min_subgroup_size = Some(least));
        }
    }
    devices
}

/// Compares a text with the file of this name, or writes it.
fn assert_known(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/host").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    for (now, then) in text.lines().zip(known.lines()) {
        assert_eq!(now, then, "see the head of tests/suite/host/kernels.rs");
    }
    assert_eq!(text.lines().count(), known.lines().count());
}

/// The kernels that selection offers on every kind of device, and those that run with them.
#[test]
fn kernels_are_as_they_were_when_last_looked_at() {
    let mut kernels = BTreeMap::new();
    let mut add = |kernel: &Variant| {
        kernels.entry(kernel.to_string()).or_insert_with(|| testing::describe(kernel));
    };
    let merges = [5, 64].map(|dim| Merge::builder(Shape::new(1, 2, 8, dim), 3).build().unwrap());
    for (_, caps) in devices() {
        merges.iter().for_each(|merge| add(&testing::merge(merge, &caps).unwrap()));
        for problem in appending() {
            testing::append(&problem, &caps).unwrap().iter().for_each(&mut add);
        }
        for gradients in of_gradients() {
            testing::gradients(&gradients, &caps).unwrap().iter().for_each(&mut add);
        }
    }
    for (_, problem) in problems() {
        for (_, mut caps) in devices() {
            for fill in [1, 1 << 20] {
                caps.workgroups_to_fill = fill;
                for variant in candidates(&problem, &caps).unwrap() {
                    testing::kernels(&problem, &variant, &caps).unwrap().iter().for_each(&mut add);
                }
            }
        }
    }
    let lines = kernels.into_iter().fold(String::new(), |mut text, (name, told)| {
        writeln!(text, "{name}\n    {told}").unwrap();
        text
    });
    assert_known("kernels.txt", &lines);
}

/// Devices that are offered the same share a line. Kernels that differ only in how they move elements are named once.
#[test]
fn each_device_is_offered_what_it_was_when_last_looked_at() {
    let mut text = String::new();
    for (name, problem) in problems() {
        writeln!(text, "{name}").unwrap();
        let mut devices_by_offer: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (device, caps) in devices() {
            let mut names: Vec<String> = candidates(&problem, &caps).unwrap().iter().map(ToString::to_string).collect();
            names.iter_mut().for_each(|name| name.truncate(name.find('.').unwrap()));
            names.dedup();
            devices_by_offer.entry(names.join(" ")).or_default().push(device);
        }
        for (offer, devices) in devices_by_offer {
            writeln!(text, "    {}:\n        {offer}", devices.join("; ")).unwrap();
        }
    }
    assert_known("offered.txt", &text);
}

/// wgpu compares the bindings that a kernel declares with its text.
#[test]
fn staged_kernels_bind_what_they_declare() {
    let (device, _queue) = noop_with_features();
    let caps = Kind::Software { lanes: 8 }.caps(&device);
    let problem = build(Problem::builder(Shape::new(1, 1, 40, 32)));
    let attention = Attention::with_caps(&device, caps);
    without_error(&device, || attention.plan(&problem).unwrap());
    // A texture has a row even where there are no keys.
    let empty = build(Problem::builder(Shape::new(1, 1, 40, 32).kv_len(0)).lse());
    without_error(&device, || attention.plan(&empty).unwrap().scratch());
    let gradients = |problem: &Problem| problem.gradients().build().unwrap();
    without_error(&device, || attention.plan_gradients(&gradients(&empty)).unwrap().scratch());
    // One row of each texture, of keys and of rows, 512 pairs of 8 texels and 256 of 9; and the sums of 40 rows.
    let problem = build(Problem::builder(Shape::new(1, 1, 40, 32)).lse());
    let plan = without_error(&device, || attention.plan_gradients(&gradients(&problem)).unwrap());
    assert_eq!(plan.scratch_bytes(), 2 * 16 * (512 * 8 + 256 * 9) + 40 * 16);
}

/// A kernel moves elements one at a time if they do not lie in fours, whatever the kernel that it works for does. The
/// weights are moved like the output, if possible.
#[test]
fn each_kernel_of_a_plan_moves_elements_as_they_lie() {
    let (device, _queue) = noop_with_features();
    let shape = Shape::new(1, 1, 40, 32);
    let accesses = |kind: Kind, problem: ProblemBuilder, first: &str| -> Vec<String> {
        let (caps, problem) = (kind.caps(&device), build(problem));
        let able = wgpu_attention::candidates(&problem, &caps).unwrap();
        let variant = able.iter().find(|variant| testing::kind(variant) == first).unwrap();
        testing::kernels(&problem, variant, &caps).unwrap().iter().map(testing::kind).collect()
    };
    let odd_keys = Problem::builder(shape).k(Layout::bhld(1, 40, 32).at(1));
    assert_eq!(accesses(Kind::Software { lanes: 8 }, odd_keys, "lanes8 x4"), ["stage x1", "lanes8 x4"]);
    let weights = Problem::builder(shape).weights();
    assert_eq!(accesses(Kind::Plain, weights.clone(), "tiled x4"), ["tiled x4", "weights x4"]);
    assert_eq!(accesses(Kind::Plain, weights, "tiled x1"), ["tiled x1", "weights x1"]);
}
