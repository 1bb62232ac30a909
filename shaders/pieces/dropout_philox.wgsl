// Dropout: after the softmax, each weight is dropped with a given probability. Whether it is depends only on the state of the
// generator and on the position of the pair in the problem, so every kernel drops the same weights, however the work is cut.
//
// The generator is Philox 4×32-10, whose key is the seed. Its block at (⌊j / 4⌋, query, batch · Hq + head, offset) has the
// numbers of four keys: that of key j is word j mod 4. A weight is kept if its number is not below the threshold.
//
// Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.

// From the schedule: IN_FOURS, whether the four keys of a vector are among the same four: ⌊j / 4⌋ is the same for all.

const ROUNDS = 10u;
const MULTIPLIERS = vec2(0xd2511f53u, 0xcd9e8d57u);
const WEYL = vec2(0x9e3779b9u, 0xbb67ae85u);

// The upper halves of 64-bit products.
fn upper_halves(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = (a & vec2(0xffffu)) * (b & vec2(0xffffu));
    let middle = (a >> vec2(16u)) * (b & vec2(0xffffu)) + (low >> vec2(16u));
    let other = (a & vec2(0xffffu)) * (b >> vec2(16u)) + (middle & vec2(0xffffu));
    return (a >> vec2(16u)) * (b >> vec2(16u)) + (middle >> vec2(16u)) + (other >> vec2(16u));
}

fn philox(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var x = counter;
    var key = seed;
    for (var round = 0u; round < ROUNDS; round++) {
        let low = x.xz * MULTIPLIERS;
        let high = upper_halves(x.xz, MULTIPLIERS);
        x = vec4(high.y ^ x.y ^ key.x, low.y, high.x ^ x.w ^ key.y, low.x);
        key += WEYL;
    }
    return x;
}

// The numbers of the four keys from 4 · fours on.
fn random_numbers(row: Row, fours: u32) -> vec4<u32> {
    let state = generator_state();
    let position = position_of(row);
    return philox(vec4(fours, position.z, position.x * params.all_heads + position.y, state.z), state.xy);
}

fn word(x: vec4<u32>, n: u32) -> u32 {
    return select(select(x.x, x.y, n == 1u), select(x.z, x.w, n == 3u), n >= 2u);
}

// Which of four weights of a row are kept.
fn keeps(row: Row, keys: vec4<u32>) -> vec4<bool> {
    var numbers = vec4(0u);
    if (IN_FOURS) {
        let all = random_numbers(row, keys.x / 4u);
        numbers = vec4(word(all, keys.x % 4u), word(all, keys.y % 4u), word(all, keys.z % 4u), word(all, keys.w % 4u));
    } else {
        // unroll
        for (var i = 0u; i < 4u; i++) { numbers[i] = word(random_numbers(row, keys[i] / 4u), keys[i] % 4u); }
    }
    return numbers >= vec4(params.rng.w);
}

// x where the weight is kept, and 0 where it is dropped.
fn kept(row: Row, keys: vec4<u32>, x: vec4<f32>) -> vec4<f32> { return select(vec4(0.0), x, keeps(row, keys)); }
