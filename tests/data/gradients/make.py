"""Writes one safetensors file per case: inputs, what comes in (dout, dlse), and PyTorch's gradients.

All is computed in float64 by autograd, from inputs that float32 can store; the gradients are rounded to float32. Where
PyTorch's own scaled_dot_product_attention has the features of a case, its gradients are stored, and those of the
textbook formula must agree with them. Elsewhere, those of the textbook formula are stored.

    pip install torch numpy safetensors
    python make.py
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

INF = float("inf")
# Which gradient belongs to which input.
GRADIENTS = {"q": "dq", "k": "dk", "v": "dv", "bias": "dbias", "sinks": "dsinks"}


def seen(settings, tensors):
    """Which keys each row may see by position, lengths and mask, and how far each key is from where the row stands."""
    q, k = tensors["q"], tensors["k"]
    batch, len_q, len_k = q.shape[0], q.shape[2], k.shape[2]
    lengths = lambda name, most: tensors.get(name, torch.full((batch,), most)).reshape(batch, 1, 1, 1)
    queries, keys = lengths("q_lengths", len_q), lengths("kv_lengths", len_k)
    row, key = torch.arange(len_q).reshape(1, 1, -1, 1), torch.arange(len_k).reshape(1, 1, 1, -1)
    # The key that a row stands at: the last query stands at the last key, or the first query at the first key.
    at = row + (keys - queries if settings.get("diagonal") == "bottom-right" else 0)
    left, right = settings.get("window", [None, None])
    visible = (row < queries) & (key < keys)
    if settings.get("causal"):
        visible = visible & (key <= at)
    if left is not None:
        visible = visible & (key >= at - left)
    if right is not None:
        visible = visible & (key <= at + right)
    return visible & tensors.get("mask", torch.tensor(True)), (at - key).abs()


def textbook(settings, tensors):
    """The output and the logsumexp, with the whole matrix of scores."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    batch, heads = q.shape[:2]
    # Neighbouring query heads share a head of keys and values.
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * settings.get("scale", q.shape[3] ** -0.5)
    if "softcap" in settings:
        scores = settings["softcap"] * torch.tanh(scores / settings["softcap"])
    visible, distance = seen(settings, tensors)
    if "bias" in tensors:
        scores = scores + tensors["bias"]
    if "alibi_slopes" in tensors:
        scores = scores - tensors["alibi_slopes"].reshape(-1, heads, 1, 1) * distance
    visible = visible.expand_as(scores)
    scores = scores.masked_fill(~visible, -INF)
    if "sinks" in tensors:
        # One more key, without a value.
        sink = tensors["sinks"].reshape(1, heads, 1, 1).expand(batch, heads, scores.shape[2], 1)
        scores = torch.cat([scores, sink], dim=3)
        empty = torch.zeros(*scores.shape[:3], 1, dtype=torch.bool)
    else:
        empty = ~visible.any(dim=3, keepdim=True)
    # A row without keys has the output 0. It gets finite scores first, for its softmax would be NaN.
    scores = scores.masked_fill(empty, 0)
    weights = torch.softmax(scores, dim=3).masked_fill(empty, 0)
    lse = torch.logsumexp(scores, dim=3).masked_fill(empty.squeeze(3), -INF)
    return weights[..., : k.shape[2]] @ v, lse


def sdpa(settings, tensors):
    """PyTorch's own function, for the cases that it covers."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    mask = tensors.get("mask", tensors.get("bias"))
    if settings.get("diagonal") == "bottom-right":
        mask = causal_lower_right(q.shape[2], k.shape[2])
    is_causal = settings.get("causal", False) and mask is None
    grouped = q.shape[1] != k.shape[1]
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, scale=settings.get("scale"), enable_gqa=grouped
    )


def gradients(settings, tensors, by):
    wide = lambda x: x.double() if x.is_floating_point() else x
    tensors = {name: wide(x) for name, x in tensors.items()}
    learned = {name: tensors[name].requires_grad_() for name in GRADIENTS if name in tensors}
    dout, dlse = tensors["dout"], tensors.get("dlse")
    if by is sdpa:
        outputs, incoming = [sdpa(settings, tensors)], [dout]
    else:
        out, lse = textbook(settings, tensors)
        outputs, incoming = ([out], [dout]) if dlse is None else ([out, lse], [dout, dlse])
    found = torch.autograd.grad(outputs, list(learned.values()), incoming)
    return {GRADIENTS[name]: x for name, x in zip(learned, found)}


def drawn(seed, batch, heads, kv_heads, len_q, len_k, dim, dim_v):
    """A function that draws, and the tensors of every case. Queries are large, so that some keys outweigh others."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    tensors = {
        "q": 2 * draw(batch, heads, len_q, dim),
        "k": draw(batch, kv_heads, len_k, dim),
        "v": draw(batch, kv_heads, len_k, dim_v),
        "dout": draw(batch, heads, len_q, dim_v),
    }
    return draw, tensors


def holes(draw, *shape):
    """A mask, 1 = attend, that hides a third of the keys, and all keys from row 5."""
    mask = draw(*shape) < 0.43
    mask[:, :, 5] = False
    return mask


def cases():
    """(name, by which function, settings, tensors). Float32 can store every scale."""
    _, tensors = drawn(1, 1, 2, 2, 13, 19, 16, 16)
    yield "plain", sdpa, {}, tensors
    _, tensors = drawn(2, 2, 2, 2, 13, 19, 8, 6)
    yield "causal", sdpa, {"causal": True, "scale": 0.375}, tensors
    _, tensors = drawn(3, 2, 2, 2, 13, 19, 8, 6)
    yield "causal_bottom_right", sdpa, {"causal": True, "diagonal": "bottom-right", "scale": 0.375}, tensors
    _, tensors = drawn(4, 2, 4, 2, 13, 19, 8, 6)
    yield "grouped", sdpa, {"scale": 0.3125}, tensors
    draw, tensors = drawn(5, 2, 2, 1, 13, 19, 4, 6)
    yield "mask", sdpa, {}, tensors | {"mask": holes(draw, 2, 1, 13, 19)}
    draw, tensors = drawn(6, 2, 4, 2, 13, 19, 4, 6)
    yield "bias", sdpa, {}, tensors | {"bias": draw(1, 4, 13, 19)}
    draw, tensors = drawn(7, 2, 4, 2, 13, 19, 4, 6)
    bias = draw(2, 1, 1, 19)
    bias[1, :, :, 4] = -INF
    yield "key_bias", sdpa, {}, tensors | {"bias": bias}
    _, tensors = drawn(8, 2, 2, 1, 13, 19, 8, 6)
    yield "softcap", textbook, {"softcap": 1.5, "scale": 0.375}, tensors
    # More rows than keys: the first rows see no key, only the sink.
    draw, tensors = drawn(9, 2, 4, 2, 19, 13, 8, 6)
    settings = {"causal": True, "diagonal": "bottom-right", "scale": 0.25}
    yield "sinks", textbook, settings, tensors | {"sinks": draw(4), "dlse": draw(2, 4, 19)}
    _, tensors = drawn(10, 2, 4, 2, 13, 19, 4, 6)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    yield "alibi", textbook, {"diagonal": "bottom-right"}, tensors | {"alibi_slopes": slopes}
    # More rows than keys: the first rows see no key.
    _, tensors = drawn(11, 2, 2, 1, 19, 13, 8, 6)
    yield "window", textbook, {"window": [4, 2], "diagonal": "bottom-right", "scale": 0.375}, tensors
    draw, tensors = drawn(12, 2, 4, 2, 13, 19, 8, 6)
    yield "logsumexp", textbook, {"scale": 0.375}, tensors | {"mask": holes(draw, 1, 4, 13, 19), "dlse": draw(2, 4, 13)}
    _, tensors = drawn(13, 3, 2, 1, 13, 19, 4, 6)
    lengths = {"kv_lengths": torch.tensor([19, 5, 0]), "q_lengths": torch.tensor([11, 13, 2])}
    yield "lengths", textbook, {"causal": True, "diagonal": "bottom-right"}, tensors | lengths
    # Kernels bind eight buffers where a device has WebGPU's default limits, so two cases share the features.
    draw, tensors = drawn(14, 2, 4, 2, 13, 19, 8, 6)
    settings = {"scale": -0.3125, "softcap": 3.0, "window": [9, None], "causal": True, "diagonal": "bottom-right"}
    more = {"mask": holes(draw, 2, 1, 13, 19), "bias": draw(1, 4, 1, 19), "sinks": draw(4), "dlse": draw(2, 4, 13)}
    yield "many_at_once", textbook, settings, tensors | more
    draw, tensors = drawn(15, 2, 4, 2, 13, 19, 8, 6)
    settings = {"scale": 0.375, "softcap": 2.0, "window": [7, 1], "diagonal": "bottom-right"}
    more = {"kv_lengths": torch.tensor([17, 10]), "alibi_slopes": 0.2 * draw(2, 4).abs(), "sinks": draw(4)}
    yield "others_at_once", textbook, settings, tensors | more | {"dlse": draw(2, 4, 13)}


def main():
    print("torch", torch.__version__)
    for name, by, settings, tensors in cases():
        found, checked = (gradients(settings, tensors, function) for function in (by, textbook))
        for tensor, x in found.items():
            torch.testing.assert_close(x, checked[tensor], rtol=0, atol=1e-13 * x.abs().max().item())
        assert all(x.isfinite().all() for x in found.values()), name
        stored = {tensor: x.int() if x.dtype == torch.int64 else x for tensor, x in tensors.items()}
        stored |= {tensor: x.float() for tensor, x in found.items()}
        # One string, because safetensors writes several in any order.
        metadata = {"case": json.dumps({"by": by.__name__, "torch": torch.__version__, "settings": settings})}
        path = pathlib.Path(__file__).parent / f"{name}.safetensors"
        save_file({tensor: x.contiguous() for tensor, x in stored.items()}, path, metadata)
        print(name, by.__name__, settings, {tensor: list(x.shape) for tensor, x in stored.items()})


main()
