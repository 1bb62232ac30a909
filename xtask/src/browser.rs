//! `cargo xtask browser`: runs the kernels in Chromium on its software driver and judges every row, and uses the public page.
//!
//! Compiling the shaders as Chrome does (`tint.rs`) does not show what the compiled code computes. Only running it does.

mod chromium;
mod devtools;
mod page;
mod report;
mod server;
pub(crate) mod site;
mod size;
mod toolchain;
mod visit;

use std::env;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::command::on_path;
use crate::debian;
use crate::steps::Steps;
use chromium::{Browser, Chromium};
use server::Server;
use toolchain::Toolchain;

/// How long the page may send nothing. One case takes about three seconds on two cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// The toolchain that compiles the pages, and the browser that opens them.
#[derive(Debug)]
pub(crate) struct Setup {
    toolchain: Toolchain,
    browser: Browser,
}

impl Setup {
    /// Looks for both. What can still be downloaded or installed counts as found.
    ///
    /// # Errors
    /// If one is missing and cannot be installed here. The error names the remedy.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { browser: Browser::find()?, toolchain: Toolchain::find()? })
    }

    /// Installs what is missing, builds the page of the tests and opens it, then the public page and uses it.
    pub(crate) fn run(&self, steps: &mut Steps) {
        steps.run("docs for browsers", || page::document(&self.toolchain));
        // Otherwise an earlier page would be opened.
        if steps.run("the browser's page", || page::build(&self.toolchain)).error.is_none() {
            steps.run("kernels in the browser", || self.open());
        }
        self.use_page(steps);
    }

    /// Builds the public page and uses it.
    pub(crate) fn use_page(&self, steps: &mut Steps) {
        if steps.run("the public page", || site::build(&self.toolchain)).error.is_none() {
            steps.run("a visit to the public page", || self.visit());
        }
    }

    /// Opens the page of the tests and takes in its results.
    fn open(&self) -> Result<()> {
        let program = self.browser.program()?;
        let server = Server::new(page::files())?;
        let mut chromium = Chromium::open(program, &server.address())?;
        server.listen(PATIENCE, || chromium.check())?.verdict()
    }

    /// Uses the public page as a person would.
    fn visit(&self) -> Result<()> {
        let program = self.browser.program()?;
        let server = Server::new(site::files()?)?;
        let address = server.address();
        thread::scope(|scope| {
            scope.spawn(|| server.answer());
            let _end = server.end();
            let mut chromium = Chromium::open(program, "about:blank")?;
            visit::everything(&chromium.devtools()?, &address)
        })
    }

    /// Measures what the crate adds to an app's download, if the toolchain can build an app as for a web site.
    pub(crate) fn measure(&self, steps: &mut Steps) {
        if matches!(self.toolchain, Toolchain::Installed) {
            steps.run("size in a browser", || size::measure(&self.toolchain));
        }
    }
}

/// Runs these steps.
pub(crate) fn test(run: impl FnOnce(&Setup, &mut Steps)) -> Result<()> {
    let setup = Setup::find()?;
    let mut steps = Steps::default();
    run(&setup, &mut steps);
    steps.finish()
}

/// Measures what the crate adds to an app's download.
pub(crate) fn measure() -> Result<()> {
    size::measure(&Toolchain::find()?)
}

/// Whether the browser tests must run: in CI on Linux, if everything that is missing can be installed.
pub(crate) fn is_required() -> bool {
    env::var_os("CI").is_some() && cfg!(target_os = "linux") && on_path("apt-get") && debian::can_be_root()
}
