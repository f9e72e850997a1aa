//! Namespaces that a container is put into: what its plan may not do there. Which they are, namespaces.rs says; who enters
//! them and when, choreography.rs.

use anyhow::{Result, bail};

use super::{JoinPlan, Namespace, Plan, namespaces, sysctl};

/// For a namespace that turns out to be rrun's own, that is, the host's: whatever a plan sets in it would change the host.
pub fn refuse_as_own(plan: &Plan, join: &JoinPlan) -> Result<()> {
    let Some(set) = set_in(plan, join.kind) else { return Ok(()) };
    let (field, path, kind) = (&join.field, join.path.display(), namespaces::name(join.kind));
    bail!(
        "{set}: would change the host: {field}: {path} is rrun's own {kind} namespace; leave the path out for a new one"
    )
}

/// The field by which a plan sets something in its namespace of this kind.
fn set_in(plan: &Plan, kind: Namespace) -> Option<String> {
    let sysctl = || plan.sysctls.iter().find(|sysctl| sysctl::owner(&sysctl.path) == Some(kind));
    match kind {
        // Its root would become the container's.
        Namespace::Mount => Some("root".into()),
        Namespace::Uts if plan.hostname.is_some() => Some("hostname".into()),
        Namespace::Uts if plan.domainname.is_some() => Some("domainname".into()),
        Namespace::Network if !plan.net_devices.is_empty() => Some("linux.netDevices".into()),
        _ => sysctl().map(|sysctl| format!("linux.sysctl: {}", sysctl.key)),
    }
}

#[cfg(test)]
impl JoinPlan {
    pub fn test(kind: Namespace) -> Self {
        Self { field: "linux.namespaces[0].path".into(), kind, path: "/run/ns/one".into() }
    }
}
