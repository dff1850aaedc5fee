"""Time on the device, its ceilings, and one run as a CUDA graph."""
import statistics
import time

import torch


class Timer:
    def __init__(self, gpu):
        self.gpu = gpu

    def seconds(self, run, least=0.1, turns=5):
        """Median seconds of one call over turns that take `least` seconds together; on the emulator of a single call."""
        if not self.gpu:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def turn(count):
            begin.record()
            for _ in range(count):
                run()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3 / count

        turn(2)
        count = max(1, round(least / turns / max(turn(1), 1e-6)))
        return statistics.median(turn(count) for _ in range(turns))

    def finish(self):
        if self.gpu:
            torch.cuda.synchronize()


def ceilings(timer):
    """Copy bandwidth and matrix rates as this device reaches them through PyTorch's own copy and cuBLAS."""
    if not timer.gpu:
        return {}
    x = torch.zeros(1 << 28, device="cuda")
    y = torch.empty_like(x)
    result = {"copy": 2 * 4 * x.numel() / timer.seconds(lambda: y.copy_(x), 0.4)}
    del x, y
    for name, kind, n, tf32 in (("matrix.bf16", torch.bfloat16, 8192, False), ("matrix.tf32", torch.float32, 8192, True),
                                ("matrix.f32", torch.float32, 4096, False)):
        a, b = (torch.randn(n, n, device="cuda").to(kind) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        result[name] = 2.0 * n ** 3 / timer.seconds(lambda: torch.mm(a, b), 0.4)
        torch.backends.cuda.matmul.allow_tf32 = False
    return result


def graphed(run):
    """The same run as one CUDA graph. RuntimeError where PyTorch cannot capture it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
