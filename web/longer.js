// Long sequences: a row per length, with the times of the fused and the naive kernels.

const body = document.querySelector("#longer tbody");
const button = document.querySelector("#measure");
const status = document.querySelector("#measure-status");

const lengths = [1024, 4096, 16384];
// A CPU would take minutes.
const lengthsOnSoftware = [1024];

/** Offers to measure on `gpu`, while nothing else runs. */
export function offer(gpu, exclusive) {
  const measured = gpu.is_software ? lengthsOnSoftware : lengths;
  button.disabled = false;
  button.onclick = async () => {
    button.disabled = true;
    status.className = "";
    try {
      status.textContent = "measuring …; the rest of the page waits";
      for (const length of measured) {
        const long = await exclusive(() => gpu.long(length));
        fill(length, long);
        long.free();
      }
      if (gpu.is_software) status.textContent = "Longer ones are for a GPU: this is a software adapter.";
      else if (status.textContent.startsWith("measuring")) status.textContent = "";
    } catch (error) {
      status.className = "bad";
      status.textContent = `stopped: ${error.message}`;
    }
    button.disabled = gpu.is_lost;
  };
}

export function withdraw() {
  button.disabled = true;
  status.textContent = "This needs a GPU.";
}

// Every row is there from the start, so that nothing moves.
for (const length of lengths) {
  const row = body.insertRow();
  row.dataset.length = length;
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = count(length);
  row.append(head);
  for (const name of ["fused", "naive", "bars", "rate", "memory"]) row.insertCell().className = name;
  row.querySelector(".bars").append(bar(""), bar("naive"));
}

function fill(length, { fused, naive, why_not, flop, score_bytes }) {
  const row = body.querySelector(`[data-length="${length}"]`);
  const cell = (name) => row.querySelector(`td.${name}`);
  const slower = Math.max(fused, naive ?? 0);
  const [ours, theirs] = row.querySelectorAll(".bar");
  cell("fused").textContent = milliseconds(fused);
  ours.style.width = `${(100 * fused) / slower}%`;
  cell("rate").textContent = `${Math.round(flop / fused / 1e6).toLocaleString("en")} GFLOP/s`;
  theirs.classList.toggle("none", naive === undefined);
  theirs.style.width = naive === undefined ? "100%" : `${(100 * naive) / slower}%`;
  cell("naive").textContent = naive === undefined ? "does not fit" : `${milliseconds(naive)} (${(naive / fused).toFixed(1)} ×)`;
  cell("memory").textContent = bytes(score_bytes);
  if (why_not) status.textContent = `Naive attention of ${count(length)} tokens: ${why_not}.`;
}

function bar(kind) {
  const bar = document.createElement("div");
  bar.className = `bar ${kind}`;
  bar.style.width = "0";
  return bar;
}

export function milliseconds(time) {
  return time < 0.01 ? `${(time * 1e3).toFixed(1)} µs` : `${time.toPrecision(3)} ms`;
}

function count(number) {
  return number.toLocaleString("en");
}

function bytes(number) {
  const [unit, size] = number < 2 ** 30 ? ["MiB", 2 ** 20] : ["GiB", 2 ** 30];
  return `${number / size} ${unit}`;
}
