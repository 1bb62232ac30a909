#!/usr/bin/env python3
"""tinygrad's scaled_dot_product_attention on its WEBGPU device (Dawn from the package dawn-python)."""

import importlib.util
import os
import platform
from pathlib import Path

import protocol


def find_dawn():
    """tinygrad takes the library's path from the environment, before it is imported."""
    os.environ["DEV"] = "WEBGPU"
    found = importlib.util.find_spec("pydawn")
    if "WEBGPU_PATH" in os.environ or found is None:
        return
    libraries = sorted(Path(found.submodule_search_locations[0], "lib").glob("libwebgpu_dawn*"))
    for library in libraries:
        # The package brings one for each architecture.
        if len(libraries) == 1 or platform.machine() in library.name:
            os.environ["WEBGPU_PATH"] = str(library)


def attention(problem):
    from importlib.metadata import version

    find_dawn()
    from tinygrad import Device, Tensor, TinyJit, dtypes

    if Device.DEFAULT != "WEBGPU":
        raise RuntimeError(f"tinygrad runs on {Device.DEFAULT}")
    s = problem.shape
    dtype = {"f32": dtypes.float32, "f16": dtypes.float16, "bf16": dtypes.bfloat16}[problem.dtype]
    q, k, v = (Tensor(x).cast(dtype).contiguous().realize()
               for x in (problem.q, problem.repeated(problem.k), problem.repeated(problem.v)))
    mask = Tensor(problem.keep[:, None, None, :]).realize() if s.mask else None

    @TinyJit
    def step(q, k, v, *mask):
        return q.scaled_dot_product_attention(k, v, attn_mask=mask[0] if mask else None, is_causal=s.causal).realize()

    def run():
        return step(q, k, v, *([mask] if s.mask else [])).numpy()

    return f"tinygrad {version('tinygrad')} WEBGPU", run


if __name__ == "__main__":
    protocol.main({"tinygrad": attention})
