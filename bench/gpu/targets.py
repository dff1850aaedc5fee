"""What the GPU bench has to show, and whether a results file does. For an H100 or H200; bf16 where an operator has it.

A row is one figure of one case: a share of the device's own measured ceiling, or how many times as long PyTorch takes. It is
reached, missed, or not measured: where there was no GPU, the case failed or was left out, or the peer could not run."""

# The better of float32 tensors that autocast converts and of tensors that are bf16 already.
EAGER = ("eager", "eager.bf16")
FBP = "fbp/B={},m=1024,n=2048,o=1000,k=5,bf16"
STEP = "step/P1 concat,B={},T=67-200,D=4x1024,A=256,bf16"


def percent(entry):
    return entry.get("percent")


def times(peers):
    def value(entry):
        found = [entry["peers"][name] for name in peers if name in entry.get("peers", {})]
        return min(found) / entry["seconds"] if found and entry.get("seconds") else None

    return value


def targets():
    """(case, what, least, unit, value of its entry)"""
    rows = []

    def share(least, what, names):
        rows.extend((name, f"of {what}", least, "%", percent) for name in names)

    def faster(least, what, peers, names):
        rows.extend((name, f"PyTorch {what} / ours", least, "x", times(peers)) for name in names)

    share(80, "copy bandwidth", [f"afg/B=256,T=200,D=1024,A={A},bf16" for A in (64, 128)])
    share(80, "copy bandwidth", ["ratio_attention/B=256,T=200,D=1024"])
    share(45, "the matrix peak", [FBP.format(B) for B in (4096, 8192)])
    faster(1.3, "eager", EAGER, [FBP.format(B) for B in (4096, 8192)])
    faster(1.5, "eager", EAGER, [FBP.format(B) for B in (16, 64, 256)])
    share(80, "copy bandwidth", [
        "adamw/N=67108864", "lrn/B=64,C=96,H=48,W=123", "lrn+backward/B=64,C=96,H=48,W=123", "layer_norm/R=51200,C=1024",
        "layer_norm+backward/R=51200,C=1024"])
    faster(5, "eager", ("eager",), [STEP.format(B) for B in (32, 128, 256)])
    faster(2, "torch.compile", ("compile",), [STEP.format(B) for B in (32, 256)])
    return rows


def judge(data):
    """Rows of (case, what, value or None, least, unit, verdict) for a results file."""
    bench = data.get("bench", {})
    entries = {}
    if bench.get("device") == "cuda":
        entries = {entry["name"]: entry for entry in bench.get("operators", []) + bench.get("steps", []) if "failed" not in entry}
    rows = []
    for name, what, least, unit, value_of in targets():
        value = value_of(entries[name]) if name in entries else None
        verdict = "not measured" if value is None else "reached" if value >= least else "missed"
        rows.append((name, what, value, least, unit, verdict))
    return rows
