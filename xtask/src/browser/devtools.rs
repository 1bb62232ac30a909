//! A tab of the browser, used by Chrome's DevTools Protocol: <https://chromedevtools.github.io/devtools-protocol>.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// How long the browser may take for anything. A kernel takes its software driver two seconds to compile.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Tab {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    target: Value,
    session: Option<String>,
    commands: u64,
    /// What went wrong in the page: exceptions, anything on the console, and files that did not load.
    faults: Vec<String>,
}

impl Tab {
    /// Opens a new tab of the browser that takes commands at `devtools`. `before` is run in each page before its own scripts.
    pub(super) fn open(devtools: &str, before: &str) -> Result<Self> {
        let (socket, _) = tungstenite::connect(devtools)?;
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        let mut tab = Self { socket, target: Value::Null, session: None, commands: 0, faults: Vec::new() };
        tab.target = tab.call("Target.createTarget", &json!({ "url": "about:blank" }))?["targetId"].take();
        let attached = json!({ "targetId": tab.target, "flatten": true });
        let attached = tab.call("Target.attachToTarget", &attached)?;
        tab.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), &json!({}))?;
        }
        tab.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": before }))?;
        // Other tabs would get the input.
        tab.call("Page.bringToFront", &json!({}))?;
        Ok(tab)
    }

    /// Closes the tab, so that its work does not slow the next one down.
    pub(super) fn close(mut self) -> Result<()> {
        self.session = None;
        let target = self.target.take();
        self.call("Target.closeTarget", &json!({ "targetId": target }))?;
        Ok(())
    }

    /// Sends a command and returns its result.
    pub(super) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(command.to_string()))?;
        loop {
            let message = self.socket.read().with_context(|| format!("no answer to {method}"))?;
            let Message::Text(text) = message else { continue };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] == id {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
            self.hear(&answer);
        }
    }

    /// Takes in an event.
    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        self.faults.extend(match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(format!("an exception: {}", params["exceptionDetails"])),
            Some("Runtime.consoleAPICalled") => Some(format!("on the console: {}", params["args"])),
            Some("Log.entryAdded") => Some(format!("in the log: {}", params["entry"]["text"])),
            Some("Network.loadingFailed") => Some(format!("a file did not load: {}", params["errorText"])),
            _ => None,
        });
    }

    /// Fails if anything has gone wrong in the page.
    pub(super) fn check(&mut self) -> Result<()> {
        // Its answer comes after the events before it.
        self.evaluate("null")?;
        ensure!(self.faults.is_empty(), "the page says: {}", self.faults.join("; "));
        Ok(())
    }

    /// The value of a JavaScript expression, awaited if it is a promise.
    pub(super) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", &params)?;
        if !result["exceptionDetails"].is_null() {
            bail!("`{expression}`: {}", result["exceptionDetails"]["exception"]["description"]);
        }
        Ok(result["result"]["value"].take())
    }

    /// Waits until the expression is true.
    pub(super) fn wait(&mut self, expression: &str) -> Result<()> {
        let start = Instant::now();
        while self.evaluate(expression)? != true {
            self.check()?;
            ensure!(start.elapsed() < PATIENCE, "`{expression}` was not true for {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(super) fn text(&mut self, selector: &str) -> Result<String> {
        let text = self.evaluate(&format!("document.querySelector({}).textContent", json!(selector)))?;
        text.as_str().map(str::to_owned).with_context(|| format!("{selector} has no text"))
    }

    /// Moves the pointer onto the middle of an element.
    pub(super) fn hover(&mut self, selector: &str) -> Result<[f64; 2]> {
        let at = self.middle(selector)?;
        self.move_to(at)?;
        Ok(at)
    }

    /// The middle of an element, which is scrolled into view.
    fn middle(&mut self, selector: &str) -> Result<[f64; 2]> {
        let middle = self.evaluate(&format!(
            "(() => {{ const element = document.querySelector({}); element.scrollIntoView({{ block: 'center' }}); \
             const {{ x, y, width, height }} = element.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()",
            json!(selector)
        ))?;
        Ok([middle[0].as_f64().context("no middle")?, middle[1].as_f64().context("no middle")?])
    }

    pub(super) fn move_to(&mut self, [x, y]: [f64; 2]) -> Result<()> {
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y }))?;
        Ok(())
    }

    pub(super) fn click(&mut self, selector: &str) -> Result<()> {
        let [x, y] = self.hover(selector)?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event)?;
        }
        Ok(())
    }

    /// Touches an element with a finger.
    pub(super) fn tap(&mut self, selector: &str) -> Result<()> {
        let [x, y] = self.middle(selector)?;
        let tap = json!({ "x": x, "y": y, "gestureSourceType": "touch" });
        self.call("Input.synthesizeTapGesture", &tap)?;
        Ok(())
    }

    /// Presses a key that types no text, such as `ArrowRight`, whose number in Windows is `code`.
    pub(super) fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types into the element that has the focus.
    pub(super) fn insert(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({ "text": text }))?;
        Ok(())
    }

    /// Writes a picture of the whole page.
    pub(super) fn picture(&mut self, path: &Path) -> Result<()> {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", &params)?;
        let data = picture["data"].as_str().context("no picture")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data)?;
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}
