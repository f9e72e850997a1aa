//! `linux.netDevices`: devices of the host that become the container's.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::Namespace;
use super::spec::linux::NetDevice as Written;
use super::spec::{Table, given};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDevice {
    /// On the host.
    pub name: String,
    /// In the container; `%d` stands for the first number that is free.
    pub inside: String,
}

impl NetDevice {
    /// Where it stands, for errors.
    pub fn field(&self) -> String {
        format!("linux.netDevices.{}", self.name)
    }

    pub fn is_template(&self) -> bool {
        self.inside.contains('%')
    }
}

/// IFNAMSIZ, without the NUL.
const LONGEST: usize = 15;

/// What the kernel refuses by one EINVAL: dev_valid_name().
fn is_name(name: &str) -> bool {
    let forbidden = |c: char| matches!(c, '/' | ':') || c.is_ascii_whitespace() || c == '\x0b';
    (1..=LONGEST).contains(&name.len()) && !matches!(name, "." | "..") && !name.contains(forbidden)
}

fn is_template(name: &str) -> bool {
    name.matches('%').count() == 1 && name.contains("%d")
}

pub fn plan(written: &Table<Written>, apart: &[Namespace], admin: bool) -> Result<Vec<NetDevice>> {
    if written.is_empty() {
        return Ok(Vec::new());
    }
    ensure!(
        apart.contains(&Namespace::Network),
        "linux.netDevices: needs a network namespace of the container's; add one to linux.namespaces"
    );
    ensure!(
        admin,
        "linux.netDevices: to move a device takes root's rights on the host; remove it, or run rrun as root"
    );
    let mut planned = Vec::with_capacity(written.len());
    let mut names_inside = BTreeMap::new();
    for (name, device) in written.iter() {
        let field = format!("linux.netDevices.{name}");
        const ALLOWED: &str = "1 to 15 bytes without white space, / and :";
        ensure!(is_name(name), "{field}: {name} is no name of a network device: {ALLOWED}");
        let inside = given(&device.name).unwrap_or(name);
        ensure!(is_name(inside), "{field}.name: {inside} is no name of a network device: {ALLOWED}");
        if given(&device.name).is_some() && inside.contains('%') && !is_template(inside) {
            bail!("{field}.name: {inside} is no template; write %d once, as in eth%d");
        }
        ensure!(inside != "lo", "{field}.name: lo is there in every network namespace; choose another");
        let device = NetDevice { name: name.clone(), inside: inside.into() };
        if !device.is_template()
            && let Some(other) = names_inside.insert(inside, name)
        {
            bail!("{field}.name: {inside} is that of linux.netDevices.{other} too; choose another");
        }
        planned.push(device);
    }
    // A template takes the first number that is free, which must not be one that another device is to have.
    planned.sort_by_key(NetDevice::is_template);
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(written: &str) -> Result<Vec<(String, String)>, String> {
        let written = super::super::spec::document::read(written.as_bytes()).unwrap();
        let planned = plan(&written, &[Namespace::Network], true).map_err(|error| error.to_string())?;
        Ok(planned.into_iter().map(|device| (device.name, device.inside)).collect())
    }

    #[test]
    fn names_inside() {
        for (written, want) in [
            ("{}", vec![]),
            (r#"{"eth0":{}}"#, vec![("eth0", "eth0")]),
            (r#"{"eth0":{"name":""}}"#, vec![("eth0", "eth0")]),
            (r#"{"eth0":{"name":"fifteen-bytes-x"}}"#, vec![("eth0", "fifteen-bytes-x")]),
            (r#"{"a":{"name":"net%d"},"b":{"name":"net%d"}}"#, vec![("a", "net%d"), ("b", "net%d")]),
            (r#"{"a":{"name":"net%d"},"b":{"name":"net0"}}"#, vec![("b", "net0"), ("a", "net%d")]),
        ] {
            let want: Vec<_> = want.into_iter().map(|(name, inside)| (name.to_string(), inside.to_string())).collect();
            assert_eq!(planned(written), Ok(want), "{written}");
        }
    }

    #[test]
    fn a_bad_name_is_told_with_its_place() {
        for (written, want) in [
            (r#"{"":{}}"#, ":  is no name of a network device"),
            (r#"{"sixteen-bytes-xy":{}}"#, "sixteen-bytes-xy: sixteen-bytes-xy is no name"),
            (r#"{"a/b":{}}"#, "a/b: a/b is no name"),
            (r#"{"eth0":{"name":"."}}"#, "eth0.name: . is no name"),
            (r#"{"eth0":{"name":".."}}"#, "eth0.name: .. is no name"),
            (r#"{"eth0":{"name":"a b"}}"#, "eth0.name: a b is no name"),
            (r#"{"eth0":{"name":"eth0:1"}}"#, "eth0.name: eth0:1 is no name"),
            (r#"{"eth0":{"name":"sixteen-bytes-%d"}}"#, "eth0.name: sixteen-bytes-%d is no name"),
            (r#"{"eth0":{"name":"eth%"}}"#, "eth0.name: eth% is no template; write %d once"),
            (r#"{"eth0":{"name":"eth%d%d"}}"#, "eth0.name: eth%d%d is no template"),
            (r#"{"eth0":{"name":"lo"}}"#, "eth0.name: lo is there in every network namespace"),
            (r#"{"lo":{}}"#, "lo.name: lo is there"),
            (r#"{"a":{"name":"x"},"b":{"name":"x"}}"#, "b.name: x is that of linux.netDevices.a too"),
        ] {
            let error = planned(written).unwrap_err();
            assert!(error.starts_with(&format!("linux.netDevices.{want}")), "{written}: {error}");
        }
    }

    #[test]
    fn it_takes_a_namespace_and_rights() {
        let written = super::super::spec::document::read(br#"{"eth0":{}}"#).unwrap();
        for (apart, admin, want) in [
            (&[Namespace::Pid][..], true, "linux.netDevices: needs a network namespace"),
            (&[Namespace::Network], false, "linux.netDevices: to move a device takes root's rights"),
        ] {
            assert!(plan(&written, apart, admin).unwrap_err().to_string().starts_with(want));
        }
    }
}
