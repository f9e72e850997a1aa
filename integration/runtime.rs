//! The runtime under test, as a command that ends within a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use crate::patience::eventually_within;

/// No command may take longer: rrun's own deadlines are 10 s.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Until it executes, a child of another test holds every descriptor that this process had open when it was made. Were
/// one of them that of a program being copied, nobody could execute it at that moment (ETXTBSY).
static NO_WRITER_AT_A_FORK: RwLock<()> = RwLock::new(());

/// Writes a program so that it can be executed at once.
pub fn write_program<T>(write: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    let _no_fork = NO_WRITER_AT_A_FORK.write();
    write()
}

/// The runtime: `$RUNTIME` (a path, or a name in $PATH), else the static release binary of this tree.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let Some(given) = std::env::var_os("RUNTIME").filter(|given| !given.is_empty()) else {
            return Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("target/{}-unknown-linux-musl/release/rrun", std::env::consts::ARCH));
        };
        find(&given).unwrap_or_else(|| panic!("RUNTIME={} is neither a file nor in PATH", given.display()))
    })
}

fn find(program: &OsStr) -> Option<PathBuf> {
    let named = PathBuf::from(program);
    if named.components().count() > 1 {
        return named.canonicalize().ok();
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&named)).find(|file| file.is_file())
}

/// For what rrun does and no peer does; the test says why.
pub fn on_rrun() -> bool {
    static RRUN: OnceLock<bool> = OnceLock::new();
    *RRUN.get_or_init(|| run(Command::new(path()).arg("--version")).stdout.starts_with("rrun version "))
}

pub fn features() -> &'static Value {
    static FEATURES: OnceLock<Value> = OnceLock::new();
    FEATURES.get_or_init(|| serde_json::from_str(&run(Command::new(path()).arg("features")).stdout).unwrap_or_default())
}

/// A command that was started. Its output goes to files and not to pipes: a container keeps what its runtime had, and
/// reading a pipe to its end would wait for the container.
pub struct Call {
    pub child: Child,
    what: String,
    stdout: File,
    stderr: File,
    since: Instant,
}

pub struct Output {
    /// 128 + N when signal N ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    what: String,
    written: File,
}

pub fn run(command: &mut Command) -> Output {
    Call::new(command).wait()
}

impl Call {
    /// Starts `command`; stdin is /dev/null unless `command` says otherwise after this.
    pub fn new(command: &mut Command) -> Self {
        Self::with_stdin(command, Stdio::null())
    }

    pub fn with_stdin(command: &mut Command, stdin: Stdio) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdin(stdin).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let what = format!("{command:?}");
        let spawned = {
            let _no_copy = NO_WRITER_AT_A_FORK.read();
            command.spawn()
        };
        let child = spawned.unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { child, what, stdout, stderr, since: Instant::now() }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_for(DEADLINE)
    }

    /// For what is more than one command of a runtime.
    #[track_caller]
    pub fn wait_for(mut self, deadline: Duration) -> Output {
        match wait_within(&mut self.child, deadline) {
            Some(status) => Output {
                code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
                stdout: read(&self.stdout),
                stderr: read(&self.stderr),
                took: self.since.elapsed(),
                what: self.what,
                written: self.stdout,
            },
            None => {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("{} hangs; stdout: {} stderr: {}", self.what, read(&self.stdout), read(&self.stderr));
            }
        }
    }

    /// What stdout holds by now.
    pub fn so_far(&self) -> String {
        read(&self.stdout)
    }
}

pub fn wait_within(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    eventually_within(deadline, || child.try_wait().unwrap())
}

/// What a test does again and again to meet a rare moment: the rounds. With `FEW_ROUNDS=1`, in a guest that is slow,
/// some of them, from the first to the last.
pub fn rounds(many: usize) -> impl Iterator<Item = u64> {
    (0..many as u64).step_by(if few_rounds() { many.div_ceil(5) } else { 1 })
}

pub fn few_rounds() -> bool {
    std::env::var("FEW_ROUNDS").is_ok_and(|few| few == "1")
}

/// Through its own offset: the writer shares that of `file`.
fn read(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut own = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).unwrap();
    own.rewind().unwrap();
    own.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Output {
    /// Its stdout, if it went well and said nothing on stderr (where runc likes to warn).
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0 && (self.stderr.is_empty() || !on_rrun()), "{self}");
        &self.stdout
    }

    /// The one line of a command that failed as commands of a runtime fail.
    #[track_caller]
    pub fn error(&self) -> &str {
        assert_eq!(self.code, 1, "{self}");
        if on_rrun() {
            assert_eq!(self.stderr.lines().count(), 1, "not one line: {self}");
        }
        self.stderr.trim_end()
    }

    /// Fails with a line that holds every one of `words`, as it stands.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        let line = self.error().replace("\\\"", "\""); // runc quotes what it says
        for word in words {
            assert!(line.contains(word), "does not say `{word}`: {self}");
        }
    }

    /// What a container that runs on has written by now.
    pub fn later(&self) -> String {
        read(&self.written)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} gave {}\nstdout: {}\nstderr: {}", self.what, self.code, self.stdout, self.stderr)
    }
}
