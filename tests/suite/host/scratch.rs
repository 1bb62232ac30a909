//! Scratch: how much a plan needs, and which other plans can use it.

use wgpu::Device;
use wgpu_attention::{Attention, BindError, Plan, Problem, Scratch, Shape};

use super::{Kind, build, noop_with_features, plan_by};
use crate::record::{buffers, operands, without_error};

/// A plan that stages `keys` keys and values of these sizes.
fn staging(device: &Device, keys: u32, dim_qk: u32, dim_v: u32) -> Plan {
    let problem = build(Problem::builder(Shape::new(1, 1, 100, dim_qk).value_dim(dim_v).kv_len(keys)));
    plan_by("lanes", device, Kind::Software { lanes: 8 }.caps(device), &problem)
}

/// A plan that splits its keys in two.
fn splitting(device: &Device, rows: u32, dim_v: u32) -> Plan {
    let mut caps = Kind::Plain.caps(device);
    caps.workgroups_to_fill = 1 << 20;
    let problem = build(Problem::builder(Shape::new(1, 1, rows, 8).value_dim(dim_v).kv_len(1031)));
    plan_by("tiled", device, caps, &problem)
}

/// A plan of gradients, which share sums of so many rows.
fn summing(device: &Device, rows: u32) -> Plan {
    let gradients = build(Problem::builder(Shape::new(1, 1, rows, 8)).lse()).gradients().build().unwrap();
    Attention::with_caps(device, Kind::Plain.caps(device)).plan_gradients(&gradients).unwrap()
}

fn bind(device: &Device, plan: &Plan, scratch: &Scratch) -> Result<(), BindError> {
    let buffers = buffers(device, plan.problem());
    without_error(device, || plan.bind_in(&operands(&buffers), scratch).map(|_| ()))
}

fn assert_covers(device: &Device, plan: &Plan, other: &Plan, wanted: bool) {
    let scratch = other.scratch();
    let refused = BindError::Scratch { need: plan.scratch().size(), got: scratch.size() };
    assert_eq!(bind(device, plan, &scratch), if wanted { Ok(()) } else { Err(refused) });
}

#[test]
fn what_a_plan_needs_is_what_it_says() {
    let (device, _queue) = noop_with_features();
    // 37 rows, 2 parts, and for each of them 4 numbers beside those of the output, rounded up to 4.
    assert_eq!(splitting(&device, 37, 5).scratch_bytes(), 37 * 2 * (4 + 8) * 4);
    assert_eq!(splitting(&device, 37, 5).parts(), 2);
    // A row of 4096 texels of 16 bytes holds 512 keys of 32 numbers, 128 of 96 (in 3072 texels) or 64 of 256.
    // Outputs that do not lie in fours are merged: 100 rows of 4 numbers beside those of the output, rounded up to 4.
    for (keys, dim_qk, dim_v, texels, merged) in [
        (512, 32, 32, 4096 * 2, 0),
        (513, 32, 32, 4096 * 4, 0),
        (1031, 32, 96, 4096 * 3 + 3072 * 9, 0),
        (1031, 90, 17, 3072 * 9 + 4096 * 3, 100 * (4 + 20)),
        (1031, 256, 7, 4096 * 17 + 4096 * 3, 100 * (4 + 8)),
    ] {
        let plan = staging(&device, keys, dim_qk, dim_v);
        let bytes = texels * 16 + merged * 4;
        assert_eq!(plan.scratch_bytes(), bytes, "{keys} keys of {dim_qk} and {dim_v}");
        assert_eq!(plan.scratch().size_bytes(), bytes);
    }
    // All batches and KV heads, one after another.
    let shape = Shape::new(3, 10, 100, 32).kv_heads(5).kv_len(101);
    let plan = plan_by("lanes", &device, Kind::Software { lanes: 8 }.caps(&device), &build(Problem::builder(shape)));
    assert_eq!(plan.scratch_bytes(), 4096 * 2 * 3 * 16, "1515 keys");
}

#[test]
fn parts_share_what_is_large_enough() {
    let (device, _queue) = noop_with_features();
    let small = splitting(&device, 37, 8);
    assert_covers(&device, &small, &small, true);
    assert_covers(&device, &small, &splitting(&device, 38, 8), true);
    assert_covers(&device, &small, &splitting(&device, 36, 8), false);
    // Parts do not fit in textures, nor the reverse. A plan that needs nothing accepts anything.
    let staged = staging(&device, 1031, 32, 32);
    assert_covers(&device, &small, &staged, false);
    assert_covers(&device, &staged, &small, false);
    let nothing = build(Problem::builder(Shape::new(1, 1, 5, 8)));
    let nothing = plan_by("tiled", &device, Kind::Plain.caps(&device), &nothing);
    assert_eq!(nothing.scratch_bytes(), 0);
    for scratch in [&small, &staged, &nothing] {
        assert_covers(&device, &nothing, scratch, true);
    }
    assert_covers(&device, &small, &nothing, false);
    assert_covers(&device, &staged, &nothing, false);
    let sums = summing(&device, 37);
    assert_eq!(sums.scratch().size().to_string(), "0 bytes of partial results, 592 of sums of rows and no textures");
    assert_eq!(small.scratch().size().to_string(), "3552 bytes of partial results and no textures");
    assert_covers(&device, &sums, &summing(&device, 38), true);
    assert_covers(&device, &sums, &summing(&device, 36), false);
    assert_covers(&device, &sums, &small, false);
}

#[test]
fn textures_of_keys_and_of_values_are_wide_and_high_enough() {
    let (device, _queue) = noop_with_features();
    let plan = |keys, dim_qk, dim_v| staging(&device, keys, dim_qk, dim_v);
    let needed = plan(1031, 32, 32);
    assert_covers(&device, &needed, &plan(1031, 32, 32), true);
    // Higher; or made for other sizes, but as wide.
    assert_covers(&device, &needed, &plan(1537, 32, 32), true);
    assert_covers(&device, &needed, &plan(1031, 64, 256), true);
    // Lower: both, then one of the two.
    assert_covers(&device, &needed, &plan(1024, 32, 32), false);
    assert_covers(&device, &plan(1031, 256, 32), &plan(1030, 32, 256), false);
    assert_covers(&device, &plan(1031, 32, 256), &plan(1030, 256, 32), false);
    // Narrower, though high enough: one of the two.
    assert_covers(&device, &needed, &plan(1031, 96, 32), false);
    assert_covers(&device, &needed, &plan(1031, 32, 96), false);
    // Wider and high enough.
    assert_covers(&device, &plan(1031, 96, 96), &plan(1031, 128, 128), true);
    assert_covers(&device, &plan(1031, 96, 96), &needed, false);
}

#[test]
fn scratch_says_what_it_has() {
    let (device, _queue) = noop_with_features();
    let says = |plan: &Plan| plan.scratch().size().to_string();
    assert_eq!(says(&splitting(&device, 37, 8)), "3552 bytes of partial results and no textures");
    let staged = says(&staging(&device, 1031, 96, 32));
    assert_eq!(staged, "0 bytes of partial results, 3072 × 9 texels of keys and 4096 × 3 of values");
}
