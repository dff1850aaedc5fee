"""Whole training steps of the P1 models: affuse in a Node process (bench/gpu/steps.ts), PyTorch here, on the same parameters
and batch.

Steps are timed with the frames on the device for both, and once more with frames that come from the host at every step."""
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile

import torch

from timing import graphed

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers", "torch"))
from steps import Step  # noqa: E402

# Of loss, ce, mse and the gradient's norm after one step without dropout, relative.
TOLERANCE = {"f32": 5e-4, "bf16": 2 ** -6, "tf32": 2 ** -8}


class Side:
    """The Node process."""

    def __init__(self, command):
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Node process ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


class Steps:
    def __init__(self, options, timer, ceilings, leave_out, over):
        self.options, self.timer, self.ceilings, self.leave_out, self.over = options, timer, ceilings, leave_out, over
        self.place = "cuda" if timer.gpu else "cpu"
        self.side = None

    def cases(self):
        def case(structure, batch, precision, tiny=False, compiled=False):
            dim, T, shortest, attention, widths = (12, 5, 2, 8, [6, 5]) if tiny else (1024, 200, 67, 256, [256, 128])
            streams = [{"name": f"{m}{i}", "modality": m, "dim": dim} for m in ("audio", "visual") for i in (1, 2)]
            name = f"step/P1 {structure},B={batch},T={shortest}-{T},D=4x{dim},A={attention},{precision}"
            return {"name": name, "structure": structure, "batch": batch, "T": T, "shortest": shortest, "streams": streams,
                    "attention": attention, "widths": widths, "precision": precision, "lr": 1e-3, "compiled": compiled}

        if not self.timer.gpu:
            return [case("concat", 3, "f32", tiny=True), case("hierarchical", 2, "bf16", tiny=True)]
        return [
            case("concat", 32, "bf16", compiled=True), case("concat", 256, "bf16", compiled=True), case("concat", 32, "f32"),
            case("concat", 256, "f32"), case("hierarchical", 32, "bf16", compiled=True), case("weighted", 32, "bf16"),
            case("concat", 128, "bf16"), case("weighted", 32, "f32"), case("hierarchical", 32, "f32"),
            case("hierarchical", 256, "bf16"), case("concat", 256, "tf32")]

    def measure(self, case, entry):
        entry["fed"] = {}
        if self.side is None or self.side.process.poll() is not None:
            self.side = Side(self.options.steps)
        with tempfile.TemporaryDirectory(prefix="affuse-steps-") as folder:
            path = os.path.join(folder, "tensors.bin")
            loaded = self.side.ask(do="load", case=case, device=self.options.device, file=path)
            total = max(t["offset"] + t["count"] for t in loaded["tensors"])
            flat = torch.from_file(path, shared=False, size=total, dtype=torch.float32)
            host = {}
            for t in loaded["tensors"]:
                tensor = flat[t["offset"]:t["offset"] + t["count"]]
                host[t["name"]] = (tensor.view(torch.int32) if t["dtype"] == "i32" else tensor).reshape(t["shape"]).clone()
            del flat
        frames = {name: tensor.to(self.place) for name, tensor in host.items() if name.startswith("x:")}
        low = case["precision"] == "bf16"

        def peer(**more):
            mine = {name: tensor.to(self.place, copy=True) for name, tensor in host.items() if not name.startswith("x:")}
            given = {"kind": "step", "dropout": 0.3, "autocast": low, **{k: case[k] for k in ("structure", "streams", "lr")},
                     "parameters": loaded["parameters"], **more}
            return Step(given, {**mine, **frames})

        own = self.side.ask(do="check")
        exact = {name: float(value) for name, value in peer(dropout=0, autocast=False).train().items()}
        off = {name: abs(own[name] - value) / max(abs(value), 1e-6) for name, value in exact.items()}
        entry["difference"] = {name: value if math.isfinite(value) else None for name, value in off.items()}
        entry["flops"] = own["flops"]
        entry["tolerance"] = TOLERANCE[case["precision"]]
        wrong = [f"{name} {value:.2e}" for name, value in off.items() if not value <= entry["tolerance"]]
        if wrong:
            entry["failed"] = f"expected a relative difference of at most {entry['tolerance']:.0e}, got {', '.join(wrong)}"
            return
        entry["seconds"] = self.side.ask(do="sample", fed=False, seconds=0.3)["seconds"]
        if roof := self.ceilings.get(f"matrix.{case['precision']}"):
            entry["percent"] = 100 * entry["flops"] / roof / entry["seconds"]
        entry["fed"]["affuse"] = self.side.ask(do="sample", fed=True, seconds=0.3)["seconds"]
        tf32 = case["precision"] == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        try:
            self.contenders(case, entry, peer, host, frames)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if self.timer.gpu:
            entry["seconds_again"] = self.side.ask(do="sample", fed=False, seconds=0.3)["seconds"]

    def contenders(self, case, entry, peer, host, frames):
        self.contender(entry, entry["peers"], "eager", lambda: peer().train)

        def feeding():
            step, pinned = peer(), {name[2:]: host[name].pin_memory() if self.timer.gpu else host[name] for name in frames}

            def run():
                step.x = {name: tensor.to(self.place, non_blocking=True) for name, tensor in pinned.items()}
                return step.train()

            return run

        self.contender(entry, entry["fed"], "eager", feeding)
        if not self.timer.gpu:
            return
        capturable = {"foreach": True, "capturable": True}
        self.contender(entry, entry["peers"], "graph", lambda: graphed(peer(adam=capturable).train))

        def compiled():
            step = peer(adam={"fused": True})
            step.objective = torch.compile(step.objective)
            return step.train

        if case["compiled"] and (self.over() or not hasattr(torch, "compile")):
            why = "the time was over" if self.over() else "this PyTorch has none"
            self.leave_out(f"{case['name']}: torch.compile: {why}")
        elif case["compiled"]:
            self.contender(entry, entry["peers"], "compile", compiled)

    def contender(self, entry, into, name, make):
        try:
            run = make()
            run()
            self.timer.finish()
            into[name] = self.timer.seconds(run)
        except Exception as error:  # also what a compiler or a capture throws
            first = (str(error).strip().splitlines() or [""])[0][:200]
            self.leave_out(f"{entry['name']}: PyTorch's {name}: {type(error).__name__}: {first}")

    def stop(self):
        if self.side:
            self.side.process.stdin.close()
            self.side.process.wait(20)
