"""The P1 `concat` training step in PyTorch, written as one would write it there: the peer of bench/step.ts.

Reads one JSON command per line, answers one JSON line. {"do": "load", "path", "spec"} takes parameters and batch from a
flat float32 file; {"do": "step"} runs one training step and returns its wall and processor seconds and its losses.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

from blas import blas

torch.set_num_threads(1)
torch.set_num_interop_threads(1)


class Peer:
    def load(self, path, spec):
        flat = torch.from_file(path, size=spec["size"], dtype=torch.float32)
        take = lambda entry: flat[entry["offset"]:entry["offset"] + entry["count"]].reshape(entry["shape"]).clone()
        self.p = {name: take(entry).requires_grad_() for name, entry in spec["parameters"].items()}
        self.x = {name: take(entry) for name, entry in spec["streams"].items()}
        self.mask = {}
        for name, x in self.x.items():
            lengths = torch.tensor(spec["lengths"][name])
            self.mask[name] = torch.arange(x.shape[1])[None, :] < lengths[:, None]
        self.labels = torch.tensor(spec["labels"])
        self.valence = torch.tensor(spec["valence"])
        self.dropout = spec["dropout"]
        decayed = [v for k, v in self.p.items() if not k.startswith("loss.")]
        exempt = [v for k, v in self.p.items() if k.startswith("loss.")]
        groups = [{"params": decayed, "weight_decay": 1e-5}, {"params": exempt, "weight_decay": 0.0}]
        self.optimizer = torch.optim.Adam(groups, lr=spec["lr"], foreach=True)

    def mlp(self, name, x):
        for layer in range(2):
            x = F.relu(F.linear(x, self.p[f"{name}.{layer}.W"], self.p[f"{name}.{layer}.b"]))
            x = F.dropout(x, self.dropout)
        return x

    def forward(self):
        p, vectors = self.p, []
        for name, x in self.x.items():
            afg = f"streams.{name}.afg"
            k = torch.tanh(F.linear(x, p[f"{afg}.W"], p[f"{afg}.b"]))
            s = (0.3 * (k @ p[f"{afg}.u"])).masked_fill(~self.mask[name], float("-inf"))
            c = torch.bmm(torch.softmax(s, 1).unsqueeze(1), x).squeeze(1)
            vectors.append(self.mlp(f"streams.{name}.mlp", c))
        h = self.mlp("fusion.mlp", torch.cat(vectors, 1))
        e = F.linear(h, p["head.e.W"], p["head.e.b"])
        implied = torch.tanh(F.linear(e, p["head.ev.W"], p["head.ev.b"]))
        direct = F.linear(h, p["head.v.W"], p["head.v.b"])
        v = F.linear(torch.cat([implied, direct], 1), p["head.m"], p["head.m0"]).squeeze(1)
        ce = F.cross_entropy(e, self.labels)
        mse = F.mse_loss(v, self.valence)
        s_e, s_v = p["loss.s_e"], p["loss.s_v"]
        loss = torch.exp(-s_e) * ce + s_e / 2 + 0.5 * torch.exp(-s_v) * mse + s_v / 2
        return loss, ce, mse

    def step(self):
        start, used = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        loss, ce, mse = self.forward()
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack([v.grad.norm() for v in self.p.values()]))
        self.optimizer.step()
        values = {"loss": loss.item(), "ce": ce.item(), "mse": mse.item(), "gradNorm": norm.item()}
        return {"seconds": time.perf_counter() - start, "cpuSeconds": time.process_time() - used, **values}


peer = Peer()
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "load":
        peer.load(command["path"], command["spec"])
        torch.mm(torch.zeros(64, 64), torch.zeros(64, 64))
        config, libraries = blas()
        answer = {"torch": torch.__version__, "blas": config, "libraries": libraries, "threads": torch.get_num_threads()}
    else:
        answer = peer.step()
    print(json.dumps(answer), flush=True)
