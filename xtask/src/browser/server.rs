//! The server that the page is loaded from and posts to. It listens on this machine alone.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tiny_http::{Method, Request, Response};

use super::chromium::log;
use super::report::Report;

/// How often the server checks the browser while the page sends nothing.
const TICK: Duration = Duration::from_millis(200);

/// A file of the page.
#[derive(Debug)]
pub(crate) struct Served {
    /// The path in its URL, such as `/page.js`.
    pub(crate) address: String,
    pub(crate) path: PathBuf,
    pub(crate) content_type: &'static str,
}

pub(crate) struct Server {
    http: tiny_http::Server,
    files: Vec<Served>,
}

impl Server {
    pub(crate) fn new(files: Vec<Served>) -> Result<Self> {
        let http = tiny_http::Server::http("127.0.0.1:0").map_err(|error| anyhow!("cannot listen: {error}"))?;
        Ok(Self { http, files })
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}/", self.http.server_addr())
    }

    /// Serves the page and receives its messages until it is done.
    ///
    /// # Errors
    /// If the page sends nothing for as long as `patience`, or if `check`, which is called all the time, fails.
    pub(crate) fn listen(&self, patience: Duration, mut check: impl FnMut() -> Result<()>) -> Result<Report> {
        let mut report = Report::default();
        while !report.is_over() {
            ensure!(
                report.silence() < patience,
                "the page has sent nothing for {patience:?}; its last messages are above, the browser's own are in {}",
                log().display()
            );
            check()?;
            let Some(request) = self.http.recv_timeout(TICK)? else { continue };
            if *request.method() == Method::Post {
                hear(request, &mut report)?;
            } else {
                self.serve(request)?;
            }
        }
        Ok(report)
    }

    /// Serves the files until [`End`] is dropped, side by side: a browser may wait for one file before it takes in the rest
    /// of another.
    pub(crate) fn answer(&self) {
        thread::scope(|scope| {
            // `recv` fails when it is unblocked.
            while let Ok(request) = self.http.recv() {
                scope.spawn(|| {
                    // A browser may close a connection before the answer.
                    if let Err(error) = self.serve(request) {
                        println!("not served: {error:#}");
                    }
                });
            }
        });
    }

    /// Stops [`answer`](Self::answer) when it is dropped.
    pub(crate) fn end(&self) -> End<'_> {
        End(self)
    }

    fn serve(&self, request: Request) -> Result<()> {
        let Some(file) = self.files.iter().find(|file| file.address == request.url()) else {
            return Ok(request.respond(Response::empty(404))?);
        };
        let content = fs::read(&file.path).with_context(|| format!("cannot read {}", file.path.display()))?;
        // Connections are closed, because `tiny_http` may leave a new one waiting for the end of another.
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            file.content_type,
            content.len()
        );
        let mut writer = request.into_writer();
        writer.write_all(head.as_bytes())?;
        writer.write_all(&content)?;
        Ok(writer.flush()?)
    }
}

/// Ends a server's answers when it is dropped, also if its user fails.
pub(crate) struct End<'a>(&'a Server);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.http.unblock();
    }
}

fn hear(mut request: Request, report: &mut Report) -> Result<()> {
    let mut text = String::new();
    request.as_reader().read_to_string(&mut text)?;
    report.hear(request.url().trim_start_matches('/'), &text);
    Ok(request.respond(Response::empty(204))?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::command::root;

    fn ask(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://").trim_end_matches('/')).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: page\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntext")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_page_is_served_and_heard() {
        let path = root().join("xtask/src/browser/server.rs");
        let server = Server::new(vec![Served { address: "/".into(), path, content_type: "text/html" }]).unwrap();
        let address = server.address();
        let page = thread::spawn(move || {
            let page = ask(&address, "GET /");
            assert!(page.contains("text/html") && page.contains("fn the_page_is_served_and_heard"), "{page}");
            assert!(ask(&address, "GET /../Cargo.toml").contains("404"));
            for word in ["right", "done"] {
                assert!(ask(&address, &format!("POST /{word}")).contains("204"));
            }
        });
        server.listen(Duration::from_secs(60), || Ok(())).unwrap().verdict().unwrap();
        page.join().unwrap();
    }

    #[test]
    fn a_page_that_says_nothing_fails_in_time() {
        let server = Server::new(Vec::new()).unwrap();
        let error = server.listen(Duration::from_millis(1), || Ok(())).unwrap_err().to_string();
        assert!(error.contains("nothing for 1ms"), "{error}");
    }

    #[test]
    fn a_browser_that_ends_fails() {
        let server = Server::new(Vec::new()).unwrap();
        let error = server.listen(Duration::from_secs(60), || Err(anyhow!("it ended"))).unwrap_err();
        assert_eq!(error.to_string(), "it ended");
    }
}
