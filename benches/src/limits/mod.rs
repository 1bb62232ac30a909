//! The limits of the device, measured in WGSL like everything else: multiply-adds in registers, reading, copying, and an
//! empty dispatch. They are measured again with each shape, because a machine's speed changes within a run.

mod copy;
mod fma;
mod kernel;
mod matrix;
mod read;

use anyhow::Result;
pub(crate) use read::Reader;

use crate::Gpu;
use crate::samples::{Effort, Samples};
use crate::timer::Timer;
use copy::Copier;
use fma::Multiplier;
use kernel::Kernel;
use matrix::MatrixMultiplier;

/// The fastest form of each probe on this device.
#[derive(Debug)]
pub(crate) struct Probes<'a> {
    gpu: &'a Gpu,
    multiplier: Multiplier,
    matrix: Option<MatrixMultiplier>,
    reader: Reader,
    copier: Copier,
    empty: Kernel,
}

/// What the probes measured: for each, the time that a known amount of work takes.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    fma: Rate,
    matrix: Option<Rate>,
    read: Rate,
    copy: Rate,
    dispatch: Samples,
}

/// An amount of work, and the times that it took.
#[derive(Clone, Debug)]
struct Rate {
    amount: f64,
    seconds: Samples,
}

impl<'a> Probes<'a> {
    /// Tries the forms of each probe and keeps the fastest.
    pub(crate) fn new(gpu: &'a Gpu, timer: &Timer<'_>) -> Result<Self> {
        let multiplier = Multiplier::fastest(gpu, timer)?;
        let matrix = MatrixMultiplier::fastest(gpu, timer)?;
        let reader = Reader::fastest(gpu, timer)?;
        let copier = Copier::new(gpu, reader.buffer());
        let empty = Kernel::new(gpu, "empty", EMPTY, &[]);
        gpu.take_errors()?;
        Ok(Self { gpu, multiplier, matrix, reader, copier, empty })
    }

    pub(crate) fn measure(&self, timer: &Timer<'_>) -> Result<Limits> {
        let fma = Samples::of(Effort::LIMIT, || self.multiplier.seconds(timer))?;
        let matrix = self.matrix.as_ref().map(|matrix| -> Result<Rate> {
            let seconds = Samples::of(Effort::LIMIT, || matrix.seconds(timer))?;
            Ok(Rate { amount: matrix.flop(), seconds })
        });
        let read = Samples::of(Effort::LIMIT, || self.reader.seconds(timer))?;
        let copy = Samples::timed(Effort::LIMIT, || self.copier.copy(self.gpu))?;
        let dispatch = Samples::timed(Effort::HOST, || self.dispatch())?;
        self.gpu.take_errors()?;
        Ok(Limits {
            fma: Rate { amount: self.multiplier.flop(), seconds: fma },
            matrix: matrix.transpose()?,
            read: Rate { amount: self.reader.bytes(), seconds: read },
            copy: Rate { amount: self.copier.bytes(), seconds: copy },
            dispatch,
        })
    }

    /// Reads more than the caches hold, so that nothing else is in them.
    pub(crate) fn sweep(&self, timer: &Timer<'_>) -> Result<()> {
        self.reader.seconds(timer).map(|_| ())
    }

    /// The forms that were fastest, in words.
    pub(crate) fn describe(&self) -> String {
        let matrix = self.matrix.as_ref().map_or_else(String::new, |matrix| format!("cooperative {}, ", matrix.name()));
        format!("multiply-add {}, {matrix}read {}", self.multiplier.name(), self.reader.name())
    }

    fn dispatch(&self) -> Result<()> {
        let Gpu { device, queue, .. } = self.gpu;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.empty.dispatch(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), 1);
        queue.submit([encoder.finish()]);
        self.gpu.wait()
    }
}

const EMPTY: &str = "@compute @workgroup_size(1) fn main() {}";

impl Limits {
    /// Combines the measurements before and after something.
    pub(crate) fn around(&self, after: &Self) -> Self {
        Self {
            fma: self.fma.and(&after.fma),
            matrix: self.matrix.as_ref().zip(after.matrix.as_ref()).map(|(before, after)| before.and(after)),
            read: self.read.and(&after.read),
            copy: self.copy.and(&after.copy),
            dispatch: self.dispatch.and(&after.dispatch),
        }
    }

    /// f32 multiply-adds in registers, two operations each.
    pub(crate) fn fma_tflops(&self) -> f64 {
        self.fma.per_second() * 1e-12
    }

    /// Cooperative multiplications of f16 into f32 in registers, where the device has a matrix unit.
    pub(crate) fn matrix_tflops(&self) -> Option<f64> {
        self.matrix.as_ref().map(|rate| rate.per_second() * 1e-12)
    }

    /// Reading a buffer larger than the caches.
    pub(crate) fn read_gbps(&self) -> f64 {
        self.read.per_second() * 1e-9
    }

    /// `copy_buffer_to_buffer`, bytes read and bytes written.
    pub(crate) fn copy_gbps(&self) -> f64 {
        self.copy.per_second() * 1e-9
    }

    /// Recording, submitting and awaiting a dispatch that does nothing.
    pub(crate) fn dispatch_us(&self) -> f64 {
        self.dispatch.median() * 1e6
    }
}

impl Rate {
    fn and(&self, other: &Self) -> Self {
        Self { amount: self.amount, seconds: self.seconds.and(&other.seconds) }
    }

    fn per_second(&self) -> f64 {
        self.amount / self.seconds.median().max(1e-9)
    }
}

/// The device counts as filled when a run takes this many seconds.
const FILLED: f64 = 4e-3;

/// How many workgroups of a kernel fill the device.
fn filling(kernel: &Kernel, timer: &Timer<'_>) -> Result<u32> {
    let seconds = |workgroups| timer.pass(|pass| kernel.dispatch(pass, workgroups));
    let mut workgroups = 64;
    // The first run compiles.
    seconds(workgroups)?;
    while workgroups <= u32::from(u16::MAX) / 2 && seconds(workgroups)? < FILLED {
        workgroups *= 2;
    }
    Ok(workgroups)
}

/// The form with the highest rate. A form that is far behind at the first try is not tried again.
fn fastest<T>(forms: Vec<T>, amount: fn(&T) -> f64, mut seconds: impl FnMut(&T) -> Result<f64>) -> Result<T> {
    let mut best: Option<(f64, T)> = None;
    for form in forms {
        // The first run compiles.
        seconds(&form)?;
        let amount = amount(&form);
        let mut rate = amount / seconds(&form)?;
        let most = best.as_ref().map_or(0.0, |&(most, _)| most);
        if rate > 0.7 * most {
            rate = rate.max(amount / Samples::of(Effort::LIMIT, || seconds(&form))?.min());
        }
        if rate > most {
            best = Some((rate, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| anyhow::anyhow!("no form of a probe runs on this device"))
}
