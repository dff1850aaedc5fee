"""Whole models in PyTorch, as one would write them there, with affuse's parameters by their names."""
import torch
import torch.nn.functional as F


class Step:
    """The P1 structures with joint decoding, the loss under uncertainty and Adam (spec 2.1, 1.4, 1.5)."""

    def __init__(self, case, tensors):
        names = case["parameters"]
        self.p = {name: tensors[name] for name in names}
        self.x = {s["name"]: tensors[f"x:{s['name']}"] for s in case["streams"]}
        self.modality = {s["name"]: s["modality"] for s in case["streams"]}
        self.modalities = list(dict.fromkeys(self.modality.values()))
        self.mask = {}
        for name, x in self.x.items():
            self.mask[name] = torch.arange(x.shape[1], device=x.device)[None, :] < tensors[f"lengths:{name}"][:, None]
        self.labels, self.valence = tensors["labels"].long(), tensors["valence"]
        self.dropout = case["dropout"]
        self.low = case.get("autocast", False)  # products in bf16; parameters and the optimiser stay float32
        self.fused = getattr(self, case["structure"])
        if case["kind"] == "step":
            for value in self.p.values():
                value.requires_grad_()
            decayed = [v for k, v in self.p.items() if not k.startswith("loss.")]
            exempt = [v for k, v in self.p.items() if k.startswith("loss.")]
            groups = [{"params": decayed, "weight_decay": 1e-5}, {"params": exempt, "weight_decay": 0.0}]
            self.optimizer = torch.optim.Adam(groups, lr=case["lr"], **case.get("adam", {"foreach": True}))

    def linear(self, name, x):
        return F.linear(x, self.p[f"{name}.W"], self.p.get(f"{name}.b"))

    def mlp(self, name, x):
        for layer in range(2):
            x = F.relu(self.linear(f"{name}.{layer}", x))
            x = F.dropout(x, self.dropout, self.training)
        return x

    def gather(self, name, x, mask=None, guide=None):
        k = torch.tanh(self.linear(name, x))
        if guide is None:
            s = k @ self.p[f"{name}.u"]
        else:
            s = torch.bmm(k, self.linear(f"{name}.q", guide).unsqueeze(2)).squeeze(2)
        s = 0.3 * s
        if mask is not None:
            s = s.masked_fill(~mask, float("-inf"))
        return torch.bmm(torch.softmax(s, 1).unsqueeze(1), x).squeeze(1)

    def each(self):
        vectors = []
        for name, x in self.x.items():
            c = self.gather(f"streams.{name}.afg", x, self.mask[name])
            vectors.append(self.mlp(f"streams.{name}.mlp", c))
        return vectors

    def concat(self):
        return self.mlp("fusion.mlp", torch.cat(self.each(), 1))

    def mixed(self, vectors):
        w = self.linear("fusion.w", self.mlp("fusion.mlp", torch.cat(vectors, 1)))
        return torch.bmm(w.unsqueeze(1), torch.stack(vectors, 1)).squeeze(1)

    def weighted(self):
        return self.mixed(self.each())

    def stage(self, stage, modality, guide):
        vectors = []
        for name, x in self.x.items():
            if self.modality[name] == modality:
                c = self.gather(f"streams.{name}.{stage}.afg", x, self.mask[name], guide)
                vectors.append(self.mlp(f"streams.{name}.{stage}.mlp", c))
        if len(vectors) == 1:
            return vectors[0]
        return self.gather(f"modalities.{modality}.{stage}.afg", torch.stack(vectors, 1))

    def hierarchical(self):
        guides = [self.stage("first", modality, None) for modality in self.modalities]
        vectors = []
        for i, modality in enumerate(self.modalities):
            others = [guide for j, guide in enumerate(guides) if j != i] or [guides[i]]
            vectors.append(self.stage("second", modality, torch.cat(others, 1)))
        return self.mixed(vectors)

    def heads(self):
        h = self.fused()
        e = self.linear("head.e", h)
        both = torch.cat([torch.tanh(self.linear("head.ev", e)), self.linear("head.v", h)], 1)
        return e, F.linear(both, self.p["head.m"], self.p["head.m0"]).squeeze(1)

    def objective(self):
        self.training = True
        with torch.autocast(self.labels.device.type, torch.bfloat16, enabled=self.low, cache_enabled=False):
            e, v = self.heads()
        ce = F.cross_entropy(e.to(self.valence.dtype), self.labels)  # autocast leaves bf16
        mse = F.mse_loss(v.to(self.valence.dtype), self.valence)
        s_e, s_v = self.p["loss.s_e"], self.p["loss.s_v"]
        return torch.exp(-s_e) * ce + s_e / 2 + 0.5 * torch.exp(-s_v) * mse + s_v / 2, ce, mse

    def train(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss, ce, mse = self.objective()
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([v.grad for v in self.p.values()])))
        self.optimizer.step()
        return {"loss": loss, "ce": ce, "mse": mse, "gradNorm": norm}

    def infer(self):
        self.training = False
        with torch.no_grad():
            e, v = self.heads()
            return {"posteriors": torch.softmax(e, 1), "valence": v}


class Fcn:
    """The convolutional trunk of spec 2.2, forward and backward of a mean squared error on its features."""

    def __init__(self, case, tensors):
        self.layers = case["layers"]
        self.p = {name: tensors[name].requires_grad_() for name in case["parameters"]}
        self.x, self.target = tensors["x"], tensors["target"]

    def train(self):
        x, convolutions = self.x.transpose(1, 2).unsqueeze(1), 0
        for layer in self.layers:
            if layer["kind"] == "pool":
                x = F.max_pool2d(x, layer["size"], layer["stride"])
                continue
            convolutions += 1
            name = f"audio.conv{convolutions}"
            x = F.relu(F.conv2d(x, self.p[f"{name}.W"], self.p[f"{name}.b"], stride=layer["stride"], padding=layer["pad"]))
            if layer["lrn"]:
                x = F.local_response_norm(x, 5, alpha=1e-4 * 5, beta=0.75, k=2.0)  # PyTorch divides alpha by the size
        y = x.permute(0, 3, 2, 1).flatten(2)
        loss = F.mse_loss(y, self.target)
        gradients = torch.autograd.grad(loss, list(self.p.values()))
        return {"loss": loss, **{f"d{name}": g for name, g in zip(self.p, gradients)}}
