// AdamW: m and v are running means of the gradient and of its square; a weight goes against m / √v and decays.
//
//     m = β₁ m + (1 − β₁) g        w −= rate (m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ w)
//     v = β₂ v + (1 − β₂) g²

const BETA1 = 0.9;
const BETA2 = 0.95;
const DECAY = 0.3;           // λ
const EPSILON = 1e-8;

struct Step { number: u32, rate: f32 }

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> means: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> squares: array<vec4<f32>>;

@compute @workgroup_size(64) fn adamw(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&weights)) { return; }
    let g = gradients[id.x];
    let m = BETA1 * means[id.x] + (1.0 - BETA1) * g;
    let v = BETA2 * squares[id.x] + (1.0 - BETA2) * g * g;
    let w = weights[id.x];
    let t = f32(step.number + 1u);
    let mean = m / (1.0 - pow(BETA1, t));
    let square = v / (1.0 - pow(BETA2, t));
    weights[id.x] = w - step.rate * (mean / (sqrt(square) + EPSILON) + DECAY * w);
    means[id.x] = m;
    squares[id.x] = v;
}
