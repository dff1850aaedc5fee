"""PyTorch as a peer of `affuse bench`: reads one JSON command per line, answers one JSON line.

{"do": "about"}                              versions, the BLAS that answers, cores
{"do": "load", "case": {...}, "file": path}  tensors from a flat binary file, rotating sets; "double" in the case: as float64
{"do": "results", "file": path}              writes the results of set 0 as float32, answers their names and counts
{"do": "sample", "threads": n, "seconds": s} wall and processor seconds of one call, over calls of at least that long together
{"do": "peak"}                               the largest resident memory of this process since the load, bytes
"""
import gc
import json
import os
import resource
import signal
import sys
import time

# Ctrl-C goes to the whole group. The bench still finishes its case; its end closes standard input here.
signal.signal(signal.SIGINT, signal.SIG_IGN)

import torch  # noqa: E402

from blas import blas, set_threads
from ops import runner
from steps import Fcn, Step


def spread():
    """This thread on one processor, the pools' threads on the others: left alone, Linux lets a thread that wakes share the
    processor of the one that woke it for milliseconds, though another is idle (two processors: half the speed)."""
    try:
        allowed = os.sched_getaffinity(os.getpid()) | spread.allowed
        if len(allowed) < 2:
            return
        spread.allowed = allowed
        mine = min(allowed)
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, {mine} if thread == os.getpid() else allowed - {mine})
    except (AttributeError, OSError):
        pass  # not Linux: threads stay as they are


spread.allowed = set()


def rest():
    """Waits until the pools' threads sleep: OpenBLAS's look for work for some thirty milliseconds after the last."""
    for _ in range(40):
        used = time.process_time()
        time.sleep(0.005)
        if time.process_time() - used < 0.001:
            return


class Peer:
    def about(self, command):
        torch.mm(torch.zeros(64, 64), torch.zeros(64, 64))
        config, libraries = blas()
        return {"torch": torch.__version__, "blas": config, "libraries": libraries, "mkldnn": torch.backends.mkldnn.is_available()}

    def load(self, command):
        case = command["case"]
        with open(command["file"], "rb") as file:
            flat = torch.frombuffer(bytearray(file.read()), dtype=torch.float32)
        sets, shared = [{} for _ in range(case["sets"])], {}
        for entry in case["tensors"]:
            tensor = flat[entry["offset"]:entry["offset"] + entry["count"]]
            if entry["dtype"] == "i32":
                tensor = tensor.view(torch.int32)
            tensor = tensor.reshape(entry["shape"]).clone()
            if case.get("double") and tensor.dtype == torch.float32:
                tensor = tensor.double()
            if entry["set"] < 0:
                shared[entry["name"]] = tensor
            else:
                sets[entry["set"]][entry["name"]] = tensor
        if case["kind"] == "operator":
            self.runs = [runner(case, {**shared, **tensors}) for tensors in sets]
        elif case["kind"] == "fcn":
            self.runs = [Fcn(case, {**shared, **sets[0]}).train]
        else:
            step = Step(case, {**shared, **sets[0]})
            self.runs = [step.train if case["kind"] == "step" else step.infer]
        self.turn, self.counts = 0, {}
        del flat
        gc.collect()
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # from here on the peak is the work's, not the loading's
        except OSError:
            pass
        return {}

    def results(self, command):
        self.threads(1)
        names = []
        with open(command["file"], "wb") as file:
            for name, value in self.runs[0]().items():
                value = torch.as_tensor(value).detach().float().contiguous()
                file.write(value.numpy().tobytes())
                names.append([name, value.numel()])
        return {"names": names}

    def sample(self, command):
        threads, wanted = command["threads"], command["seconds"]
        self.threads(threads)
        self.call()
        spread()
        count = self.counts.get(threads, 1)
        while True:
            used, start = time.process_time(), time.perf_counter()
            for _ in range(count):
                self.call()
            seconds = time.perf_counter() - start
            cpu = time.process_time() - used
            if seconds >= wanted * 0.5:
                break
            count = max(count + 1, int(count * min(100, 1.2 * wanted / max(seconds, 1e-9))))
        self.counts[threads] = count
        if threads > 1:
            rest()
        return {"seconds": seconds / count, "cpu": cpu / count, "count": count}

    def threads(self, count):
        torch.set_num_threads(count)
        set_threads(count)

    def call(self):
        self.turn = (self.turn + 1) % len(self.runs)
        return self.runs[self.turn]()

    def peak(self, command):
        try:
            with open("/proc/self/status") as status:
                line = next(line for line in status if line.startswith("VmHWM"))
            return {"bytes": int(line.split()[1]) * 1024}
        except (OSError, StopIteration):
            pass
        return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


torch.set_num_interop_threads(1)
peer = Peer()
for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = getattr(peer, command["do"])(command)
    except Exception as error:  # the case is skipped, the rest goes on
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
