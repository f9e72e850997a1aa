#!/bin/bash
# A daemon of its own: daemon.sh docker|containerd|podman RUNTIME DIR
# What it makes lies below DIR, in cgroups named after DIR, and in namespaces that die with it. It ends, and all of it is
# removed, when stdin ends; so whoever holds the other end of that pipe may be killed at any time.
set -euo pipefail
kind=$1 runtime=$2 dir=$3
name=$(basename "$dir")
here=$(dirname "$(realpath "$0")")

serve() {
	# Process 1 of the pid namespace: it reaps, and its end is the end of all.
	mount -t proc proc /proc
	mount -t tmpfs run /run
	mkdir -p /run/lock /run/user
	ip link set lo up
	# no other runtime can take the place of the one that is tried
	local other
	for other in $(type -ap runc crun); do
		[ "$other" -ef "$runtime" ] || mount --bind /dev/null "$other"
	done
	# builds of docker's, and ctr where it maps ids, call it by this name whatever they were told
	mkdir "$dir/bin"
	ln -s "$runtime" "$dir/bin/runc"
	export PATH=$dir/bin:$PATH
	"serve_$kind" &
	wait $! 2>/dev/null || true
	# Who makes DIR/down first may end the daemon alone: DIR/ended says that it has. He removes the first to have it back.
	while [ -e "$dir/down" ]; do
		touch "$dir/ended"
		while [ -e "$dir/down" ]; do sleep 0.02; done
		rm "$dir/ended"
		"serve_$kind" &
		wait $! 2>/dev/null || true
	done
}

# What users are told to write into a daemon's configuration: the block with this word in it.
documented() { # json|toml WORD
	awk -v kind="$1" -v word="$2" '
		/^```/ { if (inside && index(block, word)) printf "%s", block; inside = $0 == "```" kind; block = ""; next }
		inside { block = block $0 "\n" }' "$here/../../docs/managers.md" |
		sed "s|/usr/local/bin/rrun|$runtime|; s/SystemdCgroup = true/SystemdCgroup = false/" # no systemd in these namespaces
}

serve_docker() {
	# for --userns-remap daemon
	echo daemon:100000:65536 >"$dir/ids"
	for file in /etc/subuid /etc/subgid; do
		[ ! -e $file ] || mount --bind "$dir/ids" $file
	done
	documented json default-runtime >"$dir/daemon.json"
	exec dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root /run/docker --pidfile /run/docker.pid \
		--host "unix://$dir/docker.sock" --cgroup-parent "/$name" --storage-driver overlay2 --shutdown-timeout 2 \
		${DOCKERD_OPTIONS:-} >>"$dir/log" 2>&1
}

serve_containerd() {
	cat >"$dir/containerd.toml" <<-END
		version = 2
		root = "$dir/data"
		state = "/run/containerd"
		[grpc]
		  address = "$dir/containerd.sock"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/library/pause:latest"
		  restrict_oom_score_adj = true
		[plugins."io.containerd.grpc.v1.cri".containerd]
		  default_runtime_name = "rrun"
		$(documented toml io.containerd.grpc.v1.cri)
	END
	exec containerd --config "$dir/containerd.toml" >>"$dir/log" 2>&1
}

# Podman has no daemon: this keeps its namespaces.
serve_podman() {
	local place
	# it makes cgroups also where there is a directory and no hierarchy, and cannot remove them
	if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
		mkdir "$dir/hierarchies"
		mount -t tmpfs none "$dir/hierarchies"
		for place in $(findmnt -rno TARGET | grep ^/sys/fs/cgroup/); do
			mkdir "$dir/hierarchies/${place##*/}"
			mount --bind "$place" "$dir/hierarchies/${place##*/}"
		done
		mount --move "$dir/hierarchies" /sys/fs/cgroup
	fi
	mkdir -p /var/lib/containers
	for place in /var/lib/containers /dev/shm; do
		mount -t tmpfs none $place
	done
	cat >"$dir/storage.conf" <<-END
		[storage]
		  driver = "overlay"
		  graphroot = "$dir/data"
		  runroot = "/run/containers"
	END
	{
		documented toml engine.runtimes
		# the defaults are limits that a host may not let anybody raise
		cat <<-END
			[containers]
			default_ulimits = ["nofile=$(ulimit -Sn):$(ulimit -Hn)", "nproc=$(ulimit -Su):$(ulimit -Hu)"]
		END
	} >"$dir/containers.conf"
	exec sleep infinity
}

sweep() { # DIR: its daemon is gone
	local cgroup
	find /sys/fs/cgroup -depth -type d -path "*/$(basename "$1")*" 2>/dev/null | while read -r cgroup; do
		rmdir "$cgroup" 2>/dev/null || true
	done
	rm -rf --one-file-system "$1"
}

if [ "${4:-}" = inside ]; then
	serve
	exit
fi

# Who holds the lock of its directory lives.
for old in "$(dirname "$dir")/${name%-*}"-*; do
	[ ! -e "$old/lock" ] || ! flock --nonblock "$old/lock" true || sweep "$old"
done
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
unshare --mount --net --pid --fork --kill-child --propagation private \
	"$0" "$kind" "$runtime" "$dir" inside </dev/null 9>&- &
daemon=$!
disown -a
# Clients enter the namespaces of this process.
until pgrep --parent $daemon >"$dir/pid" || ! kill -0 $daemon; do sleep 0.01; done
cat >/dev/null # until the end of stdin
kill -KILL $daemon 2>/dev/null || true
wait $daemon 2>/dev/null || true
for _ in $(seq 50); do
	sweep "$dir"
	[ -z "$(find /sys/fs/cgroup -type d -path "*/$name*" -print -quit 2>/dev/null)" ] && break
	sleep 0.1
done
