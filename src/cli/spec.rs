//! `rrun spec`: a config.json to begin with. The two templates beside this file are what it writes; tests hold them
//! together and ask another reader's opinion.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Arg;
use nix::sys::statfs::CGROUP2_SUPER_MAGIC;

use super::{Call, Verb, switch, value};
use crate::error::Doing;

pub const VERB: Verb = Verb::new("spec", "Write a config.json to begin with", args, run);

const CONFIG: &str = include_str!("spec/config.json");
/// For a user without root's rights: in a user namespace of its own, without what such a user may not do.
const ROOTLESS: &str = include_str!("spec/rootless.json");

const CGROUP_NAMESPACE: &str = ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}";

fn args() -> Vec<Arg> {
    vec![
        value("bundle", "DIR", "Where to write it [default: .]").short('b'),
        value("file", "FILE", "Another name than config.json").short('f'),
        switch("rootless", "For a user without root's rights"),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let config = if call.is_on("rootless") {
        rootless(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    } else {
        CONFIG.to_string()
    };
    let config = if cgroups_have_one_tree() { config } else { without_cgroup_namespace(&config) };
    let directory = call.value("bundle").map(PathBuf::from).unwrap_or_default();
    let name = call.value("file").map_or(Path::new("config.json"), Path::new);
    write(&directory.join(name), &config)?;
    Ok(0)
}

/// Beside hierarchies of v1 the container's own view is for who asks for it, as with runc.
fn without_cgroup_namespace(config: &str) -> String {
    config.replace(CGROUP_NAMESPACE, "")
}

fn cgroups_have_one_tree() -> bool {
    nix::sys::statfs::statfs("/sys/fs/cgroup").is_ok_and(|top| top.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn rootless(euid: u32, egid: u32) -> String {
    ROOTLESS.replace("\"EUID\"", &euid.to_string()).replace("\"EGID\"", &egid.to_string())
}

/// Whatever stands there was somebody's work.
fn write(path: &Path, config: &str) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("file {} exists; remove it first", path.display())
        }
        opened => opened.doing("create", path.display())?,
    };
    Ok(file.write_all(config.as_bytes()).doing("write", path.display())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// `rootless.json` is `config.json` with nothing changed but this.
    #[test]
    fn the_templates_differ_only_where_a_user_needs_it() {
        let mut config: Value = serde_json::from_str(CONFIG).unwrap();
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("resources");
        let map = |host| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
        linux.insert("uidMappings".into(), map(1000));
        linux.insert("gidMappings".into(), map(100));
        for namespace in linux["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["type"] = "user".into();
            }
        }
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys" {
                let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
                *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
            }
            if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
                options.retain(|option| !option.as_str().unwrap().starts_with("gid="));
            }
        }
        assert_eq!(serde_json::from_str::<Value>(&rootless(1000, 100)).unwrap(), config);
    }

    #[test]
    fn beside_v1_there_is_no_cgroup_namespace() {
        for config in [CONFIG.to_string(), rootless(0, 0)] {
            let with: Value = serde_json::from_str(&config).unwrap();
            let mut without: Value = serde_json::from_str(&without_cgroup_namespace(&config)).unwrap();
            without["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            let sorted = |config: &Value| {
                let mut types: Vec<_> = config["linux"]["namespaces"].as_array().unwrap().clone();
                types.sort_by_key(Value::to_string);
                types
            };
            assert_eq!(sorted(&with), sorted(&without));
        }
    }

    #[test]
    fn a_second_opinion_reads_both_templates() {
        for config in [CONFIG.to_string(), rootless(0, 0)] {
            let spec: oci_spec::runtime::Spec = serde_json::from_str(&config).unwrap();
            assert_eq!(spec.version(), crate::OCI_VERSION);
            assert_eq!(spec.hostname().as_deref(), Some("rrun"));
        }
    }
}
