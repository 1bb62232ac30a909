//! Measures how fast attention runs on a device, next to limits measured on that device in the same run.
//!
//! The data flows through the modules in this order: what to measure (`options`, `workload`, `suites`), on what
//! ([`device`], `input`), how (`timer`, `samples`, `limits`, `guard`, `measure`, `backward`, `serving`), and how it is reported (`report`, `row`,
//! `table`, `plot`).

mod options;
mod suites;
mod workload;

pub mod device;
mod input;

mod backward;
mod serving;
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
pub use serving::Comparison;
pub use workload::Workload;

/// The features that only the harness uses: timestamps, and 64-bit integers for the widest reads.
pub const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SHADER_INT64);
