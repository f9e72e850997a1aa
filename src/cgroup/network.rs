//! `linux.resources.network`: the class of packets and their priority by interface. cgroup v2 has neither.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::Write;
use crate::plan::spec::resources::Network;

const NO_INTERFACE: &[(Errno, &str)] = &[(Errno::ENODEV, "rrun's network namespace has no interface of that name")];

pub fn class_v1(network: &Network) -> Option<Write> {
    let class = network.class_id.filter(|class| *class != 0)?;
    Some(Write::new("linux.resources.network.classID", "net_cls.classid", class))
}

pub fn priorities_v1(network: &Network) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (n, interface) in network.priorities.iter().enumerate() {
        let name = &interface.name;
        if !is_interface(name) {
            bail!("linux.resources.network.priorities[{n}].name: {name} is no interface's name");
        }
        let line = format!("{name} {}", interface.priority);
        let field = format!("linux.resources.network.priorities[{n}]");
        writes.push(Write::new(field, "net_prio.ifpriomap", line).meaning(NO_INTERFACE));
    }
    Ok(writes)
}

/// As the kernel's dev_valid_name.
fn is_interface(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;
    use crate::plan::spec::resources::InterfacePriority;

    fn network(class_id: Option<u32>, names: &[&str]) -> Network {
        let priorities = names.iter().map(|name| InterfacePriority { name: name.to_string(), priority: 7 });
        Network { class_id, priorities: priorities.collect() }
    }

    #[test]
    fn values() {
        for (class, want) in [
            (None, None),
            (Some(0), None),
            (Some(0x10_0001), Some("net_cls.classid = 1048577")),
            (Some(u32::MAX), Some("net_cls.classid = 4294967295")),
        ] {
            assert_eq!(class_v1(&network(class, &[])).map(|w| w.to_string()).as_deref(), want, "{class:?}");
        }
        let want = ["net_prio.ifpriomap = eth0 7", "net_prio.ifpriomap = lo 7"];
        assert_eq!(shown(priorities_v1(&network(None, &["eth0", "lo"]))), Ok(want.map(String::from).to_vec()));
    }

    #[test]
    fn names_that_are_none() {
        for name in ["", ".", "..", "a b", "a/b", "a:b", "a\nb", "0123456789abcdef"] {
            let error = shown(priorities_v1(&network(None, &["lo", name]))).unwrap_err();
            assert!(error.starts_with("linux.resources.network.priorities[1].name: "), "{name:?}: {error}");
        }
    }
}
