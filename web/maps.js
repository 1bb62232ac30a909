// The small maps of all heads: a row for each word that reads, a column for each word that is read.

// From nothing to the largest weight of the map.
const ramps = {
  light: ["#f3f5fb", "#9db7f5", "#3358cc", "#141d66"],
  dark: ["#12161f", "#26408f", "#5f93ff", "#fff1bf"],
};
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Calls `onHead(head)` when a head is chosen, and `onPoint(word)` while the pointer is on a row of a map. */
export class Maps {
  #heads;
  #drawn = null;

  constructor({ onHead, onPoint }) {
    const fieldset = document.querySelector("#heads");
    this.#heads = Array.from(fieldset.querySelectorAll(".map"), (map) => {
      map.addEventListener("pointermove", (event) => {
        if (event.pointerType === "touch" || !this.#drawn) return;
        const { top, height } = map.getBoundingClientRect();
        const word = Math.floor(((event.clientY - top) / height) * this.#drawn.count);
        onPoint(Math.min(Math.max(word, 0), this.#drawn.count - 1));
      });
      map.addEventListener("pointerleave", () => onPoint(null));
      return { canvas: map.querySelector("canvas"), row: map.querySelector(".row") };
    });
    fieldset.addEventListener("change", (event) => onHead(Number(event.target.value)));
    dark.addEventListener("change", () => this.#drawn && this.draw(this.#drawn.weights, this.#drawn.count));
  }

  /** Draws the weights, (head, query, key). */
  draw(weights, count) {
    this.#drawn = { weights, count };
    const colors = ramps[dark.matches ? "dark" : "light"].map(channels);
    this.#heads.forEach(({ canvas }, head) => {
      const map = weights.subarray(head * count * count, (head + 1) * count * count);
      const largest = map.reduce((largest, weight) => Math.max(largest, weight), 0) || 1;
      canvas.width = canvas.height = count;
      const image = new ImageData(count, count);
      // What is not a number is drawn as 0; the largest difference shows it.
      map.forEach((weight, at) => image.data.set(color(colors, Math.sqrt(weight / largest) || 0), at * 4));
      canvas.getContext("2d").putImageData(image, 0, 0);
    });
  }

  /** Marks the row of a word in every map. */
  mark(word, count) {
    for (const { row } of this.#heads) {
      row.style.height = `${100 / count}%`;
      row.style.translate = `0 ${word * 100}%`;
    }
  }
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function color(colors, height) {
  const at = height * (colors.length - 1);
  const below = Math.min(Math.floor(at), colors.length - 2);
  const mixed = colors[below].map((channel, n) => channel + (at - below) * (colors[below + 1][n] - channel));
  return [...mixed, 255];
}
