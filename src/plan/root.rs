//! The container's root: how it is switched to, where mounts in it go, and which way mounts pass between it and the host.

use std::path::Path;

use anyhow::{Result, bail};

use super::id_maps::User;
use super::mount_options;
use super::problems::Problems;
use super::spec::{Linux, Spec, given};
use super::{Namespace, Propagation, PropagationKind, RootPlan, RootSwitch};

/// The mount namespace that the container's mounts are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountsIn {
    /// One that is not rrun's.
    Own,
    /// The host's: made by root alone, and taken away again.
    Host,
    /// There is nothing to mount.
    Nowhere,
}

pub fn mounts_in(spec: &Spec, apart: &[Namespace], user: User, rootfs: &Path) -> Result<MountsIn> {
    if apart.contains(&Namespace::Mount) {
        return Ok(MountsIn::Own);
    }
    let absent = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&absent);
    let needing = [
        ("mounts", !spec.mounts.is_empty()),
        ("linux.devices", !linux.devices.is_empty()),
        ("root.readonly", spec.root.as_ref().is_some_and(|root| root.readonly == Some(true))),
        // its /dev/console is a mount
        ("process.terminal", spec.process.as_ref().is_some_and(|process| process.terminal == Some(true))),
    ];
    let never = [
        // who sees the host's mounts can unmount what hides them
        ("linux.maskedPaths", !linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", !linux.readonly_paths.is_empty()),
        // it would be that of the host's own root
        ("linux.rootfsPropagation", given(&linux.rootfs_propagation).is_some()),
    ];
    let found = needing.iter().find(|(_, set)| *set);
    let refused = if user == User::Shared { None } else { found };
    if let Some((field, _)) = never.iter().find(|(_, set)| *set).or(refused) {
        bail!("{field}: needs a new mount namespace; add one to linux.namespaces");
    }
    if let Some((field, _)) = found.filter(|_| rootfs == Path::new("/")) {
        bail!(
            "{field}: would be that of the host, since root.path is its root; add a mount namespace to linux.namespaces"
        );
    }
    Ok(if found.is_some() { MountsIn::Host } else { MountsIn::Nowhere })
}

pub fn plan(spec: &Spec, path: &Path, no_pivot: bool, mounts: MountsIn, problems: &mut Problems) -> RootPlan {
    let word = spec.linux.as_ref().and_then(|linux| given(&linux.rootfs_propagation));
    let (propagation, propagation_after) = problems.ok(propagation(word, no_pivot)).unwrap_or((ONE_WAY, None));
    let cut_off =
        propagation.recursive && matches!(propagation.kind, PropagationKind::Private | PropagationKind::Slave);
    let switch = match mounts {
        MountsIn::Own if no_pivot => RootSwitch::MoveMount,
        MountsIn::Own => RootSwitch::PivotRoot,
        MountsIn::Host => RootSwitch::ChrootCovered,
        MountsIn::Nowhere => RootSwitch::Chroot,
    };
    RootPlan {
        path: path.to_path_buf(),
        readonly: spec.root.as_ref().is_some_and(|root| root.readonly == Some(true)),
        switch,
        propagation,
        isolate_parent: mounts == MountsIn::Own && !cut_off,
        propagation_after,
    }
}

/// What is mounted on the host reaches the container, and nothing the other way.
const ONE_WAY: Propagation = Propagation { kind: PropagationKind::Slave, recursive: true };

/// What the whole tree is set to before the first mount, and the container's root after the switch. `shared` is needed
/// at both times: before, so that what is bound from the host keeps its peers there (a volume that passes mounts on);
/// after, since the rootfs lies on a private mount by then. Nothing can be bound from an unbindable tree, so that comes
/// after only.
fn propagation(word: Option<&str>, no_pivot: bool) -> Result<(Propagation, Option<Propagation>)> {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    let Some(word) = word else { return Ok((ONE_WAY, None)) };
    let Some(given) = mount_options::propagation(word) else {
        let known = mount_options::propagation_words();
        bail!("linux.rootfsPropagation: {word} is no propagation; use one of {known}");
    };
    match given.kind {
        Private if no_pivot => bail!("linux.rootfsPropagation: {word} is not safe with --no-pivot; use rslave"),
        Private | Slave => Ok((given, None)),
        Shared => Ok((given, Some(given))),
        Unbindable => Ok((ONE_WAY, Some(given))),
    }
}
