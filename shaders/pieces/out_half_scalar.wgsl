// Results as binary16; rows of any length, at any offset.

// narrow() rounds, because a conversion leaves the rounding to the driver.
fn store_half(at: u32, x: f32) { DATA[at] = f16(unpack2x16float(narrow(x)).x); }
fn store(at: u32, count: u32, x: vec4<f32>) {
    store_half(at, x.x);
    if (count > 1u) { store_half(at + 1u, x.y); }
    if (count > 2u) { store_half(at + 2u, x.z); }
    if (count > 3u) { store_half(at + 3u, x.w); }
}
