"""Kernels against the device's own measured ceilings and against PyTorch on the same tensors: eager, compiled, and replayed as a
CUDA graph. Prints one JSON document; progress on stderr.

    bench.py --library libaffuse.so --backend libaffuse_cuda.so --device cuda|emulated

Each result is checked before it is timed; medians of turns that affuse and PyTorch take in alternation, on inputs that rotate."""
import argparse
import json
import os
import statistics
import sys
import time

import torch

from affuse import Affuse, AffuseError
from cases import cases

arguments = argparse.ArgumentParser()
arguments.add_argument("--library", required=True)
arguments.add_argument("--backend", required=True)
arguments.add_argument("--device", choices=["cuda", "emulated"], default="cuda")
arguments.add_argument("--seconds", type=float, default=0.15, help="of each contender and case")
options = arguments.parse_args()
os.environ["AFFUSE_CUDA_LIBRARY" if options.device == "cuda" else "AFFUSE_EMULATED_LIBRARY"] = options.backend
gpu = options.device == "cuda"
place = "cuda" if gpu else "cpu"
torch.manual_seed(1)
# What PyTorch does by default for float32 products, said out loud: no TF32.
torch.backends.cuda.matmul.allow_tf32 = False


def make(*shape, scale=1.0):
    return torch.randn(*shape, device=place) * scale


def seconds(run, least):
    """Median seconds of one call over turns of several."""
    if not gpu:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        run()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    count = max(1, int(least / 5 / max(begin.elapsed_time(end) / 1e3, 1e-6)))
    turns = []
    for _ in range(5):
        begin.record()
        for _ in range(count):
            run()
        end.record()
        torch.cuda.synchronize()
        turns.append(begin.elapsed_time(end) / 1e3 / count)
    return statistics.median(turns)


def ceilings():
    """Copy bandwidth and matrix rates as this device reaches them through PyTorch's own copy and cuBLAS."""
    if not gpu:
        return {}
    x = torch.empty(1 << 28, device=place)
    y = torch.empty_like(x)
    result = {"copy": 2 * 4 * x.numel() / seconds(lambda: y.copy_(x), 0.5)}
    del x, y
    for name, kind, n in (("matrix.bf16", torch.bfloat16, 8192), ("matrix.f32", torch.float32, 4096)):
        a, b = (torch.randn(n, n, device=place).to(kind) for _ in range(2))
        result[name] = 2.0 * n ** 3 / seconds(lambda: torch.mm(a, b), 0.5)
    return result


def graphed(run):
    """The same as one CUDA graph; None where PyTorch cannot capture it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def peers(case):
    yield "eager", case.peer
    if not gpu:
        return
    try:
        yield "graph", graphed(case.peer)
    except RuntimeError as error:
        print(f"{case.name}: no CUDA graph by PyTorch: {error}", file=sys.stderr)
    try:
        compiled = torch.compile(case.peer)
        compiled()
        yield "compile", compiled
    except Exception as error:  # inductor may lack a compiler on this machine
        print(f"{case.name}: not compiled by PyTorch: {str(error).splitlines()[0]}", file=sys.stderr)


def measure(affuse, make_case, roofs):
    case = make_case()
    entry = {"name": case.name, "flops": case.flops, "bytes": case.bytes, "bound": case.bound}
    try:
        call = affuse.call(case.operator, case.inputs, case.outputs, **case.attributes)
        stream = torch.cuda.current_stream().cuda_stream if gpu else None
        case.outputs[case.compare].fill_(float("nan"))
        call.queue(stream)
        affuse.finish()
        if gpu:
            torch.cuda.synchronize()
        expected = case.peer().double()
        error = ((case.outputs[case.compare].double() - expected).norm() / expected.norm()).item()
        entry["difference"] = error
        if not error <= case.tolerance:
            entry["failed"] = f"expected a relative difference of at most {case.tolerance}, got {error}"
            return entry
        entry["seconds"] = seconds(lambda: call.queue(stream), options.seconds)
    except AffuseError as error:
        entry["failed"] = str(error)
        return entry
    entry["peers"] = {name: seconds(run, options.seconds) for name, run in peers(case)}
    # Once more, after the peers: a device that has slowed down meanwhile shows.
    entry["seconds_again"] = seconds(lambda: call.queue(stream), options.seconds)
    roof = roofs.get(case.bound)
    if roof:
        work = case.bytes if case.bound == "copy" else case.flops
        entry["percent"] = 100 * work / roof / entry["seconds"]
    return entry


affuse = Affuse(options.library, options.device)
roofs = ceilings()
results = []
for make_case in cases(make, tiny=not gpu):
    results.append(measure(affuse, make_case, roofs))
    print(f"{results[-1]['name']}: {results[-1].get('failed', results[-1].get('percent', 'ok'))}", file=sys.stderr, flush=True)
    if gpu:
        torch.cuda.empty_cache()
print(json.dumps({"affuse": affuse.version(), "torch": torch.__version__, "ceilings": roofs, "cases": results}))
sys.exit(0)
