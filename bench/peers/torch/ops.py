"""The operators in PyTorch, as one would write them there: fused functions where it has them, autograd for gradients."""
import torch
import torch.nn.functional as F


def fbp(t, a):
    p = F.linear(t["a"], t["U"]) * F.linear(t["v"], t["V"])
    s = p.reshape(p.shape[0], -1, int(a["k"])).sum(2)
    return {"z": F.normalize(s / torch.sqrt(s.abs() + a.get("eps", 1e-8)), dim=1)}


def afg(t, a):
    x = t["x"]
    k = torch.tanh(F.linear(x, t["W"], t["b"]))
    s = a["scale"] * (k @ t["u"])
    if "lengths" in t:
        mask = torch.arange(x.shape[1])[None, :] < t["lengths"][:, None]
        s = s.masked_fill(~mask, float("-inf"))
    return {"c": torch.bmm(torch.softmax(s, 1).unsqueeze(1), x)}


def ratio_attention(t, a):
    x = t["x"]
    gate = torch.sigmoid(x @ t["q"] + t["beta"])
    return {"c": torch.bmm(gate.unsqueeze(1), x).squeeze(1) / gate.sum(1, keepdim=True)}


def activation(t, a):
    return {"y": {"gelu": F.gelu, "tanh": torch.tanh, "relu": F.relu, "sigmoid": torch.sigmoid}[a["activation"]](t["x"])}


OPS = {
    "fbp": fbp,
    "afg": afg,
    "ratio_attention": ratio_attention,
    "activation": activation,
    "linear": lambda t, a: {"y": F.linear(t["x"], t["W"], t["b"])},
    "layer_norm": lambda t, a: {"y": F.layer_norm(t["x"], t["gamma"].shape, t["gamma"], t["beta"])},
    "softmax": lambda t, a: {"y": torch.softmax(t["x"], -1)},
    "softmax_cross_entropy": lambda t, a: {"loss": F.cross_entropy(t["logits"], t["labels"].long())},
    "dropout": lambda t, a: {"y": F.dropout(t["x"], a["p"])},
    "add": lambda t, a: {"y": t["a"] + t["b"]},
    "mul": lambda t, a: {"y": t["a"] * t["b"]},
    "grad_norm": lambda t, a: {"norm": torch.linalg.vector_norm(t["g"])},
    "conv2d": lambda t, a: {"y": F.conv2d(t["x"], t["W"], t.get("b"), stride=a.get("stride", 1), padding=a.get("pad", 0))},
    "prelu": lambda t, a: {"y": F.prelu(t["x"], t["slope"])},
    "scale": lambda t, a: {"y": t["x"] * a["factor"]},
    "transpose": lambda t, a: {"y": t["x"].transpose(-2, -1).contiguous()},
    "concat": lambda t, a: {"y": torch.cat([t["x0"], t["x1"]], -1)},
    "weighted_sum": lambda t, a: {"y": torch.bmm(t["w"].unsqueeze(1), t["x"]).squeeze(1)},
    "avg_pool2d": lambda t, a: {"y": F.avg_pool2d(t["x"], a["size"], a["stride"])},
    "max_pool2d": lambda t, a: {"y": F.max_pool2d(t["x"], a["size"], a["stride"])},
    # PyTorch divides alpha by the size.
    "lrn": lambda t, a: {"y": F.local_response_norm(t["x"], 5, alpha=5e-4, beta=0.75, k=2.0)},
}


def runner(case, tensors):
    """A function of no arguments that does the case's work once and returns its results by name."""
    op, attributes, wanted = case["op"], case["attributes"], case.get("gradients") or []
    if op in ("adam", "adamw"):
        p = torch.nn.Parameter(tensors["p"])
        p.grad = tensors["g"]
        optimizer = (torch.optim.AdamW if op == "adamw" else torch.optim.Adam)(
            [p], lr=1e-3, weight_decay=1e-2 if op == "adamw" else 0, foreach=True
        )
        optimizer.state[p] = {"step": torch.tensor(0.0), "exp_avg": tensors["m"], "exp_avg_sq": tensors["v"]}

        def update():
            optimizer.step()
            return {"p": p.data}

        return update
    forward = OPS[op]
    if not wanted:
        def run():
            with torch.no_grad():
                return forward(tensors, attributes)

        return run
    leaves = {name: tensors[name[1:]].requires_grad_() for name in wanted}
    upstream = {name[1:]: tensors[name] for name in tensors if name.startswith("d") and name[1:] not in tensors}

    def both():
        outputs = forward(tensors, attributes)
        names = [name for name in outputs if name in upstream]
        gradients = torch.autograd.grad([outputs[n] for n in names], list(leaves.values()), [upstream[n] for n in names])
        return dict(zip(leaves, gradients), **{n: o.detach() for n, o in outputs.items()})

    return both
