//! Running a plan on burn's own buffers, in order with burn's own work, without waiting.
//!
//! One thread per device works off burn's tasks: it encodes them, and submits from time to time. A call of attention is a
//! task of that thread too. It submits what burn has encoded so far, resolves the buffers, and submits its own encoder. Who
//! called attention waits for none of this, unlike with `Client::get_resource`, which waits until that thread has worked
//! off all that is before it.

use std::sync::Arc;

use burn::backend::Device as _;
use burn_cubecl::cubecl::device::WgpuDevice;
use burn_cubecl::cubecl::device_handle::DeviceHandle;
use burn_cubecl::cubecl::server::{BufferBinding, ServerError, ServerStorage};
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use burn_cubecl::tensor::CubeTensor;
use cubecl_environment::backtrace::BackTrace;
use cubecl_environment::stream::StreamId;
use cubecl_server::id::KernelId;
use cubecl_server::server::Server;
use cubecl_server::storage::ManagedResource;
use cubecl_server::stream::{ExecuteScope, ScopedOutcome, WriteScoped, failed_writing};
use wgpu_attention::{Operand, Operands, Plan};

use crate::device::Attached;

type Runner = WgpuServer<AutoCompiler>;

/// A tensor that a call binds.
pub(crate) struct Bound {
    operand: Operand,
    binding: BufferBinding,
    /// Where the plan has its first element, counted from the binding.
    first: u64,
    element_bytes: u64,
}

impl Bound {
    pub(crate) fn new(operand: Operand, tensor: &CubeTensor, attached: &Attached) -> Self {
        let element_bytes = tensor.dtype.size() as u64;
        let first = first_element(tensor, attached);
        Self { operand, binding: tensor.handle.clone().binding(), first, element_bytes }
    }
}

/// The index of a tensor's first element, counted from the last byte before it at which a buffer can be bound. burn's
/// allocations begin at such bytes.
pub(crate) fn first_element(tensor: &CubeTensor, attached: &Attached) -> u64 {
    let alignment = attached.attention().caps().binding_alignment.max(1);
    tensor.handle.offset_start.unwrap_or(0) % alignment / tensor.dtype.size() as u64
}

/// Runs a plan after all that burn was asked to do before, and before all that it is asked to do after. If an input was
/// never computed because of an error, the outputs are not either, and burn reports that error when they are read.
pub(crate) fn launch(
    device: &WgpuDevice,
    attached: Arc<Attached>,
    plan: Plan,
    inputs: Vec<Bound>,
    outputs: Vec<Bound>,
) {
    let Some(stream) = outputs.first().map(|output| output.binding.stream) else { return };
    let runner = DeviceHandle::<Runner>::new(device.to_id());
    runner.submit(move |server| {
        let written: Vec<_> = outputs.iter().map(|output| output.binding.clone()).collect();
        // Before the scope: inside it, the outputs count as not written, and cannot be resolved.
        let written_to = match resolve(server, stream, &outputs) {
            Ok(resources) => resources,
            Err(error) => return failed_writing(server, stream, written, error),
        };
        let reads: Vec<_> = inputs.iter().map(|input| input.binding.clone()).collect();
        let scope = ExecuteScope::launching(server, KernelId::new::<Bound>(), stream, reads.iter(), written);
        let outcome = scope.execute(|server| {
            if server.capturing(stream).is_some_and(|capture| capture.is_recording()) {
                return Err(invalid(&"a graph of burn cannot record it"));
            }
            let read = resolve(server, stream, &inputs)?;
            // In cubecl 0.11, resolving has submitted all this already, but it does not promise to.
            for stream in streams(&inputs, &outputs) {
                server.flush(stream)?;
            }
            run(&attached, &plan, inputs.iter().zip(&read).chain(outputs.iter().zip(&written_to)))
        });
        if let ScopedOutcome::Failed(error) = outcome {
            log::error!("attention failed: {error}");
        }
    });
}

/// Where the tensors lie. This also encodes those tasks of burn that are before it.
fn resolve(
    server: &mut Runner,
    stream: StreamId,
    bound: &[Bound],
) -> Result<Vec<ManagedResource<WgpuResource>>, ServerError> {
    bound.iter().map(|bound| server.get_resource(bound.binding.clone(), stream)).collect()
}

/// burn encodes what each of the app's threads asks for separately.
fn streams(inputs: &[Bound], outputs: &[Bound]) -> Vec<StreamId> {
    let mut streams: Vec<_> = inputs.iter().chain(outputs).map(|bound| bound.binding.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    streams
}

fn run<'a>(
    attached: &Attached,
    plan: &Plan,
    bound: impl Iterator<Item = (&'a Bound, &'a ManagedResource<WgpuResource>)>,
) -> Result<(), ServerError> {
    let mut operands = Operands::default();
    for (bound, resource) in bound {
        let WgpuResource { buffer, offset, .. } = resource.resource();
        let (binding, first) =
            attached.attention().binding_at(buffer, *offset, bound.element_bytes).map_err(|error| invalid(&error))?;
        if first != bound.first {
            return Err(invalid(&format!("{} lies at byte {offset} of its buffer", bound.operand.name())));
        }
        operands = operands.with(bound.operand, binding);
    }
    attached.submit(plan, &operands).map_err(|error| invalid(&error))
}

fn invalid(error: &dyn std::fmt::Display) -> ServerError {
    ServerError::Validation { message: format!("attention: {error}"), backtrace: BackTrace::capture() }
}
