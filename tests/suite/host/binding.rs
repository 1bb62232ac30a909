//! What [`Plan::bind`](wgpu_attention::Plan::bind) and the readback accept, to the byte.

use wgpu::{Buffer, BufferBinding, BufferSize, BufferUsages, Device, Queue};
use wgpu_attention::{
    Append, Attention, BindError, BlockMask, Call, Caps, Dtype, Inputs, Layout, Operand, Operands, Plan, Problem,
    Readback, ReadbackError, ScoreLayout, Shape, testing,
};

use super::build;
use crate::record::{noop, without_error};

fn buffer(device: &Device, size: u64) -> Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

fn range(buffer: &Buffer, offset: u64, size: Option<u64>) -> BufferBinding<'_> {
    BufferBinding { buffer, offset, size: size.map(|size| BufferSize::new(size).unwrap()) }
}

/// 3 batches of 2 heads of 7 rows of 5: 840 bytes per operand, and 168 for the LSE.
fn problem() -> Problem {
    build(Problem::builder(Shape::new(3, 2, 7, 5)).lse())
}

struct Fixture {
    device: Device,
    queue: Queue,
    plan: Plan,
    inputs: [Buffer; 3],
}

impl Fixture {
    fn new(problem: &Problem) -> Self {
        let (device, queue) = noop();
        let plan = Attention::new(&device).plan(problem).unwrap();
        let inputs = [(); 3].map(|()| buffer(&device, 4096));
        Self { device, queue, plan, inputs }
    }

    fn bind(&self, out: BufferBinding<'_>, lse: BufferBinding<'_>) -> Result<Call, BindError> {
        let [q, k, v] = self.inputs.each_ref().map(Buffer::as_entire_buffer_binding);
        without_error(&self.device, || self.plan.bind(&Operands::new(q, k, v, out).with(Operand::Lse, lse)))
    }
}

/// Attention reads what another plan appends, and binds nothing new.
#[test]
fn attention_binds_nothing_that_is_appended() {
    let shape = Shape::new(3, 2, 7, 5);
    let fixture = Fixture::new(&build(Problem::builder(shape).lse().append(Append::default())));
    let [out, lse] = [840, 168].map(|size| buffer(&fixture.device, size));
    assert!(fixture.bind(out.as_entire_buffer_binding(), lse.as_entire_buffer_binding()).is_ok());
}

/// A plan of gradients, of appending or of a block mask is one for other lengths, too.
#[test]
fn a_resized_plan_computes_what_it_did() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let shape = Shape::new(1, 2, 7, 5);
    let gradients = build(Problem::builder(shape).lse()).gradients().build().unwrap();
    let appending = build(Problem::builder(shape).append(Append::default()));
    let tiles = build(Problem::builder(shape).block_mask(BlockMask::new(32, 32)));
    for (plan, last) in [
        (attention.plan_gradients(&gradients).unwrap(), "gradient_values"),
        (attention.plan_append(&appending).unwrap(), "append"),
        (attention.plan_block_mask(&tiles).unwrap(), "block_mask"),
    ] {
        let resized = plan.resized(9, 11).unwrap();
        let Shape { len_q, len_kv, .. } = resized.problem().shape();
        assert_eq!([len_q, len_kv], [9, 11]);
        assert_eq!(resized.variants().last().map(testing::schedule), Some(last));
    }
}

#[test]
fn a_binding_ends_where_it_says_and_where_its_buffer_does() {
    let fixture = Fixture::new(&problem());
    let (exact, long, lse) =
        (buffer(&fixture.device, 840), buffer(&fixture.device, 4096), buffer(&fixture.device, 168));
    let bind = |out| fixture.bind(out, lse.as_entire_buffer_binding()).map(|_| ());
    let too_small = |got| Err(BindError::TooSmall { operand: Operand::Out, need: 840, got });
    for fits in [range(&exact, 0, None), range(&long, 256, None), range(&long, 3072, Some(840))] {
        assert_eq!(bind(fits.clone()), Ok(()), "{fits:?}");
    }
    for (short, got) in [
        (range(&long, 0, Some(836)), 836),
        (range(&long, 0, Some(839)), 839),
        (range(&long, 3328, None), 768),
        // Its size is past the buffer's end, which wgpu would find only when it is bound.
        (range(&long, 3328, Some(840)), 768),
        (range(&exact, 256, Some(4096)), 584),
        (range(&exact, 1024, None), 0),
        (range(&exact, 1024, Some(840)), 0),
    ] {
        assert_eq!(bind(short.clone()), too_small(got), "{short:?}");
    }
}

#[test]
fn outputs_may_share_a_buffer_but_no_byte() {
    let fixture = Fixture::new(&problem());
    let shared = buffer(&fixture.device, 4096);
    let bind = |out, lse| fixture.bind(range(&shared, out, None), range(&shared, lse, None)).map(|_| ());
    let aliased = Err(BindError::Aliased { output: Operand::Out, other: Operand::Lse });
    // 840 bytes of output reach into the fourth 256, and 168 of LSE end before the next.
    for (out, lse, wanted) in [
        (0, 1024, Ok(())),
        (256, 0, Ok(())),
        (1024, 2048, Ok(())),
        (0, 0, aliased),
        (0, 256, aliased),
        (0, 768, aliased),
        (512, 768, aliased),
        (768, 1536, aliased),
    ] {
        assert_eq!(bind(out, lse), wanted, "out at {out}, lse at {lse}");
    }
    // 8 · 8 bytes of LSE and 8 · 8 · 8 of the output end where the other begins.
    let fixture = Fixture::new(&build(Problem::builder(Shape::new(8, 8, 1, 8)).lse()));
    let shared = buffer(&fixture.device, 4096);
    let bind = |out, lse| fixture.bind(range(&shared, out, None), range(&shared, lse, None)).map(|_| ());
    assert_eq!((bind(0, 2048), bind(256, 0)), (Ok(()), Ok(())), "they touch and do not overlap");
    assert_eq!((bind(0, 1792), bind(2048, 2048)), (aliased, aliased));
}

#[test]
fn an_output_shares_no_buffer_with_an_input() {
    let fixture = Fixture::new(&problem());
    let (out, lse) = (buffer(&fixture.device, 840), buffer(&fixture.device, 168));
    for (n, input) in [Operand::Q, Operand::K, Operand::V].into_iter().enumerate() {
        // Far apart: wgpu tracks whole buffers.
        let far = range(&fixture.inputs[n], 2048, None);
        let error = fixture.bind(far.clone(), lse.as_entire_buffer_binding()).unwrap_err();
        assert_eq!(error, BindError::Aliased { output: Operand::Out, other: input });
        let error = fixture.bind(out.as_entire_buffer_binding(), far).unwrap_err();
        assert_eq!(error, BindError::Aliased { output: Operand::Lse, other: input });
    }
    // Inputs may share theirs.
    let q = &fixture.inputs[0];
    let [a, b, c] = [0, 1024, 1024].map(|offset| range(q, offset, None));
    let operands = Operands::new(a, b, c, out.as_entire_buffer_binding());
    fixture.plan.bind(&operands.with(Operand::Lse, lse.as_entire_buffer_binding())).unwrap();
}

#[test]
fn what_has_no_elements_may_lie_anywhere() {
    let fixture = Fixture::new(&build(Problem::builder(Shape::new(3, 2, 7, 5).kv_len(0)).lse()));
    let (out, lse) = (buffer(&fixture.device, 840), buffer(&fixture.device, 168));
    let whole = Buffer::as_entire_buffer_binding;
    let operands = Operands::new(whole(&fixture.inputs[0]), whole(&out), whole(&lse), whole(&out));
    // wgpu finds a buffer that is both read and written only in a pass.
    without_error(&fixture.device, || {
        let call = fixture.plan.bind(&operands.with(Operand::Lse, whole(&lse))).unwrap();
        let mut encoder = fixture.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        call.encode(&mut encoder);
        fixture.queue.submit([encoder.finish()]);
    });
}

#[test]
fn a_binding_starts_where_the_device_binds() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let alignment = attention.caps().binding_alignment;
    let plan = attention.plan(&build(Problem::builder(Shape::new(1, 1, 7, 5)))).unwrap();
    let [q, k, v, out] = [(); 4].map(|()| buffer(&device, 4 * alignment));
    for (offset, is_aligned) in [(0, true), (alignment, true), (alignment - 4, false), (alignment + 4, false)] {
        let k = range(&k, offset, None);
        let whole = Buffer::as_entire_buffer_binding;
        let bound = plan.bind(&Operands::new(whole(&q), k, whole(&v), whole(&out))).map(|_| ());
        let misaligned = BindError::Misaligned { operand: Operand::K, offset, alignment };
        assert_eq!(bound, if is_aligned { Ok(()) } else { Err(misaligned) });
    }
}

/// A caller may say that a device binds anywhere.
#[test]
fn without_an_alignment_a_binding_starts_at_its_byte() {
    let (device, _queue) = noop();
    let buffer = buffer(&device, 4096);
    for alignment in [0, 1] {
        let mut caps = Caps::of(&device);
        caps.binding_alignment = alignment;
        let (binding, first) = Attention::with_caps(&device, caps).binding_at(&buffer, 1003, 4).unwrap();
        assert_eq!((binding.offset, first), (1003, 0));
    }
}

#[test]
fn host_slices_end_no_sooner_than_their_layouts() {
    // The last element of each, and one too few.
    let layout = Layout { offset: 3, batch: 80, head: 40, row: 6 };
    let problem = build(Problem::builder(Shape::new(2, 2, 6, 5)).dtype(Dtype::F16).q(layout).kv_lengths().lse());
    let (q, kv) = (vec![1.0; 3 + 80 + 40 + 30 + 5], vec![1.0; 120]);
    let whole = Inputs { q: &q, k: &kv, v: &kv, kv_lengths: Some(&[6, 6]), ..Inputs::default() };
    assert_eq!(whole.check(&problem), Ok(()));
    let short = |operand, need, got| Err(BindError::TooShort { operand, need, got });
    assert_eq!(Inputs { q: &q[1..], ..whole }.check(&problem), short(Operand::Q, 158, 157));
    let (device, _queue) = noop();
    let refused = Inputs { q: &q[1..], ..whole }.upload(&device, &problem).map(|_| ());
    assert_eq!(refused, short(Operand::Q, 158, 157), "nothing is uploaded");
    assert_eq!(Inputs { k: &kv[1..], ..whole }.check(&problem), short(Operand::K, 120, 119));
    assert_eq!(Inputs { kv_lengths: Some(&[6]), ..whole }.check(&problem), short(Operand::KvLengths, 2, 1));
    let missing = Inputs { kv_lengths: None, ..whole };
    assert_eq!(missing.check(&problem), Err(BindError::Missing { operand: Operand::KvLengths }));

    // An uploaded buffer has the size that is bound, and the usages that the caller may need.
    let (device, _queue) = noop();
    let buffers = without_error(&device, || whole.upload(&device, &problem).unwrap());
    for (operand, size) in [(Operand::Q, 316), (Operand::Out, 240), (Operand::Lse, 96), (Operand::KvLengths, 8)] {
        let buffer = buffers.get(operand).unwrap();
        assert_eq!(buffer.size(), size, "{operand}");
        assert_eq!(buffer.usage(), BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST);
    }
    assert!(buffers.get(Operand::Mask).is_none());
}

/// wgpu binds whole words, and at least one.
#[test]
fn an_uploaded_buffer_has_whole_words() {
    let (device, _queue) = noop();
    let size = |len_kv: u32| {
        let mask = ScoreLayout::broadcast([1, 1, 1, len_kv]);
        let problem = build(Problem::builder(Shape::new(1, 1, 1, 1).kv_len(len_kv)).dtype(Dtype::F16).mask(mask));
        let kv = vec![1.0; len_kv as usize];
        let mask = vec![true; len_kv as usize];
        let inputs = Inputs { q: &[1.0], k: &kv, v: &kv, mask: Some(&mask), ..Inputs::default() };
        let buffers = without_error(&device, || inputs.upload(&device, &problem).unwrap());
        [Operand::K, Operand::Mask].map(|operand| buffers.get(operand).unwrap().size())
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(size), [[4, 4], [4, 4], [4, 4], [8, 4], [8, 4], [12, 8]]);
}

#[test]
fn a_readback_takes_what_a_copy_accepts() {
    let (device, queue) = noop();
    let source = buffer(&device, 64);
    let read = |offset, size| {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let readback = Readback::record(&device, &mut encoder, range(&source, offset, size)).ok()?;
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        Some(pollster::block_on(readback.bytes()).unwrap().len())
    };
    let read = |offset, size| without_error(&device, || read(offset, size));
    for (offset, size, len) in [(0, None, 64), (0, Some(64), 64), (60, None, 4), (60, Some(4), 4), (8, Some(12), 12)] {
        assert_eq!(read(offset, size), Some(len), "{size:?} at {offset}");
    }
    let refused =
        [(64, None), (68, None), (60, Some(8)), (2, Some(4)), (2, None), (4, Some(6)), (u64::MAX - 3, Some(4))];
    for (offset, size) in refused {
        assert_eq!(read(offset, size), None, "{size:?} at {offset}");
    }
    let refusal = |buffer: &Buffer, offset, size| {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Readback::record(&device, &mut encoder, range(buffer, offset, size)).err()
    };
    // From past the end there is nothing to read, rather than a number that has wrapped around.
    let nothing = ReadbackError::Range { offset: 68, size: 0, buffer: 64 };
    assert_eq!(refusal(&source, 68, None), Some(nothing));
    // A buffer may end within a word.
    let odd = buffer(&device, 63);
    let past = ReadbackError::Range { offset: 0, size: 64, buffer: 63 };
    assert_eq!((refusal(&odd, 0, Some(60)), refusal(&odd, 0, Some(64))), (None, Some(past)));
}
