//! The browser: finding or installing it, opening it on a page, and ending it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::page::folder;
use crate::command::on_path;
use crate::debian;

/// The names of the same program in the packages of Debian, Google and others.
const PROGRAMS: [&str; 3] = ["chromium", "google-chrome", "chrome"];
const PACKAGE: &str = "chromium";

/// No window, no network traffic except the page's, and WebGPU on the software driver even if there is a GPU.
const FLAGS: [&str; 11] = [
    "--headless=new",
    // A port that is free, which the browser writes to a file of its profile.
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
];

/// How long the browser may take to end after it was asked to.
const POLITENESS: Duration = Duration::from_secs(5);

/// How long the browser may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the browser comes from.
#[derive(Debug)]
pub(crate) enum Browser {
    Installed(&'static str),
    DebianPackage,
}

impl Browser {
    pub(crate) fn find() -> Result<Self> {
        if let Some(program) = PROGRAMS.into_iter().find(|program| on_path(program)) {
            return Ok(Self::Installed(program));
        }
        if on_path("apt-get") && debian::can_be_root() {
            return Ok(Self::DebianPackage);
        }
        bail!(
            "none of {} is on the PATH, and without apt-get and root it cannot be installed; install Chromium or Chrome",
            PROGRAMS.join(", ")
        );
    }

    /// The name of its program, which is installed first if it is missing.
    pub(crate) fn program(&self) -> Result<&'static str> {
        match self {
            Self::Installed(program) => Ok(program),
            Self::DebianPackage => {
                debian::install(&[PACKAGE])?;
                Ok(PACKAGE)
            }
        }
    }
}

/// A running browser with a temporary profile. Dropping it ends the browser and removes the profile.
#[derive(Debug)]
pub(crate) struct Chromium {
    child: Child,
    profile: PathBuf,
}

impl Chromium {
    pub(crate) fn open(program: &str, address: &str) -> Result<Self> {
        let profile = folder().join(format!("profile-{}", process::id()));
        let mut user_data = std::ffi::OsString::from("--user-data-dir=");
        user_data.push(&profile);
        let log = File::create(log()).with_context(|| format!("cannot write {}", log().display()))?;
        let mut command = Command::new(program);
        command.args(FLAGS).arg(user_data).arg(address);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, profile })
    }

    /// The address at which the browser takes commands, once it listens.
    pub(crate) fn devtools(&mut self) -> Result<String> {
        let file = self.profile.join("DevToolsActivePort");
        let start = Instant::now();
        loop {
            // The port, then the path.
            if let Some((port, path)) = fs::read_to_string(&file).ok().as_deref().and_then(|text| text.split_once('\n'))
            {
                return Ok(format!("ws://127.0.0.1:{port}{}", path.trim_end()));
            }
            self.check()?;
            if start.elapsed() > PATIENCE {
                bail!("the browser has not listened for {PATIENCE:?}: see {}", log().display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails if the browser has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the browser ended with {status} before the page did: see {}", log().display()),
        }
    }
}

impl Chromium {
    /// Asks the browser to end, so that its other processes end first and no longer use the profile. Kills it if it has not
    /// ended after [`POLITENESS`].
    fn end(&mut self) -> Result<()> {
        if cfg!(unix) {
            Command::new("kill").arg(self.child.id().to_string()).status()?;
            let asked = Instant::now();
            while asked.elapsed() < POLITENESS && self.child.try_wait()?.is_none() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(fs::remove_dir_all(&self.profile)?)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            println!("the browser did not end properly, or {} was not removed: {error}", self.profile.display());
        }
    }
}

/// The file with the browser's own output.
pub(crate) fn log() -> PathBuf {
    folder().join("chromium.log")
}
