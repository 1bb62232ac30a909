"""What the Python peers share: the command line, the inputs, the clock, the check and the row they print.

A peer is a function `prepare(problem) -> (device, run)`: it uploads the inputs, and `run()` computes the output and
returns it on the host as an array (B, Hq, Lq, D). Whatever it raises becomes the row's "error". A third value,
`more(repeats)`, gives fields to add to the row.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field

try:
    import numpy as np
except ImportError:
    np = None

# Checked rows: enough to meet every tile and head, few enough for NumPy in float64.
CHECKED_ROWS = 2048


@dataclass(frozen=True)
class Shape:
    batch: int
    heads_q: int
    heads_kv: int
    len_q: int
    len_k: int
    dim: int
    causal: bool = False
    mask: bool = False

    @staticmethod
    def parse(text):
        numbers, words = text.split(",")[:6], text.split(",")[6:]
        if len(numbers) < 6 or set(words) - {"causal", "mask"}:
            raise argparse.ArgumentTypeError("expected B,HQ,HKV,LQ,LK,D[,causal|,mask]")
        shape = Shape(*map(int, numbers), causal="causal" in words, mask="mask" in words)
        if min(map(int, numbers)) < 1 or shape.heads_q % shape.heads_kv:
            raise argparse.ArgumentTypeError("sizes are at least 1 and HKV divides HQ")
        if shape.causal and shape.len_q != shape.len_k:
            raise argparse.ArgumentTypeError("causal needs LQ = LK: peers disagree on the diagonal otherwise")
        return shape

    def flop(self):
        full = 4 * self.batch * self.heads_q * self.len_q * self.len_k * self.dim
        return full / 2 if self.causal else full

    def kept_keys(self):
        """How many keys each batch entry keeps under `mask`: three quarters, then all but five, in turn."""
        return [self.len_k * 3 // 4 if b % 2 == 0 else max(self.len_k - 5, 1) for b in range(self.batch)]


@dataclass
class Problem:
    shape: Shape
    dtype: str
    # float32 arrays whose values the dtype can hold; q is (B, Hq, Lq, D), k and v (B, Hkv, Lk, D).
    q: object = field(init=False)
    k: object = field(init=False)
    v: object = field(init=False)
    # bool (B, Lk), True where a key counts, or None.
    keep: object = field(init=False, default=None)

    def __post_init__(self):
        s, random = self.shape, np.random.default_rng(1)

        def normal(heads, length):
            return rounded(random.standard_normal((s.batch, heads, length, s.dim), dtype=np.float32), self.dtype)

        self.q, self.k, self.v = normal(s.heads_q, s.len_q), normal(s.heads_kv, s.len_k), normal(s.heads_kv, s.len_k)
        if s.mask:
            self.keep = np.arange(s.len_k)[None, :] < np.array(s.kept_keys())[:, None]

    def repeated(self, tensor):
        """K or V with each head repeated for its group, for peers without grouped queries."""
        return np.repeat(tensor, self.shape.heads_q // self.shape.heads_kv, axis=1)

    def max_error(self, out):
        """Largest |out - reference| over evenly spaced rows, the reference in float64 from the definition."""
        s = self.shape
        # NumPy does not know torch's bf16.
        out = out.double() if hasattr(out, "double") else out
        out = np.asarray(out, dtype=np.float64).reshape(s.batch * s.heads_q, s.len_q, s.dim)
        total = s.batch * s.heads_q * s.len_q
        # An odd step meets every position within a tile.
        rows = np.append(np.arange(0, total, (total // CHECKED_ROWS) | 1), total - 1)
        worst = 0.0
        for head in range(s.batch * s.heads_q):
            i = rows[rows // s.len_q == head] % s.len_q
            if not len(i):
                continue
            b, h = divmod(head, s.heads_q)
            h_kv = h // (s.heads_q // s.heads_kv)
            q, k, v = (x.astype(np.float64) for x in (self.q[b, h, i], self.k[b, h_kv], self.v[b, h_kv]))
            scores = q @ k.T / np.sqrt(s.dim)
            if s.causal:
                scores[np.arange(s.len_k)[None, :] > i[:, None]] = -np.inf
            if s.mask:
                scores[:, ~self.keep[b]] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            error = np.abs(out[head, i] - weights / weights.sum(axis=1, keepdims=True) @ v).max()
            worst = max(worst, error if np.isfinite(error) else np.inf)
        return worst


def rounded(values, dtype):
    if dtype == "f16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def measure(run, repeats, warmups):
    """Milliseconds of each repeat, and the last output."""
    out, times = None, []
    for i in range(warmups + repeats):
        start = time.perf_counter()
        out = run()
        if i >= warmups:
            times.append((time.perf_counter() - start) * 1e3)
    return times, out


def row(name, shape, dtype, prepare, options):
    result = {"peer": name, "batch": shape.batch, "heads_q": shape.heads_q, "heads_kv": shape.heads_kv,
              "len_q": shape.len_q, "len_k": shape.len_k, "dim": shape.dim, "causal": shape.causal, "mask": shape.mask,
              "dtype": dtype, "device": None, "median_ms": None, "min_ms": None, "max_ms": None, "tflops": None,
              "max_error": None, "error": None}
    try:
        if np is None:
            raise ImportError("NumPy is not installed")
        problem = Problem(shape, dtype)
        result["device"], run, *more = prepare(problem)
        times, out = measure(run, options.repeats, options.warmups)
        error = problem.max_error(out)
        median = statistics.median(times)
        result |= {"median_ms": median, "min_ms": min(times), "max_ms": max(times),
                   "tflops": shape.flop() / median / 1e9}
        for fields in more:
            result |= fields(options.repeats)
        # JSON has no infinity.
        if np.isfinite(error):
            result["max_error"] = float(error)
        else:
            result["error"] = "the output is not finite"
    except Exception as error:  # A peer that cannot run says why; the others still do.
        result["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    return result


def main(peers):
    """Runs `peers`, a dict from name to prepare function, on the shapes of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", type=Shape.parse, action="append", required=True,
                        metavar="B,HQ,HKV,LQ,LK,D[,causal|,mask]")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmups", type=int, default=2)
    options = parser.parse_args()
    for shape in options.shape:
        for name, prepare in peers.items():
            print(json.dumps(row(name, shape, options.dtype, prepare, options)), flush=True)
