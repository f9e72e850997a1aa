//! Which namespaces clone3 makes, and what is left to the child. Pure.

use nix::sched::CloneFlags;

use crate::plan::Namespace;

#[derive(Debug, PartialEq, Eq)]
pub struct Moves {
    /// A cgroup namespace is never among them: the child unshares it after it has joined its cgroups, since otherwise
    /// a v1 container sees the host's path as its root.
    pub clone: CloneFlags,
    /// The one flag that nix cannot say.
    pub new_time: bool,
}

pub fn choreography(namespaces: &[Namespace]) -> Moves {
    let flags = namespaces.iter().map(|namespace| match namespace {
        Namespace::User => CloneFlags::CLONE_NEWUSER,
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        Namespace::Cgroup | Namespace::Time => CloneFlags::empty(),
    });
    Moves {
        clone: flags.fold(CloneFlags::empty(), |all, flag| all | flag),
        new_time: namespaces.contains(&Namespace::Time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Namespace::*;

    #[test]
    fn what_clone3_makes() {
        for (namespaces, clone, new_time) in [
            (&[][..], CloneFlags::empty(), false),
            (&[Cgroup], CloneFlags::empty(), false),
            (&[Pid, Mount, Cgroup], CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS, false),
            (&[Time, Uts], CloneFlags::CLONE_NEWUTS, true),
            (&[Network, Ipc], CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC, false),
        ] {
            assert_eq!(choreography(namespaces), Moves { clone, new_time }, "{namespaces:?}");
        }
    }
}
