//! Writes the JavaScript that loads a page's WebAssembly: `bindings PAGE.wasm FOLDER`.

use std::env;
use std::error::Error;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(page), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bindings PAGE.wasm FOLDER".into());
    };
    Bindgen::new().input_path(page).out_name("page").web(true)?.typescript(false).generate(folder)?;
    Ok(())
}
