// Dropout divides what is kept by the probability of being kept, so that results are the same on average.
fn compensated(x: vec4<f32>) -> vec4<f32> { return x * params.kept_scale; }
