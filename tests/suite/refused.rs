//! Results of work that never ran: each is an error, never zeros.

use std::sync::{Arc, Mutex};

use wgpu::{Device, PollType, Queue};
use wgpu_attention::blocking::{self, RunError};
use wgpu_attention::{
    Attention, BindError, Inputs, Operand, PlanError, Problem, Readback, ReadbackError, Shape, testing,
};

fn problem() -> Problem {
    Problem::builder(Shape::new(1, 1, 4, 32)).build().unwrap()
}

/// Opens a new device for each test here, because the test spoils it. Has an error handler, as apps do.
fn open(adapter: &wgpu::Adapter) -> (Device, Queue, Arc<Mutex<Vec<String>>>) {
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let handler = heard.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| handler.lock().unwrap().push(error.to_string())));
    (device, queue, heard)
}

fn each_adapter(mut act: impl FnMut(&Device, &Queue, &Mutex<Vec<String>>)) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    for adapter in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())) {
        let (device, queue, heard) = open(&adapter);
        act(&device, &queue, &heard);
    }
}

/// What spoils a submission.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spoiled {
    Nothing,
    /// The buffer of an operand is destroyed before the submit.
    Destroyed(Operand),
    /// The app's own pass in the same encoder is invalid.
    OtherPass,
    /// Another command buffer of the same submit is invalid.
    OtherCommands,
}

#[test]
fn a_readback_of_commands_that_never_ran_is_an_error() {
    let (problem, ones) = (problem(), vec![1.0; 128]);
    each_adapter(|device, queue, heard| {
        let plan = Attention::new(device).plan(&problem).unwrap();
        let destroyed = [Operand::Q, Operand::K, Operand::Out].map(Spoiled::Destroyed);
        for spoiled in destroyed.into_iter().chain([Spoiled::OtherPass, Spoiled::OtherCommands, Spoiled::Nothing]) {
            let inputs = Inputs { q: &ones, k: &ones, v: &ones, ..Inputs::default() };
            let buffers = inputs.upload(device, &problem).unwrap();
            let call = plan.bind(&buffers.operands()).unwrap();
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut other = device.create_command_encoder(&Default::default());
            call.encode(&mut encoder);
            let invalid = match spoiled {
                Spoiled::OtherPass => Some(&mut encoder),
                Spoiled::OtherCommands => Some(&mut other),
                _ => None,
            };
            if let Some(encoder) = invalid {
                // No pipeline is set.
                encoder.begin_compute_pass(&Default::default()).dispatch_workgroups(1, 1, 1);
            }
            let out = buffers.get(Operand::Out).unwrap();
            let readback = Readback::record(device, &mut encoder, out.as_entire_buffer_binding()).unwrap();
            if let Spoiled::Destroyed(operand) = spoiled {
                buffers.get(operand).unwrap().destroy();
            }
            queue.submit([other.finish(), encoder.finish()]);
            device.poll(PollType::wait_indefinitely()).unwrap();
            let got = pollster::block_on(readback.values(problem.dtype(Operand::Out).unwrap_or_default()));
            if spoiled == Spoiled::Nothing {
                assert!(got.unwrap().iter().all(|&x| x == 1.0));
                assert_eq!(*heard.lock().unwrap(), [""; 0]);
            } else {
                assert_eq!(got, Err(ReadbackError::NeverRan), "{spoiled:?}");
                assert!(!heard.lock().unwrap().is_empty(), "{spoiled:?}: wgpu tells the app the reason");
                heard.lock().unwrap().clear();
            }
        }
    });
}

#[test]
fn a_kernel_that_the_driver_refuses_is_an_error_and_is_compiled_again() {
    let (problem, ones) = (problem(), vec![1.0; 128]);
    let inputs = Inputs { q: &ones, k: &ones, v: &ones, ..Inputs::default() };
    each_adapter(|device, queue, heard| {
        let attention = Attention::new(device);
        let [variant, other] = &attention.candidates(&problem).unwrap()[..2] else { unreachable!("a slice of two") };
        let before = attention.plan_variant(&problem, variant).unwrap();
        // As if the driver failed on a kernel: its pipeline is invalid.
        let refuse = || assert!(testing::substitute(&attention, variant, "fn main() {}".to_owned()).is_some());
        refuse();
        // Other kernels, and plans that were made before, are as they were.
        assert_eq!(pollster::block_on(attention.plan_variant(&problem, other).unwrap().ready()), Ok(()));
        assert_eq!(pollster::block_on(before.ready()), Ok(()));
        let error = attention.plan_variant(&problem, variant).unwrap_err();
        assert!(matches!(&error, PlanError::Refused { variant: named, .. } if named == variant), "{error:?}");
        // The next plan compiles it again.
        assert_eq!(pollster::block_on(attention.plan_variant(&problem, variant).unwrap().ready()), Ok(()));

        refuse();
        let error = blocking::attention_with(&attention, queue, &problem, &inputs, variant).unwrap_err();
        assert!(matches!(&error, RunError::Refused(why) if why.contains(&variant.to_string())), "{error:?}");
        refuse();
        let error = blocking::tune(&attention, queue, &problem).unwrap_err();
        assert!(matches!(error, RunError::Refused(_)), "{error:?}");
        let again = blocking::attention_with(&attention, queue, &problem, &inputs, variant).unwrap();
        assert!(again.out.iter().all(|&x| x == 1.0));
        // The errors were returned, so the app's handler heard none.
        assert_eq!(*heard.lock().unwrap(), [""; 0]);
    });
}

#[test]
fn a_device_lost_at_any_moment_is_an_error() {
    // Long enough that the keys are staged or split, which takes scratch.
    let problem = Problem::builder(Shape::new(1, 1, 64, 32).kv_len(1024)).build().unwrap();
    let ones = vec![1.0; 32 * 1024];
    let inputs = Inputs { q: &ones, k: &ones, v: &ones, ..Inputs::default() };
    each_adapter(|device, queue, _| {
        let attention = Attention::new(device);
        let plan = attention.plan(&problem).unwrap();
        let buffers = inputs.upload(device, &problem).unwrap();
        let call = plan.bind(&buffers.operands()).unwrap();
        assert!(plan.scratch_bytes() > 0);
        device.destroy();
        let late_call = plan.bind(&buffers.operands()).unwrap();

        // Between upload and recording.
        let mut encoder = device.create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        late_call.encode(&mut encoder);
        let out = buffers.get(Operand::Out).unwrap();
        let readback = Readback::record(device, &mut encoder, out.as_entire_buffer_binding());
        let error = readback.map(|readback| {
            queue.submit([encoder.finish()]);
            let _ = device.poll(PollType::wait_indefinitely());
            pollster::block_on(readback.bytes()).unwrap_err()
        });
        assert!(matches!(error, Ok(_) | Err(ReadbackError::DeviceLost)), "{error:?}");

        // And before the upload and before planning.
        assert_eq!(inputs.upload(device, &problem).unwrap_err(), BindError::DeviceLost { operand: Operand::Q });
        assert_eq!(attention.plan(&problem).unwrap_err(), PlanError::DeviceLost);
        let error = blocking::attention(&attention, queue, &problem, &inputs).unwrap_err();
        assert!(matches!(error, RunError::Plan(PlanError::DeviceLost) | RunError::Refused(_)), "{error:?}");
        assert!(blocking::tune(&attention, queue, &problem).is_err());
    });
}
