// The words, and the lines from the word that reads to those that it reads.

import { spelled } from "./model.js";

const svg = "http://www.w3.org/2000/svg";
// Thinner lines cannot be seen.
const leastWeight = 0.005;
const leastWeightBehind = 0.1;

/** Calls `onChoose(word)` when a word is chosen, `onPoint(word)` when it is pointed at, and `onPoint(null)` when the pointer leaves. */
export class Words {
  #queries = document.querySelector("#queries");
  #keys = document.querySelector("#keys");
  #lines = document.querySelector("#lines");
  #frame = document.querySelector(".words");

  constructor({ onChoose, onPoint }) {
    this.#queries.addEventListener("change", (event) => onChoose(Number(event.target.value)));
    this.#queries.addEventListener("pointerover", (event) => {
      const label = event.target.closest("label");
      if (label && event.pointerType !== "touch") onPoint(Number(label.control.value));
    });
    // A touch chooses at once. One that scrolls the page ends without this event.
    this.#queries.addEventListener("pointerup", (event) => {
      if (event.pointerType === "touch") event.target.closest("label")?.control.click();
    });
    this.#queries.addEventListener("pointerleave", () => onPoint(null));
  }

  /** Shows the words of another sentence. */
  show(tokens, chosen) {
    this.#frame.style.setProperty("--count", tokens.length);
    const labels = tokens.map((token, at) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "word", value: at });
      radio.checked = at === chosen;
      label.append(radio, wordOf(token));
      return label;
    });
    const items = tokens.map((token) => {
      const item = document.createElement("li");
      const share = Object.assign(document.createElement("span"), { className: "share" });
      item.append(wordOf(token), share);
      return item;
    });
    this.#queries.replaceChildren(this.#queries.querySelector("legend"), ...labels);
    this.#keys.replaceChildren(...items);
  }

  /** Draws the weights of one head, (query, key), with those of `word` in front. */
  draw(weights, count, word) {
    const middle = (at) => ((at + 0.5) / count) * 100;
    const line = (query, key, weight, isBehind) => {
      const path = document.createElementNS(svg, "path");
      const [from, to] = [middle(query), middle(key)];
      path.setAttribute("d", `M0 ${from}C45 ${from} 55 ${to} 100 ${to}`);
      path.style.strokeWidth = `${(isBehind ? 0.5 : 1) + 9 * weight * (isBehind ? 0.4 : 1)}px`;
      path.style.opacity = isBehind ? 0.1 : 0.25 + 0.75 * Math.sqrt(weight);
      return path;
    };
    const behind = [];
    const front = [];
    for (let query = 0; query < count; query++) {
      for (let key = 0; key < count; key++) {
        const weight = weights[query * count + key];
        if (query === word && weight > leastWeight) front.push(line(query, key, weight, false));
        if (query !== word && weight > leastWeightBehind) behind.push(line(query, key, weight, true));
      }
    }
    this.#lines.replaceChildren(...behind, ...front);

    this.#queries.querySelectorAll("label").forEach((label, at) => label.classList.toggle("reading", at === word));
    this.#keys.querySelectorAll("li").forEach((item, at) => {
      const weight = weights[word * count + at];
      const strength = Math.round(60 * Math.sqrt(weight));
      item.style.background = `color-mix(in srgb, var(--accent) ${strength}%, transparent)`;
      item.querySelector(".share").textContent = percent(weight);
    });
  }
}

export function percent(weight) {
  if (weight === 0) return "–";
  return weight < 0.01 ? "<1 %" : `${Math.round(weight * 100)} %`;
}

function wordOf(token) {
  const word = document.createElement("span");
  word.textContent = spelled(token);
  if (token.startsWith("[")) word.className = "mark";
  return word;
}
