// Copying text. A browser may refuse it, such as in a page without a secure connection.

/** Copies `text` and says on the button whether that worked. */
export async function copy(text, button) {
  button.dataset.label ??= button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser refused";
  }
  setTimeout(() => (button.textContent = button.dataset.label), 1500);
}
