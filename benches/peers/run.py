#!/usr/bin/env python3
"""Times this library and its peers on the same shapes in the same run, and prints by what factor they differ.

Ours runs before and after each peer, and a ratio compares the peer with the mean of the two: what slows the machine for
a while slows both. Needs nothing but Python; a peer that is missing is listed with the reason.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / "venv" / "bin" / "python"

# B,HQ,HKV,LQ,LK,D; P are prefill, D decode.
SHAPES = {
    "P1": "1,8,8,512,512,64",
    "P2": "1,8,8,1024,1024,64,causal",
    "P3": "1,8,2,1024,1024,128,causal",
    "P4": "2,4,4,384,384,32,mask",
    "D1": "1,32,8,1,4096,128",
    "D2": "8,16,16,1,2048,64",
}
PEERS = {
    "burn": "target/release/peer-burn",
    "ferrotensor": "target/release/peer-ferrotensor",
    "onnxruntime": "onnxruntime_webgpu.py",
    "tinygrad": "tinygrad_webgpu.py",
    "torch": "torch_sdpa.py",
}
# Not on top of a portable GPU interface: shown, but never the peer to beat.
FOR_SCALE = "torch"
# Outputs further off than this are wrong, not imprecise.
TOLERANCE = {"f32": 1e-2, "f16": 1e-2, "bf16": 5e-2}


def is_prefill(name, shape):
    # A given shape has its own text for a name.
    return name.startswith("P") if name in SHAPES else int(shape.split(",")[3]) > 64


def run_ours(options, shape, dtype):
    """Our row for one shape; without it there is nothing to compare with."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ours.json")
        command = [options.ours, "bench", "--shape", shape, "--dtype", dtype, "--json", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
            rows = json.loads(file.read_text()) if file.exists() else []
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            sys.exit(f"ours did not run: {error}\nBuild it with `cargo build --release`, or name it with --ours.")
        if done.returncode or not rows:
            sys.exit(f"ours failed on {shape}: {last_line(done.stderr)}")
        return rows[0]


def run_peer(options, peer, shape, dtype):
    """The rows a peer prints: one for each of its ways to compute attention. An empty run gives one with the reason."""
    program = HERE / PEERS[peer]
    command = [options.python, str(program)] if program.suffix == ".py" else [str(program)]
    command += ["--shape", shape, "--dtype", dtype]
    command += ["--repeats", str(options.repeats), "--warmups", str(options.warmups)]
    reason, printed = None, ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        printed = done.stdout
        if done.returncode:
            reason = f"ended with status {done.returncode}: {last_line(done.stderr)}"
    except FileNotFoundError:
        reason = f"{command[0]} is missing: README.md says how to get it"
    except subprocess.TimeoutExpired as error:
        reason = f"not done after {options.timeout} s"
        printed = (error.stdout or b"").decode(errors="replace")
    # Libraries print messages of their own in between.
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith('{"peer"')]
    if reason or not rows:
        rows.append({"peer": peer, "median_ms": None, "max_error": None, "error": reason or "printed nothing"})
    return rows


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def distrust(row, ours, dtype):
    """Marks a time that no f32 multiply-add on our device allows: the peer's clock stopped before the work was done."""
    share = ours.get("share_of_fma")
    if dtype == "f32" and row["median_ms"] and share and not row["peer"].startswith(FOR_SCALE):
        limit = ours["tflops"] / share
        # The limit is measured too, at another moment.
        if row["tflops"] > 1.5 * limit:
            row["error"] = f"impossible: {row['tflops']:.3g} TFLOP/s where multiply-adds reach {limit:.3g}"


def is_right(row, dtype):
    return row["error"] is None and row["max_error"] <= TOLERANCE[dtype]


def measure(options, shapes, peers, dtype):
    """All rows, each with the shape's name and, for a peer's, our times around it and the ratio."""
    rows = []
    for round_ in range(options.rounds):
        for name, shape in shapes.items():
            before = run_ours(options, shape, dtype)
            rows.append({**before, "peer": "ours", "shape": name, "round": round_})
            for peer in peers:
                print(f"{dtype} {name} {peer} …", file=sys.stderr, flush=True)
                theirs = run_peer(options, peer, shape, dtype)
                after = run_ours(options, shape, dtype)
                rows.append({**after, "peer": "ours", "shape": name, "round": round_})
                ours_ms = (before["wall_ms"] + after["wall_ms"]) / 2
                for row in theirs:
                    timed = row["median_ms"] is not None
                    distrust(row, after, dtype)
                    row |= {"shape": name, "round": round_, "dtype": dtype, "ours_ms": ours_ms,
                            "ratio": row["median_ms"] / ours_ms if timed else None, "right": is_right(row, dtype)}
                rows += theirs
                before = after
                if options.json:
                    # Each time, so that an interrupted run leaves what it has.
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


class Table:
    """What the rows say, as text."""

    def __init__(self, rows, shapes):
        self.shapes = shapes
        self.rows = rows
        self.peers = list(dict.fromkeys(row["peer"] for row in rows if row.get("median_ms") and row["peer"] != "ours"))

    def of(self, peer, shape, field):
        """The median over the rounds, or None."""
        found = [row[field] for row in self.rows if (row["peer"], row["shape"]) == (peer, shape)]
        found = [value for value in found if value is not None]
        return statistics.median(found) if found else None

    def right(self, peer, shape):
        found = [row["right"] for row in self.rows if (row["peer"], row["shape"]) == (peer, shape)]
        return bool(found) and all(found)

    def cell(self, peer, shape):
        ratio = self.of(peer, shape, "ratio")
        if ratio is None:
            return "–"
        text = f"{self.of(peer, shape, 'median_ms'):.2f} ms {ratio:.2f}×"
        return text if self.right(peer, shape) else f"({text})"

    def mean(self, ratios):
        """The geometric mean over the prefill shapes, of those there are."""
        prefill = [name for name, shape in self.shapes.items() if is_prefill(name, shape)]
        logs = [math.log(ratios[name]) for name in prefill if ratios.get(name)]
        if not logs:
            return "–"
        missing = f" ({len(logs)} of {len(prefill)})" if len(logs) < len(prefill) else ""
        return f"{math.exp(statistics.mean(logs)):.2f}×{missing}"

    def lines(self):
        yield ["", *self.shapes, "prefill, geometric mean"]
        yield ["ours", *(f"{self.of('ours', name, 'wall_ms'):.2f} ms" for name in self.shapes), ""]
        best = {}
        for peer in self.peers:
            ratios = {name: self.of(peer, name, "ratio") for name in self.shapes if self.right(peer, name)}
            yield [peer, *(self.cell(peer, name) for name in self.shapes), self.mean(ratios)]
            if not peer.startswith(FOR_SCALE):
                for name, ratio in ratios.items():
                    best[name] = min(best.get(name, (math.inf, "")), (ratio, peer))
        cells = (f"{best[name][1]} {best[name][0]:.2f}×" if name in best else "–" for name in self.shapes)
        yield ["fastest correct peer", *cells, self.mean({name: ratio for name, (ratio, _) in best.items()})]

    def show(self):
        lines = list(self.lines())
        widths = [max(map(len, column)) for column in zip(*lines)]
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
        print("peer / ours: above 1 ours is faster. (…): wrong or impossible, not counted. "
              f"{FOR_SCALE}: for scale, not counted.")
        for device in dict.fromkeys(f"{row['peer']}: {row['device']}" for row in self.rows if row.get("device")):
            print(f"  on {device}")
        faults = {}
        for row in self.rows:
            if row.get("error"):
                peers, names = faults.setdefault(row["error"], ({}, {}))
                peers[row["peer"]] = names[row["shape"]] = None
        for error, (peers, names) in faults.items():
            print(f"  not counted: {' '.join(peers)} on {' '.join(names)}: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", metavar="NAME or B,HQ,HKV,LQ,LK,D[,causal|,mask]",
                        help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--dtype", choices=TOLERANCE, default="f32")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="times the whole is repeated; medians are shown")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one program on one shape")
    parser.add_argument("--ours", default=str(HERE.parent.parent / "target/release/wgpu-attention"))
    parser.add_argument("--python", default=str(VENV) if VENV.exists() else sys.executable,
                        help="interpreter of the Python peers; default: venv/bin/python beside this file, if any")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    shapes = {text: SHAPES.get(text, text) for text in options.shape or SHAPES}
    peers = options.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown peers {', '.join(sorted(unknown))}: there are {', '.join(PEERS)}")
    rows = measure(options, shapes, peers, options.dtype)
    Table(rows, shapes).show()


if __name__ == "__main__":
    main()
