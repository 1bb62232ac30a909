//! What a chip can do at most, and what that means for a steady loop. A model, not a measurement: latency, barriers and caches
//! are not in it.

use serde::{Deserialize, Serialize};

use crate::linux::listing::Counts;
use crate::linux::makers;

/// A GPU maker whose compiler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    Nvidia,
    Amd,
    Apple,
    Adreno,
}

/// What the model says of a steady loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bound {
    /// Multiply-adds per cycle, as a share of what the chip can do, at most.
    pub(crate) share: f64,
    /// What the loop waits for.
    pub(crate) by: String,
}

impl Maker {
    /// By the name of the driver that opened the device.
    pub(crate) fn of_driver(driver: &str) -> Option<Self> {
        match driver {
            "NVK" => Some(Self::Nvidia),
            "radv" => Some(Self::Amd),
            "Honeykrisp" => Some(Self::Apple),
            _ if driver.contains("turnip") => Some(Self::Adreno),
            _ => None,
        }
    }

    /// The names of the statistics that count registers, spills, resident subgroups and instructions.
    pub(crate) const fn statistics(self) -> Statistics {
        match self {
            Self::Nvidia => Statistics {
                registers: "Number of GPRs",
                spills: &["Spills to memory"],
                resident: "Max warps/SM",
                instructions: "Instruction count",
            },
            Self::Amd => Statistics {
                registers: "VGPRs",
                spills: &["Spilled VGPRs"],
                resident: "Subgroups per SIMD",
                instructions: "Instructions",
            },
            Self::Apple => {
                Statistics { registers: "GPRs", spills: &["Spills"], resident: "Threads", instructions: "Instructions" }
            }
            Self::Adreno => Statistics {
                registers: "Registers used",
                spills: &["STP Count"],
                resident: "Max Waves Per Core",
                instructions: "Instruction Count",
            },
        }
    }

    /// The chip that the model is of.
    pub(crate) const fn chip(self) -> &'static str {
        match self {
            Self::Nvidia => "GA102",
            Self::Amd => "RDNA 3",
            Self::Apple => "M1",
            Self::Adreno => "Adreno 740",
        }
    }

    pub(crate) fn parse(self, assembly: &str) -> anyhow::Result<crate::linux::listing::Listing> {
        match self {
            Self::Nvidia => makers::nvidia::parse(assembly),
            Self::Amd => makers::amd::parse(assembly),
            Self::Apple => makers::apple::parse(assembly),
            Self::Adreno => makers::adreno::parse(assembly),
        }
    }

    /// The cycles of one iteration of the steady loop, by what takes them, and what bounds it.
    #[expect(clippy::cast_precision_loss, reason = "counts of instructions")]
    pub(crate) fn bound(self, steady: &Counts) -> Bound {
        let [all, adds, multiplying, vector, shared, special, integer, matrix] = [
            steady.all,
            steady.multiply_adds,
            steady.multiplying,
            steady.vector,
            steady.shared_bytes,
            steady.special,
            steady.integer,
            steady.matrix,
        ]
        .map(|count| count as f64);
        let (peak, cycles): (f64, Vec<(&str, f64)>) = match self {
            // An SM of GA102, for a warp of 32: 4 schedulers issue one instruction each per cycle, 128 multiply-adds, 64
            // integer operations and 16 special functions per cycle, 128 bytes of shared memory. (NVIDIA, Ampere GA102
            // whitepaper, 2020.)
            Self::Nvidia => (
                // On the matrix unit 256 per cycle, f16 into f32; an instruction does 2048.
                if steady.matrix > 0 { matrix * 2048.0 / 256.0 } else { adds / 4.0 },
                vec![
                    ("issue", all / 4.0),
                    ("integers", integer / 2.0),
                    ("shared memory", shared * 32.0 / 128.0),
                    ("special functions", special * 32.0 / 16.0),
                ],
            ),
            // A compute unit of RDNA 3, for a wave of 64: two SIMDs of 32 lanes, which issue two multiply-adds together
            // where they can; 128 bytes of LDS per cycle; special functions at a quarter. (AMD, RDNA 3 ISA reference guide,
            // 2023; Chips and Cheese, 2023, for the rates.)
            Self::Amd => (
                adds / 2.0,
                vec![
                    ("vector units", vector - multiplying / 2.0),
                    ("shared memory", shared * 64.0 / 128.0),
                    ("special functions", special * 4.0),
                ],
            ),
            // An M1 core, for a SIMD group of 32: 4 schedulers, 128 multiply-adds per cycle, special functions at a
            // quarter. (Dougall Johnson, applegpu, 2022; Philip Turner, metal-benchmarks, 2023.)
            Self::Apple => (adds / 4.0, vec![("issue", all / 4.0), ("special functions", special)]),
            // Adreno 740's rates are not public: by instructions alone.
            Self::Adreno => (adds, vec![("issue", all)]),
        };
        let most = cycles.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("nothing", f64::INFINITY));
        if most.1 <= peak {
            Bound { share: 1.0, by: "multiply-adds".to_owned() }
        } else {
            Bound { share: peak / most.1, by: most.0.to_owned() }
        }
    }
}

/// Names of what a driver counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    pub(crate) registers: &'static str,
    pub(crate) spills: &'static [&'static str],
    pub(crate) resident: &'static str,
    pub(crate) instructions: &'static str,
}
