//! Times this crate's attention beside burn's two: its fused one, which burn chooses by trial, and its composition of
//! several kernels. Each round measures all of them in turn, so that they meet the same machine.
//!
//!     cargo run --release --example compare [PART OF A NAME]

use std::time::{Duration, Instant};

use burn::tensor::activation::gelu;
use burn::tensor::module::{attention as burns, attention_fallback as composed};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Distribution, Tensor};
use wgpu_attention_burn::{attention as ours, init};

const ROUNDS: usize = 9;

type Attend = fn(
    Tensor<4>,
    Tensor<4>,
    Tensor<4>,
    Option<Tensor<4, Bool>>,
    Option<Tensor<4>>,
    AttentionModuleOptions,
) -> Tensor<4>;

const CONTENDERS: [Attend; 3] = [ours, burns, composed];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = init(Device::wgpu_options())?;
    println!("{}; medians of {ROUNDS} rounds\n", device.identity().map_or_else(String::new, |identity| identity.name));
    println!("{:<42}{:>12}{:>16}{:>18}{:>22}", "", "ours", "burn's fused", "burn's composed", "ours returns after");

    for (name, [len_q, len_k], causal, calls) in [
        ("L 128", [128, 128], false, 1),
        ("L 128, 16 calls in a row", [128, 128], false, 16),
        ("L 512", [512, 512], false, 1),
        ("L 1024", [1024, 1024], false, 1),
        ("L 1024, causal", [1024, 1024], true, 1),
        ("one query, 4096 keys", [1, 4096], false, 1),
        ("one query, 4096 keys, 16 calls in a row", [1, 4096], false, 16),
    ] {
        let random = |length| Tensor::<4>::random([1, 8, length, 64], Distribution::Default, &device);
        let (q, k, v) = (random(len_q), random(len_k), random(len_k));
        let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
        compare(&device, name, calls, |attend| {
            for _ in 0..calls {
                drop(attend(q.clone(), k.clone(), v.clone(), None, None, options));
            }
        })?;
    }
    let [q, k, v] = [(); 3].map(|()| {
        let parameter = Tensor::<4>::random([1, 8, 512, 64], Distribution::Default, &device);
        parameter.autodiff().require_grad()
    });
    compare(&device, "L 512, and its gradients", 1, |attend| {
        drop(attend(q.clone(), k.clone(), v.clone(), None, None, AttentionModuleOptions::default()).sum().backward());
    })?;
    for length in [128, 1024] {
        let block = Block::new(512, &device);
        let x = Tensor::<3>::random([1, length, 512], Distribution::Default, &device);
        compare(&device, &format!("an encoder block, width 512, L {length}"), 1, |attend| {
            drop(block.forward(x.clone(), attend));
        })?;
    }
    Ok(())
}

/// The time per call of each contender, its ratio to ours, and how long ours keeps the caller.
fn compare(device: &Device, name: &str, calls: u32, run: impl Fn(Attend)) -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).is_some_and(|part| !name.contains(&part)) {
        return Ok(());
    }
    let mut times = [const { Vec::new() }; CONTENDERS.len()];
    let mut host = Vec::new();
    // Two rounds to compile, and for burn to choose.
    for round in 0..ROUNDS + 2 {
        for turn in 0..CONTENDERS.len() {
            let n = (round + turn) % CONTENDERS.len();
            let attend = CONTENDERS[n];
            let start = Instant::now();
            run(attend);
            let returned = start.elapsed();
            device.sync().map_err(|error| format!("{error:?}"))?;
            let done = start.elapsed();
            if round >= 2 {
                times[n].push(done / calls);
                if n == 0 {
                    host.push(returned / calls);
                }
            }
        }
    }
    let [ours, fused, composed] = times.map(median);
    let beside = |time: Duration| format!("{:.2} ms, {:.2}×", millis(time), time.as_secs_f64() / ours.as_secs_f64());
    println!(
        "{name:<42}{:>9.2} ms{:>18}{:>18}{:>16.3} ms",
        millis(ours),
        beside(fused),
        beside(composed),
        millis(median(host))
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A block of an encoder: attention of eight heads and two layers, each after a normalization and beside a shortcut.
struct Block {
    qkv: Tensor<3>,
    out: Tensor<3>,
    up: Tensor<3>,
    down: Tensor<3>,
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        let weights = |rows, columns| Tensor::random([1, rows, columns], Distribution::Uniform(-0.05, 0.05), device);
        Self {
            qkv: weights(width, 3 * width),
            out: weights(width, width),
            up: weights(width, 4 * width),
            down: weights(4 * width, width),
        }
    }

    fn forward(&self, x: Tensor<3>, attend: Attend) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let projected = normalized(x.clone()).matmul(self.qkv.clone());
        let heads = |n: usize| {
            let part = projected.clone().narrow(2, n * width, width);
            part.reshape([batch, length, 8, width / 8]).swap_dims(1, 2)
        };
        let attended = attend(heads(0), heads(1), heads(2), None, None, AttentionModuleOptions::default());
        let x = x + attended.swap_dims(1, 2).reshape([batch, length, width]).matmul(self.out.clone());
        let hidden = gelu(normalized(x.clone()).matmul(self.up.clone()));
        x + hidden.matmul(self.down.clone())
    }
}

fn normalized(x: Tensor<3>) -> Tensor<3> {
    let centered = x.clone() - x.mean_dim(2);
    let variance = centered.clone().powi_scalar(2).mean_dim(2);
    centered / (variance + 1e-5).sqrt()
}
