//! Gradients against those that PyTorch's automatic differentiation finds. See tests/data/gradients/README.md.

use safetensors::{Dtype as Stored, SafeTensors};
use serde::Deserialize;
use truth::{Case, ExpectedGradients, GradientOutputs, Host, epsilon};
use wgpu_attention::{
    BindError, Diagonal, Dtype, Gradients, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Slopes, Window,
    blocking, reference,
};

use crate::backward;
use crate::choice::tries_all;
use crate::device::Device;

/// The files, by name, and a test of each, on one device in turn or on all with `--full`.
macro_rules! cases {
    ($($name:ident)*) => {
        const FILES: &[(&str, &[u8])] = &[
            $((stringify!($name), include_bytes!(concat!("../data/gradients/", stringify!($name), ".safetensors")))),*
        ];

        mod devices_compute_what_pytorch_derives {
            $(#[test]
            fn $name() {
                super::verify(stringify!($name));
            })*
        }
    };
}

cases! {
    plain causal causal_bottom_right grouped mask bias key_bias softcap sinks alibi window logsumexp lengths
    many_at_once others_at_once
}

/// What a file's metadata says of its case. The tensors that it has say the rest.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    scale: Option<f32>,
    softcap: Option<f32>,
    causal: bool,
    diagonal: Option<String>,
    window: [Option<u32>; 2],
}

impl Settings {
    fn of(file: &[u8]) -> Self {
        let (_, metadata) = SafeTensors::read_metadata(file).unwrap();
        let case: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["case"]).unwrap();
        serde_json::from_value(case["settings"].clone()).unwrap()
    }

    fn problem(&self, shape: Shape) -> ProblemBuilder {
        let diagonal = match self.diagonal.as_deref() {
            None => Diagonal::TopLeft,
            Some("bottom-right") => Diagonal::BottomRight,
            Some(other) => panic!("which diagonal is {other}?"),
        };
        let [left, right] = self.window;
        let mut problem = Problem::builder(shape).window(Window { left, right }).diagonal(diagonal);
        if self.causal {
            problem = problem.causal(diagonal);
        }
        if let Some(scale) = self.scale {
            problem = problem.scale(scale);
        }
        if let Some(cap) = self.softcap {
            problem = problem.softcap(cap);
        }
        problem
    }
}

struct File(SafeTensors<'static>);

impl File {
    fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_ok()
    }

    fn dims(&self, name: &str) -> [u32; 4] {
        let tensor = self.0.tensor(name).unwrap();
        let dims: Vec<u32> = tensor.shape().iter().map(|&n| n as u32).collect();
        dims.try_into().unwrap()
    }

    fn bytes(&self, name: &str, stored: Stored) -> Option<&[u8]> {
        let tensor = self.0.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), stored, "{name}");
        Some(tensor.data())
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.bytes(name, Stored::F32).map(|bytes| Dtype::F32.decode(bytes))
    }

    fn numbers(&self, name: &str) -> Option<Vec<u32>> {
        let words = self.bytes(name, Stored::I32)?.chunks_exact(4);
        Some(words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
    }

    fn problem(&self, settings: &Settings) -> Problem {
        let ([batch, heads_q, len_q, dim_qk], [_, heads_kv, len_kv, dim_v]) = (self.dims("q"), self.dims("v"));
        let shape = Shape::new(batch, heads_q, len_q, dim_qk).kv_heads(heads_kv).kv_len(len_kv).value_dim(dim_v);
        let mut problem = settings.problem(shape).lse();
        if self.has("mask") {
            problem = problem.mask(ScoreLayout::broadcast(self.dims("mask")));
        }
        if self.has("bias") {
            problem = problem.bias(Dtype::F32, ScoreLayout::broadcast(self.dims("bias")));
        }
        if let Some(slopes) = self.floats("alibi_slopes") {
            let is_per_head = slopes.len() == heads_q as usize;
            problem = problem.alibi(if is_per_head { Slopes::PerHead } else { Slopes::PerBatchAndHead });
        }
        if self.has("sinks") {
            problem = problem.sinks();
        }
        if self.has("kv_lengths") {
            problem = problem.kv_lengths();
        }
        if self.has("q_lengths") {
            problem = problem.q_lengths();
        }
        problem.build().unwrap()
    }

    fn host(&self) -> Host {
        Host {
            q: self.floats("q").unwrap(),
            k: self.floats("k").unwrap(),
            v: self.floats("v").unwrap(),
            mask: self.bytes("mask", Stored::BOOL).map(|mask| mask.iter().map(|&byte| byte != 0).collect()),
            bias: self.floats("bias"),
            alibi_slopes: self.floats("alibi_slopes"),
            sinks: self.floats("sinks"),
            kv_lengths: self.numbers("kv_lengths"),
            q_lengths: self.numbers("q_lengths"),
            dout: self.floats("dout"),
            dlse: self.floats("dlse"),
            ..Host::default()
        }
    }
}

/// A case, and its gradients by PyTorch.
struct Derived {
    name: &'static str,
    case: Case,
    gradients: Gradients,
    torch: [(Operand, Vec<f32>); 5],
}

impl Derived {
    fn of(&(name, bytes): &(&'static str, &'static [u8])) -> Self {
        let file = File(SafeTensors::deserialize(bytes).unwrap());
        let case = Case::new(file.problem(&Settings::of(bytes)), file.host());
        let gradients = case.problem.gradients();
        let gradients = if file.has("dlse") { gradients.dlse() } else { gradients }.build().unwrap();
        let torch = [Operand::Dq, Operand::Dk, Operand::Dv, Operand::Dbias, Operand::Dsinks]
            .map(|operand| (operand, file.floats(operand.name()).unwrap_or_default()));
        Self { name, case, gradients, torch }
    }
}

/// A file holds what f64 gave, rounded to f32: an error of half an epsilon at most. Where PyTorch gives exactly 0,
/// nothing was seen.
fn same(exact: &[f64], torch: &[f32]) -> Result<(), String> {
    if exact.len() != torch.len() {
        return Err(format!("{} values, not {}", exact.len(), torch.len()));
    }
    let largest = torch.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x).abs()));
    let is_same = |exact: f64, torch: f32| {
        (exact - f64::from(torch)).abs() <= epsilon(Dtype::F32) * largest && (exact == 0.0) == (torch == 0.0)
    };
    match exact.iter().zip(torch).position(|(&exact, &torch)| !is_same(exact, torch)) {
        Some(n) => Err(format!("[{n}] is {}, not {}; the largest is {largest}", exact[n], torch[n])),
        None => Ok(()),
    }
}

#[test]
fn pytorch_and_the_reference_agree() {
    for Derived { name, case, gradients, torch } in FILES.iter().map(Derived::of) {
        let exact = reference::gradients(&gradients, &case.inputs(), &reference::Programs::default()).unwrap();
        for ((operand, torch), exact) in torch.iter().zip([exact.dq, exact.dk, exact.dv, exact.dbias, exact.dsinks]) {
            if gradients.uses(*operand) {
                same(&exact, torch).unwrap_or_else(|wrong| panic!("{name}, {operand}: {wrong}"));
            } else {
                assert!(torch.is_empty(), "{name} has an unexpected {operand}");
            }
        }
    }
}

#[test]
fn what_rows_contribute_adds_up() {
    let programs = reference::Programs::default();
    for Derived { name, case, gradients, .. } in FILES.iter().map(Derived::of) {
        let inputs = case.inputs();
        let whole = reference::gradients(&gradients, &inputs, &programs).unwrap();
        let part = |n: usize| {
            let rows = case.rows().skip(n).step_by(2);
            reference::gradients_of_rows(&gradients, &inputs, &programs, rows).unwrap()
        };
        let (a, b) = (part(0), part(1));
        let all =
            |x: &reference::ReferenceGradients| [&x.dq, &x.dk, &x.dv, &x.dbias, &x.dsinks].map(Clone::clone).concat();
        for (whole, (a, b)) in all(&whole).into_iter().zip(all(&a).into_iter().zip(all(&b))) {
            assert!((whole - (a + b)).abs() <= 1e-12, "{name}: {whole}, not {a} + {b}");
        }
        let Shape { batch, heads_q, len_q, .. } = case.problem.shape();
        for at in [[batch, 0, 0], [0, heads_q, 0], [0, 0, len_q]] {
            let error = reference::gradients_of_rows(&gradients, &inputs, &programs, [at]).unwrap_err();
            assert_eq!(error, BindError::NoSuchRow { at, extent: [batch, heads_q, len_q] }, "{name}");
        }
    }
}

fn computed(device: &Device, Derived { case, gradients, torch, .. }: &Derived) -> GradientOutputs {
    let _guard = device.enter();
    let got = blocking::gradients(&device.attention, &device.queue, gradients, &case.inputs()).unwrap();
    let blocking::GradientOutputs { dq, dk, dv, dbias, dsinks, .. } = got;
    let mut got = [dq, dk, dv, dbias, dsinks].into_iter().zip(torch).map(|(got, (operand, _))| {
        assert_eq!(got.is_some(), gradients.uses(*operand), "{operand}");
        got.unwrap_or_default()
    });
    let [dq, dk, dv, dbias, dsinks] = std::array::from_fn(|_| got.next().unwrap());
    GradientOutputs { dq, dk, dv, dbias, dsinks }
}

/// By the tolerances of the reference's gradients, which the other test compares with PyTorch's.
fn verify(name: &str) {
    let derived = Derived::of(FILES.iter().find(|(other, _)| *other == name).unwrap());
    let expected = ExpectedGradients::new(&derived.case, &derived.gradients).unwrap();
    let devices: Vec<&Device> = backward::devices().collect();
    let turn = FILES.iter().position(|(other, _)| *other == name).unwrap() % devices.len();
    for (_, device) in devices.into_iter().enumerate().filter(|(n, _)| tries_all() || *n == turn) {
        let got = computed(device, &derived);
        expected.check(&got).unwrap_or_else(|wrong| panic!("{name} on {}: {wrong}", device.name));
    }
}
