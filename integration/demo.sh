#!/bin/bash
# What rrun does, on a bundle made here and now: each command, then what it says. Takes everything away again.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "demo: making containers needs root" >&2
    exit 1
fi
rrun=${1:?usage: demo.sh PATH-OF-RRUN}
PATH=$(dirname "$(realpath "$rrun")"):$PATH

one=demo-$$-one two=demo-$$-two
bundle=$(mktemp -d /tmp/rrun-demo.XXXXXX)
cleanup() {
    trap '' INT TERM
    for id in "$one" "$two"; do
        rrun delete --force "$id" || true
    done
    rm -rf "$bundle"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bold='' green='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' green=$'\033[32m' plain=$'\033[0m'; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ %s%s\n' "$green" "$*" "$plain"
    "$@"
}

# --- an image: a shell and a few programs ---
programs=(sh cat echo hostname id ls ps sleep)
image() {
    mkdir -p rootfs/{bin,dev,etc,proc,sys,tmp}
    echo 'root:x:0:0:root:/:/bin/sh' >rootfs/etc/passwd
    if busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1; then
        cp "$busybox" rootfs/bin/busybox
        for program in "${programs[@]}"; do ln -s busybox "rootfs/bin/$program"; done
        echo "the image: $busybox, which needs no libraries"
    else
        for program in "${programs[@]}"; do with_libraries "$program"; done
        echo "the image: the shell of this machine, and the libraries that it needs"
    fi
}

with_libraries() {
    local file library
    file=$(type -P "$1") || return 0
    cp -L "$file" "rootfs/bin/$1"
    for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "rootfs$(dirname "$library")"
        [ -e "rootfs$library" ] || cp -L "$library" "rootfs$library"
    done
}

# A fresh config.json with another program: `rrun spec` writes "args": [ newline "sh" newline ].
program() {
    rm -f config.json
    rrun spec
    sed -i -e 's/"terminal": true/"terminal": false/' -e "/\"args\": \[/,/\]/c\\\t\t\"args\": $1," config.json
}

cd "$bundle"
say "A bundle is a directory with a config.json and the files of the container."
image
show rrun spec
show ls
program '["sh", "-c", "echo I am process $$ of $(hostname), as user $(id -u); ls /; ps"]'
grep --color=never '"args"' config.json

say "run: create it, start it, wait for it, delete it."
show rrun run "$one"

say "The same in single steps, as a container manager does it."
program '["sleep", "60"]'
show rrun create "$two"
say "It waits for its start: everything is set up, and the program does not run yet."
show rrun state "$two"
echo
show rrun start "$two"
show rrun list
show rrun kill "$two" KILL
while rrun state "$two" | grep -q '"status": "running"'; do sleep 0.01; done
show rrun list
show rrun delete "$two"
show rrun list
say "Nothing is left of either."
