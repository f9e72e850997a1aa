//! Daemons that use the runtime under test and nothing else: one each for the whole run, in namespaces of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::runtime::{self, Call, Output, eventually_within, run, wait_within};
use crate::tty::Terminal;

/// For a daemon to answer first.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    pub dir: PathBuf,
    /// What its clients find it by.
    variables: Vec<(&'static str, String)>,
    /// The end of its stdin ends the daemon, also when this process is killed.
    script: Child,
}

/// Shared by all tests of the run.
pub fn docker() -> &'static Daemon {
    static DOCKER: OnceLock<Daemon> = OnceLock::new();
    DOCKER.get_or_init(|| docker_with(""))
}

/// One more, with options of its own, that ends when it is dropped.
pub fn docker_with(options: &str) -> Daemon {
    let daemon =
        Daemon::start("docker", options, "DOCKER_HOST", |dir| format!("unix://{}", dir.join("docker.sock").display()));
    daemon.answers("docker version");
    image(&daemon.dir);
    daemon.sh("docker load -qi $DIR/image.tar").ok();
    daemon
}

pub fn containerd() -> &'static Daemon {
    static CONTAINERD: OnceLock<Daemon> = OnceLock::new();
    CONTAINERD.get_or_init(|| {
        let daemon = Daemon::start("containerd", "", "CONTAINERD_ADDRESS", |dir| {
            dir.join("containerd.sock").display().to_string()
        });
        daemon.answers("ctr version");
        image(&daemon.dir);
        daemon.sh("ctr image import $DIR/image.tar && ctr -n k8s.io image import $DIR/image.tar").ok();
        daemon
    })
}

/// No daemon, but namespaces and files of its own all the same.
pub fn podman() -> &'static Daemon {
    static PODMAN: OnceLock<Daemon> = OnceLock::new();
    PODMAN.get_or_init(|| {
        let file = |name: &'static str| move |dir: &Path| dir.join(name).display().to_string();
        let mut daemon = Daemon::start("podman", "", "CONTAINERS_CONF", file("containers.conf"));
        let storage = file("storage.conf")(&daemon.dir);
        daemon.variables.push(("CONTAINERS_STORAGE_CONF", storage));
        daemon.answers("podman version && test -e $DIR/containers.conf");
        image(&daemon.dir);
        assert_eq!(daemon.sh("podman load -qi $DIR/image.tar").code, 0);
        daemon
    })
}

impl Daemon {
    fn start(kind: &str, options: &str, variable: &'static str, address: impl Fn(&Path) -> String) -> Self {
        // a number more: one that did not answer may not be gone yet
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rrun-{kind}-{}.{number}", std::process::id()));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/managers/daemon.sh");
        let mut command = Command::new(script);
        command.arg(kind).arg(runtime::path()).arg(&dir).env("DOCKERD_OPTIONS", options).stdin(Stdio::piped());
        let script = command.spawn().unwrap();
        let variables = vec![(variable, address(&dir)), ("DIR", dir.display().to_string())];
        Self { dir, variables, script }
    }

    /// Ends the daemon alone by this signal: containers stay if it lets them.
    pub fn goes_down(&self, signal: &str) {
        self.sh(&format!("touch $DIR/down; kill -{signal} $(cat /run/docker.pid)")).ok();
        let has_ended = || self.dir.join("ended").exists().then_some(());
        eventually_within(PATIENCE, has_ended).expect("the daemon does not end");
    }

    pub fn comes_back(&self) {
        std::fs::remove_file(self.dir.join("down")).unwrap();
        self.answers("docker version");
    }

    fn answers(&self, question: &str) {
        let answered = eventually_within(PATIENCE, || (self.sh(question).code == 0).then_some(()));
        let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        answered.unwrap_or_else(|| panic!("{question} gets no answer: {}", log()));
    }

    /// A line of shell, as a user types it.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        // a loop over many containers on a busy machine
        Call::new(&mut self.command(line)).wait_for(Duration::from_secs(120))
    }

    /// One that goes on meanwhile.
    pub fn begin(&self, line: &str) -> Call {
        Call::new(&mut self.command(line))
    }

    pub fn command(&self, line: &str) -> Command {
        // where the daemon's sockets, mounts and processes are
        let daemon = std::fs::read_to_string(self.dir.join("pid")).unwrap_or_default();
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--pid", "--target", daemon.trim(), "bash", "-c", line])
            .envs(self.variables.iter().cloned());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = wait_within(&mut self.script, PATIENCE);
    }
}

/// Types until it is answered: a manager between may begin to read later than it says, and drop what came before.
#[track_caller]
pub fn asks(terminal: &mut Terminal, text: &str, answer: &str) {
    let mut answered = || {
        terminal.master.types(text);
        terminal.master.hears_within(Duration::from_secs(2), answer)
    };
    assert!((0..15).any(|_| answered()), "no {answer}");
}

/// A shell's script: tells its terminal and that one's size, when it has it, and asks for a word.
pub const TALK: &str =
    "tty; until stty size 2>&1 | grep -q 20; do sleep 0.1; done; stty size; read line; echo got $line; exit 5";

/// The command that runs `TALK` inside, called at a terminal of the host's.
#[track_caller]
pub fn talks_at_a_terminal(mut command: Command) {
    let mut terminal = Terminal::new(20, 70);
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.master.hears("20 70");
    asks(&mut terminal, "word\r", "got word");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

/// A root file system of busybox: DIR/image, and the same as an archive of two images: `box`, and `pause`, which is
/// what keeps a pod's namespaces.
fn image(dir: &Path) {
    let root = dir.join("image");
    for name in ["bin", "etc", "tmp", "root", "proc", "dev", "sys"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let found = run(Command::new("sh").args(["-c", "command -v busybox"])).ok().trim().to_string();
    std::fs::copy(found, root.join("bin/busybox")).unwrap();
    run(Command::new(root.join("bin/busybox")).args(["--install", "-s"]).arg(root.join("bin"))).ok();
    for link in std::fs::read_dir(root.join("bin")).unwrap().map(|entry| entry.unwrap().path()) {
        if link.is_symlink() {
            std::fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink("/bin/busybox", &link).unwrap();
        }
    }
    std::fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:ann:/tmp:/bin/sh\n")
        .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nann:x:1000:\n").unwrap();
    run(Command::new("bash").arg("-c").arg(ARCHIVE).current_dir(dir)).ok();
}

/// The format of `docker save`.
const ARCHIVE: &str = r#"
set -e
mkdir archive
tar --numeric-owner -C image -cf archive/layer.tar .
layer=$(sha256sum <archive/layer.tar | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
for image in 'box ["sh"]' 'pause ["sleep","1000"]'; do
cat >archive/${image% *}.json <<END
{"architecture":"$arch","os":"linux","config":{"Cmd":${image#* },"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
END
done
cat >archive/manifest.json <<END
[{"Config":"box.json","RepoTags":["box:latest"],"Layers":["layer.tar"]},
 {"Config":"pause.json","RepoTags":["pause:latest"],"Layers":["layer.tar"]}]
END
tar -C archive -cf image.tar .
"#;
