// The page: it draws the model's own weights at once, then what this browser computes.

import { describe, offer as offerCheck } from "./check.js";
import { copy } from "./clipboard.js";
import * as controls from "./controls.js";
import { milliseconds, offer as offerLonger } from "./longer.js";
import { Maps } from "./maps.js";
import { loadModel, sentenceText, spelled } from "./model.js";
import { percent, Words } from "./words.js";

const element = (id) => document.querySelector(`#${id}`);

const model = await loadModel().catch((error) => {
  say(`Nothing can be shown: ${error.message}`, true);
  throw error;
});
// Head 5, which has the clearest pattern, and the word "it".
const state = { sentence: 0, head: 5, word: 10, pointed: null, weights: model.weights(0) };
const words = new Words({
  onChoose: (word) => redraw({ word, pointed: null }),
  onPoint: (pointed) => redraw({ pointed }),
});
const maps = new Maps({
  onHead: (head) => redraw({ head }),
  onPoint: (pointed) => redraw({ pointed }),
});
offerSentences();
showSentence();

/** Draws the state, after `changes` to it. */
function redraw(changes = {}) {
  Object.assign(state, changes);
  const tokens = model.sentences[state.sentence];
  const count = tokens.length;
  const word = state.pointed ?? state.word;
  const head = state.weights.subarray(state.head * count * count, (state.head + 1) * count * count);
  words.draw(head, count, word);
  maps.mark(word, count);
  element("summary").textContent = summary(tokens, head.subarray(word * count, (word + 1) * count), word);
}

function summary(tokens, weights, word) {
  const order = [...weights.keys()].filter((key) => weights[key] > 0).sort((a, b) => weights[b] - weights[a]);
  if (order.length === 0) return `“${spelled(tokens[word])}” reads nothing in head ${state.head}.`;
  const named = order.slice(0, 3).map((key) => `“${spelled(tokens[key])}” ${percent(weights[key])}`);
  return `In head ${state.head}, “${spelled(tokens[word])}” reads ${named.join(", ")}.`;
}

function offerSentences() {
  const labels = model.sentences.map((tokens, at) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "sentence", value: at });
    radio.checked = at === state.sentence;
    label.append(radio, sentenceText(tokens));
    return label;
  });
  element("sentences").append(...labels);
  element("sentences").addEventListener("change", (event) => {
    const sentence = Number(event.target.value);
    Object.assign(state, { sentence, word: 1, pointed: null, weights: model.weights(sentence) });
    showSentence();
    compute();
  });
}

function showSentence() {
  const tokens = model.sentences[state.sentence];
  words.show(tokens, state.word);
  maps.draw(state.weights, tokens.length);
  redraw();
}

function say(text, isBad = false) {
  element("status").textContent = text;
  element("status").className = isBad ? "bad" : "";
}

function fact(id, text) {
  element(id).textContent = text;
  element(id).title = text;
}

// What follows computes. Until it is ready, the page shows what the model computed.

const worker = new Worker("worker.js", { type: "module" });
worker.postMessage({ bytes: model.bytes });
const waiting = new Map();
let asked = 0;
worker.addEventListener("message", ({ data }) => {
  waiting.get(data.id)?.(data);
  waiting.delete(data.id);
  if (data.id === undefined) say(`The CPU's computation did not start: ${data.error}`, true);
});

/** The same on the CPU. */
function onCpu(settings, seen) {
  const id = ++asked;
  worker.postMessage({ id, settings, seen });
  return new Promise((resolve) => waiting.set(id, resolve));
}

let gpu = null;
let wasm;
let wasmModel;
let isComputing = false;
let isStale = false;

/** Computes what the settings ask for. If they change meanwhile, it is computed again. */
async function compute() {
  if (!wasmModel) return;
  isStale = isComputing;
  if (isComputing) return;
  isComputing = true;
  document.body.dataset.computing = "";
  try {
    do {
      isStale = false;
      await computeOnce({ ...controls.settings(), sentence: state.sentence });
    } while (isStale);
    controls.showError("");
  } catch (error) {
    // Only the program can be wrong: the other controls allow nothing that is.
    const text = String(error.message ?? error);
    if (controls.settings().program.trim()) controls.showError(text);
    else say(text, true);
  } finally {
    isComputing = false;
    delete document.body.dataset.computing;
    if (isStale) compute();
  }
}

async function computeOnce(settings) {
  if (!gpu) {
    if (settings.program.trim()) throw new Error("a program in WGSL needs a GPU");
    const cpu = await onCpu(settings);
    if (cpu.error) throw new Error(cpu.error);
    showWeights(settings, cpu.weights);
    fact("cpu-time", milliseconds(cpu.time));
    return;
  }
  const own = Object.assign(new wasm.Settings(), settings);
  try {
    const { attended, kernel, wgsl, seen } = await gpu.attend(wasmModel, own);
    const { out, weights } = attended;
    attended.free();
    showWeights(settings, weights);
    fact("kernel", kernel);
    element("wgsl-text").textContent = wgsl;
    if (isStale) return;
    fact("gpu-time", milliseconds(await gpu.time(wasmModel, own)));
    if (isStale) return;
    const cpu = await onCpu(settings, seen);
    if (cpu.error) throw new Error(cpu.error);
    if (isStale) return;
    fact("cpu-time", milliseconds(cpu.time));
    const apart = Math.max(largestDifference(out, cpu.out), largestDifference(weights, cpu.weights));
    fact("difference", apart.toExponential(1));
  } finally {
    own.free();
  }
}

/** Draws weights, unless the visitor has chosen another sentence since. */
function showWeights(settings, weights) {
  if (settings.sentence !== state.sentence) return;
  state.weights = weights;
  maps.draw(weights, model.sentences[state.sentence].length);
  redraw();
}

function largestDifference(a, b) {
  // Not `Math.max`: a NaN must show.
  return a.reduce((largest, value, at) => {
    const difference = Math.abs(value - b[at]);
    return difference <= largest ? largest : difference;
  }, 0);
}

/** The browser's adapter. `null` if it has none. */
async function browserAdapter() {
  try {
    return (await navigator.gpu?.requestAdapter()) ?? null;
  } catch {
    return null;
  }
}

async function start() {
  wasm = await import("./page.js");
  await wasm.default({ module_or_path: "page_bg.wasm" });
  wasmModel = new wasm.Model(model.bytes);
  const adapter = await browserAdapter();
  if (adapter) {
    gpu = await wasm.Gpu.open(wasmModel);
    fact("device", describe(adapter.info));
    if (gpu.is_software) say("This is a software adapter: the CPU does the GPU's work, more slowly than by itself.");
    element("show-wgsl").disabled = false;
    offerLonger(gpu);
    offerCheck(gpu, adapter.info);
  } else {
    fact("device", "the CPU");
    say("This browser has no WebGPU, so the CPU computes.");
  }
}

element("show-wgsl").addEventListener("click", () => element("wgsl").showModal());
element("copy-wgsl").addEventListener("click", ({ target }) => copy(element("wgsl-text").textContent, target));
controls.listen(compute);
try {
  await start();
} catch (error) {
  gpu = null;
  fact("device", "the CPU");
  say(`WebGPU did not start, so the CPU computes: ${error.message ?? error}`, true);
}
await compute();
document.body.dataset.ready = "";
