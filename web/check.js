// Judges every kernel in this browser, and makes a report to send.

import { copy } from "./clipboard.js";

const [button, copyButton, progress, status, list] =
  ["start-check", "copy-report", "check-progress", "check-status", "check-lines"].map((id) => document.querySelector(`#${id}`));

export function offer(gpu, info) {
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = copyButton.disabled = true;
    list.replaceChildren();
    status.className = "";
    status.textContent = "checking …";
    const lines = [];
    let wrong = 0;
    try {
      wrong = await gpu.check((isRight, text, done, all) => {
        lines.push(`${isRight ? "ok   " : "WRONG"}  ${text}`);
        const line = document.createElement("li");
        line.className = isRight ? "good" : "bad";
        line.textContent = lines.at(-1);
        const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
        list.append(line);
        if (isAtEnd) list.scrollTop = list.scrollHeight;
        progress.max = all;
        progress.value = done;
        status.textContent = `${done} of ${all}`;
      });
      status.className = wrong === 0 ? "good" : "bad";
      status.textContent = wrong === 0 ? `all ${lines.length} are right` : `${wrong} of ${lines.length} are wrong: please send the report`;
    } catch (error) {
      lines.push(`stopped: ${error.message}`);
      status.className = "bad";
      status.textContent = lines.at(-1);
    }
    const facts = [`browser: ${navigator.userAgent}`, `adapter: ${describe(info)}`, `date: ${new Date().toISOString()}`];
    const report = [...facts, `result: ${status.textContent}`, "", ...lines].join("\n");
    copyButton.disabled = button.disabled = false;
    copyButton.onclick = () => copy(report, copyButton);
  });
}

/** The adapter as the browser describes it. */
export function describe({ vendor, architecture, description, device }) {
  return [...new Set([vendor, architecture, device, description].filter(Boolean))].join(" ") || "an adapter that the browser does not name";
}
