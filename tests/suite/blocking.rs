//! The blocking functions, on a real adapter: they return what was computed, with the right types and lengths.

use truth::{Expected, Fill, Outputs};
use wgpu_attention::{Dtype, Layout, Operand, Problem, Shape, blocking};

use crate::case::drawn;
use crate::device::all;

/// 16-bit elements with gaps between rows, so that the outputs differ in type and in length.
#[test]
fn every_output_comes_back_as_it_was_stored() {
    let layout = Layout { offset: 5, batch: 7 * 30, head: 7 * 15, row: 15 };
    let shape = Shape::new(2, 2, 7, 10).kv_len(9);
    for dtype in [Dtype::F16, Dtype::F32] {
        let problem = Problem::builder(shape).dtype(dtype).out(layout).lse().weights();
        let case = drawn(problem, Fill::Normal, 17);
        let device = &all()[0];
        let _guard = device.enter();
        let ran = blocking::attention(&device.attention, &device.queue, &case.problem, &case.inputs()).unwrap();
        let view = case.view(Operand::Out);
        assert_eq!(ran.out.len() as u64, view.end());
        assert_eq!(ran.lse.as_ref().map(Vec::len), Some(28));
        assert_eq!(ran.weights.as_ref().map(Vec::len), Some(28 * 9));
        Expected::of(&case).check(&Outputs::of(&case, &ran)).unwrap_or_else(|wrong| panic!("{dtype}: {wrong}"));
    }
}

/// An output without elements is read back all the same.
#[test]
fn nothing_comes_back_as_nothing() {
    let problem = Problem::builder(Shape { len_q: 0, ..Shape::new(1, 2, 3, 8) }).lse();
    let case = drawn(problem, Fill::Normal, 18);
    let device = &all()[0];
    let _guard = device.enter();
    let ran = blocking::attention(&device.attention, &device.queue, &case.problem, &case.inputs()).unwrap();
    assert_eq!((ran.out.len(), ran.lse.map(|lse| lse.len()), ran.weights), (0, Some(0), None));
}
