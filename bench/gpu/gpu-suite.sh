#!/bin/sh
# The GPU suite: builds the CUDA library and the addon, then
#   parity     every CUDA kernel and programs against the float64 reference
#   sanitize   compute-sanitizer's memcheck, racecheck and initcheck over the smallest cases
#   bench      kernels against the device's measured ceilings and PyTorch on the same tensors
# and writes results/<gpu>.json, part by part, so that a part can be run again alone. No network. Needs CMake, a C++ compiler, nvcc;
# PyTorch for the peers of bench. Node comes in the bundle or from the machine; without it parity and sanitize are left out.
#
#   gpu-suite.sh [--device cuda|emulated] [--only parity|sanitize|bench] [--out FOLDER] [--jobs N]
#
# emulated: the same with the emulator and tiny sizes, to try the script where there is no GPU; its times say nothing.
set -u
cd "$(dirname "$0")" || exit 1
[ -f CMakeLists.txt ] || cd ../.. || exit 1
device=cuda only= out=results jobs=$(nproc 2>/dev/null || echo 2)
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift ;;
    --only) only=$2; shift ;;
    --out) out=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    *) echo "gpu-suite: unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
case $device in cuda | emulated) ;; *) echo "gpu-suite: expected --device cuda or emulated, got $device" >&2; exit 2 ;; esac
case $only in '' | parity | sanitize | bench) ;; *) echo "gpu-suite: expected --only parity, sanitize or bench, got $only" >&2; exit 2 ;; esac
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
PATH=$PWD/bin:$PATH:/usr/local/cuda/bin
failed=0

gpu=emulator driver=none
if [ "$device" = cuda ]; then
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  [ -n "$gpu" ] || { echo "gpu-suite: nvidia-smi names no GPU" >&2; exit 1; }
  case $capability in 90 | 100) architecture=${capability}a-real ;; *) architecture=$capability-real ;; esac
fi
file=$out/$(echo "$gpu" | tr 'A-Z /' 'a-z--').json

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
# record PART JSON: puts the JSON text under that name into the results file.
record() {
  python3 - "$file" "$1" "$2" "$gpu" "$driver" bundle.json <<'PY'
import json, os, sys, time
file, part, text, gpu, driver, bundle = sys.argv[1:]
data = json.load(open(file)) if os.path.exists(file) else {}
data.update(gpu=gpu, driver=driver, date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
if os.path.exists(bundle):
    data["bundle"] = json.load(open(bundle))
data[part] = json.loads(text)
with open(file + ".new", "w") as to:
    json.dump(data, to, indent=1)
    to.write("\n")
os.replace(file + ".new", file)
PY
}

echo "== build for $gpu"
build=build-gpu-$device
if [ "$device" = cuda ]; then
  set -- -DAFFUSE_CUDA=on "-DAFFUSE_CUDA_ARCHITECTURES=$architecture"
else
  set -- -DAFFUSE_CUDA=off -DAFFUSE_EMULATED=ON
fi
addon=ON
command -v node >/dev/null 2>&1 || addon=OFF
[ "$addon" = ON ] || echo "no Node: parity and sanitize are left out"
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DAFFUSE_SHARED=ON -DAFFUSE_ADDON=$addon -DAFFUSE_CPU_LEVELS=avx2 "$@" >"$out/build.log" 2>&1 &&
  cmake --build "$build" --parallel "$jobs" >>"$out/build.log" 2>&1 || {
  grep -E 'error|Error|beyond|budget' "$out/build.log" | head -40 >&2
  echo "gpu-suite: the build failed; $out/build.log says why" >&2
  exit 1
}
library=$PWD/$build/addon/libaffuse_$device.so
if [ "$addon" = ON ]; then
  mkdir -p build/Release
  cp "$build/addon/affuse.node" "$library" build/Release/
fi

# suite NAME: one of the suites, from the bundle or from a checkout.
suite() {
  if [ -f "suite/$1.mjs" ]; then node "suite/$1.mjs"; else node --import tsx "test/cuda/$1.ts"; fi
}

if wanted parity && [ "$addon" = ON ]; then
  echo "== parity"
  export AFFUSE_TEST_DEVICE=$device
  [ "$device" = emulated ] && export AFFUSE_TEST_MOST=700 "AFFUSE_EMULATED_LIBRARY=$library"
  : >"$out/parity.log"
  for name in parity.test program.test; do
    suite $name >>"$out/parity.log" 2>&1 || failed=1
  done
  passed=$(awk '/Passed:/ { n += $2 } END { print n + 0 }' "$out/parity.log")
  total=$(awk '/Total:/ { n += $2 } END { print n + 0 }' "$out/parity.log")
  skipped=$(awk '/Skipped:/ { n += $2 } END { print n + 0 }' "$out/parity.log")
  [ "$total" -gt 0 ] && [ "$passed" = "$total" ] || { failed=1; grep -E 'FAIL|:' "$out/parity.log" | head -40; }
  echo "$passed of $total passed, $skipped skipped"
  record parity "{\"passed\": $passed, \"failed\": $((total - passed)), \"skipped\": $skipped}"
fi

if wanted sanitize && [ "$addon" = ON ]; then
  echo "== sanitize"
  if [ "$device" != cuda ]; then
    echo "compute-sanitizer is for a GPU; the emulator has AddressSanitizer and ThreadSanitizer (test/cuda/sanitize.test.ts)"
  elif ! command -v compute-sanitizer >/dev/null 2>&1; then
    echo "no compute-sanitizer on this machine"
    record sanitize '{"skipped": "no compute-sanitizer"}'
  else
    results=
    for tool in memcheck racecheck initcheck; do
      log=$out/sanitize-$tool.log
      if [ -f suite/parity.test.mjs ]; then set -- suite/parity.test.mjs; else set -- --import tsx test/cuda/parity.test.ts; fi
      AFFUSE_TEST_DEVICE=cuda AFFUSE_TEST_MOST=400 timeout 150 \
        compute-sanitizer --tool $tool --target-processes all node "$@" >"$log" 2>&1
      status=$?
      errors=$(sed -n 's/.*ERROR SUMMARY: \([0-9]*\).*/\1/p; s/.*RACECHECK SUMMARY: \([0-9]*\) hazard.*/\1/p' "$log" | tail -1)
      echo "$tool: ${errors:-no summary} errors, exit $status"
      [ "${errors:-1}" = 0 ] || failed=1
      results="$results${results:+, }\"$tool\": {\"errors\": ${errors:-null}, \"exit\": $status}"
    done
    record sanitize "{$results}"
  fi
fi

if wanted bench; then
  echo "== bench"
  if results=$(python3 bench/gpu/bench.py --library "$PWD/$build/libaffuse.so" --backend "$library" --device "$device" 2>"$out/bench.log"); then
    record bench "$results"
    python3 bench/gpu/table.py "$file"
  else
    tail -5 "$out/bench.log" >&2
    failed=1
  fi
fi

echo "results: $file"
exit $failed
