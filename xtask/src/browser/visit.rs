//! Uses the public page as people do, and compares what it shows with the model's own weights.

use std::fs;

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::devtools::Tab;
use super::page::folder;
use super::site::MODEL;
use crate::command::root;

/// The head and the word that the page begins with: “it” of the first sentence.
const HEAD: usize = 5;
const WORD: usize = 10;

/// The numbers of keys in Windows, which browsers go by.
const HOME: u32 = 36;
const ARROW_RIGHT: u32 = 39;
const ARROW_DOWN: u32 = 40;

/// Desktop and phone.
const WIDE: [u32; 2] = [1280, 900];
const NARROW: [u32; 2] = [390, 844];

/// Hides WebGPU from the page.
const NO_WEBGPU: &str = "delete Navigator.prototype.gpu";

/// Hides WebAssembly from the page.
const NO_WASM: &str = "delete globalThis.WebAssembly";

/// Collects the devices that the page opens.
const COLLECT_DEVICES: &str = "globalThis.devices = []; const { requestDevice } = GPUAdapter.prototype; \
    GPUAdapter.prototype.requestDevice = async function (...all) { \
    devices.push(await requestDevice.apply(this, all)); return devices.at(-1); }";

/// Visits the page at `address` in the browser that takes commands at `devtools`. Pictures of it are left beside the browser's
/// log.
pub(super) fn everything(devtools: &str, address: &str) -> Result<()> {
    let model = Model::read()?;
    let open = |before, size| Visit::open(devtools, address, before, size, &model);
    open("", WIDE)?.on_a_gpu().context("on a desktop")?;
    open("", NARROW)?.on_a_phone().context("on a phone")?;
    open(COLLECT_DEVICES, WIDE)?.through_losses().context("with devices that are lost")?;
    open(NO_WEBGPU, WIDE)?.without_webgpu().context("without WebGPU")?;
    open(NO_WASM, WIDE)?.without_wasm().context("without WebAssembly")
}

/// The model's own weights, and the words of its sentences.
struct Model {
    weights: Vec<f32>,
    shape: [usize; 4],
    tokens: Vec<Vec<String>>,
}

impl Model {
    fn read() -> Result<Self> {
        let bytes = fs::read(root().join(MODEL[0]))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let tokens = header.metadata().as_ref().and_then(|texts| texts.get("tokens")).context("no tokens")?;
        let tokens = serde_json::from_str(tokens)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let weights = tensors.tensor("weights")?;
        let shape = weights.shape().try_into()?;
        let weights =
            weights.data().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(Self { weights: weights.collect(), shape, tokens })
    }

    /// How much a word reads of each word of its sentence.
    fn row(&self, sentence: usize, head: usize, word: usize) -> &[f32] {
        let [_, heads, room, _] = self.shape;
        let start = ((sentence * heads + head) * room + word) * room;
        &self.weights[start..start + self.tokens[sentence].len()]
    }
}

impl Model {
    /// How much the first word that the page shows reads of each word before it.
    fn causal_row(&self) -> Vec<f32> {
        let mut row = self.row(0, HEAD, WORD).to_vec();
        row[WORD + 1..].fill(0.0);
        let rest: f32 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= rest);
        row
    }
}

/// The page in a tab.
struct Visit<'a> {
    tab: Tab,
    model: &'a Model,
}

impl<'a> Visit<'a> {
    fn open(devtools: &str, address: &str, before: &str, [width, height]: [u32; 2], model: &'a Model) -> Result<Self> {
        let mut tab = Tab::open(devtools, &format!("{before};{WATCH_LAYOUT}"))?;
        let is_phone = width < height;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        tab.call("Emulation.setDeviceMetricsOverride", &size)?;
        tab.call("Emulation.setTouchEmulationEnabled", &json!({ "enabled": is_phone }))?;
        tab.call("Page.navigate", &json!({ "url": address }))?;
        Ok(Self { tab, model })
    }

    fn on_a_gpu(mut self) -> Result<()> {
        // Before WebGPU is ready, the page shows what the model computed.
        self.tab.wait("document.querySelectorAll('#keys li').length > 0")?;
        self.shows(self.model.row(0, HEAD, WORD)).context("at first")?;
        let first = self.maps()?;
        self.ready("desktop")?;
        self.shows(self.model.row(0, HEAD, WORD)).context("computed here")?;
        let facts = ["device", "kernel", "gpu-time", "cpu-time"].map(|id| self.tab.text(&format!("#{id}")));
        for fact in facts {
            ensure!(fact?.len() > 3, "a fact is missing");
        }
        ensure!(self.difference()? < 1e-5, "GPU and CPU differ");
        let computed = self.maps()?;
        let apart = first.iter().zip(&computed).map(|(a, b)| a.abs_diff(*b)).max();
        ensure!(first.len() == computed.len() && apart <= Some(2), "the pictures differ by {apart:?} of 255");

        self.words_and_heads()?;
        self.sliders_and_switches()?;
        self.programs()?;
        self.sentences()?;
        self.longer()?;
        self.check_of_kernels()?;
        self.end()
    }

    fn words_and_heads(&mut self) -> Result<()> {
        self.tab.hover("#queries label:nth-of-type(4)")?;
        self.shows(self.model.row(0, HEAD, 3)).context("under the pointer")?;
        ensure!(self.tab.text("#summary")?.contains("“didn” reads"), "the summary does not follow the pointer");
        self.tab.move_to([2.0, 2.0])?;
        self.shows(self.model.row(0, HEAD, WORD)).context("after the pointer left")?;
        self.tab.click("#queries label:nth-of-type(3)")?;
        self.tab.press("ArrowDown", ARROW_DOWN)?;
        self.tab.move_to([2.0, 2.0])?;
        self.shows(self.model.row(0, HEAD, 3)).context("by the keyboard")?;
        self.tab.click("#heads label:nth-of-type(6)")?;
        self.tab.press("ArrowRight", ARROW_RIGHT)?;
        self.tab.move_to([2.0, 2.0])?;
        self.shows(self.model.row(0, HEAD + 1, 3)).context("in another head")
    }

    /// Continues with word 3.
    fn sliders_and_switches(&mut self) -> Result<()> {
        self.tab.click("#scale")?;
        self.tab.press("Home", HOME)?;
        self.settled()?;
        let count = self.model.tokens[0].len();
        self.shows(&vec![1.0 / count as f32; count]).context("with a scale of 0")?;
        self.tab.click("#causal")?;
        self.settled()?;
        let before = |key| if key <= 3 { 0.25 } else { 0.0 };
        self.shows(&(0..count).map(before).collect::<Vec<_>>()).context("causal")?;
        ensure!(self.difference()? < 1e-5, "GPU and CPU differ");
        let maps = self.maps()?;
        // The first map begins with the row of the first word, which reads itself alone.
        ensure!(maps[..4] != maps[4..8] && maps[4..8] == maps[8..12], "the picture is not causal");
        self.tab.click("#window")?;
        self.settled()?;
        let near = |key: usize| if (1..=3).contains(&key) { 1.0 / 3.0 } else { 0.0 };
        self.shows(&(0..count).map(near).collect::<Vec<_>>()).context("in a window")?;
        self.tab.click("#softcap")?;
        self.settled()?;
        ensure!(self.tab.text("#softcap-value")?.contains("tanh"), "the softcap is off");
        self.tab.click("button[type=reset]")?;
        self.settled()?;
        self.shows(self.model.row(0, HEAD + 1, 3)).context("as trained")
    }

    fn programs(&mut self) -> Result<()> {
        self.tab.click("#program")?;
        self.tab.insert("fn mask_mod(at: At) -> bool { return at.key < nothing; }")?;
        self.tab.wait("document.querySelector('#program-error').textContent.includes('nothing')")?;
        ensure!(self.tab.evaluate("document.querySelector('#program').ariaInvalid")? == "true", "no mark of an error");
        self.shows(self.model.row(0, HEAD + 1, 3)).context("of the last program that was right")?;
        self.tab.click(".presets button:nth-of-type(1)")?;
        self.settled()?;
        let mut expected = self.model.row(0, HEAD + 1, 3).to_vec();
        let rest = 1.0 - expected[0];
        expected.iter_mut().for_each(|weight| *weight /= rest);
        expected[0] = 0.0;
        self.shows(&expected).context("without the first word")?;
        ensure!(self.difference()? < 1e-5, "GPU and CPU differ with a program");
        ensure!(self.tab.text("#program-error")?.is_empty(), "the error stays");

        self.tab.click("#show-wgsl")?;
        ensure!(self.tab.evaluate("document.querySelector('#wgsl').open")? == true, "no WGSL is shown");
        ensure!(self.tab.text("#wgsl-text")?.contains("at.key != 0u"), "the program is not in the WGSL");
        self.tab.click("#wgsl button:not([type])")?;
        self.tab.click("button[type=reset]")?;
        self.settled()
    }

    fn sentences(&mut self) -> Result<()> {
        for sentence in (0..self.model.tokens.len()).rev() {
            self.tab.click(&format!("#sentences label:nth-of-type({})", sentence + 1))?;
            self.settled()?;
            self.shows(self.model.row(sentence, HEAD + 1, 1)).with_context(|| format!("sentence {sentence}"))?;
            ensure!(self.difference()? < 1e-5, "GPU and CPU differ");
        }
        Ok(())
    }

    fn longer(&mut self) -> Result<()> {
        self.tab.click("#measure")?;
        self.tab.wait("!document.querySelector('#measure').disabled")?;
        let row = self.tab.text("#longer tbody tr")?;
        ensure!(row.contains("GFLOP/s") && row.contains('×'), "no times: {row}");
        ensure!(self.tab.text("#measure-status")?.contains("software"), "the software adapter is not named");
        Ok(())
    }

    /// Begins the check of every kernel, which takes minutes. The other page runs the same problems to their end.
    fn check_of_kernels(&mut self) -> Result<()> {
        self.tab.click("#start-check")?;
        self.tab.wait("document.querySelector('#check-progress').value >= 3")?;
        let lines = self.tab.text("#check-lines")?;
        ensure!(lines.starts_with("ok") && !lines.contains("WRONG"), "not right: {lines}");
        Ok(())
    }

    fn on_a_phone(mut self) -> Result<()> {
        self.ready("phone")?;
        ensure!(
            self.tab.evaluate("innerWidth")? == NARROW[0]
                && self.tab.evaluate("document.body.scrollWidth")? == NARROW[0],
            "the page is wider than the screen"
        );
        self.tab.tap("#queries label:nth-of-type(4)")?;
        self.tab.wait("document.querySelectorAll('#queries label')[3].classList.contains('reading')")?;
        self.shows(self.model.row(0, HEAD, 3)).context("under the finger")?;
        let light = self.maps()?;
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        self.tab.evaluate(
            "globalThis.turned = new Promise((turned) => \
             matchMedia('(prefers-color-scheme: dark)').addEventListener('change', turned)); null",
        )?;
        self.tab.call("Emulation.setEmulatedMedia", &dark)?;
        self.tab.evaluate("turned.then(() => null)")?;
        ensure!(self.maps()? != light, "the maps are not dark");
        self.picture("phone-dark")?;
        self.end()
    }

    fn through_losses(mut self) -> Result<()> {
        self.ready("losses")?;
        self.tab.evaluate("devices.at(-1).destroy()")?;
        self.tab.click("#causal")?;
        self.settled()?;
        self.shows(&self.model.causal_row()).context("on a second device")?;
        ensure!(self.tab.evaluate("devices.length")? == 2, "no second device was opened");
        ensure!(self.difference()? < 1e-5, "GPU and CPU differ");
        self.tab.evaluate("devices.at(-1).destroy()")?;
        self.tab.click("#causal")?;
        self.settled()?;
        self.shows(self.model.row(0, HEAD, WORD)).context("on the CPU")?;
        ensure!(self.tab.text("#status")?.contains("lost"), "the page does not say that the GPU was lost");
        ensure!(self.tab.text("#device")? == "the CPU", "the page names a device that is lost");
        self.end()
    }

    /// The model's own weights stay.
    fn without_wasm(mut self) -> Result<()> {
        self.ready("without-wasm")?;
        ensure!(
            self.tab.text("#status")?.contains("WebAssembly did not start"),
            "the page does not say what is missing"
        );
        self.shows(self.model.row(0, HEAD, WORD))?;
        self.tab.click("#sentences label:nth-of-type(2)")?;
        self.shows(self.model.row(1, HEAD, 1)).context("of another sentence")?;
        self.end()
    }

    fn without_webgpu(mut self) -> Result<()> {
        self.ready("without-webgpu")?;
        let status = self.tab.text("#status")?;
        ensure!(status.contains("no WebGPU"), "the page does not say that WebGPU is missing, but: {status}");
        self.shows(self.model.row(0, HEAD, WORD))?;
        self.tab.click("#causal")?;
        self.settled()?;
        self.shows(&self.model.causal_row()).context("causal")?;
        self.tab.click(".presets button:nth-of-type(1)")?;
        self.tab.wait("document.querySelector('#program-error').textContent.includes('needs a GPU')")?;
        self.end()
    }

    /// Waits for the first results, and leaves a picture of them. Nothing on the page may have moved until then.
    fn ready(&mut self, name: &str) -> Result<()> {
        self.tab.wait("document.body?.dataset.ready === ''")?;
        let moved = self.tab.evaluate("moved")?;
        ensure!(moved.as_array().is_some_and(Vec::is_empty), "the layout moved: {moved}");
        self.picture(name)
    }

    fn end(mut self) -> Result<()> {
        self.tab.check()?;
        self.tab.close()
    }

    /// Waits until the page has computed what was asked for.
    fn settled(&mut self) -> Result<()> {
        // A form changes its fields after the event of its reset.
        self.tab.evaluate("new Promise((turn) => setTimeout(turn, 20))")?;
        self.tab.wait("document.body.dataset.computing === undefined")?;
        self.tab.check()
    }

    /// Checks the percentages at the words. Each may be rounded the other way.
    fn shows(&mut self, weights: &[f32]) -> Result<()> {
        let shown = self.tab.evaluate("[...document.querySelectorAll('.share')].map((share) => share.textContent)")?;
        let shown: Vec<&str> = shown.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let agree = |(shown, weight): (&&str, &f32)| match shown.trim_end_matches(" %") {
            "–" => *weight == 0.0,
            "<1" => *weight > 0.0 && *weight < 0.0101,
            number => number.parse().is_ok_and(|shown: f32| (shown - 100.0 * weight).abs() <= 0.51),
        };
        ensure!(
            shown.len() == weights.len() && shown.iter().zip(weights).all(agree),
            "the page shows {shown:?}, not {weights:?}"
        );
        Ok(())
    }

    /// The largest difference between GPU and CPU that the page shows.
    fn difference(&mut self) -> Result<f64> {
        let text = self.tab.text("#difference")?;
        text.parse().with_context(|| format!("`{text}` is no difference"))
    }

    /// The colours of all maps.
    fn maps(&mut self) -> Result<Vec<u8>> {
        let colors = self.tab.evaluate(
            "[...document.querySelectorAll('#heads canvas')].flatMap((canvas) => {
                const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
                copy.drawImage(canvas, 0, 0);
                return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
            })",
        )?;
        Ok(serde_json::from_value(colors)?)
    }

    fn picture(&mut self, name: &str) -> Result<()> {
        self.tab.picture(&folder().join(format!("page-{name}.png")))
    }
}

/// Collects what moved without the visitor's doing, as Chrome reports it.
const WATCH_LAYOUT: &str = "globalThis.moved = []; new PerformanceObserver((list) => \
    moved.push(...list.getEntries().filter((entry) => !entry.hadRecentInput).map(({ value, sources }) => \
    `${value} ${sources.map(({ node }) => node?.id || node?.className || node?.nodeName)}`))) \
    .observe({ type: 'layout-shift', buffered: true })";
