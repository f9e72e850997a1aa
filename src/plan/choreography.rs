//! How a container gets into its namespaces: what the parent enters just before clone3 and leaves right after, what
//! clone3 makes, and what is left to the child. Pure.
//!
//! The child is born in what the parent has entered: no second fork for a joined pid namespace, and clone3 tells the
//! pid that the host sees. Left to the child is what the parent must keep (its mounts) and what has to wait (cgroups).

use super::{JoinPlan, Namespace, TimeOffset};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choreography {
    pub around: Vec<Enter>,
    pub clone: Vec<Namespace>,
    pub inside: Vec<Move>,
}

/// What the parent does before clone3 and undoes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enter {
    Join(Namespace),
    /// A new time namespace: its offsets can be set only before the first process is in it.
    TimeOffsets,
}

/// What the child does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    JoinCgroups,
    Join(Namespace),
    Unshare(Namespace),
}

pub fn choreography(new: &[Namespace], joined: &[JoinPlan], offsets: &[TimeOffset]) -> Choreography {
    use Namespace::{Cgroup, Mount, Time};
    let joined = || joined.iter().map(|join| join.kind);
    let mut around: Vec<Enter> = joined().filter(|kind| !is_the_childs(*kind)).map(Enter::Join).collect();
    around.extend((!offsets.is_empty()).then_some(Enter::TimeOffsets));
    // A cgroup namespace has the cgroup of its maker as its root, so it is made after the child has joined its own: else
    // a v1 container would see the host's path there.
    let in_clone = |kind: Namespace| kind != Cgroup && (kind != Time || offsets.is_empty());
    let mut inside = vec![Move::JoinCgroups];
    inside.extend(new.contains(&Cgroup).then_some(Move::Unshare(Cgroup)));
    // The mount namespace last: what it shows instead of the host's /proc and /sys is not ours.
    inside.extend([Cgroup, Mount].into_iter().filter(|kind| joined().any(|one| one == *kind)).map(Move::Join));
    Choreography { around, clone: new.iter().copied().filter(|kind| in_clone(*kind)).collect(), inside }
}

/// rrun goes on working on the host's mounts and cgroups after the clone.
fn is_the_childs(kind: Namespace) -> bool {
    matches!(kind, Namespace::Mount | Namespace::Cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Enter::TimeOffsets;
    use Move::{JoinCgroups, Unshare};
    use Namespace::*;

    /// New ones, joined ones, offsets?; around, by clone3, inside.
    type Case<'a> = (&'a [Namespace], &'a [Namespace], bool, &'a [Enter], &'a [Namespace], &'a [Move]);

    #[test]
    fn who_enters_what_and_when() {
        use Enter::Join as Around;
        use Move::Join as Inside;
        let cases: &[Case] = &[
            (&[], &[], false, &[], &[], &[JoinCgroups]),
            (&[Pid, Network, Mount, Ipc, Uts], &[], false, &[], &[Pid, Network, Mount, Ipc, Uts], &[JoinCgroups]),
            (&[Pid, Mount, Cgroup], &[], false, &[], &[Pid, Mount], &[JoinCgroups, Unshare(Cgroup)]),
            // a container of a podman pod
            (
                &[Pid, Mount],
                &[Network, Ipc, Uts],
                false,
                &[Around(Network), Around(Ipc), Around(Uts)],
                &[Pid, Mount],
                &[JoinCgroups],
            ),
            // a Kubernetes pod with one pid namespace
            (
                &[Mount, Cgroup],
                &[Pid, Network, Ipc, Uts],
                false,
                &[Around(Pid), Around(Network), Around(Ipc), Around(Uts)],
                &[Mount],
                &[JoinCgroups, Unshare(Cgroup)],
            ),
            (&[Pid], &[Mount, Cgroup], false, &[], &[Pid], &[JoinCgroups, Inside(Cgroup), Inside(Mount)]),
            (&[Mount, Time], &[], false, &[], &[Mount, Time], &[JoinCgroups]),
            (&[Mount, Time], &[], true, &[TimeOffsets], &[Mount], &[JoinCgroups]),
            (&[Mount], &[Time], false, &[Around(Time)], &[Mount], &[JoinCgroups]),
            (&[Mount, Time], &[Pid], true, &[Around(Pid), TimeOffsets], &[Mount], &[JoinCgroups]),
        ];
        for (new, joined, offsets, around, clone, inside) in cases {
            let joins: Vec<_> = joined.iter().map(|kind| JoinPlan::test(*kind)).collect();
            let offset = TimeOffset { clock: super::super::Clock::Boottime, secs: 1, nanosecs: 0 };
            let got = choreography(new, &joins, if *offsets { std::slice::from_ref(&offset) } else { &[] });
            let want = Choreography { around: around.to_vec(), clone: clone.to_vec(), inside: inside.to_vec() };
            assert_eq!(got, want, "new {new:?}, joined {joined:?}, offsets {offsets}");
        }
    }
}
