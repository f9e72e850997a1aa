//! Whom the bench compares: rrun, the floor, and peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Floor,
    Rrun,
    /// crun, runc, youki, and its version.
    Peer(String, String),
}

#[derive(Debug, Clone)]
pub struct Runtime {
    pub kind: Kind,
    pub binary: PathBuf,
    /// What it is called in tables.
    pub name: String,
}

const PEERS: [&str; 3] = ["crun", "runc", "youki"];

impl Runtime {
    pub fn new(kind: Kind, binary: PathBuf) -> Self {
        let name = match &kind {
            Kind::Floor => "floor".to_string(),
            Kind::Rrun => "rrun".to_string(),
            Kind::Peer(name, version) => format!("{name} {version}"),
        };
        Self { kind, binary, name }
    }

    /// All that it says of itself; nothing of the floor.
    pub fn version(&self) -> String {
        if self.is_floor() {
            return String::new();
        }
        let output = Command::new(&self.binary).arg("--version").output();
        let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        said.lines().collect::<Vec<_>>().join(", ")
    }

    pub fn is_floor(&self) -> bool {
        self.kind == Kind::Floor
    }

    /// As part of a file's name and of an id.
    pub fn label(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }
}

/// Those on PATH, and all in `$PEERS_DIR` whose names begin with a peer's; each once.
pub fn peers() -> Vec<Runtime> {
    let mut found: Vec<Runtime> = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files: Vec<PathBuf> = Vec::new();
    for name in PEERS {
        let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        files.extend(places.map(|dir| dir.join(name)).find(|file| file.is_file()));
    }
    if let Some(dir) = std::env::var_os("PEERS_DIR") {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut more: Vec<PathBuf> = entries.filter(|file| file.is_file()).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = PEERS.into_iter().find(|name| stem.starts_with(name)) else { continue };
        let Some(version) = version(&file) else { continue };
        let peer = Runtime::new(Kind::Peer(name.into(), version), file);
        if !found.iter().any(|other| other.name == peer.name) {
            found.push(peer);
        }
    }
    found
}

/// `crun version 1.8.1`, `runc version 1.1.5+ds1`: the first word that begins with a digit.
fn version(binary: &Path) -> Option<String> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    first_number(&String::from_utf8_lossy(&output.stdout))
}

fn first_number(text: &str) -> Option<String> {
    let words = text.lines().next()?.split_whitespace();
    words.map(|word| word.trim_start_matches('v')).find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(
        |word| {
            let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'));
            word[..end.unwrap_or(word.len())].to_string()
        },
    )
}

/// What one runtime is asked for, whichever it is.
pub struct Calls<'a> {
    pub runtime: &'a Runtime,
    /// `--root` of a runtime; a directory of the floor's.
    pub root: PathBuf,
    pub id: String,
    /// The floor's words for what others read in the bundle.
    pub cgroups: &'a str,
    pub rootfs: &'a Path,
    pub filter: Option<&'a Path>,
    pub devices: Option<&'a Path>,
}

impl Calls<'_> {
    fn text(path: &Path) -> String {
        path.to_string_lossy().into_owned()
    }

    fn floor(&self, verb: &str, program: &[&str]) -> Vec<String> {
        let file = |file: Option<&Path>| file.map_or("-".into(), Self::text);
        let mut words = vec![Self::text(&self.runtime.binary), verb.into(), self.cgroups.into(), self.id.clone()];
        words.extend([Self::text(self.rootfs), file(self.filter), file(self.devices)]);
        words.push(Self::text(&self.root.join(&self.id)));
        words.extend(program.iter().map(|word| word.to_string()));
        words
    }

    fn other(&self, args: &[&str]) -> Vec<String> {
        let mut words = vec![Self::text(&self.runtime.binary), "--root".into(), Self::text(&self.root)];
        words.extend(args.iter().map(|word| word.to_string()));
        words
    }

    pub fn pid_file(&self) -> PathBuf {
        self.root.join(format!("{}.pid", self.id))
    }

    pub fn run(&self, bundle: &Path, program: &[&str]) -> Vec<String> {
        if self.runtime.is_floor() {
            return self.floor("run", program);
        }
        self.other(&["run", "-b", &Self::text(bundle), &self.id])
    }

    pub fn run_detached(&self, bundle: &Path) -> Vec<String> {
        self.other(&["run", "-d", "-b", &Self::text(bundle), &self.id])
    }

    pub fn create(&self, bundle: &Path, program: &[&str]) -> Vec<String> {
        if self.runtime.is_floor() {
            return self.floor("create", program);
        }
        self.other(&["create", "-b", &Self::text(bundle), "--pid-file", &Self::text(&self.pid_file()), &self.id])
    }

    pub fn simple(&self, verb: &str) -> Vec<String> {
        if self.runtime.is_floor() { self.floor(verb, &[]) } else { self.other(&[verb, &self.id]) }
    }

    pub fn exec(&self, program: &[&str]) -> Vec<String> {
        if self.runtime.is_floor() {
            return self.floor("exec", program);
        }
        self.other(&[&["exec", &self.id], program].concat())
    }

    pub fn kill(&self) -> Vec<String> {
        if self.runtime.is_floor() { self.floor("kill", &[]) } else { self.other(&["kill", &self.id, "KILL"]) }
    }

    pub fn list(&self) -> Vec<String> {
        self.other(&["list"])
    }

    pub fn delete_force(&self) -> Vec<String> {
        self.other(&["delete", "--force", &self.id])
    }

    /// Of the container's init, after `create`.
    pub fn pid(&self) -> Result<i32> {
        if self.runtime.is_floor() {
            let bytes = std::fs::read(self.root.join(&self.id).join("pid")).context("the floor's pid")?;
            return Ok(i32::from_ne_bytes(bytes[..].try_into().context("the floor's pid")?));
        }
        let text = std::fs::read_to_string(self.pid_file()).context("the pid file")?;
        text.trim().parse().context("the pid file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (said, want) in [
            ("crun version 1.8.1\ncommit: f8a0", Some("1.8.1")),
            ("runc version 1.1.5+ds1\ncommit: 1.1.5", Some("1.1.5")),
            ("runc version 1.5.0-rc.1", Some("1.5.0-rc.1")),
            ("youki version 0.7.0", Some("0.7.0")),
            ("youki", None),
            ("", None),
        ] {
            assert_eq!(first_number(said).as_deref(), want, "{said}");
        }
    }
}
