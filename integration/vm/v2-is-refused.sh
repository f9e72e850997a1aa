#!/bin/bash
# v2-is-refused.sh RRUN: on a host with cgroup v2 alone rrun says that it cannot, and leaves nothing. It goes, and v2
# joins GUESTS in the Makefile, with the version of rrun that can.
set -euo pipefail
share=$(mktemp -d)
trap 'rm -rf "$share"' EXIT
mkdir -p "$share/rootfs/bin"
cp "$1" "$share/rrun"
said=$("$(dirname "$0")"/vm run --cgroup v2 --share "$share" -- sh -uc '
    cp /bin/busybox rootfs/bin/sh
    ./rrun spec && sed -i "s/\"terminal\": true/\"terminal\": false/" config.json
    ./rrun create --pid-file pid c1
    echo "status $?; $(./rrun list -q | wc -l) containers; $(find /sys/fs/cgroup -name "*c1*" | wc -l) cgroups"' 2>&1)
echo "vm: v2: $said"
grep -q '^create c1: .*cgroup v2 alone' <<<"$said" && grep -qx 'status 1; 0 containers; 0 cgroups' <<<"$said"
