"""Kernels and training steps against the device's own measured ceilings and against PyTorch on the same tensors: eager,
replayed as a CUDA graph, and compiled. Writes one JSON document, after every case anew; progress on stderr.

    bench.py --library libaffuse.so --backend libaffuse_cuda.so --out bench.json [--device cuda|emulated]
             [--steps "node suite/steps.mjs"] [--seconds-left 240]

Each result is checked against float64 before it is timed; a wrong one is not timed. Operators rotate through so many sets
of inputs that caches hold none of them. When the seconds are over, what is missing is left out by name. Exit code 1 when
anything failed."""
import argparse
import json
import math
import os
import sys
import time

import torch

from affuse import Affuse, AffuseError
from cases import AdamW, cases
from timing import Timer, ceilings, graphed
from training import Steps

arguments = argparse.ArgumentParser()
arguments.add_argument("--library", required=True)
arguments.add_argument("--backend", required=True)
arguments.add_argument("--out", required=True)
arguments.add_argument("--device", choices=["cuda", "emulated"], default="cuda")
arguments.add_argument("--steps", default="", help="command of the process that runs affuse's training steps")
arguments.add_argument("--seconds-left", type=float, default=600)
options = arguments.parse_args()
os.environ["AFFUSE_CUDA_LIBRARY" if options.device == "cuda" else "AFFUSE_EMULATED_LIBRARY"] = options.backend
gpu = options.device == "cuda"
place = "cuda" if gpu else "cpu"
deadline = time.monotonic() + options.seconds_left
if gpu and not torch.cuda.is_available():
    sys.exit("this PyTorch sees no GPU")
torch.manual_seed(1)
# No TF32 in float32 products and convolutions but where a case asks for it, as in affuse. (PyTorch's default for
# convolutions has it.)
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True

if gpu:
    # Everything on a stream of its own: the default one is 0, which affuse_queue() takes for "affuse's own".
    torch.cuda.set_stream(torch.cuda.Stream())
timer = Timer(gpu)
affuse = Affuse(options.library, options.device)
left_out = [] if gpu else ["PyTorch's CUDA graphs and torch.compile: they need a GPU"]
report = {"device": options.device, "affuse": affuse.version(), "torch": torch.__version__, "cuda": torch.version.cuda,
          "ceilings": {}, "operators": [], "steps": [], "left_out": left_out}


def save():
    with open(options.out + ".new", "w") as file:
        json.dump(report, file, indent=1)
    os.replace(options.out + ".new", options.out)


def say(text):
    print(text, file=sys.stderr, flush=True)


def leave_out(text):
    left_out.append(text)
    say(f"left out: {text}")


def first_line(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def contender(entry, name, make, sets):
    """Times make()'s function; a peer that cannot run is left out by name."""
    try:
        run = make()
        run()
        timer.finish()
        entry["peers"][name] = timer.seconds(run) / sets
    except Exception as error:  # also what a compiler or a capture throws
        leave_out(f"{entry['name']}: PyTorch's {name}: {first_line(error)}")


def allow_tf32(allowed):
    """For PyTorch's products of float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def difference(got, exact):
    got, exact = got.detach().double(), exact.double()
    return ((got - exact).norm() / exact.norm().clamp_min(1e-30)).item()


def low(t):
    """The inputs as bf16 tensors: what PyTorch's products read when nothing has to be converted first."""
    return {name: value.detach().to(torch.bfloat16) for name, value in t.items()}


def measure(case, entry):
    entry.update(flops=case.flops, bytes=case.bytes, bound=case.bound)
    sets = max(1, min(32, round(5e7 / case.elements()))) if gpu else 1
    entry["sets"] = sets
    inputs = [case.tensors(place) for _ in range(sets)]
    stream = torch.cuda.current_stream().cuda_stream if gpu else None
    # The check runs on inputs of its own: an optimiser changes them.
    calls, made = case.own(affuse, inputs[0])
    for value in made.values():
        if case.operator != "adamw":
            value.fill_(float("nan"))
    try:
        for call in calls:
            call.queue(stream)
    except AffuseError as error:
        if not str(error).startswith("ERR_AFFUSE_DEVICE:"):
            raise
        entry["left_out"] = str(error)
        return
    affuse.finish()
    timer.finish()
    exact = case.exact(inputs[0])
    off = {name: difference(made[name], value) for name, value in exact.items()}
    entry["difference"] = {name: value if math.isfinite(value) else None for name, value in off.items()}
    entry["tolerance"] = case.tolerance
    wrong = [f"{name} {value:.2e}" for name, value in off.items() if not value <= case.tolerance]
    if wrong:
        entry["failed"] = f"expected a relative difference of at most {case.tolerance:.0e}, got {', '.join(wrong)}"
        return
    del exact, calls, made
    queued = [case.own(affuse, t)[0] for t in inputs]

    def own(on):
        for calls in queued:
            for call in calls:
                call.queue(on)

    own(stream)
    timer.finish()
    entry["seconds"] = timer.seconds(lambda: own(stream)) / sets
    if gpu:
        try:
            replay = graphed(lambda: own(torch.cuda.current_stream().cuda_stream))
            entry["seconds_graph"] = timer.seconds(replay) / sets
        except (RuntimeError, AffuseError) as error:
            leave_out(f"{case.name}: affuse as a CUDA graph: {error}")

    def every(runs):
        def run():
            for each in runs:
                each()

        return run

    if isinstance(case, AdamW):
        contender(entry, "eager", lambda: case.peer(inputs[0]), 1)
        if gpu:
            contender(entry, "fused", lambda: case.peer(inputs[0], fused=True), 1)
            contender(entry, "graph", lambda: graphed(case.peer(inputs[0], capturable=True, foreach=True)), 1)
    elif case.precision == "bf16":
        # As one writes it (autocast converts the same float32 tensors), and with tensors that are bf16 already.
        def cast(t):
            with torch.autocast(place, torch.bfloat16, cache_enabled=False):
                return case.forward(t).float()

        contender(entry, "eager", lambda: every([case.peer(t, cast) for t in inputs]), sets)
        halves = [low(t) for t in inputs]
        contender(entry, "eager.bf16", lambda: every([case.peer(t) for t in halves]), sets)
        if gpu:
            contender(entry, "graph", lambda: graphed(every([case.peer(t) for t in halves])), sets)
    else:
        allow_tf32(case.precision == "tf32")
        contender(entry, "eager", lambda: every([case.peer(t) for t in inputs]), sets)
        if gpu:
            contender(entry, "graph", lambda: graphed(every([case.peer(t) for t in inputs])), sets)
        allow_tf32(False)
    # Once more, after the peers: a device that has slowed down meanwhile shows.
    entry["seconds_again"] = timer.seconds(lambda: own(stream)) / sets
    roof = report["ceilings"].get(case.bound)
    if roof:
        work = case.bytes if case.bound == "copy" else case.flops
        entry["percent"] = 100 * work / roof / entry.get("seconds_graph", entry["seconds"])


def compile_peer(case, entry):
    """Second round, after everything else: a compilation takes seconds."""
    inputs = [case.tensors(place) for _ in range(entry["sets"])]
    given = [low(t) for t in inputs] if case.precision == "bf16" else inputs
    compiled = torch.compile(case.forward)
    runs = [case.peer(t, compiled) for t in given]

    def run():
        for each in runs:
            each()

    contender(entry, "compile", lambda: run, entry["sets"])


def guarded(entry, work):
    """A case that throws is a failed case; the next one is measured all the same."""
    try:
        work()
    except Exception as error:
        entry["failed"] = f"{type(error).__name__}: {str(error).strip()[:300]}"
    if gpu:
        torch.cuda.empty_cache()
    save()


def all_of(into, found, work, unit, scale):
    for case in found:
        if over():
            leave_out(f"{name_of(case)}: the time was over")
            continue
        entry = {"name": name_of(case), "peers": {}}
        into.append(entry)
        guarded(entry, lambda: work(case, entry))
        if "left_out" in entry:
            into.remove(entry)
            leave_out(f"{entry['name']}: {entry['left_out']}")
        else:
            say(f"{entry['name']}: " + (entry.get("failed") or f"{entry['seconds'] * scale:.1f} {unit}"))


def name_of(case):
    return case["name"] if isinstance(case, dict) else case.name


def over():
    return time.monotonic() > deadline


save()
try:
    report["ceilings"] = ceilings(timer)
except Exception as error:
    leave_out(f"ceilings: {error}")
for name, value in report["ceilings"].items():
    say(f"{name}: {value / 1e12:.2f} T/s")

found = cases(tiny=not gpu)
all_of(report["operators"], found, measure, "us", 1e6)
if options.steps:
    steps = Steps(options, timer, report["ceilings"], leave_out, over)
    all_of(report["steps"], steps.cases(), steps.measure, "ms", 1e3)
    steps.stop()
else:
    leave_out("training steps: no Node")

for case in found if gpu else []:
    entry = next((e for e in report["operators"] if e["name"] == case.name and "failed" not in e), None)
    if not case.compiled or entry is None:
        continue
    if over() or not hasattr(torch, "compile"):
        leave_out(f"{case.name}: torch.compile: {'the time was over' if over() else 'this PyTorch has none'}")
        continue
    guarded(entry, lambda: compile_peer(case, entry))
save()
failed = [entry["name"] for entry in report["operators"] + report["steps"] if "failed" in entry]
say(f"{len(report['operators']) + len(report['steps'])} cases, {len(failed)} failed")
sys.exit(1 if failed else 0)
