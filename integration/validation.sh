#!/bin/bash
# The validation programs of opencontainers/runtime-tools, built by `make runtimetest validation-executables` in SUITE:
# validation.sh SUITE RUNTIME. Prints those that fail with what they say, and counts. A program passes when it exits with
# 0 and none of its assertions is `not ok`.
set -euo pipefail
suite=$1 RUNTIME=$(realpath "$2") passed=0 failed=0 ok=0 not_ok=0
export RUNTIME
cd "$suite"
for program in validation/*/*.t; do
	status=0
	told=$(timeout 120 "$program" 2>&1) || status=$?
	lines_ok=$(grep -c '^ok' <<<"$told" || true)
	lines_not_ok=$(grep '^not ok' <<<"$told" | grep -vc 'TODO\|SKIP' || true)
	ok=$((ok + lines_ok)) not_ok=$((not_ok + lines_not_ok))
	name=$(basename "$program" .t)
	if [ "$status" = 0 ] && [ "$lines_not_ok" = 0 ]; then
		passed=$((passed + 1))
		echo "ok    $name: $lines_ok"
		continue
	fi
	failed=$((failed + 1))
	echo "FAIL  $name: exit $status, $lines_ok ok, $lines_not_ok not ok"
	if [ "$lines_not_ok" = 0 ]; then tail -n 3 <<<"$told"; else grep -A 2 '^not ok' <<<"$told" | head -n 12; fi | sed 's/^/      /'
done
echo "assertions: $ok ok, $not_ok not ok"
echo "programs: $passed passed, $failed failed"
