//! What four GPU makers' compilers make of the kernels, on a machine without their GPUs.
//!
//! Mesa's drivers have the compilers that turn SPIR-V into machine code, and a shim of Mesa's own makes a driver believe that its
//! GPU is there. The program in `compilers/` compiles the kernels on such a device; nothing runs on it. What came of it is kept
//! in `benches/compilers`, and a test compares.

use std::path::{self, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::command::{built, cargo, root, run};
use crate::mesa;
use crate::steps::Steps;

/// Whose compiler.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Maker {
    /// NVIDIA GA102, by NAK
    Nvidia,
    /// AMD Navi 31, by ACO
    Amd,
    /// Apple M1, by Mesa's AGX compiler
    Apple,
    /// Qualcomm Adreno 740, by ir3
    Adreno,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The makers whose compilers to ask. Defaults to all
    #[arg(long = "maker")]
    makers: Vec<Maker>,
    /// The folder to write the records to, as MAKER.json
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the records to benches/compilers, which the test compares with
    #[arg(long, conflicts_with_all = ["json", "arguments"])]
    renew: bool,
    /// What the program that compiles is told, such as `--problem "prefill f16"`; `--help` lists it
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Maker {
    const ALL: [Self; 4] = [Self::Nvidia, Self::Amd, Self::Apple, Self::Adreno];

    const fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
            Self::Apple => "apple",
            Self::Adreno => "adreno",
        }
    }

    /// The driver, its shim, and the variable that chooses the chip.
    const fn driver(self) -> (&'static str, &'static str, (&'static str, &'static str)) {
        match self {
            Self::Nvidia => ("nouveau", "libnouveau_noop_drm_shim.so", ("NOUVEAU_CHIPSET", "172")),
            Self::Amd => ("radeon", "libamdgpu_noop_drm_shim.so", ("AMDGPU_GPU_ID", "navi31")),
            // There is one chip. Its compiler shows machine code only by printing it.
            Self::Apple => ("asahi", "libasahi_noop_drm_shim.so", ("AGX_MESA_DEBUG", "shaders")),
            Self::Adreno => ("freedreno", "libfreedreno_noop_drm_shim.so", ("FD_GPU_ID", "740")),
        }
    }

    /// The program that compiles, under this maker's shim.
    fn program(self) -> Result<Command> {
        let (driver, shim, (variable, value)) = self.driver();
        let mut command = mesa::with_driver(driver, &[shim], built("wgpu-attention-compilers")?.get_program());
        command.env(variable, value).env("MESA_SHADER_CACHE_DISABLE", "true");
        Ok(command)
    }

    /// What it made of the kernels when it was last asked on purpose.
    fn kept(self) -> PathBuf {
        root().join("benches").join("compilers").join(self.name()).with_extension("json")
    }
}

/// Compiles what `options` say, by each maker's compiler.
pub(crate) fn ask(options: &Options) -> Result<()> {
    run(&mut cargo("build --release --package wgpu-attention-compilers".split(' ')))?;
    mesa::unpack()?;
    let makers = if options.makers.is_empty() { &Maker::ALL[..] } else { &options.makers };
    let mut steps = Steps::default();
    for &maker in makers {
        steps.run(format!("{}'s compiler", maker.name()), || {
            let mut program = maker.program()?;
            program.args(&options.arguments);
            if let Some(folder) = &options.json {
                program.arg("--json").arg(path::absolute(folder)?.join(maker.name()).with_extension("json"));
            }
            if options.renew {
                program.arg("--json").arg(maker.kept());
            }
            // Drivers print there, too, and the table goes to the standard error.
            if !options.arguments.iter().any(|argument| argument == "--asm" || argument == "--help") {
                program.stdout(Stdio::null());
            }
            run(&mut program)
        });
    }
    steps.finish()
}

/// Compiles a few kernels and fails where one has become worse than `benches/compilers` says.
pub(crate) fn compare() -> Result<()> {
    mesa::unpack()?;
    for maker in Maker::ALL {
        let mut program = maker.program()?;
        run(program.args(["--brief", "--against"]).arg(maker.kept()).stdout(Stdio::null()))?;
    }
    Ok(())
}
