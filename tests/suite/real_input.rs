//! What a model really asks: queries, keys and values of a sentence encoder's last layer, with its key padding mask, and
//! what PyTorch made of them. See tests/data/README.md.

use safetensors::SafeTensors;
use wgpu_attention::{Dtype, Problem, ScoreLayout, Shape};

use crate::case::Case;
use crate::comparator::{Expected, Outputs};
use crate::device::each_variant;
use crate::inputs::Fill;

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
    let problem = Problem::builder(Shape::new(batch, heads, len, dim)).mask(padding).lse().weights();
    let mask = file.tensor("key_padding_mask").unwrap().data().iter().map(|&byte| byte != 0).collect();
    let (q, k, v) = (values("q"), values("k"), values("v"));
    let case = Case { q, k, v, mask: Some(mask), ..Case::new(problem, Fill::Normal, 0) };
    let torch = Outputs { out: values("output"), weights: Some(values("weights")), ..Outputs::default() };
    Layer { case, torch }
}

#[test]
fn pytorch_and_the_reference_agree_on_a_sentence_encoder() {
    let Layer { case, torch } = layer();
    assert!(case.mask.as_ref().unwrap().contains(&false), "there is padding");
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
