//! The shader's text: the generated constants, then whole files one after another. WGSL's module scope has no order, so
//! nothing is edited.

use crate::Variant;
use crate::family::{Constant, Kernel};

impl Variant {
    /// The WGSL this variant compiles, complete.
    pub fn wgsl(&self) -> String {
        let Kernel { sources, constants, .. } = self.kernel();
        let mut text = format!("// {self}\n\n");
        for (name, value) in constants {
            text += &match value {
                Constant::U32(value) => format!("const {name} = {value}u;\n"),
                Constant::Bool(value) => format!("const {name} = {value};\n"),
            };
        }
        for source in sources {
            text.push('\n');
            text += source;
        }
        text
    }
}
