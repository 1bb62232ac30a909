//! Where work is cut and what is refused: each limit, met exactly and missed by one.

use wgpu::Device;
use wgpu_attention::{
    Attention, BlockMask, Caps, Dtype, Layout, Merge, Operand, PlanError, Problem, ProblemBuilder, ScoreLayout, Shape,
    Variant, candidates, testing,
};

use super::{Kind, build, noop_with_features, plan_by};
use crate::record::noop;

const SOFTWARE: Kind = Kind::Software { lanes: 8 };

/// The number of dispatches in which a kernel runs a problem within limits.
fn dispatches(name: &str, kind: Kind, problem: &Problem, tighten: impl FnOnce(&mut Caps)) -> usize {
    let (device, _queue) = noop_with_features();
    let mut caps = kind.caps(&device);
    tighten(&mut caps);
    plan_by(name, &device, caps, problem).dispatches()
}

/// Checks that a limit of `most` is enough for `kernels` dispatches, one per kernel, and that a limit of one less takes one
/// dispatch more.
fn assert_limit(name: &str, kind: Kind, problem: &Problem, kernels: usize, most: u64, limit: fn(&mut Caps, u64)) {
    let within = |most| dispatches(name, kind, problem, |caps| limit(caps, most));
    assert_eq!(within(most), kernels, "{name} within {most}: {problem:?}");
    assert_eq!(within(most - 1), kernels + 1, "{name} within {}: {problem:?}", most - 1);
}

fn flop(caps: &mut Caps, most: u64) {
    caps.dispatch_flop = most;
}

/// 2 operations for each product of the scores and of the output.
#[test]
fn a_dispatch_costs_what_its_products_cost() {
    let shape = Shape::new(3, 10, 37, 13).kv_heads(5).kv_len(41).value_dim(7);
    let problem = build(Problem::builder(shape));
    let products = 3 * 10 * 37 * 41 * 2 * (13 + 7);
    assert_limit("tiled", Kind::Plain, &problem, 1, products, flop);
    assert_limit("decode", Kind::Plain, &problem, 1, products, flop);
    assert_limit("streams", SOFTWARE, &problem, 1, products, flop);
    // Staging costs less, and so does the merge that stores rows which do not lie in fours.
    assert_limit("lanes", SOFTWARE, &problem, 3, products, flop);

    let with_weights = build(Problem::builder(shape).weights());
    let within = |most| dispatches("tiled", Kind::Plain, &with_weights, |caps| caps.dispatch_flop = most);
    assert_eq!((within(products), within(products - 1)), (2, 4), "two kernels, and both look at all scores");

    // One row cannot be cut, but the kernels before and after it can.
    let row = build(Problem::builder(Shape::new(1, 1, 1, 13).kv_len(41).value_dim(7)));
    assert_limit("lanes", SOFTWARE, &row, 3, 41 * (13 + 7), flop);
    let rows = build(Problem::builder(Shape::new(1, 11, 1, 13).kv_heads(1).kv_len(1031).value_dim(7)));
    assert_limit("decode", Kind::Plain, &rows, 2, 11 * 7 * 2 * 2, |caps, most| {
        (caps.dispatch_flop, caps.workgroups_to_fill) = (most, 1 << 20);
    });
}

#[test]
fn a_grid_counts_no_further_than_the_device() {
    let workgroups = |caps: &mut Caps, most: u64| caps.workgroups = most as u32;
    // Blocks of 32 rows; heads; batches.
    for shape in [Shape::new(1, 1, 4 * 32 + 1, 8), Shape::new(1, 5, 64, 8), Shape::new(5, 1, 64, 8)] {
        assert_limit("tiled", Kind::Plain, &build(Problem::builder(shape)), 1, 5, workgroups);
    }
    // The rows of a group come together, 4 of them per workgroup.
    let grouped = build(Problem::builder(Shape::new(1, 7, 2, 8).kv_heads(1)));
    assert_limit("decode", Kind::Plain, &grouped, 1, 4, workgroups);
    // The two parts of each batch's keys, which are merged.
    let split = build(Problem::builder(Shape::new(3, 1, 1, 8).kv_len(1031)));
    let within =
        |most| dispatches("tiled", Kind::Plain, &split, |caps| (caps.workgroups, caps.workgroups_to_fill) = (most, 6));
    assert_eq!((within(6), within(5)), (2, 3));
}

fn bindings(caps: &mut Caps, most: u64) {
    caps.binding_bytes = most;
}

#[test]
fn a_binding_is_no_larger_than_the_device_binds() {
    // The largest operand of each, in bytes.
    let keys = build(Problem::builder(Shape::new(3, 2, 5, 7).kv_len(41)));
    assert_limit("tiled", Kind::Plain, &keys, 1, 3 * 2 * 41 * 7 * 4, bindings);
    assert_limit("decode", Kind::Plain, &keys, 1, 3 * 2 * 41 * 7 * 4, bindings);
    let mask = build(Problem::builder(Shape::new(2, 2, 61, 1)).mask(ScoreLayout::broadcast([2, 2, 61, 61])));
    assert_limit("tiled", Kind::Plain, &mask, 1, 2 * 2 * 61 * 61, bindings);
    // The partial results between the kernels are larger than anything else.
    let split = build(Problem::builder(Shape::new(2, 3, 521, 1).kv_len(1031)));
    let within = |most| {
        let tighten = |caps: &mut Caps| (caps.binding_bytes, caps.workgroups_to_fill) = (most, 1 << 10);
        dispatches("tiled", Kind::Plain, &split, tighten)
    };
    let bytes = 2 * 3 * 521 * 2 * (4 + 4) * 4;
    assert_eq!((within(bytes), within(bytes - 1)), (2, 4));
}

/// Shaders index with 32 bits, whatever a device binds.
#[test]
fn a_binding_is_no_larger_than_a_shader_indexes() {
    let (device, _queue) = noop_with_features();
    let mut caps = Kind::Plain.caps(&device);
    caps.binding_bytes = 1 << 40;
    let planned = |len_kv| {
        let problem = build(Problem::builder(Shape::new(1, 2, 1, 256).kv_len(len_kv)));
        plan_by("tiled", &device, caps, &problem).dispatches()
    };
    // 2³² bytes of keys, and one key less.
    assert_eq!((planned(1 << 21), planned((1 << 21) - 1)), (2, 1));
}

#[test]
fn what_cannot_be_cut_is_refused_with_its_size() {
    let (device, _queue) = noop();
    let mut caps = Kind::Plain.caps(&device);
    caps.binding_bytes = 41 * 7 * 4 - 1;
    let plan = |caps, problem| Attention::with_caps(&device, caps).plan(&build(problem)).map(|plan| plan.dispatches());
    let problem = Problem::builder(Shape::new(3, 2, 5, 7).kv_len(41));
    let error = plan(caps, problem).unwrap_err();
    assert_eq!(error, PlanError::TooLarge { operand: Operand::K, need: 1148, granted: 1147 });

    // The parts of one block: 32 rows in as many parts as there are tiles of 32 keys.
    caps.loop_iterations = 64 + 17;
    caps.binding_bytes = 20_000;
    let error = plan(caps, Problem::builder(Shape::new(1, 1, 64, 1).kv_len(1031))).unwrap_err();
    assert_eq!(error, PlanError::TooLarge { operand: Operand::Out, need: 32 * 33 * 8 * 4, granted: 20_000 });
}

#[test]
fn more_dispatches_than_65536_are_a_mistake() {
    let (device, _queue) = noop();
    let mut caps = Kind::Plain.caps(&device);
    caps.dispatch_flop = 1;
    let plan = |batch| {
        let problem = build(Problem::builder(Shape::new(batch, 1, 1, 1)));
        Attention::with_caps(&device, caps).plan(&problem).map(|plan| plan.dispatches())
    };
    assert_eq!(plan(1 << 16), Ok(1 << 16));
    assert_eq!(plan((1 << 16) + 1), Err(PlanError::TooManyDispatches { most: 1 << 16 }));
}

#[test]
fn parts_fill_a_device_and_no_more_than_its_grid() {
    let (device, _queue) = noop();
    let parts = |shape: Shape, fill, workgroups| {
        let mut caps = Kind::Plain.caps(&device);
        (caps.workgroups_to_fill, caps.workgroups) = (fill, workgroups);
        plan_by("tiled", &device, caps, &build(Problem::builder(shape))).parts()
    };
    let long = Shape::new(1, 1, 1, 8).kv_len(8192);
    for (shape, fill, workgroups, wanted) in [
        (long, 1, 65_535, 1),
        (long, 2, 65_535, 2),
        (long, 5, 65_535, 5),
        // No part is shorter than 512 keys.
        (long, 1 << 20, 65_535, 16),
        (long, u32::MAX, 65_535, 16),
        (long.kv_len(8191), 1 << 20, 65_535, 15),
        (long.kv_len(1023), 1 << 20, 65_535, 1),
        (long.kv_len(1024), 1 << 20, 65_535, 2),
        // 513 keys per part are 17 tiles of 32.
        (long.kv_len(1025), 2, 65_535, 2),
        (long.kv_len(0), 2, 65_535, 1),
        (long, 1 << 20, 3, 3),
        // The workgroups without parts count, too: blocks of 32 rows, heads, batches.
        (Shape { len_q: 33, ..long }, 11, 65_535, 5),
        (Shape { heads_q: 3, ..long }, 11, 65_535, 3),
        (Shape { batch: 3, ..long }, 11, 65_535, 3),
        (Shape { batch: 0, ..long }, 11, 65_535, 11),
    ] {
        assert_eq!(parts(shape, fill, workgroups), wanted, "{shape:?}: to fill {fill} of {workgroups}");
    }
}

/// A software driver ends long loops. So the keys are split into parts that are short enough, and if a kernel cannot split
/// them, their number is limited.
#[test]
fn loops_end_before_the_driver_ends_them() {
    let (device, _queue) = noop();
    let problem = |len_kv| build(Problem::builder(Shape::new(1, 1, 1, 8).kv_len(len_kv)));
    let variant = |loop_iterations, len_kv| {
        let mut caps = Kind::Plain.caps(&device);
        caps.loop_iterations = loop_iterations;
        plan_by("tiled", &device, caps, &problem(len_kv)).parts()
    };
    // 64 iterations of overhead; then, per tile, 1 + 5 + 2 for the scores and 5 + 2 for the values.
    let a_tile = 8 + 7;
    for (rounds, len_kv, parts) in [
        (64 + 3 * a_tile, 96, 1),
        (64 + 3 * a_tile, 97, 2),
        (64 + 3 * a_tile - 1, 96, 2),
        (64 + 3 * a_tile - 1, 64, 1),
        (64 + a_tile, 1031, 33),
    ] {
        assert_eq!(variant(rounds, len_kv), parts, "{len_kv} keys in {rounds} rounds");
    }
    // The weights need all keys at once: twice a tile's scores.
    let mut caps = Kind::Plain.caps(&device);
    caps.loop_iterations = 64 + 3 * 16;
    let weights = |len_kv| {
        let problem = build(problem(len_kv).to_builder().weights());
        Attention::with_caps(&device, caps).plan(&problem).map(|plan| plan.parts())
    };
    assert!(weights(96).is_ok());
    assert!(matches!(weights(97), Err(PlanError::TooManyKeys { len_kv: 97, most: 96, .. })));
    // As many parts as a grid counts.
    let in_parts = |workgroups, len_kv| {
        let mut caps = Kind::Plain.caps(&device);
        (caps.loop_iterations, caps.workgroups) = (64 + 2 * a_tile, workgroups);
        let problem = build(problem(len_kv).to_builder().mask(ScoreLayout::broadcast([1; 4])));
        let variants = Attention::with_caps(&device, caps).candidates(&problem).unwrap_or_default();
        variants.iter().any(|variant| testing::schedule(variant) == "tiled")
    };
    assert!(in_parts(5, 320) && !in_parts(5, 321), "5 parts of 64 keys");
}

/// A limit of so few iterations that no tile of keys is read gives an error, not a panic.
#[test]
fn a_driver_that_ends_every_loop_is_refused() {
    let (device, _queue) = noop();
    for loop_iterations in [0, 1, 8] {
        let mut caps = Kind::Plain.caps(&device);
        caps.loop_iterations = loop_iterations;
        for rows in [1, 100] {
            let problem = build(Problem::builder(Shape::new(1, 1, rows, 8).kv_len(100)));
            let error = Attention::with_caps(&device, caps).plan(&problem).map(|_| ());
            assert!(matches!(error, Err(PlanError::TooManyKeys { most: 0, .. })), "{loop_iterations}: {error:?}");
        }
        // Without keys there is no loop to end.
        let problem = build(Problem::builder(Shape::new(1, 1, 100, 8).kv_len(0)));
        assert_eq!(Attention::with_caps(&device, caps).plan(&problem).map(|plan| plan.parts()), Ok(1));
    }
}

#[test]
fn a_merge_binds_no_more_than_a_shader_indexes() {
    let (device, _queue) = noop_with_features();
    let mut caps = Kind::Plain.caps(&device);
    (caps.binding_bytes, caps.workgroups, caps.dispatch_flop) = (1 << 40, u32::MAX, u64::MAX);
    let planned = |rows| {
        let merge = Merge::builder(Shape::new(1, 1, rows, 512), 1).build().unwrap();
        Attention::with_caps(&device, caps).plan_merge(&merge).unwrap().dispatches()
    };
    // 2³² bytes of outputs, and one row less.
    assert_eq!((planned(1 << 21), planned((1 << 21) - 1)), (2, 1));
}

/// Sizes that wrap around would look small.
#[test]
fn absurd_sizes_are_not_taken_for_small_ones() {
    let (device, _queue) = noop_with_features();
    // Parts of one tile of 32 keys: 2²⁴ of 260 numbers each are more than 32 bits count.
    let mut caps = Kind::Plain.caps(&device);
    (caps.workgroups, caps.loop_iterations) = (u32::MAX, (2 + 4) * (4 + 2) + (2 + 2));
    let still = Layout { offset: 0, batch: 0, head: 0, row: 0 };
    let problem = Problem::builder(Shape::new(1, 1, 1, 256).kv_len(1 << 29)).k(still).v(still).q(still);
    let error = Attention::with_caps(&device, caps).plan(&build(problem)).map(|plan| plan.parts()).unwrap_err();
    assert!(matches!(error, PlanError::Limit { limit: "max_buffer_size", need, .. } if need > 1 << 33), "{error:?}");

    // 2⁶⁴ operations per row of decoding: too many for one dispatch of two batches.
    let shape = Shape::new(2, 1 << 26, 1, 255).kv_heads(1).kv_len(1 << 29).value_dim(1);
    let problem = build(Problem::builder(shape).q(still).k(still).v(still));
    let mut caps = Kind::Plain.caps(&device);
    (caps.workgroups, caps.binding_bytes) = (u32::MAX, 1 << 32);
    assert_eq!(plan_by("decode", &device, caps, &problem).dispatches(), 2);
}

#[test]
fn nothing_to_do_takes_no_dispatch() {
    let (device, _queue) = noop_with_features();
    let shape = Shape::new(2, 2, 100, 8);
    for shape in [Shape { batch: 0, ..shape }, Shape { len_q: 0, ..shape }] {
        for (name, kind) in [("tiled", Kind::Plain), ("decode", Kind::Plain), ("streams", SOFTWARE)] {
            let plan = plan_by(name, &device, kind.caps(&device), &build(Problem::builder(shape).lse().weights()));
            assert_eq!(plan.dispatches(), 0, "{name}: {shape:?}");
        }
    }
    // Without keys there are still rows to write, but no weights.
    let problem = build(Problem::builder(shape.kv_len(0)).lse().weights());
    assert_eq!(plan_by("tiled", &device, Kind::Plain.caps(&device), &problem).dispatches(), 1);
}

/// The weights are as wide as there are keys, whatever the values.
#[test]
fn weights_are_computed_once_beside_wide_values() {
    let (device, _queue) = noop();
    let problem = build(Problem::builder(Shape::new(1, 1, 5, 8).value_dim(300)).weights());
    assert_eq!(plan_by("tiled", &device, Kind::Plain.caps(&device), &problem).dispatches(), 2 + 1);
}

/// If batches times parts wrapped around, they would look few. An alignment of 0, as if a binding could start anywhere, is
/// not used.
#[test]
fn grids_do_not_wrap() {
    let (device, _queue) = noop();
    let still = Layout { offset: 0, batch: 0, head: 0, row: 0 };
    let problem = Problem::builder(Shape::new(1 << 31, 1, 1, 1).kv_len(64)).q(still).k(still).v(still);
    let mut caps = Kind::Plain.caps(&device);
    // One tile of 32 keys per part.
    (caps.workgroups, caps.loop_iterations, caps.dispatch_flop) = (1 << 31, 64 + 17, u64::MAX);
    (caps.binding_bytes, caps.buffer_bytes, caps.binding_alignment) = (1 << 40, 1 << 50, 0);
    let plan = plan_by("tiled", &device, caps, &build(problem));
    assert_eq!(plan.parts(), 2);
    assert!(plan.dispatches() >= 3, "{}", plan.dispatches());
}

/// The parameters of all dispatches are one buffer: 560 bytes each, from one multiple of the alignment to another.
#[test]
fn parameters_fit_a_buffer() {
    let (device, _queue) = noop();
    let problem = build(Problem::builder(Shape::new(4, 1, 5, 8)));
    let plan = |alignment, buffer_bytes| {
        let mut caps = Kind::Plain.caps(&device);
        (caps.dispatch_flop, caps.uniform_alignment, caps.buffer_bytes) = (1, alignment, buffer_bytes);
        Attention::with_caps(&device, caps).plan(&problem).map(|plan| plan.dispatches() as u64)
    };
    let dispatches = plan(256, 1 << 20).unwrap();
    for (alignment, each) in [(256, 768), (64, 640)] {
        let need = dispatches * each;
        assert_eq!(plan(alignment, need), Ok(dispatches));
        let refused = plan(alignment, need - 1).unwrap_err();
        assert!(
            matches!(refused, PlanError::Limit { limit: "max_buffer_size", need: told, .. } if told == need),
            "{refused:?}"
        );
    }
    assert!(plan(0, 1 << 20).is_ok(), "no alignment is no panic");
}

/// The first candidate, and what its kernel needs of a device.
fn needs(device: &Device, problem: &Problem, caps: Caps) -> (Variant, [(&'static str, u64); 3]) {
    let variant = Attention::with_caps(device, caps).candidates(problem).unwrap()[0].clone();
    let buffers = testing::bindings(&variant).iter().filter(|binding| binding.is_buffer).count();
    let needs = [
        ("max_storage_buffers_per_shader_stage", buffers as u64),
        ("max_compute_workgroup_storage_size", variant.workgroup_bytes().into()),
        ("max_compute_invocations_per_workgroup", variant.invocations().into()),
    ];
    (variant, needs)
}

#[test]
fn a_kernel_runs_where_each_limit_is_just_enough() {
    let (device, _queue) = noop();
    let mut caps = Kind::Plain.caps(&device);
    let mask = ScoreLayout::broadcast([1; 4]);
    for (problem, fill) in [
        (build(Problem::builder(Shape::new(1, 1, 100, 8)).mask(mask).lse()), 1),
        (build(Problem::builder(Shape::new(1, 1, 1, 8).kv_len(4096)).dtype(Dtype::F16)), 1 << 20),
    ] {
        caps.workgroups_to_fill = fill;
        let (variant, needs) = needs(&device, &problem, caps);
        for (limit, need) in needs {
            let within = |most: u64| {
                let mut caps = caps;
                match limit {
                    "max_storage_buffers_per_shader_stage" => caps.storage_buffers = most as u32,
                    "max_compute_workgroup_storage_size" => caps.workgroup_bytes = most as u32,
                    _ => caps.invocations = most as u32,
                }
                Attention::with_caps(&device, caps).candidates(&problem)
            };
            assert!(within(need).unwrap().contains(&variant), "{variant}: {limit} of {need}");
            match within(need - 1) {
                Ok(others) => assert!(!others.contains(&variant), "{variant}: {limit} of {}", need - 1),
                Err(error) => {
                    assert_eq!(error, PlanError::Limit { variant: variant.clone(), limit, need, granted: need - 1 });
                }
            }
        }
    }
    caps.workgroups = 0;
    let error = Attention::with_caps(&device, caps).candidates(&build(Problem::builder(Shape::new(1, 1, 1, 8))));
    assert!(matches!(error, Err(PlanError::Limit { limit: "max_compute_workgroups_per_dimension", .. })), "{error:?}");
}

/// The partial results between the kernels are one buffer, which is no larger than the device allows.
#[test]
fn parts_fit_a_buffer() {
    let (device, _queue) = noop();
    let problem = build(Problem::builder(Shape::new(2, 3, 37, 8).kv_len(1031)));
    let need = 2 * 3 * 37 * 2 * (4 + 8) * 4;
    let plan = |buffer_bytes| {
        let mut caps = Kind::Plain.caps(&device);
        (caps.workgroups_to_fill, caps.buffer_bytes) = (1 << 10, buffer_bytes);
        Attention::with_caps(&device, caps).plan(&problem).map(|plan| plan.scratch_bytes())
    };
    assert_eq!(plan(need), Ok(need));
    let error = plan(need - 1).unwrap_err();
    assert!(
        matches!(error, PlanError::Limit { limit: "max_buffer_size", need: told, granted, .. } if told == need && granted == need - 1),
        "{error:?}"
    );
}

/// The facts of a software GPU with another limit.
fn software(change: impl FnOnce(&mut Caps)) -> Caps {
    let (device, _queue) = noop_with_features();
    let mut caps = SOFTWARE.caps(&device);
    change(&mut caps);
    caps
}

/// The schedules of the gradients of a problem, in order.
fn gradient_schedules(problem: ProblemBuilder, caps: &Caps) -> Vec<&'static str> {
    let gradients = build(problem.lse()).gradients().build().unwrap();
    testing::gradients(&gradients, caps).unwrap().iter().map(testing::schedule).collect()
}

/// Keys are staged in textures if both textures fit the device's limit on each side.
#[test]
fn staged_keys_fit_their_textures() {
    let is_staged = |shape: Shape, side| {
        let variants = candidates(&build(Problem::builder(shape)), &software(|caps| caps.texture_side = side)).unwrap();
        variants.iter().any(|variant| testing::schedule(variant) == "lanes")
    };
    let wide = Shape::new(1, 1, 100, 32);
    assert!(is_staged(wide, 4096) && !is_staged(wide, 4095));
    // A row of a texture holds 512 keys of 32 numbers, or 64 of 256.
    for (shape, keys) in [(wide, 4096 * 512), (wide.value_dim(256), 4096 * 64)] {
        assert!(is_staged(shape.kv_len(keys), 4096), "{keys}");
        assert!(!is_staged(shape.kv_len(keys + 1), 4096), "{keys}");
    }
    let wide_keys = Shape { dim_qk: 256, ..wide };
    assert!(is_staged(wide_keys.kv_len(4096 * 64), 4096) && !is_staged(wide_keys.kv_len(4096 * 64 + 1), 4096));
}

/// The same for gradients, which stage pairs with one more texel, of keys and of rows.
#[test]
fn staged_pairs_fit_their_textures() {
    let is_staged = |shape: Shape, side| {
        gradient_schedules(Problem::builder(shape), &software(|caps| caps.texture_side = side))
            .contains(&"gradient_lanes_queries")
    };
    let few = Shape::new(1, 1, 100, 32);
    assert!(is_staged(few, 4096) && !is_staged(few, 4095));
    // A row of a texture holds 256 pairs with 32 numbers and a texel, or 128 with 64.
    for (shape, pairs) in [(few, 4096 * 256), (few.value_dim(64), 4096 * 128)] {
        assert!(is_staged(shape.kv_len(pairs), 4096), "{pairs}");
        assert!(!is_staged(shape.kv_len(pairs + 1), 4096), "{pairs}");
        let rows = |len_q| Shape { len_q, ..shape };
        assert!(is_staged(rows(pairs), 4096), "{pairs}");
        assert!(!is_staged(rows(pairs + 1), 4096), "{pairs}");
    }
}

/// On a driver that ends loops early, the kernels for every device compute gradients where lanes would have too many iterations.
#[test]
fn gradients_that_lanes_cannot_finish_are_computed_otherwise() {
    let problem = Problem::builder(Shape::new(1, 1, 100, 128).kv_len(1000)).block_mask(BlockMask::new(1, 32));
    let schedules =
        |iterations| gradient_schedules(problem.clone(), &software(|caps| caps.loop_iterations = iterations));
    assert!(schedules(10_000).contains(&"gradient_queries"));
    assert!(schedules(100_000).contains(&"gradient_lanes_queries"));
}
