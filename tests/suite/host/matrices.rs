//! Kernels on a matrix unit: how much each workgroup does, by what registers, memory and threads allow.

use wgpu_attention::{Attention, Dtype, Fragment, MatrixUnit, Multiplier, Problem, Shape, Tiles, Variant};

use super::selection::name;
use super::{Kind, build, plan_by};
use crate::record::noop_with_matrices;

/// The candidates. Those on a matrix unit are given as subgroups × fragments of rows × keys.
fn on_matrices(unit: MatrixUnit, workgroup_bytes: u32, shape: Shape) -> String {
    let (device, _queue) = noop_with_matrices();
    let mut caps = Kind::Plain.caps(&device);
    (caps.matrix_unit, caps.workgroup_bytes) = (Some(unit), workgroup_bytes);
    let problem = build(Problem::builder(shape).dtype(Dtype::F16));
    let variants = Attention::with_caps(&device, caps).candidates(&problem).unwrap();
    let named = variants.iter().map(|variant| {
        let name = name(variant);
        // The part before it names the unit, which is the same for all.
        if variant.is_on_matrix_unit() { name.split_once('-').unwrap().1.to_owned() } else { name }
    });
    let mut names: Vec<String> = named.collect();
    names.dedup();
    names.join(" ")
}

#[test]
fn matrix_units_get_what_registers_and_memory_hold() {
    let (tiles, multiplier) = (Tiles::Vectors, Multiplier::Unit);
    let gpu = MatrixUnit { fragment: Fragment::Side16, subgroup: 32, tiles, multiplier };
    let wave64 = MatrixUnit { subgroup: 64, ..gpu };
    let metal = MatrixUnit { fragment: Fragment::Side8, ..gpu };
    let many = |dim| Shape::new(1, 2, 500, dim);
    for (unit, bytes, shape, wanted) in [
        (gpu, 32 << 10, many(64), "4x2x16 8x1x16 tiled decode4 1x1x16"),
        (gpu, 32 << 10, many(128), "8x1x16 tiled4x4of8x16 tiled decode4 1x1x16"),
        (gpu, 32 << 10, many(256), "4x1x16 tiled4x4of4x32 tiled decode4"),
        (gpu, 16 << 10, many(64), "2x2x16 4x1x16 tiled decode4 1x1x16"),
        (gpu, 16 << 10, many(128), "2x1x16 tiled4x4of8x16 tiled decode4 1x1x16"),
        (wave64, 32 << 10, many(64), "2x4x16 4x1x32 tiled decode4 1x1x16"),
        (wave64, 32 << 10, many(96), "2x4x16 4x1x32 tiled decode4 1x1x16"),
        (wave64, 32 << 10, many(200), "4x2x16 4x1x16 tiled4x4of4x32 tiled decode4 1x1x16"),
        (metal, 32 << 10, many(64), "4x4x16 8x1x32 tiled decode4 1x1x16"),
        (metal, 32 << 10, many(128), "4x2x32 8x1x32 tiled4x4of8x16 tiled decode4 1x1x16"),
        (gpu, 32 << 10, Shape::new(1, 4, 1, 64).kv_heads(1), "decode4 tiled 1x1x16"),
        (gpu, 32 << 10, Shape::new(1, 5, 1, 64).kv_heads(1), "1x1x16 decode4 tiled"),
        (gpu, 32 << 10, Shape::new(1, 16, 1, 64).kv_heads(1), "1x1x16 decode4 tiled"),
        (gpu, 48 << 10, many(128), "8x1x32 tiled4x4of8x16 tiled decode4 1x1x16"),
        (gpu, 48 << 10, many(192), "8x1x16 tiled4x4of8x16 tiled decode4"),
        (gpu, 48 << 10, many(256), "8x1x16 tiled4x4of4x32 tiled decode4"),
        (gpu, 32 << 10, Shape::new(1, 16, 1, 128).kv_heads(1), "1x1x16 decode4 tiled4x4of8x16 tiled"),
        (gpu, 32 << 10, Shape::new(1, 16, 1, 160).kv_heads(1), "decode4 tiled4x4of8x16 tiled"),
        (gpu, 32 << 10, Shape::new(1, 17, 1, 64).kv_heads(1), "4x2x16 8x1x16 tiled decode4 1x1x16"),
    ] {
        assert_eq!(on_matrices(unit, bytes, shape), wanted, "{unit}, {bytes} bytes, {shape:?}");
    }
}

/// A matrix kernel has no more threads than a workgroup may.
#[test]
fn matrix_kernels_keep_to_the_threads_of_a_workgroup() {
    let (device, _queue) = noop_with_matrices();
    let mut caps = Kind::Plain.caps(&device);
    let (fragment, tiles, multiplier) = (Fragment::Side16, Tiles::Vectors, Multiplier::Unit);
    caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
    caps.workgroup_bytes = 32 << 10;
    let problem = build(Problem::builder(Shape::new(1, 2, 500, 64)).dtype(Dtype::F16));
    for invocations in [127, 128] {
        caps.invocations = invocations;
        let variants = wgpu_attention::candidates(&problem, &caps).unwrap();
        let on_matrices = variants.iter().filter(|variant| variant.is_on_matrix_unit());
        let most = on_matrices.map(Variant::invocations).max();
        assert_eq!(most, Some(if invocations == 128 { 128 } else { 64 }));
    }
}

/// Where memory does not hold a tile, the kernel has fewer rows or keys, and it is the largest that the memory holds.
#[test]
fn matrix_kernels_fill_the_memory_of_a_workgroup() {
    let (device, _queue) = noop_with_matrices();
    let (fragment, tiles, multiplier) = (Fragment::Side16, Tiles::Vectors, Multiplier::Unit);
    let problem = build(Problem::builder(Shape::new(1, 2, 500, 64)).dtype(Dtype::F16));
    let first = |workgroup_bytes| {
        let mut caps = Kind::Plain.caps(&device);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
        caps.workgroup_bytes = workgroup_bytes;
        let variant = wgpu_attention::candidates(&problem, &caps).unwrap().swap_remove(0);
        assert!(variant.is_on_matrix_unit() && variant.workgroup_bytes() <= workgroup_bytes, "{variant}");
        variant
    };
    let (mut most, mut sizes) = (64 << 10, 0);
    while most > 16 << 10 {
        let variant = first(most);
        let needed = variant.workgroup_bytes();
        assert_eq!(first(needed), variant);
        most = needed - 1;
        sizes += 1;
        assert_ne!(first(most), variant);
    }
    assert_eq!(sizes, 3, "4x2x32, 4x2x16 and 2x2x16");
}

#[test]
fn a_matrix_unit_says_what_it_is() {
    let (tiles, fragment) = (Tiles::Vectors, Fragment::Side16);
    let unit = |multiplier| MatrixUnit { fragment, subgroup: 32, tiles, multiplier }.to_string();
    assert_eq!(unit(Multiplier::Unit), "16 × 16, f16 into f32, in subgroups of 32");
    assert_eq!(unit(Multiplier::Emulated), "16 × 16, f16 into f32, in subgroups of 32, emulated");
}

/// A real matrix unit does eight times the work in the same time.
#[test]
fn matrix_units_are_given_more_at_a_time() {
    let (device, _queue) = noop_with_matrices();
    let (fragment, tiles, multiplier) = (Fragment::Side16, Tiles::Vectors, Multiplier::Unit);
    let problem = build(Problem::builder(Shape::new(3, 6, 37, 16).kv_heads(3).kv_len(41)).dtype(Dtype::F16));
    let products = 3 * 6 * 37 * 41 * 2 * 32;
    let within = |dispatch_flop, is_software| {
        let mut caps = Kind::Plain.caps(&device);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
        (caps.dispatch_flop, caps.is_software) = (dispatch_flop, is_software);
        plan_by("matrix", &device, caps, &problem).dispatches()
    };
    assert_eq!(products % 8, 0);
    assert_eq!((within(products / 8, false), within(products / 8 - 1, false)), (1, 2));
    assert_eq!((within(products, true), within(products - 1, true)), (1, 2));
    assert_eq!(within(1 << 61, false), 1, "eight times that is past 64 bits");
}
