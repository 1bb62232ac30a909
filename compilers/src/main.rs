//! What GPU makers' compilers make of the kernels; see [`linux`]. Mesa's drivers and shims are for Linux.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    linux::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("this program is for Linux on x86-64, where Mesa's drivers compile for GPUs that are not there");
    std::process::exit(1);
}
