// The CPU's computation of what the GPU computes, on a thread of its own.

import init, { Model, Settings } from "./page.js";

// Long enough that the browser's clock can measure it.
const longEnough = 30;
let model;

// The first message has the model, and those after it may arrive before it is read.
self.addEventListener("message", async ({ data }) => {
  if (data.bytes) {
    model = init({ module_or_path: "page_bg.wasm" }).then(() => new Model(data.bytes));
    model.catch((error) => self.postMessage({ error: String(error.message ?? error) }));
    return;
  }
  try {
    self.postMessage({ id: data.id, ...compute(await model, data) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error.message ?? error) });
  }
});

function compute(model, { settings, seen }) {
  const own = Object.assign(new Settings(), settings);
  try {
    let result;
    let runs = 0;
    const start = performance.now();
    do {
      result?.free();
      result = model.cpu(own, seen);
      runs++;
    } while (performance.now() - start < longEnough);
    const time = (performance.now() - start) / runs;
    const { out, weights } = result;
    result.free();
    return { time, out, weights };
  } finally {
    own.free();
  }
}
