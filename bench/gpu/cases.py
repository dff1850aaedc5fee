"""Operators of the GPU bench: tensors, affuse's calls, the same by PyTorch, work. `tiny` sizes are for the emulator."""
import math

import torch
import torch.nn.functional as F

SIZE = {"f32": 4, "bf16": 2, "tf32": 4}
# Of a result against float64, ‖difference‖ / ‖result‖: rounding of float32 sums; with bf16 operands those of the backward's
# products too, 2^-9 each. tf32 is compared with exact operands, since small products do not round: 2^-12 each.
TOLERANCE = {"f32": 2e-5, "bf16": 1e-2, "tf32": 2e-3}


# What the products multiply.
OPERANDS = {"linear": ("x", "W"), "fbp": ("a", "v", "U", "V"), "afg": ("x", "W"), "conv2d": ("x", "W")}
# Of FBP's signed root. Large, so that rounding of a sum near 0 is not magnified and the check can be sharp.
EPS = 1e-3


class Case:
    """One forward, or forward and backward, of an operator.

    shapes      inputs: shape and standard deviation; "d_y" is the gradient of output y
    outputs     what the forward makes: shapes
    forward(t)  the same by PyTorch, `main` of the outputs
    wrt         inputs whose gradients are wanted; none: the forward alone
    saved       outputs that the forward keeps for the backward
    work        FLOPs and bytes
    bound       the ceiling of the device that limits it: copy, matrix.f32, matrix.tf32 or matrix.bf16
    compiled    also by torch.compile, which takes seconds for each"""

    def __init__(self, operator, sizes, *, shapes, outputs, forward, main, work, bound, attributes=None, wrt=(), saved=(),
                 precision=None, tolerance=1.0, compiled=False):
        figures = [f"{name}={value}" for name, value in sizes.items()] + ([precision] if precision else [])
        self.name = f"{operator}{'+backward' if wrt else ''}/{','.join(figures)}"
        self.operator, self.shapes, self.outputs, self.forward, self.main = operator, shapes, outputs, forward, main
        self.flops, self.bytes = (float(x) for x in work)
        self.bound, self.compiled = bound, compiled
        self.attributes = {**(attributes or {}), **({"precision": precision} if precision else {})}
        self.wrt, self.saved = list(wrt), list(saved)
        self.precision = precision or "f32"
        self.tolerance = tolerance * TOLERANCE[self.precision]

    def elements(self):
        return sum(math.prod(shape) for shape, _ in self.shapes.values()) + sum(math.prod(s) for s in self.outputs.values())

    def tensors(self, device):
        """Fresh inputs; the weights' spread keeps results near 1."""
        return {name: torch.randn(*shape, device=device) * scale for name, (shape, scale) in self.shapes.items()}

    def own(self, affuse, t):
        """(calls in order, what they make by name)."""
        made = {name: torch.empty(shape, device=t[next(iter(t))].device) for name, shape in self.outputs.items()}
        inputs = {name: value for name, value in t.items() if not name.startswith("d_")}
        calls = [affuse.call(self.operator, inputs, made, **self.attributes)]
        if self.wrt:
            gradients = {f"d{name}": torch.empty_like(t[name]) for name in self.wrt}
            given = {**inputs, f"d{self.main}": t[f"d_{self.main}"], **{name: made[name] for name in self.saved}}
            calls.append(affuse.call(f"{self.operator}.backward", given, gradients, **self.attributes))
            made = {**made, **gradients}
        return calls, made

    def peer(self, t, forward=None):
        """PyTorch's run on these tensors as a function of no arguments; leaves get their requires_grad here."""
        forward = forward or self.forward
        if not self.wrt:
            def run():
                with torch.no_grad():
                    return {self.main: forward(t)}

            return run
        leaves = [t[name].requires_grad_() for name in self.wrt]

        def both():
            out = forward(t)
            gradients = torch.autograd.grad(out, leaves, t[f"d_{self.main}"])
            return {self.main: out.detach(), **{f"d{name}": g for name, g in zip(self.wrt, gradients)}}

        return both

    def exact(self, t):
        """The results in float64; in reduced precision of operands that are rounded beforehand."""
        operands = OPERANDS[self.operator] if self.precision == "bf16" else ()
        wide = {name: (value.detach().to(torch.bfloat16) if name in operands else value.detach()).double()
                for name, value in t.items()}
        return self.peer(wide)()


def fbp(B, m, n, o, k, precision, backward=False, compiled=False):
    def forward(t):
        p = (t["a"] @ t["U"].T) * (t["v"] @ t["V"].T)
        s = p.view(B, o, k).sum(2)
        return F.normalize(s / torch.sqrt(s.abs() + EPS), dim=1)

    P, passes = o * k, 3 if backward else 1
    return Case(
        "fbp", {"B": B, "m": m, "n": n, "o": o, "k": k}, precision=precision, forward=forward, main="z",
        shapes={"a": ((B, m), 1), "v": ((B, n), 1), "U": ((P, m), m ** -0.5), "V": ((P, n), n ** -0.5),
                **({"d_z": ((B, o), 1)} if backward else {})},
        outputs={"z": (B, o), "s": (B, o), **({"hu": (B, P), "hv": (B, P)} if backward else {})},
        work=(passes * 2 * B * (m + n) * P, passes * (SIZE[precision] * (B + P) * (m + n) + 8 * B * o)),
        bound=f"matrix.{precision}", attributes={"k": k, "normalize": "power-l2", "eps": EPS},
        wrt=("a", "v", "U", "V") if backward else (), saved=("z", "s", "hu", "hv") if backward else (),
        tolerance=1 if precision == "bf16" else 5, compiled=compiled)


def linear(M, N, K, precision, compiled=False):
    return Case(
        "linear", {"M": M, "N": N, "K": K}, precision=precision,
        forward=lambda t: F.linear(t["x"], t["W"], t["b"]), main="y",
        shapes={"x": ((M, K), 1), "W": ((N, K), K ** -0.5), "b": ((N,), 1)}, outputs={"y": (M, N)},
        work=(2 * M * N * K, SIZE[precision] * (M * K + N * K) + 4 * M * N), bound=f"matrix.{precision}", compiled=compiled)


def afg(B, T, D, A, precision="f32", backward=False, compiled=False):
    def forward(t):
        scores = 0.3 * (torch.tanh(F.linear(t["x"], t["W"], t["b"])) @ t["u"])
        return torch.bmm(torch.softmax(scores, 1).unsqueeze(1), t["x"])

    # Backward: gradients of the attention's parameters, as in a model whose frames are data.
    return Case(
        "afg", {"B": B, "T": T, "D": D, "A": A}, precision=precision, forward=forward, main="c",
        shapes={"x": ((B, T, D), 1), "W": ((A, D), D ** -0.5), "b": ((A,), 1), "u": ((A,), 0.3),
                **({"d_c": ((B, 1, D), 1)} if backward else {})},
        outputs={"c": (B, 1, D), "alpha": (B, 1, T)},
        work=((3 if backward else 1) * 2 * B * T * D * (A + 1), (2 if backward else 1) * 4 * B * T * D),
        bound="copy" if A <= 128 else f"matrix.{precision}", attributes={"scale": 0.3},
        wrt=("W", "b", "u") if backward else (), saved=("c", "alpha") if backward else (), tolerance=3, compiled=compiled)


def ratio_attention(B, T, D, compiled=False):
    """Scores by a dot product."""
    def forward(t):
        gate = torch.sigmoid(t["x"] @ t["q"] + t["beta"])
        return torch.bmm(gate.unsqueeze(1), t["x"]).squeeze(1) / gate.sum(1, keepdim=True)

    return Case(
        "ratio_attention", {"B": B, "T": T, "D": D}, forward=forward, main="c",
        shapes={"x": ((B, T, D), 1), "q": ((D,), D ** -0.5), "beta": ((1,), 1)}, outputs={"c": (B, D), "alpha": (B, T)},
        work=(4 * B * T * D, 4 * B * T * D), bound="copy", compiled=compiled)


def layer_norm(R, C, backward=False, compiled=False):
    return Case(
        "layer_norm", {"R": R, "C": C}, forward=lambda t: F.layer_norm(t["x"], (C,), t["gamma"], t["beta"], 1e-5), main="y",
        shapes={"x": ((R, C), 1), "gamma": ((C,), 1), "beta": ((C,), 1), **({"d_y": ((R, C), 1)} if backward else {})},
        outputs={"y": (R, C), **({"mean": (R,), "rstd": (R,)} if backward else {})},
        work=((24 if backward else 8) * R * C, (20 if backward else 8) * R * C), bound="copy", attributes={"eps": 1e-5},
        wrt=("x", "gamma", "beta") if backward else (), saved=("mean", "rstd") if backward else (), compiled=compiled)


def lrn(B, C, H, W, backward=False, compiled=False):
    N = B * C * H * W
    # PyTorch divides alpha by the size. A large one, so that the sum over channels shows in the result.
    return Case(
        "lrn", {"B": B, "C": C, "H": H, "W": W},
        forward=lambda t: F.local_response_norm(t["x"], 5, 0.5, 0.75, 2.0), main="y",
        shapes={"x": ((B, C, H, W), 1), **({"d_y": ((B, C, H, W), 1)} if backward else {})}, outputs={"y": (B, C, H, W)},
        work=((36 if backward else 12) * N, (20 if backward else 8) * N), bound="copy",
        attributes={"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2}, wrt=("x",) if backward else (), compiled=compiled)


def conv2d(B, C, H, W, O, k, stride, pad, precision, backward=False, compiled=False):
    OH, OW = ((extent + 2 * pad - k) // stride + 1 for extent in (H, W))
    passes = 3 if backward else 1
    return Case(
        "conv2d", {"B": B, "C": C, "H": H, "W": W, "O": O, "k": k, "stride": stride}, precision=precision,
        forward=lambda t: F.conv2d(t["x"], t["W"], t["b"], stride=stride, padding=pad), main="y",
        shapes={"x": ((B, C, H, W), 1), "W": ((O, C, k, k), (C * k * k) ** -0.5), "b": ((O,), 1),
                **({"d_y": ((B, O, OH, OW), 1)} if backward else {})},
        outputs={"y": (B, O, OH, OW)},
        work=(passes * 2 * B * O * OH * OW * C * k * k,
              passes * (SIZE[precision] * (B * C * H * W + O * C * k * k) + 4 * B * O * OH * OW)),
        bound=f"matrix.{precision}", attributes={"stride": stride, "pad": pad}, wrt=("x", "W", "b") if backward else (),
        tolerance=2, compiled=compiled)


class AdamW:
    """The update of one flat parameter in place, as the optimiser of a whole model makes it."""

    forward, compiled, precision, wrt = None, False, "f32", ()
    # p + 1e-3 of the update: one rounding of p
    tolerance = 1e-6

    def __init__(self, N):
        self.N, self.name, self.operator, self.main = N, f"adamw/N={N}", "adamw", "p"
        self.flops, self.bytes, self.bound = 12.0 * N, 28.0 * N, "copy"

    def elements(self):
        return 4 * self.N

    def tensors(self, device):
        t = {name: torch.randn(self.N, device=device) for name in "pgmv"}
        t["v"].abs_()
        return t

    def own(self, affuse, t):
        made = {name: t[name].clone() for name in "pmv"}
        given = {**made, "g": t["g"]}
        attributes = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weightDecay": 0.01, "step": 1}
        return [affuse.call("adamw", given, made, **attributes)], made

    def exact(self, t):
        p, g, m, v = (t[name].double() for name in "pgmv")
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p * (1 - 1e-3 * 0.01) - 1e-3 * (m / 0.1) / (torch.sqrt(v / 0.001) + 1e-8)
        return {"p": p, "m": m, "v": v}

    def peer(self, t, **options):
        p = torch.nn.Parameter(t["p"].clone())
        p.grad = t["g"]
        optimizer = torch.optim.AdamW([p], lr=1e-3, weight_decay=0.01, **(options or {"foreach": True}))
        on = p.device if options else "cpu"
        optimizer.state[p] = {"step": torch.zeros((), device=on), "exp_avg": t["m"].clone(), "exp_avg_sq": t["v"].clone()}

        def run():
            optimizer.step()
            state = optimizer.state[p]
            return {"p": p.data, "m": state["exp_avg"], "v": state["exp_avg_sq"]}

        return run


def cases(tiny):
    if tiny:
        return [
            linear(9, 33, 17, "f32"), linear(16, 24, 32, "bf16"), linear(130, 140, 136, "tf32"),
            fbp(5, 12, 9, 7, 3, "f32"), fbp(5, 12, 9, 7, 3, "bf16"), fbp(4, 8, 6, 5, 3, "f32", backward=True),
            fbp(16, 24, 20, 9, 5, "bf16", backward=True), afg(3, 11, 16, 12, "bf16", backward=True),
            afg(2, 9, 12, 8), afg(2, 9, 12, 8, backward=True), ratio_attention(2, 7, 12),
            layer_norm(5, 33), layer_norm(5, 33, backward=True), lrn(1, 7, 3, 5), lrn(1, 7, 3, 5, backward=True),
            conv2d(1, 3, 6, 7, 4, 3, 1, 1, "bf16"), conv2d(1, 3, 6, 7, 4, 3, 2, 1, "f32", backward=True), AdamW(77),
        ]
    found = []
    for precision in ("bf16", "f32"):
        compiled = precision == "bf16"
        for B in (16, 64, 256, 1024, 4096, 8192):
            found.append(fbp(B, 1024, 2048, 1000, 5, precision, compiled=compiled and B in (64, 256, 4096)))
        for B in (64, 256, 4096):
            found.append(fbp(B, 1024, 2048, 1000, 5, precision, backward=True, compiled=compiled and B in (256, 4096)))
        found.append(linear(4096, 4096, 4096, precision))
        found.append(linear(256, 1024, 1024, precision))
        found.append(afg(256, 200, 1024, 256, precision, compiled=compiled))
        found.append(afg(256, 200, 1024, 256, precision, backward=True, compiled=compiled))
        found.append(conv2d(16, 96, 23, 60, 256, 5, 1, 2, precision))
        found.append(conv2d(16, 96, 23, 60, 256, 5, 1, 2, precision, backward=True))
    # What float32 gets of the tensor cores, PyTorch's with allow_tf32.
    for B in (256, 4096):
        found.append(fbp(B, 1024, 2048, 1000, 5, "tf32"))
    found.append(fbp(4096, 1024, 2048, 1000, 5, "tf32", backward=True))
    found.append(linear(4096, 4096, 4096, "tf32"))
    found.append(linear(256, 1024, 1024, "tf32"))
    found.append(afg(256, 200, 1024, 128, "tf32"))
    found.append(afg(256, 200, 1024, 256, "tf32", backward=True))
    found.append(conv2d(16, 96, 23, 60, 256, 5, 1, 2, "tf32"))
    for A in (64, 128):
        found.append(afg(256, 200, 1024, A, "bf16", compiled=A == 128))
        found.append(afg(256, 200, 1024, A, compiled=A == 128))
    return found + [
        afg(256, 200, 1024, 128, backward=True), ratio_attention(256, 200, 1024, compiled=True),
        layer_norm(51200, 1024, compiled=True), layer_norm(51200, 1024, backward=True),
        lrn(64, 96, 48, 123, compiled=True), lrn(64, 96, 48, 123, backward=True), AdamW(1 << 26)]
