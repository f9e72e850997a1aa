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
    /// What a second clone makes, at `Move::ForkBeside`.
    pub again: Vec<Namespace>,
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
    /// The second clone of a container that joins a user namespace: what is made before that belongs to the host, and
    /// who is to own pids must be born in the namespace. The new process is a child of rrun too.
    ForkBeside,
    /// The parent writes the maps of a new user namespace, and looks at those of a joined one.
    AskIdMaps,
    BecomeRoot,
    Unshare(Namespace),
    /// As `Enter::TimeOffsets`, by who has rights in the new user namespace alone.
    TimeOffsets,
}

/// `admin`: rrun has rights over the namespaces that are joined. Else only who is in the user namespace has them.
pub fn choreography(new: &[Namespace], joined: &[JoinPlan], offsets: &[TimeOffset], admin: bool) -> Choreography {
    use Namespace::{Cgroup, Ipc, Mount, Time, User};
    let is_joined = |kind: Namespace| joined.iter().any(|join| join.kind == kind);
    let by_parent = |kind: Namespace| match kind {
        // rrun goes on working on the host's mounts and cgroups after the clone, and could not leave a user namespace
        Mount | User => false,
        // who is born in a new user namespace has no rights to enter it any more
        Cgroup => new.contains(&User),
        _ => admin || !is_joined(User),
    };
    let kinds = || joined.iter().map(|join| join.kind);
    let mut around: Vec<Enter> = kinds().filter(|kind| by_parent(*kind)).map(Enter::Join).collect();
    let clocks_inside = !admin && new.contains(&User);
    around.extend((!offsets.is_empty() && !clocks_inside).then_some(Enter::TimeOffsets));

    // A cgroup namespace has the cgroup of its maker as its root, so it is made after the child has joined its own: else
    // a v1 container would see the host's path there. The root of /dev/mqueue belongs to the maker of its namespace, so
    // that must be root inside.
    let own_user = new.contains(&User) || is_joined(User);
    let late = |kind: Namespace| kind == Cgroup || (kind == Ipc && own_user);
    let made = |kind: Namespace| !late(kind) && (kind != Time || offsets.is_empty());
    let made: Vec<Namespace> = new.iter().copied().filter(|kind| made(*kind)).collect();

    let mut inside = vec![Move::JoinCgroups];
    // The mount namespace last: what it shows instead of the host's /proc and /sys is not ours.
    let mut last: Vec<Move> = kinds().filter(|kind| !by_parent(*kind) && *kind != User).map(Move::Join).collect();
    last.sort_by_key(|join| *join == Move::Join(Mount));
    if is_joined(User) {
        // With rights of the host they are entered as long as we have those, and else once we have the others.
        let (before, after) = if admin { (last, Vec::new()) } else { (Vec::new(), last) };
        inside.extend(before.into_iter().chain([Move::Join(User)]).chain(after).chain([Move::ForkBeside]));
        last = Vec::new();
    }
    // Before it has ids: its files in /proc are its user's until then.
    inside.extend((!offsets.is_empty() && clocks_inside).then_some(Move::TimeOffsets));
    inside.extend(own_user.then_some([Move::AskIdMaps, Move::BecomeRoot]).into_iter().flatten());
    inside.extend([Ipc, Cgroup].into_iter().filter(|kind| new.contains(kind) && late(*kind)).map(Move::Unshare));
    inside.extend(last);
    let (clone, again) = if is_joined(User) { (Vec::new(), made) } else { (made, Vec::new()) };
    Choreography { around, clone, inside, again }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Enter::TimeOffsets;
    use Move::{JoinCgroups, Unshare};
    use Namespace::*;

    /// New ones, joined ones, offsets?; around, by clone3, inside.
    type Case<'a> = (&'a [Namespace], &'a [Namespace], bool, &'a [Enter], &'a [Namespace], &'a [Move]);
    /// New ones, joined ones, with rights over them?; around, by clone3, inside, by the second clone.
    type UserCase<'a> =
        (&'a [Namespace], &'a [Namespace], bool, &'a [Enter], &'a [Namespace], &'a [Move], &'a [Namespace]);

    #[test]
    fn user_namespaces_change_who_has_which_rights() {
        use Enter::Join as Around;
        use Move::{AskIdMaps, BecomeRoot, ForkBeside, Join as Inside};
        let cases: &[UserCase] = &[
            (
                &[User, Pid, Network, Mount, Ipc, Uts, Cgroup],
                &[],
                true,
                &[],
                &[User, Pid, Network, Mount, Uts],
                &[JoinCgroups, AskIdMaps, BecomeRoot, Unshare(Ipc), Unshare(Cgroup)],
                &[],
            ),
            (
                &[User, Pid, Mount],
                &[Network, Cgroup],
                true,
                &[Around(Network), Around(Cgroup)],
                &[User, Pid, Mount],
                &[JoinCgroups, AskIdMaps, BecomeRoot],
                &[],
            ),
            // a container of a pod that has its own user namespace
            (
                &[Pid, Mount, Cgroup],
                &[User, Network, Ipc, Uts],
                true,
                &[Around(Network), Around(Ipc), Around(Uts)],
                &[],
                &[JoinCgroups, Inside(User), ForkBeside, AskIdMaps, BecomeRoot, Unshare(Cgroup)],
                &[Pid, Mount],
            ),
            (
                &[Mount, Ipc],
                &[User, Pid],
                false,
                &[],
                &[],
                &[JoinCgroups, Inside(User), Inside(Pid), ForkBeside, AskIdMaps, BecomeRoot, Unshare(Ipc)],
                &[Mount],
            ),
            (
                &[Pid],
                &[User, Mount],
                true,
                &[],
                &[],
                &[JoinCgroups, Inside(Mount), Inside(User), ForkBeside, AskIdMaps, BecomeRoot],
                &[Pid],
            ),
            (
                &[],
                &[User, Mount, Uts],
                false,
                &[],
                &[],
                &[JoinCgroups, Inside(User), Inside(Uts), Inside(Mount), ForkBeside, AskIdMaps, BecomeRoot],
                &[],
            ),
        ];
        for (new, joined, admin, around, clone, inside, again) in cases {
            let joins: Vec<_> = joined.iter().map(|kind| JoinPlan::test(*kind)).collect();
            let want = Choreography {
                around: around.to_vec(),
                clone: clone.to_vec(),
                inside: inside.to_vec(),
                again: again.to_vec(),
            };
            assert_eq!(choreography(new, &joins, &[], *admin), want, "new {new:?}, joined {joined:?}, {admin}");
        }
    }

    #[test]
    fn clocks_are_set_by_who_may() {
        use Move::{AskIdMaps, BecomeRoot};
        let offset = [TimeOffset { clock: super::super::Clock::Boottime, secs: 1, nanosecs: 0 }];
        for (admin, around, inside) in [
            (true, &[TimeOffsets][..], &[JoinCgroups, AskIdMaps, BecomeRoot][..]),
            (false, &[], &[JoinCgroups, Move::TimeOffsets, AskIdMaps, BecomeRoot]),
        ] {
            let got = choreography(&[User, Mount, Time], &[], &offset, admin);
            assert_eq!((&got.around[..], &got.inside[..]), (around, inside), "{admin}");
            assert_eq!(got.clone, [User, Mount], "{admin}");
        }
    }

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
            let got = choreography(new, &joins, if *offsets { std::slice::from_ref(&offset) } else { &[] }, true);
            let want =
                Choreography { around: around.to_vec(), clone: clone.to_vec(), inside: inside.to_vec(), again: vec![] };
            assert_eq!(got, want, "new {new:?}, joined {joined:?}, offsets {offsets}");
        }
    }
}
