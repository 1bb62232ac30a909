// Judges every kernel in this browser, and makes a report to send.

import { copy } from "./clipboard.js";

const [button, copyButton, progress, status, list] =
  ["start-check", "copy-report", "check-progress", "check-status", "check-lines"].map((id) => document.querySelector(`#${id}`));

/** Offers the check on `gpu`, while nothing else runs. */
export function offer(gpu, info, exclusive) {
  button.disabled = false;
  button.onclick = async () => {
    button.disabled = copyButton.disabled = true;
    list.replaceChildren();
    status.className = "";
    status.textContent = "checking …; the rest of the page waits";
    const lines = [];
    let wrong = 0;
    try {
      const tell = (isRight, text, done, all) => {
        lines.push(`${isRight ? "ok   " : "WRONG"}  ${text}`);
        const line = document.createElement("li");
        line.className = isRight ? "good" : "bad";
        line.textContent = lines.at(-1);
        const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
        list.append(line);
        if (isAtEnd) list.scrollTop = list.scrollHeight;
        progress.max = all;
        progress.value = done;
      };
      wrong = await exclusive(() => gpu.check(tell));
      status.className = wrong === 0 ? "good" : "bad";
      status.textContent = wrong === 0 ? `all ${lines.length} are right` : `${wrong} of ${lines.length} are wrong: please send the report to the project's issues`;
    } catch (error) {
      lines.push(`stopped: ${error.message}`);
      status.className = "bad";
      status.textContent = lines.at(-1);
    }
    const facts = [`browser: ${navigator.userAgent}`, `adapter: ${describe(info)}`, `date: ${new Date().toISOString()}`];
    const report = [...facts, `result: ${status.textContent}`, "", ...lines].join("\n");
    copyButton.disabled = false;
    button.disabled = gpu.is_lost;
    copyButton.onclick = () => copy(report, copyButton);
  };
}

export function withdraw() {
  button.disabled = true;
  status.textContent = "This needs a GPU.";
}

/** The adapter as the browser describes it. */
export function describe({ vendor, architecture, description, device }) {
  return [...new Set([vendor, architecture, device, description].filter(Boolean))].join(" ") || "an adapter that the browser does not name";
}
