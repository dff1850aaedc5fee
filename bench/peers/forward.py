"""FBP and AFG forward in PyTorch, as one would write them there: the peer of bench/forward.ts.

Reads one JSON command per line, answers one JSON line: "load" (inputs from a flat float32 file), "compare" (largest
difference from given values), "run" (wall and processor seconds of one call).
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

from blas import blas

torch.set_num_threads(1)
torch.set_num_interop_threads(1)


def fbp(t, k):
    p = F.linear(t["a"], t["U"]) * F.linear(t["v"], t["V"])
    s = p.reshape(p.shape[0], -1, k).sum(2)
    r = s / torch.sqrt(s.abs() + 1e-8)
    return F.normalize(r, dim=1)


def afg(t, scale):
    k = torch.tanh(F.linear(t["x"], t["W"], t["b"]))
    alpha = torch.softmax(scale * (k @ t["u"]), 1)
    return torch.bmm(alpha.unsqueeze(1), t["x"])


@torch.no_grad()
def main():
    call = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "load":
            shapes = command["shapes"]
            sizes = {name: int(torch.tensor(shape).prod()) for name, shape in shapes.items()}
            flat = torch.from_file(command["file"], size=sum(sizes.values()), dtype=torch.float32).clone()
            t, at = {}, 0
            for name, shape in shapes.items():
                t[name] = flat[at:at + sizes[name]].reshape(shape)
                at += sizes[name]
            run, attributes = {"fbp": fbp, "afg": afg}[command["op"]], command["attributes"]
            call = lambda: run(t, **attributes)
            call()
            config, libraries = blas()
            answer = {"torch": torch.__version__, "blas": config, "libraries": libraries, "threads": torch.get_num_threads()}
        elif command["do"] == "compare":
            values = torch.tensor(command["values"])
            answer = {"difference": float((call().flatten()[: len(values)] - values).abs().max())}
        else:
            start, used = time.perf_counter(), time.process_time()
            call()
            answer = {"seconds": time.perf_counter() - start, "cpuSeconds": time.process_time() - used}
        print(json.dumps(answer), flush=True)


main()
