//! Inputs of a real model: queries, keys and values of a sentence encoder's last layer, with its key padding mask, and what
//! PyTorch computed from them. See tests/data/README.md.

use safetensors::SafeTensors;
use truth::{Case, Expected, Host, Outputs};
use wgpu_attention::{Dtype, Problem, ScoreLayout, Shape};

use crate::choice::each_variant;

const FILE: &[u8] = include_bytes!("../data/minilm_layer5.safetensors");

struct Layer {
    case: Case,
    torch: Outputs,
}

fn layer() -> Layer {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let values = |name: &str| Dtype::F32.decode(file.tensor(name).unwrap().data());
    let &[batch, heads, len, dim] = file.tensor("q").unwrap().shape() else { panic!("q is (B, H, L, D)") };
    let [batch, heads, len, dim] = [batch, heads, len, dim].map(|n| n as u32);
    let padding = ScoreLayout::broadcast([batch, 1, 1, len]);
    let problem = Problem::builder(Shape::new(batch, heads, len, dim)).mask(padding).lse().weights().build().unwrap();
    let mask = file.tensor("key_padding_mask").unwrap().data().iter().map(|&byte| byte != 0).collect();
    let (q, k, v) = (values("q"), values("k"), values("v"));
    let case = Case::new(problem, Host { q, k, v, mask: Some(mask), ..Host::default() });
    let torch = Outputs { out: values("output"), weights: Some(values("weights")), ..Outputs::default() };
    Layer { case, torch }
}

#[test]
fn pytorch_and_the_reference_agree_on_a_sentence_encoder() {
    let Layer { case, torch } = layer();
    assert!(case.host.mask.as_ref().unwrap().contains(&false), "there is padding");
    Expected::of(&case).check(&torch).unwrap();
}

#[test]
fn every_variant_computes_a_sentence_encoder() {
    let Layer { case, .. } = layer();
    let expected = Expected::of(&case);
    each_variant(&case.problem, |device, variant| {
        let got = device.run(&case, &variant);
        expected.check(&got).unwrap_or_else(|wrong| panic!("{variant} on {}: {wrong}", device.name));
    });
}
