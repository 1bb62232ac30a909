//! The page that `cargo xtask browser` opens: a few attention problems, run as every kernel that a browser's device gets
//! and judged row by row against the f64 reference.
//!
//! The cases are the suite's own type, and the judge is the suite's own comparator.

#![allow(clippy::unwrap_used, reason = "a page that cannot go on should stop where it stands")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes here are far below any bound")]
#![allow(unreachable_pub, dead_code, unused_imports, reason = "the suite's files hold more than this page uses")]

#[path = "../../tests/suite/case.rs"]
mod case;
mod cases;
#[path = "../../tests/suite/comparator.rs"]
mod comparator;
#[path = "../../tests/suite/inputs.rs"]
mod inputs;
#[cfg(target_arch = "wasm32")]
mod page;

#[cfg(target_arch = "wasm32")]
fn main() {
    page::open();
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    println!("this program is for a browser: `cargo xtask browser` opens it in one");
}
