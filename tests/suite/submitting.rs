//! The functions that submit and are awaited, on every adapter, polled as a frame loop would: they give what the blocking
//! ones give, and an app that loses its device or its patience meanwhile is no worse off.

use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use truth::{Case, Fill};
use wgpu::{Adapter, Device, Features, PollType, Queue};
use wgpu_attention::submitting::{self, RunError};
use wgpu_attention::{
    Attention, BlockMask, Caps, Dtype, Fragment, Inputs, MatrixUnit, Multiplier, Problem, ReadbackError, ScoreLayout,
    Shape, Tiles, Variant, blocking, testing,
};

use crate::case::{drawn, everything};
use crate::device;

/// Polls a future and its device in turn, without waiting for either. Returns the result and how often the future waited.
fn in_frames<T>(device: &Device, work: impl Future<Output = T>) -> (T, usize) {
    let mut work = pin!(work);
    let mut waits = 0;
    loop {
        if let Poll::Ready(done) = polled(work.as_mut()) {
            return (done, waits);
        }
        waits += 1;
        // It fails if the device is lost, and then the future must end by itself.
        let _ = device.poll(PollType::Poll);
        assert!(waits < 10_000_000, "the future never ends");
        std::thread::yield_now();
    }
}

fn polled<T>(work: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    work.poll(&mut Context::from_waker(Waker::noop()))
}

/// Opens each adapter anew, with or without timestamps. Also returns what the app's error handler has heard.
fn each_adapter(features: Features, mut act: impl FnMut(&Adapter, &Device, &Queue, &Mutex<Vec<String>>)) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    for adapter in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())) {
        let required_features = adapter.features() & features;
        let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let handler = heard.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| handler.lock().unwrap().push(error.to_string())));
        act(&adapter, &device, &queue, &heard);
    }
}

fn problem() -> Problem {
    Problem::builder(Shape::new(1, 1, 4, 32)).build().unwrap()
}

/// An error that is the app's own.
fn blunder(device: &Device) {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::STORAGE;
    let _ = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false });
}

const fn is_send<T: Send>(_: &T) {}

/// Compiles only if every future may move to another thread.
#[test]
fn futures_are_send() {
    let (device, queue) = Device::noop(&wgpu::DeviceDescriptor::default());
    let (attention, problem, inputs) = (Attention::new(&device), problem(), Inputs::default());
    is_send(&submitting::tune(&attention, &queue, &problem));
    is_send(&submitting::attention(&attention, &queue, &problem, &inputs));
    is_send(&submitting::block_mask(&attention, &queue, &problem, &inputs));
    let variant = &attention.candidates(&problem).unwrap()[0];
    is_send(&submitting::attention_with(&attention, &queue, &problem, &inputs, variant));
    let unit =
        MatrixUnit { fragment: Fragment::Side8, subgroup: 32, tiles: Tiles::Scalars, multiplier: Multiplier::Emulated };
    is_send(&submitting::try_matrix_unit(&device, &queue, unit));
    let plan = attention.plan(&problem).unwrap();
    is_send(&plan.ready());
    is_send(&plan);
    each_adapter(Features::empty(), |adapter, device, queue, _| {
        is_send(&submitting::matrix_unit(adapter, device, queue));
    });
}

#[test]
fn tuning_in_frames_times_what_blocking_times() {
    let problem = everything(Shape::new(1, 4, 20, 32).kv_heads(2).kv_len(70), Dtype::F32).build().unwrap();
    for device in device::all() {
        let _guard = device.enter();
        let of = |tuning: &submitting::Tuning| -> HashSet<Variant> {
            tuning.rows().iter().map(|(variant, _)| variant.clone()).collect()
        };
        let blocked = blocking::tune(&device.attention, &device.queue, &problem).unwrap();
        let tuning = submitting::tune(&device.attention, &device.queue, &problem);
        let (tuning, waits) = in_frames(device.attention.device(), tuning);
        let tuning = tuning.unwrap();
        assert_eq!(of(&tuning), of(&blocked), "{}", device.name);
        assert!(tuning.rows().is_sorted_by_key(|(_, time)| time), "{tuning:?}");
        assert!(tuning.rows().iter().all(|(_, time)| !time.is_zero()), "{tuning:?}");
        // Each candidate runs at least twice.
        assert!(waits >= 2 * tuning.rows().len(), "{waits} on {}", device.name);
    }
}

/// A frame is as long as a whole tuning would take. The device's own times do not depend on it.
#[test]
fn timestamps_do_not_depend_on_how_often_the_device_is_polled() {
    let frame = std::time::Duration::from_millis(30);
    each_adapter(Features::TIMESTAMP_QUERY, |adapter, device, queue, heard| {
        let attention = Attention::new(device);
        let problem = problem();
        let mut tuning = pin!(submitting::tune(&attention, queue, &problem));
        let tuning = loop {
            if let Poll::Ready(tuning) = polled(tuning.as_mut()) {
                break tuning.unwrap();
            }
            std::thread::sleep(frame);
            device.poll(PollType::Poll).unwrap();
        };
        // Some drivers have timestamps that do not tell the time.
        let has_stamps = device.features().contains(Features::TIMESTAMP_QUERY);
        let is_vulkan = adapter.get_info().backend == wgpu::Backend::Vulkan;
        for (variant, time) in tuning.rows() {
            eprintln!("{variant}: {time:?} on {}", adapter.get_info().name);
            assert!(!(has_stamps && is_vulkan) || *time < frame, "{variant}: {time:?}");
            assert!(has_stamps || *time >= frame, "{variant}: {time:?}");
        }
        assert_eq!(*heard.lock().unwrap(), [""; 0]);
    });
}

/// Results have the same bits, and refusals the same reasons.
#[test]
fn results_in_frames_are_those_of_blocking() {
    let masked = Problem::builder(Shape::new(2, 2, 40, 32)).mask(ScoreLayout::broadcast([1, 1, 40, 40]));
    let case: Case = drawn(masked.block_mask(BlockMask::new(32, 32)).lse().weights(), Fill::Normal, 90);
    let unmasked = Problem::builder(case.problem.shape()).build().unwrap();
    for device in device::all() {
        let _guard = device.enter();
        let (attention, queue, inputs) = (&device.attention, &device.queue, case.inputs());
        let blocked = blocking::attention(attention, queue, &case.problem, &inputs);
        let work = submitting::attention(attention, queue, &case.problem, &inputs);
        assert_eq!(in_frames(attention.device(), work).0.unwrap(), blocked.unwrap());
        let blocked = blocking::block_mask(attention, queue, &case.problem, &inputs);
        let work = submitting::block_mask(attention, queue, &case.problem, &inputs);
        assert_eq!(in_frames(attention.device(), work).0, blocked);
        let work = submitting::block_mask(attention, queue, &unmasked, &inputs);
        assert!(matches!(in_frames(attention.device(), work).0, Err(RunError::Plan(_))));
    }
}

#[test]
fn a_matrix_unit_found_in_frames_is_that_of_blocking() {
    each_adapter(Caps::FEATURES, |adapter, device, queue, _| {
        let blocked = blocking::matrix_unit(adapter, device, queue);
        assert_eq!(in_frames(device, submitting::matrix_unit(adapter, device, queue)).0, blocked);
    });
    for device in device::with_real_matrices() {
        let (unit, device, queue) =
            (device.attention.caps().matrix_unit.unwrap(), device.attention.device(), &device.queue);
        let (tried, waits) = in_frames(device, submitting::try_matrix_unit(device, queue, unit));
        assert_eq!(tried, Ok(()));
        assert!(waits >= 2, "{waits}");
    }
}

/// At its first wait, in the first runs, and between candidates.
#[test]
fn a_device_lost_meanwhile_is_an_error() {
    for frames in [1, 2, 30] {
        each_adapter(Features::TIMESTAMP_QUERY, |_, device, queue, _| {
            let (attention, problem) = (Attention::new(device), problem());
            let mut tuning = pin!(submitting::tune(&attention, queue, &problem));
            for _ in 0..frames {
                assert!(polled(tuning.as_mut()).is_pending());
                device.poll(PollType::wait_indefinitely()).unwrap();
            }
            assert!(polled(tuning.as_mut()).is_pending());
            device.destroy();
            let error = in_frames(device, tuning).0.unwrap_err();
            let is_said = matches!(error, RunError::Readback(_) | RunError::Refused(_) | RunError::Plan(_));
            assert!(is_said && error != RunError::Readback(ReadbackError::NeverSubmitted), "{error:?}");
        });
    }
}

#[test]
fn a_future_dropped_halfway_leaves_the_device_as_it_was() {
    let ones = vec![1.0; 128];
    let inputs = Inputs { q: &ones, k: &ones, v: &ones, ..Inputs::default() };
    each_adapter(Features::TIMESTAMP_QUERY, |_, device, queue, heard| {
        let (attention, problem) = (Attention::new(device), problem());
        for frames in [0, 1, 7] {
            let mut tuning = Box::pin(submitting::tune(&attention, queue, &problem));
            assert!(polled(tuning.as_mut()).is_pending());
            for _ in 0..frames {
                device.poll(PollType::wait_indefinitely()).unwrap();
                assert!(polled(tuning.as_mut()).is_pending());
            }
            drop(tuning);
            let outputs = blocking::attention(&attention, queue, &problem, &inputs).unwrap();
            assert!(outputs.out.iter().all(|&x| x == 1.0));
        }
        assert_eq!(*heard.lock().unwrap(), [""; 0]);
        // No scope is left to take it.
        blunder(device);
        assert_eq!(heard.lock().unwrap().len(), 1);
    });
}

#[test]
fn errors_of_the_app_meanwhile_are_its_own() {
    each_adapter(Features::empty(), |_, device, queue, heard| {
        let (attention, problem) = (Attention::new(device), problem());
        let mut tuning = pin!(submitting::tune(&attention, queue, &problem));
        assert!(polled(tuning.as_mut()).is_pending());
        // The app's own scope is open before and closed after the future is polled again.
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        device.poll(PollType::wait_indefinitely()).unwrap();
        assert!(polled(tuning.as_mut()).is_pending());
        blunder(device);
        assert!(pollster::block_on(scope.pop()).is_some());
        blunder(device);
        assert_eq!(heard.lock().unwrap().len(), 1);
        assert!(!in_frames(device, tuning).0.unwrap().rows().is_empty());
        assert_eq!(heard.lock().unwrap().len(), 1);
    });
}

/// The refusal comes at the candidate that is refused, after others have run.
#[test]
fn a_candidate_that_is_refused_halfway_is_an_error() {
    each_adapter(Features::empty(), |_, device, queue, heard| {
        let (attention, problem) = (Attention::new(device), problem());
        let candidates = attention.candidates(&problem).unwrap();
        assert!(testing::substitute(&attention, candidates.last().unwrap(), "fn main() {}".to_owned()).is_some());
        let (tuning, waits) = in_frames(device, submitting::tune(&attention, queue, &problem));
        assert!(matches!(tuning, Err(RunError::Refused(_))), "{tuning:?}");
        assert!(waits >= 2 * (candidates.len() - 1));
        assert_eq!(*heard.lock().unwrap(), [""; 0]);
    });
}
