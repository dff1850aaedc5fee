#!/bin/sh
# A compile command in front of which CMake puts this: keeps what ptxas says about registers, shared memory and spills beside
# the object file, for cuda_budgets.cmake, and shows everything else.
object=
for argument in "$@"; do
  [ "$previous" = "-o" ] && object=$argument
  previous=$argument
done
said=$(mktemp)
"$@" 2>"$said"
status=$?
grep -E '^ptxas info|bytes stack frame' "$said" >"$object.usage"
grep -vE '^ptxas info|bytes stack frame|^$' "$said" >&2
rm -f "$said"
exit $status
