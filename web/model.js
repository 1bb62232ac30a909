// The bundled sentences: their tokens, and the weights that the model itself computed, which are drawn first.

export async function loadModel() {
  const response = await fetch("minilm.safetensors");
  if (!response.ok) throw new Error(`the sentences did not load: ${response.status} ${response.statusText}`);
  const file = await response.arrayBuffer();

  // A safetensors file is the length of its header, the header in JSON, then the tensors.
  const headerLength = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, headerLength)));
  const sentences = JSON.parse(header.__metadata__.tokens);
  const [, heads, room] = header.weights.shape;
  const start = 8 + headerLength + header.weights.data_offsets[0];
  const padded = new Float32Array(file.slice(start, 8 + headerLength + header.weights.data_offsets[1]));

  /** The weights of a sentence, as (head, query, key) without padding. */
  function weights(sentence) {
    const count = sentences[sentence].length;
    const result = new Float32Array(heads * count * count);
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < count; query++) {
        const from = ((sentence * heads + head) * room + query) * room;
        result.set(padded.subarray(from, from + count), (head * count + query) * count);
      }
    }
    return result;
  }

  return { bytes: new Uint8Array(file), sentences, heads, weights };
}

/** A token as text. `##` marks one that continues the word before it. */
export function spelled(token) {
  return token.startsWith("##") ? `…${token.slice(2)}` : token;
}

/** A sentence as text, without the marks around it. */
export function sentenceText(tokens) {
  let text = "";
  for (const token of tokens.slice(1, -1)) {
    if (token.startsWith("##")) text += token.slice(2);
    else text += /^[.,?']$/.test(token) || text.endsWith("'") ? token : ` ${token}`;
  }
  return text.trim();
}
