//! A bundle made for one test: a busybox rootfs, a config that the test edits, and the runtime's commands on it.
//! Dropped, it takes everything away; a test that leaves something behind fails.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::layout;
use crate::leftovers::{self, Leftovers};
use crate::mounted::Mounted;
use crate::runtime::{self, Call, Output, eventually_within};

/// How long the kernel may take to end processes and to let go of their cgroups.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Bundle {
    /// Id, name of the cgroup, and more: see `leftovers`.
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
    /// `--root`
    pub state_root: PathBuf,
    /// Mounts of the host that the test asked for.
    host_mounts: Vec<PathBuf>,
}

impl Bundle {
    /// Runs `cat /proc/self/status`, with namespaces of every type that all runtimes know, and few capabilities.
    pub fn new() -> Self {
        let id = next_mark();
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir(&dir).unwrap();
        fill_rootfs(&dir.join("rootfs"));
        Self { config: config(&id), state_root: dir.join("state"), dir, id, host_mounts: Vec::new() }
    }

    /// Runs `script` by the shell.
    pub fn sh(script: &str) -> Self {
        let mut bundle = Self::new();
        bundle.args(&["sh", "-c", script]);
        bundle
    }

    /// Runs until it is killed.
    pub fn sleeping() -> Self {
        let mut bundle = Self::new();
        bundle.args(&["sleep", "1000"]);
        bundle
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// Sets what the JSON pointer names; objects on the way are made, and `-` appends to a list.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let place = pointer.split('/').skip(1).fold(&mut self.config, member);
        *place = value.into();
        self
    }

    pub fn unset(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.config.pointer_mut(parent).unwrap() {
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            object => drop(object.as_object_mut().unwrap().remove(key)),
        }
        self
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.set("/mounts/-", mount)
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) -> &mut Self {
        self.mount(destination, "none", source.to_str().unwrap(), &[&["bind"], options].concat())
    }

    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
        self
    }

    pub fn without_mount(&mut self, destination: &str) -> &mut Self {
        self.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != destination);
        self
    }

    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// A new file beside the rootfs, for bind mounts.
    pub fn host_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A new directory beside the rootfs with a tmpfs on it, as the host's mount(8) makes it.
    pub fn host_tmpfs(&mut self, name: &str, options: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        self.host_mounts.push(dir.clone());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&dir).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount a tmpfs on {}", dir.display());
        dir
    }

    /// A new file beside the rootfs with `file` of the host bound onto it.
    pub fn host_pin(&mut self, name: &str, file: &str) -> PathBuf {
        let place = self.host_file(name, "");
        nix::mount::mount(Some(file), &place, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        self.host_mounts.push(place.clone());
        place
    }

    /// A new file in the image, executable if it is a script or an ELF file.
    pub fn image_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let (path, content) = (self.rootfs(name), content.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        runtime::write_program(|| fs::write(&path, content)).unwrap();
        let mode = if content.starts_with(b"#!") || content.starts_with(b"\x7fELF") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The command, ready to be changed before it starts.
    pub fn command(&self, args: &[&str]) -> Command {
        self.write_config();
        self.command_on_config_as_it_is(args)
    }

    pub fn write_config(&self) {
        // by rename: another command may be reading it
        let new = self.dir.join("config.json.new");
        fs::write(&new, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        fs::rename(new, self.dir.join("config.json")).unwrap();
    }

    pub fn command_on_config_as_it_is(&self, args: &[&str]) -> Command {
        let mut command = Command::new(runtime::path());
        command.arg("--root").arg(&self.state_root);
        // of the other commands none is told: the record says it
        if self.is_in_unit() && args.iter().any(|arg| matches!(*arg, "create" | "run" | "plan" | "restore")) {
            command.arg("--systemd-cgroup");
        }
        command.args(args);
        command.current_dir(&self.dir).env(leftovers::VARIABLE, &self.id);
        command
    }

    pub fn call(&self, args: &[&str]) -> Output {
        runtime::run(&mut self.command(args))
    }

    pub fn spawn(&self, args: &[&str]) -> Call {
        Call::new(&mut self.command(args))
    }

    pub fn run(&self) -> Output {
        self.call(&["run", &self.id])
    }

    pub fn create(&self) -> Output {
        self.call(&["create", &self.id])
    }

    pub fn start(&self) -> Output {
        self.call(&["start", &self.id])
    }

    pub fn run_detached(&self) -> Output {
        self.call(&["run", "-d", &self.id])
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.call(&["kill", &self.id, signal])
    }

    pub fn pause(&self) -> Output {
        self.call(&["pause", &self.id])
    }

    pub fn resume(&self) -> Output {
        self.call(&["resume", &self.id])
    }

    pub fn delete(&self) -> Output {
        self.call(&["delete", &self.id])
    }

    pub fn delete_force(&self) -> Output {
        self.call(&["delete", "--force", &self.id])
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        let output = self.call(&["state", &self.id]);
        serde_json::from_str(output.ok()).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_string()
    }

    /// `None` while there is no such container.
    pub fn status_if_any(&self) -> Option<String> {
        let state: Value = serde_json::from_str(&self.call(&["state", &self.id]).stdout).ok()?;
        state["status"].as_str().map(String::from)
    }

    /// Of its init, which is alive: 0 would mean this process group to kill(2).
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let state = self.state();
        let pid = state["pid"].as_i64().unwrap() as i32;
        assert!(pid > 1, "no init: {state}");
        pid
    }

    /// Whether it is created for good, its init waiting for `start`. A creator that was killed just before it told init
    /// to go on leaves one that looks so until it has noticed.
    pub fn waits_for_start(&self) -> bool {
        let settled = || match self.status_if_any().as_deref() {
            Some("created") => self.init_is_held_by("pipe_read").then_some(true),
            _ => Some(false),
        };
        eventually_within(PATIENCE, settled).unwrap_or(true)
    }

    /// Whether init sleeps in this function of the kernel.
    fn init_is_held_by(&self, function: &str) -> bool {
        let state: Value = serde_json::from_str(&self.call(&["state", &self.id]).stdout).unwrap_or_default();
        fs::read_to_string(format!("/proc/{}/wchan", state["pid"])).is_ok_and(|place| place.contains(function))
    }

    #[track_caller]
    pub fn wait_until(&self, status: &str) {
        let seen = eventually_within(PATIENCE, || (self.status_if_any()? == status).then_some(()));
        assert!(seen.is_some(), "is {:?} and not {status}", self.status_if_any());
    }

    /// Runs it to its end; what is mounted inside while its program, `cat /proc/self/mountinfo`, runs.
    #[track_caller]
    pub fn mounts(&mut self) -> Vec<Mounted> {
        Mounted::parse(self.args(&["cat", "/proc/self/mountinfo"]).run().ok())
    }

    /// The container's directory in the hierarchy of `controller`, on the host.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        layout::mountpoint(controller).join(self.cgroup_path())
    }

    /// Directories of the container in the hierarchies of these controllers, each once.
    pub fn cgroups(&self, controllers: &[&str]) -> Vec<PathBuf> {
        let mut paths: Vec<_> = controllers.iter().map(|controller| self.cgroup(controller)).collect();
        paths.dedup();
        paths
    }

    /// Below the top of a hierarchy, unless the test has set another.
    pub fn cgroup_path(&self) -> String {
        match self.is_in_unit() {
            true => format!("system.slice/{}.scope", self.id),
            false => self.id.clone(),
        }
    }

    /// By `CGROUP_DRIVER=systemd`, and the test has not set another path.
    fn is_in_unit(&self) -> bool {
        by_systemd() && self.config["linux"]["cgroupsPath"] == cgroups_path(&self.id)
    }

    /// Ends in failure if anything of this container is on the machine.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        let left = Leftovers::after(PATIENCE, &self.id, &self.state_root);
        assert!(left.is_empty(), "left behind: {left}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = runtime::run(&mut self.command_on_config_as_it_is(&["delete", "--force", &self.id]));
        for dir in self.host_mounts.iter().rev() {
            let _ = nix::mount::umount(dir);
        }
        let left = Leftovers::after(PATIENCE, &self.id, &self.state_root);
        Leftovers::remove(&self.id, &self.state_root);
        let _ = fs::remove_dir_all(&self.dir);
        // of a peer a test fails for what it is about
        if !std::thread::panicking() && runtime::on_rrun() {
            assert_eq!(deleted.code, 0, "{deleted}");
            assert!(left.is_empty(), "`delete --force` leaves behind: {left}");
        }
    }
}

/// The member of a list or an object, made if it is missing.
fn member<'a>(place: &'a mut Value, key: &str) -> &'a mut Value {
    if place.is_null() {
        *place = if key == "-" { json!([]) } else { json!({}) };
    }
    match place {
        Value::Array(list) => {
            if key == "-" {
                list.push(Value::Null);
            }
            let last = list.len() - 1;
            &mut list[key.parse().unwrap_or(last)]
        }
        object => object.as_object_mut().unwrap().entry(key).or_insert(Value::Null),
    }
}

/// Fixed width: none is the beginning of another.
fn next_mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
        leftovers::sweep(&std::env::temp_dir());
    });
    format!("{}{}-{:04}", leftovers::PREFIX, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

const BUSYBOX: &str = "/bin/busybox";

/// Programs of the image. Not all that busybox is: to make and remove 270 links takes longer than to run a container.
const APPLETS: &str = "[ awk cat chmod chown cp cut date dd df du echo env false find grep groups head hostname id ip kill \
    ln ls mkdir mkfifo mknod mount mv nproc ping printf ps pwd readlink rm rmdir sed seq setpriv setsid sh sleep sort \
    stat stty sync sysctl tail taskset tee test time top touch tr true truncate tty umount uname unshare uptime usleep \
    wc which who whoami xargs yes";

fn fill_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "home"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    assert_static();
    runtime::write_program(|| fs::copy(BUSYBOX, rootfs.join("bin/busybox")))
        .unwrap_or_else(|error| panic!("{BUSYBOX}: {error}: the tests need Debian's busybox-static"));
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n").unwrap();
}

fn assert_static() {
    static CHECKED: OnceLock<()> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let program = fs::read(BUSYBOX).unwrap_or_default();
        let is_dynamic = program.windows(6).take(4096).any(|bytes| bytes == b"ld-lin" || bytes == b"ld-mus");
        assert!(!is_dynamic, "{BUSYBOX} needs libraries: the tests need Debian's busybox-static");
    });
}

/// Whether systemd makes the cgroups of all containers that do not say otherwise.
pub fn by_systemd() -> bool {
    static DRIVER: OnceLock<bool> = OnceLock::new();
    *DRIVER.get_or_init(|| match std::env::var("CGROUP_DRIVER").as_deref() {
        Ok("systemd") => true,
        Ok("" | "cgroupfs") | Err(_) => false,
        Ok(other) => panic!("CGROUP_DRIVER={other}: neither cgroupfs nor systemd"),
    })
}

fn cgroups_path(id: &str) -> String {
    if by_systemd() { format!("system.slice::{id}") } else { format!("/{id}") }
}

fn config(id: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["cat", "/proc/self/status"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64m"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroups_path(id),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    })
}
