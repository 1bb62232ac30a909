// No cap on the scaled scores: a score follows its product.
fn softcap_slopes(products: vec4<f32>) -> vec4<f32> { return vec4(1.0); }
