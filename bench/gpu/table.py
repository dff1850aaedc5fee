"""Prints a results file of the GPU suite as a table: table.py results/<gpu>.json"""
import json
import sys

data = json.load(open(sys.argv[1]))
bench = data.get("bench", {})
print(f"{data['gpu']}, driver {data['driver']}, torch {bench.get('torch')}, commit {data.get('bundle', {}).get('commit', '?')[:7]}")
for name, value in bench.get("ceilings", {}).items():
    print(f"  {name}: {value / 1e12:.2f} T{'B' if name == 'copy' else 'FLOP'}/s")
print(f"{'case':44} {'affuse':>10} {'of roof':>9} {'eager':>8} {'graph':>8} {'compile':>8}")
for case in bench.get("cases", []):
    if "failed" in case:
        print(f"{case['name']:44} failed: {case['failed']}")
        continue
    peers = "".join(
        f" {case['peers'][name] / case['seconds']:7.2f}x" if name in case["peers"] else f" {'–':>8}" for name in ("eager", "graph", "compile"))
    percent = f"{case['percent']:8.1f}%" if "percent" in case else f"{'–':>9}"
    print(f"{case['name']:44} {case['seconds'] * 1e6:8.1f}us {percent}{peers}")
