#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention: on the CPU, and with CUDA each of its backends by name."""

import statistics
from functools import partial

import protocol

# The label here, the name in torch.nn.attention.SDPBackend.
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "math": "MATH"}


def attention(problem, device, backend=None):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device, or a torch without CUDA")
    s = problem.shape
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[problem.dtype]
    # The memory-efficient backend has no grouped queries.
    grouped = s.heads_q != s.heads_kv and backend != "efficient"
    sources = (problem.q, *(x if grouped else problem.repeated(x) for x in (problem.k, problem.v)))
    q, k, v = (torch.from_numpy(x).to(device, dtype) for x in sources)
    mask = torch.from_numpy(problem.keep)[:, None, None, :].to(device) if s.mask else None
    allowed = list(SDPBackend.__members__.values()) if backend is None else getattr(SDPBackend, BACKENDS[backend])
    events = []

    def run():
        if device == "cuda":
            events.append([torch.cuda.Event(enable_timing=True) for _ in range(2)])
            events[-1][0].record()
        with torch.inference_mode(), sdpa_kernel(allowed):
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=s.causal, enable_gqa=grouped)
        if device == "cuda":
            events[-1][1].record()
        return out.cpu()

    def more(repeats):
        times = [start.elapsed_time(end) for start, end in events[-repeats:]]
        return {"event_ms": statistics.median(times)} if times else {}

    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__} {name}", run, more


if __name__ == "__main__":
    protocol.main({"torch-cpu": partial(attention, device="cpu")}
                  | {f"torch-cuda-{name}": partial(attention, device="cuda", backend=name) for name in BACKENDS})
