//! How fast attention runs on a device, beside limits measured on that device in the same run.
//!
//! The data flows through the modules in this order: what to measure (`options`, `workload`, `suites`), on what
//! ([`device`], `input`), how (`timer`, `samples`, `limits`, `guard`, `measure`), and what is told of it (`row`, `table`,
//! `plot`).

mod options;
mod suites;
mod workload;

pub mod device;
mod input;

mod guard;
mod limits;
mod measure;
mod samples;
mod timer;

mod plot;
mod report;
mod row;
mod table;

pub use device::Gpu;
pub use options::{Options, Suite};
pub use report::run;
pub use row::Row;
pub use workload::Workload;

/// What the harness asks of an adapter beside what the kernels use: its clock, and its widest reads.
pub const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SHADER_INT64);
