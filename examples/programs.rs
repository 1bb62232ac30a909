//! Three common programs in the score: a mask of documents with a shared prefix, a penalty that grows with the distance, and a
//! cap. Each is checked against the same program in Rust.
//!
//!     cargo run --release --example programs

use wgpu_attention::reference::{self, At, Programs};
use wgpu_attention::{Attention, Diagonal, Inputs, Problem, ProblemBuilder, Shape, blocking};

/// Tokens of one document see each other, and all see the first few: `aux` holds each token's document.
const DOCUMENTS: &str = "
const PREFIX = 4u;
fn mask_mod(at: At) -> bool {
    return at.key < PREFIX || aux[at.query] == aux[at.key];
}";

/// A penalty that grows with the distance, ever more slowly.
const DISTANCE: &str = "
fn soft_clip(x: f32) -> f32 { return x / (1.0 + x / 64.0); }
fn score_mod(score: f32, at: At) -> f32 {
    return score - 0.125 * soft_clip(f32(abs(at.diagonal - i32(at.key))));
}";

/// A cap that differs from head to head.
const CAP: &str = "
fn score_mod(score: f32, at: At) -> f32 {
    let cap = 4.0 + f32(at.head);
    return cap * tanh(score / cap);
}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let attention = Attention::new(&device);

    let shape = Shape::new(1, 4, 96, 32);
    let numbers = |step: u32| -> Vec<f32> { (0..4 * 96 * 32).map(|i| (i * step % 61) as f32 / 30.0 - 1.0).collect() };
    let (q, k, v) = (numbers(7), numbers(11), numbers(13));
    // Three documents, of 40, 40 and 16 tokens.
    let documents: Vec<f32> = (0..96).map(|token| (token / 40) as f32).collect();
    let inputs = Inputs { q: &q, k: &k, v: &v, ..Inputs::default() };
    let of_documents = Inputs { aux: Some(&documents), ..inputs };

    let same_document = |at: At| at.key < 4 || documents[at.query as usize] == documents[at.key as usize];
    let faded = |score: f64, at: At| {
        let distance = f64::from((at.diagonal - at.key as i32).abs());
        score - 0.125 * distance / (1.0 + distance / 64.0)
    };
    let capped = |score: f64, at: At| {
        let cap = 4.0 + f64::from(at.head);
        cap * (score / cap).tanh()
    };
    let causal = || Problem::builder(shape).causal(Diagonal::TopLeft);
    let cases: [(&str, ProblemBuilder, Inputs<'_>, Programs<'_>); 3] = [
        (
            "documents",
            causal().mask_mod(DOCUMENTS).aux(96),
            of_documents,
            Programs { mask_mod: Some(&same_document), ..Programs::default() },
        ),
        ("distance", causal().score_mod(DISTANCE), inputs, Programs { score_mod: Some(&faded), ..Programs::default() }),
        ("cap", causal().score_mod(CAP), inputs, Programs { score_mod: Some(&capped), ..Programs::default() }),
    ];
    for (name, problem, inputs, programs) in cases {
        let problem = problem.build()?;
        let out = blocking::attention(&attention, &queue, &problem, &inputs)?.out;
        let exact = reference::attention_with(&problem, &inputs, &programs)?.out;
        let errors = out.iter().zip(&exact).map(|(&got, exact)| (f64::from(got) - exact).abs());
        let error = errors.fold(0.0, f64::max);
        println!("{name}: at most {error:.1e} from the definition");
        assert!(error < 1e-5, "{name}");
    }
    Ok(())
}
