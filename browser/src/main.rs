//! The page that `cargo xtask browser` opens.

#[cfg(target_arch = "wasm32")]
fn main() {
    wgpu_attention_browser::open();
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    println!("this program is for a browser: `cargo xtask browser` opens it in one");
}
