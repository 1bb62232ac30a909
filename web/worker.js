// The CPU's computation of what the GPU computes, on a thread of its own.

import init, { Model, Settings } from "./page.js";

// Long enough that the browser's clock can measure it.
const longEnough = 30;
let model;

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.bytes) {
      await init({ module_or_path: "page_bg.wasm" });
      model = new Model(data.bytes);
      return;
    }
    const { id, settings, seen } = data;
    const own = Object.assign(new Settings(), settings);
    let result;
    let runs = 0;
    const start = performance.now();
    do {
      result?.free();
      result = model.cpu(own, seen);
      runs++;
    } while (performance.now() - start < longEnough);
    const time = (performance.now() - start) / runs;
    self.postMessage({ id, time, out: result.out, weights: result.weights });
    result.free();
    own.free();
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error.message ?? error) });
  }
});
