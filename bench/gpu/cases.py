"""Cases of the GPU bench: tensors, what affuse runs, what PyTorch runs, FLOPs and bytes. `tiny` sizes are for the emulator."""
import torch
import torch.nn.functional as F


class Case:
    """name; call(affuse) → Call; peer() → the same result by PyTorch; result: the output to compare; flops, bytes; bound: the
    ceiling that the target names (matrix.bf16, matrix.f32 or copy)."""

    def __init__(self, name, operator, inputs, outputs, attributes, peer, compare, flops, bytes, bound, tolerance):
        self.name, self.operator, self.inputs, self.outputs, self.attributes = name, operator, inputs, outputs, attributes
        self.peer, self.compare, self.flops, self.bytes, self.bound, self.tolerance = peer, compare, flops, bytes, bound, tolerance


def fbp(make, B, m, n, o, k, precision):
    a, v = make(B, m), make(B, n)
    U, V = make(o * k, m, scale=m ** -0.5), make(o * k, n, scale=n ** -0.5)
    half = torch.bfloat16 if precision == "bf16" else torch.float32
    low = [t.to(half) for t in (a, v, U, V)]

    def peer():
        a, v, U, V = low
        s = ((a @ U.T) * (v @ V.T)).view(B, o, k).sum(2).float()
        z = torch.sign(s) * torch.sqrt(s.abs() + 1e-12)
        return F.normalize(z, dim=1)

    size = 2 if precision == "bf16" else 4
    return Case(f"fbp/B={B},m={m},n={n},o={o},k={k},{precision}", "fbp", {"a": a, "v": v, "U": U, "V": V}, {"z": make(B, o)},
                {"k": k, "normalize": "power-l2", "precision": precision}, peer, "z", 2.0 * B * (m + n) * o * k,
                size * (B * (m + n) + o * k * (m + n)) + 4 * B * o, f"matrix.{precision}", 2e-2 if precision == "bf16" else 1e-3)


def linear(make, M, N, K, precision):
    x, W, b = make(M, K), make(N, K, scale=K ** -0.5), make(N)
    half = torch.bfloat16 if precision == "bf16" else torch.float32
    low = [t.to(half) for t in (x, W, b)]
    size = 2 if precision == "bf16" else 4
    return Case(f"linear/M={M},N={N},K={K},{precision}", "linear", {"x": x, "W": W, "b": b}, {"y": make(M, N)}, {"precision": precision},
                lambda: F.linear(*low).float(), "y", 2.0 * M * N * K, size * (M * K + N * K) + 4 * M * N, f"matrix.{precision}",
                2e-2 if precision == "bf16" else 1e-3)


def afg(make, B, T, D, A):
    x, W, b, u = make(B, T, D), make(A, D, scale=D ** -0.5), make(A), make(A, scale=0.3)

    def peer():
        weights = torch.softmax(torch.tanh(x @ W.T + b) @ u * 0.3, dim=1)
        return torch.einsum("bt,btd->bd", weights, x)[:, None]

    return Case(f"afg/B={B},T={T},D={D},A={A}", "afg", {"x": x, "W": W, "b": b, "u": u}, {"c": make(B, 1, D), "alpha": make(B, 1, T)},
                {"scale": 0.3}, peer, "c", 2.0 * B * T * D * (A + 1), 4.0 * B * T * D, "copy" if A <= 128 else "matrix.f32", 1e-3)


def layer_norm(make, R, C):
    x, gamma, beta = make(R, C), make(C), make(C)
    return Case(f"layer_norm/R={R},C={C}", "layer_norm", {"x": x, "gamma": gamma, "beta": beta}, {"y": make(R, C)}, {"eps": 1e-5},
                lambda: F.layer_norm(x, (C,), gamma, beta, 1e-5), "y", 8.0 * R * C, 8.0 * R * C, "copy", 1e-4)


def lrn(make, B, C, H, W):
    x = make(B, C, H, W)
    return Case(f"lrn/B={B},C={C},H={H},W={W}", "lrn", {"x": x}, {"y": make(B, C, H, W)}, {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1},
                lambda: F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), "y", 12.0 * x.numel(), 8.0 * x.numel(), "copy", 1e-4)


def adamw(make, N):
    p, g, m, v = (make(N) for _ in range(4))
    v.abs_()
    expected = [t.clone() for t in (p, g, m, v)]

    def peer():
        p, g, m, v = expected
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        return p - 1e-3 * (m / 0.1 / (torch.sqrt(v / 0.001) + 1e-8) + 0.01 * p)

    out = {"p": make(N), "m": make(N), "v": make(N)}
    return Case(f"adamw/N={N}", "adamw", {"p": p, "g": g, "m": m, "v": v}, out,
                {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weightDecay": 0.01, "step": 1}, peer, "p", 12.0 * N, 28.0 * N, "copy",
                1e-4)


def cases(make, tiny):
    if tiny:
        yield lambda: linear(make, 9, 33, 17, "f32")
        yield lambda: fbp(make, 5, 12, 9, 7, 3, "f32")
        yield lambda: afg(make, 2, 9, 12, 8)
        yield lambda: layer_norm(make, 5, 33)
        yield lambda: lrn(make, 1, 7, 3, 5)
        yield lambda: adamw(make, 77)
        return
    for precision in ("bf16", "f32"):
        for B in (64, 256, 4096, 8192):
            yield lambda B=B, precision=precision: fbp(make, B, 1024, 2048, 1000, 5, precision)
        yield lambda precision=precision: linear(make, 4096, 4096, 4096, precision)
        yield lambda precision=precision: linear(make, 256, 1024, 1024, precision)
    for A in (64, 128, 256):
        yield lambda A=A: afg(make, 256, 200, 1024, A)
    yield lambda: layer_norm(make, 51200, 1024)
    yield lambda: lrn(make, 64, 96, 48, 123)
    yield lambda: adamw(make, 1 << 26)
