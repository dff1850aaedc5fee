"""Prints a results file of the GPU suite as a table: table.py results/<gpu>.json"""
import json
import sys

from targets import judge

PEERS = ("eager", "eager.bf16", "graph", "compile", "fused")

data = json.load(open(sys.argv[1]))
bench = data.get("bench", {})
commit = data.get("bundle", {}).get("commit", "?")[:7]
print(f"{data['gpu']}, driver {data['driver']}, torch {bench.get('torch')}, affuse {bench.get('affuse')}, commit {commit}")
for name, value in bench.get("ceilings", {}).items():
    print(f"  {name}: {value / 1e12:.2f} T{'B' if name == 'copy' else 'FLOP'}/s")


def table(title, entries, unit, scale):
    if not entries:
        return
    width = max(len(entry["name"]) for entry in entries)
    print(f"{title:{width}} {unit:>10} {'graph':>10} {'of roof':>8} " + " ".join(f"{name:>10}" for name in PEERS))
    for entry in entries:
        if "failed" in entry:
            print(f"{entry['name']:{width}} failed: {entry['failed']}")
            continue
        own, replayed = entry["seconds"], entry.get("seconds_graph")
        cells = []
        for name in PEERS:
            peer = entry["peers"].get(name)
            # Like with like: a graph of PyTorch's against a graph of ours.
            mine = replayed if name == "graph" and replayed else own
            cells.append(f"{peer / mine:9.2f}x" if peer else f"{'–':>10}")
        percent = f"{entry['percent']:7.1f}%" if "percent" in entry else f"{'–':>8}"
        again = f"{replayed * scale:10.1f}" if replayed else f"{'–':>10}"
        print(f"{entry['name']:{width}} {own * scale:10.1f} {again} {percent} " + " ".join(cells))
        fed = entry.get("fed", {})
        if "affuse" in fed:
            peer = f"{fed['eager'] / fed['affuse']:9.2f}x" if "eager" in fed else f"{'–':>10}"
            print(f"{'  frames from the host':{width}} {fed['affuse'] * scale:10.1f} {'–':>10} {'–':>8} {peer}")


table("operators (time of PyTorch / ours)", bench.get("operators", []), "us", 1e6)
table("training steps", bench.get("steps", []), "us", 1e6)
for text in bench.get("left_out", []) if isinstance(bench.get("left_out"), list) else []:
    print(f"left out: {text}")

rows = judge(data)
width = max(len(name) for name, *_ in rows)
print(f"{'targets, for an H100 or H200':{width}} {'':28} {'value':>8} {'least':>8}")
for name, what, value, least, unit, verdict in rows:
    shown = "–" if value is None else f"{value:.{1 if unit == '%' else 2}f}{unit}"
    print(f"{name:{width}} {what:28} {shown:>8} {f'{least}{unit}':>8} {verdict}")
verdicts = [row[-1] for row in rows]
print("targets: " + ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("reached", "missed", "not measured")))
