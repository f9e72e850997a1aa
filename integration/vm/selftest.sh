#!/bin/bash
# The lane itself: what a command does in the guest is what the host sees, and what did not happen is a failure.
set -uo pipefail
cd "$(dirname "$0")"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0
check() { # what, want, seen
    if [ "$2" = "$3" ]; then echo "ok    $1"; else echo "WRONG $1: $3 instead of $2"; failures=$((failures + 1)); fi
}
status_of() { "$@" >"$dir/out" 2>"$dir/err"; echo $?; }
# What `vm test` says of a "test executable" that is a shell script.
verdict_on() { # script, arguments...
    printf '#!/bin/sh\nif [ "$1" = --list ]; then printf "a: test\\nb: test\\n"; exit; fi\n%s\n' "$1" >"$dir/tests"
    chmod 755 "$dir/tests"
    status_of ./vm test --runtime /bin/true "$dir/tests" "${@:2}"
}

check 'exit status' 7 "$(status_of ./vm run -- sh -c 'exit 7')"
check 'death by a signal' 137 "$(status_of ./vm run -- sh -c 'kill -KILL $$')"
check 'no such command' 127 "$(status_of ./vm run -- no-such-command)"
mkdir "$dir/share"
head -c 3000000 /dev/urandom >"$dir/share/bytes"
check 'a copy of a directory' 0 "$(status_of ./vm run --share "$dir/share" -- sh -c 'cat bytes; cat bytes >&2; rm bytes')"
check 'all bytes of stdout' "$(sha1sum <"$dir/share/bytes")" "$(sha1sum <"$dir/out")"
check 'all bytes of stderr' "$(sha1sum <"$dir/share/bytes")" "$(sha1sum <"$dir/err")"
check 'a child that stays' 0 "$(status_of timeout 30 ./vm run -- sh -c 'sleep 1000 & exit 0')"
check 'a user with a cgroup of its own' 143 "$(status_of ./vm run --user -- \
    sh -c 'mkdir /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/x && id -u && kill -TERM $$')"
check '... is the user' 1000 "$(cat "$dir/out")"

check 'a command that does not end' 124 "$(status_of ./vm run --timeout 1 -- sleep 1000)"
check 'no qemu' 125 "$(status_of env PATH=/nowhere ./vm run -- true)"
check '... is named' 1 "$(grep -c '^vm: qemu-system-x86_64 is not installed' "$dir/err")"
check 'all tests ran' 0 "$(verdict_on 'echo "test result: ok. 2 passed; 0 failed; 0 ignored;"')"
check 'a test failed' 101 "$(verdict_on 'echo "test result: FAILED. 1 passed; 1 failed; 0 ignored;"; exit 101')"
check 'a test did not run' 125 "$(verdict_on 'echo "test result: ok. 1 passed; 0 failed; 0 ignored;"')"
check 'no test ran' 125 "$(verdict_on 'echo "test result: ok. 0 passed; 0 failed; 2 ignored;"')"
check 'the tests broke off' 125 "$(verdict_on 'echo "test a ... ok"; exit 0')"
check '... and b is named' 1 "$(grep -c "did not end: \['b'\]" "$dir/err")"
check 'names of tests' 0 "$(verdict_on 'echo "test result: ok. 2 passed; 0 failed; 0 ignored;"' --skip c --test-threads 2 a)"
check 'a name that no test has' 125 "$(verdict_on 'echo "test result: ok. 2 passed; 0 failed; 0 ignored;"' a gone::)"
check '... is told' 1 "$(grep -c '^vm: no test has gone:: in its name' "$dir/err")"
check 'the guest went down' 125 "$(status_of ./vm run -- sh -c 'echo b >/proc/sysrq-trigger; sleep 100')"

# SIGKILL leaves no qemu behind. The guest's own sleep tells whose it is.
./vm run -- sleep 1000 &
runner=$!
sleep 1.5
qemu=$(pgrep -P $runner -f qemu-system)
check 'qemu is there' qemu "${qemu:+qemu}"
kill -KILL $runner
wait $runner 2>/dev/null
sleep 0.5
check '... and goes with a killed runner' gone "$(readlink "/proc/${qemu:-1}/exe" || echo gone)" # a zombie has none
exit $((failures > 0))
