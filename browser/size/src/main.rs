//! A small app: it opens a device, dispatches a shader and reads the result back. With the feature `attention`, it also runs one
//! attention problem. The difference in size is what this crate adds to an app.

#[cfg(target_arch = "wasm32")]
mod app;

fn main() {
    #[cfg(target_arch = "wasm32")]
    wasm_bindgen_futures::spawn_local(app::run());
}
