// The visitor's settings.

const element = (id) => document.querySelector(`#${id}`);
const form = element("controls");
const [scale, softcap, causal, windowed, width, program] =
  ["scale", "softcap", "causal", "window", "width", "program"].map(element);

// While a program is typed, it is compiled only when the typing pauses.
const pause = 350;

/** Calls `onChange` when a setting changed. */
export function listen(onChange) {
  let typing;
  const change = () => {
    clearTimeout(typing);
    label();
    onChange();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    label();
    if (event.target === program) typing = setTimeout(change, pause);
    else change();
  });
  // The fields change after the event.
  form.addEventListener("reset", () => setTimeout(change));
  form.addEventListener("click", (event) => {
    const preset = event.target.dataset.program;
    if (preset === undefined) return;
    program.value = preset;
    change();
  });
  label();
}

/** The settings in the form that `Settings` has in Rust, but for the sentence. */
export function settings() {
  return {
    scale: Number(scale.value),
    softcap: softcap.value === softcap.max ? undefined : Number(softcap.value),
    causal: causal.checked,
    window: windowed.checked ? Number(width.value) : undefined,
    program: program.value,
  };
}

/** Shows what is wrong with the program, or nothing. */
export function showError(text) {
  element("program-error").textContent = text;
  program.setAttribute("aria-invalid", text !== "");
}

function label() {
  element("scale-value").textContent = `${Number(scale.value).toFixed(2)} / √32`;
  element("softcap-value").textContent = softcap.value === softcap.max ? "off" : `${softcap.value} · tanh(s / ${softcap.value})`;
  element("width-value").textContent = `${width.value} to either side`;
  width.disabled = !windowed.checked;
}
