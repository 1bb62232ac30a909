//! Writes the JavaScript that loads a page's WebAssembly: `bindings PAGE.wasm FOLDER with-names|without-names`. Names of functions
//! make messages readable, and downloads larger.

use std::env;
use std::error::Error;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(page), Some(folder), Some(names)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: bindings PAGE.wasm FOLDER with-names|without-names".into());
    };
    let mut bindgen = Bindgen::new();
    match names.to_str() {
        Some("with-names") => {}
        Some("without-names") => {
            bindgen.remove_name_section(true).remove_producers_section(true);
        }
        _ => return Err(format!("{} is neither with-names nor without-names", names.display()).into()),
    }
    bindgen.input_path(page).out_name("page").web(true)?.typescript(false).generate(folder)?;
    Ok(())
}
