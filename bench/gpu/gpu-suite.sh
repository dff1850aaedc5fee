#!/bin/sh
# The GPU suite: builds the CUDA library and the addon, then
#   parity     every CUDA kernel, products, row shapes, programs and training against float64 or the CPU
#   sanitize   compute-sanitizer's memcheck, racecheck and initcheck over the smallest cases
#   bench      kernels and training steps against the device's measured ceilings and PyTorch on the same tensors
# and writes <gpu>.json and logs. No network. Needs CMake, a C++ compiler, nvcc; PyTorch for bench. Node comes in the bundle
# or from the machine; without it parity, sanitize and training steps are left out, by name.
#
#   gpu-suite.sh [--device cuda|emulated] [--only build|parity|sanitize|bench] [--out FOLDER] [--jobs N] [--minutes 8]
#                [--built FOLDER]
#
# emulated   the same with the emulator and tiny sizes, to try the script where there is no GPU; its times say nothing
# --only     one part, with what was built before; the results of the others stay in the file: so a run is continued
# --minutes  for everything: what does not fit is cut off and named
# --built    takes affuse.node, libaffuse.so and the device's library from there instead of building
#
# Exit code 0: everything that could run here ran and passed; 1: something failed, named at the end; 2: wrong arguments.
set -u
began=$(date +%s)
cd "$(dirname "$0")" || exit 1
[ -f CMakeLists.txt ] || cd ../.. || exit 1
device=cuda only='' out='' jobs=$(nproc 2>/dev/null || echo 2) minutes=8 built=''
while [ $# -gt 0 ]; do
  case $1 in
    --device | --only | --out | --jobs | --minutes | --built)
      [ $# -ge 2 ] || { echo "gpu-suite: expected a value after $1" >&2; exit 2; }
      case $1 in
        --device) device=$2 ;;
        --only) only=$2 ;;
        --out) out=$2 ;;
        --jobs) jobs=$2 ;;
        --minutes) minutes=$2 ;;
        --built) built=$2 ;;
      esac
      shift 2 ;;
    *) echo "gpu-suite: unknown argument $1" >&2; exit 2 ;;
  esac
done
case $device in cuda | emulated) ;; *) echo "gpu-suite: expected --device cuda or emulated, got $device" >&2; exit 2 ;; esac
case $only in '' | build | parity | sanitize | bench) ;;
  *) echo "gpu-suite: expected --only build, parity, sanitize or bench, got $only" >&2; exit 2 ;; esac
for number in "$jobs" "$minutes"; do
  case $number in '' | 0* | *[!0-9]* | ?????*)
    echo "gpu-suite: expected a whole number in 1 ... 9999 after --jobs and --minutes, got '$number'" >&2; exit 2 ;;
  esac
done
[ -n "$out" ] || { [ -f bundle.json ] && out=results || out=bench/results; }
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
[ -x bin/node ] && bin/node -e 0 2>/dev/null && PATH=$PWD/bin:$PATH
PATH=$PATH:/usr/local/cuda/bin
export PYTHONDONTWRITEBYTECODE=1
failed='' left=''
fail() { failed="$failed $1"; echo "FAILED $1: $2" >&2; }
leave_out() { left="$left${left:+; }$1"; echo "left out: $1"; }
wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
# remaining MOST RESERVE: seconds for a part: at most MOST, and RESERVE stay for what follows. At least 20.
remaining() {
  rest=$((began + minutes * 60 - $(date +%s)))
  [ -n "$only" ] || rest=$((rest - $2))
  [ "$rest" -lt "$1" ] || rest=$1
  [ "$rest" -gt 20 ] || rest=20
  echo "$rest"
}

gpu=emulator driver=none
if [ "$device" = cuda ]; then
  ask() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -1; }
  gpu=$(ask name) driver=$(ask driver_version) capability=$(ask compute_cap | tr -d .)
  [ -n "$gpu" ] || { echo "gpu-suite: nvidia-smi names no GPU; --device emulated runs without one" >&2; exit 1; }
  case $capability in 90 | 100 | 103) architecture=${capability}a-real ;; *) architecture=$capability-real ;; esac
fi
name=$(echo "$gpu" | tr 'A-Z /' 'a-z--')
parts=$out/$name.parts
mkdir -p "$parts"
# record PART JSON: the part's result; the whole file is put together from all parts.
record() {
  printf '%s\n' "$2" >"$parts/$1.json.new" && mv "$parts/$1.json.new" "$parts/$1.json" || fail "$1" "no result in $parts"
}
put_together() {
  (
    set -e
    printf '{\n"gpu": "%s",\n"driver": "%s",\n"date": "%s"' "$gpu" "$driver" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    [ ! -f bundle.json ] || printf ',\n"bundle": %s' "$(cat bundle.json)"
    for part in build parity sanitize bench; do
      [ ! -s "$parts/$part.json" ] || printf ',\n"%s": %s' "$part" "$(cat "$parts/$part.json")"
    done
    printf '\n}\n'
  ) >"$out/$name.json.new"
  # shellcheck disable=SC2181 # `set -e` says nothing where a result is asked for
  [ $? -eq 0 ] && mv "$out/$name.json.new" "$out/$name.json" || fail results "$out/$name.json could not be written"
}

# --- build -------------------------------------------------------------------------------------------------------------
with_node=yes
command -v node >/dev/null 2>&1 || with_node=no
folder=$PWD/build-gpu-$device/addon
[ -z "$built" ] || folder=$(cd "$built" && pwd) || exit 1
core=$folder/libaffuse.so library=$folder/libaffuse_$device.so addon=$folder/affuse.node
ready() { [ -f "$core" ] && [ -f "$library" ] && { [ "$with_node" = no ] || [ -f "$addon" ]; }; }
build() {
  if [ "$device" = cuda ]; then
    set -- -DAFFUSE_CUDA=on -DAFFUSE_CUDA_LINES=ON "-DAFFUSE_CUDA_ARCHITECTURES=$architecture"
  else
    set -- -DAFFUSE_CUDA=off -DAFFUSE_EMULATED=ON
  fi
  [ "$with_node" = yes ] && set -- "$@" -DAFFUSE_ADDON=ON || set -- "$@" -DAFFUSE_ADDON=OFF
  if command -v ninja >/dev/null 2>&1 && [ ! -f "build-gpu-$device/Makefile" ]; then set -- "$@" -G Ninja; fi
  targets='affuse_shared affuse_backends'
  [ "$with_node" = no ] || targets="$targets affuse_node"
  cmake -S . -B "build-gpu-$device" -DCMAKE_BUILD_TYPE=Release -DAFFUSE_SHARED=ON -DAFFUSE_CPU_LEVELS=avx2 "$@" &&
    timeout -k 10 "$rest" cmake --build "build-gpu-$device" --parallel "$jobs" --target $targets &&
    cp "build-gpu-$device/libaffuse.so" "$folder/"
}
if [ -n "$built" ]; then
  ready || { echo "gpu-suite: expected affuse.node, libaffuse.so and libaffuse_$device.so in $built" >&2; exit 1; }
elif [ -n "$only" ] && [ "$only" != build ] && ready; then
  echo "== built before"
else
  echo "== build for $gpu"
  started=$(date +%s)
  # What the other parts want at least is 150 s.
  rest=$(remaining 9999999 150)
  (build) >"$out/build.log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then
    record build "{\"seconds\": $(($(date +%s) - started)), \"jobs\": $jobs, \"for\": \"${architecture:-emulated}\"}"
    echo "built in $(($(date +%s) - started)) s"
  else
    why="$out/build.log says why"
    case $status in 124 | 137)
      why="it was not done after $rest s with $jobs jobs. It goes on where it stopped: gpu-suite.sh --only build --minutes 30" ;;
    *) grep -E 'error|Error|beyond|budget|fatal' "$out/build.log" | head -40 >&2 ;;
    esac
    record build "{\"failed\": true, \"exit\": $status}"
    put_together
    echo "gpu-suite: the build failed; $why" >&2
    exit 1
  fi
fi
export AFFUSE_ADDON="$addon" AFFUSE_TEST_DEVICE="$device"
if [ "$device" = cuda ]; then
  export AFFUSE_CUDA_LIBRARY="$library"
else
  export AFFUSE_EMULATED_LIBRARY="$library" AFFUSE_TEST_MOST="${AFFUSE_TEST_MOST:-700}"
fi

# suite NAME …: one of the suites, from the bundle or from a checkout.
if [ -d suite ]; then
  suites=$(cd suite && ls ./*.test.mjs | sed 's|./||; s|.test.mjs||')
  command_of() { echo "suite/$1.test.mjs"; }
  steps='node suite/steps.mjs'
  launched='node suite/launched.mjs'
else
  suites='op-cli parity products program reach rows shapes tf32 training'
  command_of() { echo "--import tsx test/cuda/$1.test.ts"; }
  steps='node --import tsx bench/gpu/steps.ts'
  launched='node --import tsx test/cuda/launched.ts'
fi
# How work is divided depends on how many blocks fill the device, and tests are small: on a GPU some run again as if it had two
# multiprocessors, like the emulator, and without 16-byte accesses.
runs=$suites
[ "$device" = emulated ] ||
  runs="$runs parity@few products@few reach@few shapes@few tf32@few reach@unaligned shapes@unaligned"
settings_of() {
  case $1 in
    *@few) echo AFFUSE_CUDA_PROCESSORS=2 AFFUSE_TEST_MOST=6000 ;;
    *@unaligned) echo AFFUSE_CUDA_PROCESSORS=2 AFFUSE_CUDA_UNALIGNED=1 ;;
  esac
}

# --- parity ------------------------------------------------------------------------------------------------------------
if wanted parity && [ "$with_node" = no ]; then
  leave_out 'parity: no Node'
  record parity '{"left_out": "no Node"}'
elif wanted parity; then
  echo "== parity"
  results=
  rest=$(remaining 180 240)
  # At once: they wait for the host, which computes what is expected, more than for the device.
  rm -f "$out"/launches-*
  for suite in $runs; do
    log=$out/parity-$suite.log
    (
      env $(settings_of "$suite") AFFUSE_CUDA_LAUNCHES="$out/launches-$suite" \
        timeout "$rest" node $(command_of "${suite%@*}") >"$log" 2>&1
      echo $? >"$log.exit"
    ) &
  done
  wait
  for suite in $runs; do
    log=$out/parity-$suite.log
    status=$(cat "$log.exit") && rm -f "$log.exit"
    count() { sed -n "s/^ *$1: *\([0-9]*\).*/\1/p" "$log" | tail -1; }
    passed=$(count Passed) total=$(count Total) skipped=$(count Skipped)
    if [ $status -ne 0 ] || [ "${passed:-0}" -eq 0 ] || [ "$passed" != "$total" ]; then
      why=
      [ "$status" -ne 124 ] || why=' (out of time)'
      fail "parity:$suite" "${passed:-0} of ${total:-?} passed, exit code $status$why; $log"
      grep -E 'FAIL|expected|Error' "$log" | head -20 >&2
    else
      echo "$suite: $passed passed, ${skipped:-0} skipped"
    fi
    result="\"passed\": ${passed:-0}, \"total\": ${total:-0}, \"skipped\": ${skipped:-0}, \"exit\": $status"
    results="$results${results:+, }\"$suite\": {$result}"
  done
  # On the emulator test/cuda/sanitize.after.test.ts sees to it; the suites are brief here.
  if [ "$device" = cuda ]; then
    log=$out/parity-launched.log
    if $launched "$library" "$out"/launches-* >"$log" 2>&1; then head -1 "$log"
    else
      fail parity:launched "$(head -1 "$log"); $log"
      sed -n '2,21p' "$log" >&2
    fi
  fi
  record parity "{$results}"
fi

# --- sanitize ----------------------------------------------------------------------------------------------------------
if wanted sanitize; then
  echo "== sanitize"
  why=
  [ "$device" = cuda ] || why='compute-sanitizer is for a GPU; for the emulator there is test/cuda/sanitize.test.ts'
  [ -n "$why" ] || command -v compute-sanitizer >/dev/null 2>&1 || why='no compute-sanitizer on this machine'
  [ "$with_node" = yes ] || why='no Node'
  if [ -n "$why" ]; then
    leave_out "sanitize: $why"
    record sanitize "{\"left_out\": \"$why\"}"
  else
    rest=$(remaining 120 170)
    # One process each, at once: they wait for the tool more than for the device. Device memory is not kept for the next
    # request, so that the tools see where each block ends and what was never written.
    for tool in memcheck racecheck initcheck; do
      log=$out/sanitize-$tool.log
      (
        AFFUSE_CUDA_CACHE=0 AFFUSE_TEST_MOST=300 timeout -s INT -k 20 "$rest" \
          compute-sanitizer --tool $tool --target-processes all node $(command_of parity) >"$log" 2>&1
        echo $? >"$log.exit"
      ) &
    done
    wait
    results=
    for tool in memcheck racecheck initcheck; do
      log=$out/sanitize-$tool.log
      status=$(cat "$log.exit") && rm -f "$log.exit"
      errors=$(sed -n 's/.*ERROR SUMMARY: \([0-9]*\).*/\1/p; s/.*RACECHECK SUMMARY: \([0-9]*\) hazard.*/\1/p' "$log")
      errors=$(echo "$errors" | tail -1)
      ran=$(grep -o '•' "$log" | wc -l)
      if [ "${errors:-none}" = 0 ] && [ "$status" -eq 0 ] && [ "$ran" -gt 0 ]; then
        echo "$tool: no errors, $ran tests"
      elif [ -z "$errors" ] && grep -qiE 'not supported|unable to|permission|Device not supported' "$log"; then
        # It may be refused where the driver forbids debugging; nothing was found wrong then.
        leave_out "sanitize:$tool: $(grep -iE 'not supported|unable to|permission' "$log" | head -1)"
      elif [ "${errors:-0}" = 0 ] && { [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; }; then
        leave_out "sanitize:$tool: out of time after $rest s, $ran tests until then"
      else
        fail "sanitize:$tool" "${errors:-no summary of} errors, $ran tests, exit code $status; $log"
      fi
      results="$results${results:+, }\"$tool\": {\"errors\": ${errors:-null}, \"tests\": $ran, \"exit\": $status}"
    done
    record sanitize "{$results}"
  fi
fi

# --- bench -------------------------------------------------------------------------------------------------------------
if wanted bench; then
  echo "== bench"
  python=
  for candidate in ${AFFUSE_PYTHON:-python3 /usr/bin/python3 python}; do
    "$candidate" -c 'import torch' >/dev/null 2>&1 && { python=$candidate; break; }
  done
  if [ -z "$python" ]; then
    leave_out 'bench: no Python with PyTorch'
    record bench '{"left_out": "no Python with PyTorch"}'
  else
    rest=$(remaining 600 10)
    set --
    [ "$with_node" = no ] || set -- --steps "$steps"
    # Its own limit first, so that it names what it leaves out; it may be in the middle of something then.
    timeout $((rest + 60)) "$python" bench/gpu/bench.py --library "$core" --backend "$library" --device "$device" \
      --out "$parts/bench.json" --seconds-left "$rest" "$@" 2>"$out/bench.log"
    status=$?
    grep '^left out: ' "$out/bench.log"
    if [ $status -ne 0 ]; then
      fail bench "exit code $status; $out/bench.log"
      grep -E 'expected|Error|ERR_|failed' "$out/bench.log" | tail -20 >&2
    fi
    put_together
    "$python" bench/gpu/table.py "$out/$name.json" || fail bench "no table"
  fi
fi

put_together
echo "results: $out/$name.json, $(($(date +%s) - began)) s"
[ -z "$left" ] || echo "left out: $left"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
