// The page: it draws the model's own weights at once, then what this browser computes.

import { describe, offer as offerCheck, withdraw as withdrawCheck } from "./check.js";
import { copy } from "./clipboard.js";
import * as controls from "./controls.js";
import { milliseconds, offer as offerLonger, withdraw as withdrawLonger } from "./longer.js";
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
  const text = summary(tokens, head.subarray(word * count, (word + 1) * count), word);
  // Screen readers read it at each change.
  if (element("summary").textContent !== text) element("summary").textContent = text;
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
    clearFacts();
    if (wasmModel) compute();
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
  element("status").title = text;
  element("status").className = isBad ? "bad" : "";
}

function fact(id, text) {
  element(id).textContent = text;
  element(id).title = text;
}

// What follows computes. Until it is ready, the page shows what the model computed.

const notes = {
  software: "This is a software adapter: the CPU does the GPU's work, more slowly than by itself.",
  none: "This browser has no WebGPU, so the CPU computes.",
  lost: "The GPU was lost, so the CPU computes.",
};

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let asked = 0;
let workerError = null;
worker.postMessage({ bytes: model.bytes });
worker.addEventListener("message", ({ data }) => (data.id === undefined ? stopWorker(data.error) : answer(data)));
worker.addEventListener("error", (event) => stopWorker(event.message ?? "its script did not load"));

function answer(data) {
  waiting.get(data.id)?.(data);
  waiting.delete(data.id);
}

/** Answers all requests with an error, also those to come. */
function stopWorker(error) {
  workerError = `the CPU's computation did not start: ${error}`;
  [...waiting.keys()].forEach((id) => answer({ id, error: workerError }));
}

/** The settings' results on the CPU. */
async function onCpu(settings, seen) {
  if (workerError) throw new Error(workerError);
  const id = ++asked;
  worker.postMessage({ id, settings, seen });
  const result = await new Promise((resolve) => waiting.set(id, resolve));
  if (result.error) throw new Error(result.error);
  return result;
}

let wasm;
let wasmModel;
let gpu = null;
let hasReopened = false;

// One at a time, so that each is timed alone.
let last = Promise.resolve();
function exclusive(work) {
  const result = last.then(work);
  last = result.catch(() => {});
  return result;
}

let isComputing = false;
let isStale = false;

/** Computes what the settings ask for. If they change meanwhile, it is computed again. */
async function compute() {
  isStale = true;
  if (isComputing) return;
  isComputing = true;
  document.body.dataset.computing = "";
  while (isStale) {
    isStale = false;
    const settings = { ...controls.settings(), sentence: state.sentence };
    try {
      await exclusive(() => (gpu ? computeOnGpu(settings) : computeOnCpu(settings)));
      if (!isStale) sayWrong("", settings);
    } catch (error) {
      if (gpu?.is_lost) {
        await reopen();
        isStale = true;
      } else if (!isStale) {
        sayWrong(String(error.message ?? error), settings);
      }
    }
  }
  isComputing = false;
  delete document.body.dataset.computing;
}

async function computeOnCpu(settings) {
  if (settings.program.trim()) throw new Error("a program in WGSL needs a GPU");
  const cpu = await onCpu(settings);
  showWeights(settings, cpu.weights);
  fact("cpu-time", milliseconds(cpu.time));
}

async function computeOnGpu(settings) {
  const own = Object.assign(new wasm.Settings(), settings);
  try {
    const result = await gpu.attend(wasmModel, own);
    const { attended, kernel, wgsl, seen } = result;
    result.free();
    const { out, weights } = attended;
    attended.free();
    showWeights(settings, weights);
    fact("kernel", kernel);
    element("wgsl-text").textContent = wgsl;
    if (isStale) return;
    fact("gpu-time", milliseconds(await gpu.time(wasmModel, own)));
    if (isStale) return;
    const cpu = await onCpu(settings, seen);
    if (isStale) return;
    fact("cpu-time", milliseconds(cpu.time));
    const apart = Math.max(largestDifference(out, cpu.out), largestDifference(weights, cpu.weights));
    fact("difference", apart.toExponential(1));
  } finally {
    own.free();
  }
}

/** Shows what is wrong with a program at the program, and anything else at the top. An empty text is for nothing wrong. */
function sayWrong(text, settings) {
  const isOfProgram = settings.program.trim() !== "";
  controls.showError(isOfProgram ? text : "");
  if (text && !isOfProgram) say(text, true);
  else sayNote();
}

function sayNote() {
  say(gpu ? (gpu.is_software ? notes.software : "") : hasReopened ? notes.lost : notes.none);
}

/** Draws weights, unless the visitor has chosen another sentence since. */
function showWeights(settings, weights) {
  if (settings.sentence !== state.sentence) return;
  state.weights = weights;
  maps.draw(weights, model.sentences[state.sentence].length);
  redraw();
}

function clearFacts() {
  for (const id of ["kernel", "gpu-time", "cpu-time", "difference"]) fact(id, "–");
}

/** NaN if any value is. */
function largestDifference(a, b) {
  return a.reduce((largest, value, at) => Math.max(largest, Math.abs(value - b[at])), 0);
}

/** The browser's adapter. `null` if it has none. */
async function browserAdapter() {
  try {
    return (await navigator.gpu?.requestAdapter()) ?? null;
  } catch {
    return null;
  }
}

/** Opens a device of the browser's adapter. Without one, the CPU computes. */
async function open() {
  gpu = null;
  const adapter = await browserAdapter();
  if (adapter) {
    gpu = await wasm.Gpu.open(wasmModel);
    fact("device", describe(adapter.info));
    offerLonger(gpu, exclusive);
    offerCheck(gpu, adapter.info, exclusive);
  }
}

/** What the page can do without a GPU. */
function withoutGpu() {
  gpu = null;
  fact("device", "the CPU");
  withdrawLonger();
  withdrawCheck();
}

/** Opens another device once after a loss: the next loss may have the same cause. */
async function reopen() {
  gpu = null;
  clearFacts();
  const again = !hasReopened;
  hasReopened = true;
  try {
    if (again) await open();
  } catch {
    gpu = null;
  }
  if (!gpu) withoutGpu();
  element("show-wgsl").disabled = !gpu;
}

async function start() {
  try {
    wasm = await import("./page.js");
    await wasm.default({ module_or_path: "page_bg.wasm" });
    wasmModel = new wasm.Model(model.bytes);
  } catch (error) {
    fact("device", "none");
    say(`WebAssembly did not start, so these are the model's own weights: ${error.message ?? error}`, true);
    return;
  }
  try {
    await open();
  } catch (error) {
    gpu = null;
    notes.none = `WebGPU did not start, so the CPU computes: ${error.message ?? error}`;
  }
  if (!gpu) withoutGpu();
  element("show-wgsl").disabled = !gpu;
  controls.listen(compute);
  await compute();
}

// What none of the above expects.
addEventListener("error", ({ message }) => say(message, true));
addEventListener("unhandledrejection", ({ reason }) => say(String(reason?.message ?? reason), true));

element("show-wgsl").addEventListener("click", () => element("wgsl").showModal());
element("copy-wgsl").addEventListener("click", ({ target }) => copy(element("wgsl-text").textContent, target));
await start();
document.body.dataset.ready = "";
