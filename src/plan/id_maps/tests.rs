use proptest::prelude::*;

use super::*;
use crate::plan::spec::Spec;

const ROOT: u64 = 1 << 6 | 1 << 7; // CAP_SETGID, CAP_SETUID

fn host(capabilities: u64) -> Host {
    Host { rootless: capabilities == 0, uid: 1000, gid: 100, capabilities, ..Host::default() }
}

/// `[containerID, hostID, size]`
fn linux(uids: &str, gids: &str) -> Linux {
    let list = |text: &str| -> String {
        let ranges = serde_json::from_str::<Vec<[u64; 3]>>(text).unwrap();
        let entry = |[c, h, s]: [u64; 3]| format!(r#"{{"containerID":{c},"hostID":{h},"size":{s}}}"#);
        ranges.into_iter().map(entry).collect::<Vec<_>>().join(",")
    };
    let config = format!(r#"{{"linux":{{"uidMappings":[{}],"gidMappings":[{}]}}}}"#, list(uids), list(gids));
    Spec::parse(config.as_bytes()).unwrap().linux.unwrap()
}

#[test]
fn who_writes_which_map() {
    use MapWriter::{Helper, Rrun};
    for (capabilities, uids, gids, want) in [
        (ROOT, "[[0,100000,65536]]", "[[0,100000,65536]]", (Rrun, Rrun, true, true)),
        (ROOT, "[[0,1000,1]]", "[[0,100,1]]", (Rrun, Rrun, true, true)),
        (0, "[[0,1000,1]]", "[[0,100,1]]", (Rrun, Rrun, false, true)),
        (0, "[[7,1000,1]]", "[[0,100,1]]", (Rrun, Rrun, false, true)),
        (0, "[[0,1000,1],[1,100000,65536]]", "[[0,100,1]]", (Helper, Rrun, false, true)),
        (0, "[[0,1000,1]]", "[[0,100,1],[1,100000,65536]]", (Rrun, Helper, true, true)),
        (0, "[[0,1001,1]]", "[[0,100,2]]", (Helper, Helper, true, true)),
    ] {
        let maps = plan(&linux(uids, gids), User::New, &host(capabilities)).unwrap().unwrap();
        let got = (maps.uids.writer, maps.gids.writer, maps.setgroups, maps.by_user);
        assert_eq!(got, want, "{capabilities} {uids} {gids}");
    }
    // root opens every file of /proc, and needs nobody dumpable; root without rights does
    for (capabilities, by_user) in [(ROOT, false), (0, true)] {
        let host = Host { uid: 0, ..host(capabilities) };
        let maps = plan(&linux("[[0,0,1]]", "[[0,0,1]]"), User::New, &host).unwrap().unwrap();
        assert_eq!(maps.by_user, by_user, "{capabilities}");
    }
}

#[test]
fn maps_without_sense_are_refused_by_name() {
    let ok = "[[0,100000,65536]]";
    let many = |count: u64, step: u64| {
        serde_json::to_string(&(0..count).map(|n| [n * step, n * step, 1]).collect::<Vec<_>>()).unwrap()
    };
    let long = many(340, 12_000_000);
    let too_many = many(341, 2);
    for (user, uids, gids, want) in [
        (User::New, "[]", ok, "linux.uidMappings: missing"),
        (User::New, ok, "[]", "linux.gidMappings: missing"),
        (User::Shared, ok, "[]", "linux.uidMappings: needs a user namespace"),
        (User::Shared, "[]", ok, "linux.gidMappings: needs a user namespace"),
        (User::Joined, "[]", ok, "linux.uidMappings: missing; give both"),
        (User::Joined, ok, "[]", "linux.gidMappings: missing; give both"),
        (User::New, "[[0,0,0]]", ok, "linux.uidMappings[0].size: 0 maps nothing"),
        (User::New, ok, "[[0,0,1],[1,1,0]]", "linux.gidMappings[1].size: 0"),
        (User::New, "[[0,0,4294967295],[1,4294967295,1]]", ok, "linux.uidMappings[1].hostID: 4294967295 and size 1 go"),
        (User::New, "[[4294967290,0,6]]", ok, "linux.uidMappings[0].containerID: 4294967290 and size 6 go beyond"),
        (User::New, "[[0,0,10],[9,100,1]]", ok, "linux.uidMappings[1].containerID: 9 to 9 overlaps with entry 0"),
        (User::New, ok, "[[50,0,10],[0,5,10]]", "linux.gidMappings[1].hostID: 5 to 14 overlaps with entry 0"),
        (User::New, "[[5,5,5],[100,100,1],[0,0,6]]", ok, "linux.uidMappings[2].containerID: 0 to 5 overlaps with en"),
        (User::New, &too_many, ok, "linux.uidMappings: 341 lines; the kernel takes at most 340"),
        (User::New, ok, &long, "linux.gidMappings: makes 7"),
    ] {
        let error = plan(&linux(uids, gids), user, &host(ROOT)).unwrap_err().to_string();
        assert!(error.starts_with(want), "{uids} {gids}: {error}");
    }
    let missing = r#"{"linux":{"uidMappings":[{"containerID":0,"size":1}]}}"#;
    let missing = Spec::parse(missing.as_bytes()).unwrap().linux.unwrap();
    let error = plan(&missing, User::New, &host(ROOT)).unwrap_err().to_string();
    assert_eq!(error, "linux.uidMappings[0].hostID: missing");
    let none = linux("[]", "[]");
    assert_eq!(plan(&none, User::Shared, &host(ROOT)).unwrap(), None);
    assert_eq!(plan(&none, User::Joined, &host(ROOT)).unwrap(), None);
    let limits = linux("[[0,0,4294967295]]", &many(340, 2));
    assert_eq!(plan(&limits, User::New, &host(ROOT)).unwrap().unwrap().gids.ranges.len(), 340);
}

#[test]
fn ids_of_the_process_must_be_mapped() {
    let range = |container, host, size| IdRange { container, host, size };
    let (uids, gids) = ([range(0, 1000, 1), range(1, 100_000, 9)], [range(0, 100, 1)]);
    let process = |uid, gid, additional: &[u32]| {
        let json = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"process":{{"args":["x"],"cwd":"/",
            "user":{{"uid":{uid},"gid":{gid},"additionalGids":{additional:?}}}}}}}"#
        );
        let spec = Spec::parse(json.as_bytes()).unwrap();
        crate::plan::process::plan(&spec.process.unwrap(), &host(ROOT), &mut Vec::new()).unwrap()
    };
    for (uid, gid, additional, setgroups, want) in [
        (9, 0, &[][..], false, Ok(())),
        (9, 0, &[0], true, Ok(())),
        (10, 0, &[], true, Err("process.user.uid: 10 is not mapped")),
        (0, 1, &[], true, Err("process.user.gid: 1 is not mapped")),
        (0, 0, &[0, 5], true, Err("process.user.additionalGids[1]: 5 is not mapped")),
        (0, 0, &[0], false, Err("process.user.additionalGids: cannot be set in this user namespace")),
    ] {
        let got = check_process(&uids, &gids, setgroups, &process(uid, gid, additional));
        match (got, want) {
            (Ok(()), Ok(())) => {}
            (Err(got), Err(want)) => assert!(got.to_string().starts_with(want), "{uid} {gid} {additional:?}: {got}"),
            (got, want) => panic!("{uid} {gid} {additional:?}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn file_systems_that_the_kernel_would_refuse() {
    let maps = plan(&linux("[[0,100000,5]]", "[[0,100000,5]]"), User::New, &host(ROOT)).unwrap().unwrap();
    let all = [Namespace::Pid, Namespace::Network, Namespace::Ipc];
    let mounts = |kind: &str, option: &str| {
        let json = format!(r#"{{"mounts":[{{"destination":"/m","type":"{kind}","options":["{option}"]}}]}}"#);
        let spec = Spec::parse(json.as_bytes()).unwrap();
        let cgroup = || anyhow::bail!("not asked");
        let container = crate::plan::mount_ids::Container { user: User::New, maps: None, rootless: false };
        let origin = crate::plan::mounts::Origin { bundle: "/b".as_ref(), rootfs: "/b/r".as_ref() };
        let mut problems = Default::default();
        crate::plan::mounts::plan(&spec.mounts, origin, &container, cgroup, &mut Vec::new(), &mut problems)
    };
    for (kind, option, apart, want) in [
        ("sysfs", "ro", &all[..], None),
        ("sysfs", "ro", &[Namespace::Pid], Some("mounts[0].type: sysfs in a new user namespace needs a new network")),
        ("mqueue", "ro", &[], Some("mounts[0].type: mqueue in a new user namespace needs a new ipc")),
        ("tmpfs", "ro", &[], None),
        ("devpts", "gid=4", &all, None),
        ("devpts", "gid=5", &all, Some("mounts[0].options: gid=5 is not mapped in the user namespace; remove it")),
        ("tmpfs", "uid=9", &all, Some("mounts[0].options: uid=9 is not mapped")),
    ] {
        let got = check_mounts(&maps, &mounts(kind, option), apart).map_err(|error| error.to_string());
        match (&got, want) {
            (Ok(()), None) => {}
            (Err(got), Some(want)) if got.starts_with(want) => {}
            _ => panic!("{kind} {option}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn the_kernels_text_is_read() {
    let range = |container, host, size| IdRange { container, host, size };
    for (text, want) in [
        ("         0       1000          1\n", Some(vec![range(0, 1000, 1)])),
        ("0 0 4294967295\n", Some(vec![range(0, 0, u32::MAX)])),
        ("", Some(vec![])),
        ("0 1\n", None),
        ("0 1 2 3\n", None),
        ("0 -1 2\n", None),
    ] {
        assert_eq!(parse(text), want, "{text}");
    }
    let split = [range(10, 110, 5), range(0, 100, 10)];
    assert!(same(&split, &[range(0, 100, 15)]) && !same(&split, &[range(0, 100, 14)]));
}

prop_compose! {
    fn mapping()(container in 0u32..60, host in 0u32..60, size in 0u32..12) -> IdMapping {
        IdMapping { container_id: Some(container), host_id: Some(host), size: Some(size) }
    }
}

proptest! {
    /// Taken exactly when each id is mapped to one id, and each has one.
    #[test]
    fn maps_that_are_taken_are_one_to_one(mappings in prop::collection::vec(mapping(), 1..6)) {
        let pairs: Vec<(u32, u32)> = mappings.iter().flat_map(|mapping| {
            let at = |id: Option<u32>, n| id.unwrap() + n;
            (0..mapping.size.unwrap()).map(move |n| (at(mapping.container_id, n), at(mapping.host_id, n)))
        }).collect();
        let distinct = |side: fn(&(u32, u32)) -> u32| {
            pairs.iter().map(side).collect::<std::collections::BTreeSet<_>>().len() == pairs.len()
        };
        let sound = distinct(|p| p.0) && distinct(|p| p.1) && mappings.iter().all(|mapping| mapping.size != Some(0));
        let got = ranges("linux.uidMappings", &mappings);
        prop_assert_eq!(got.is_ok(), sound, "{:?}: {:?}", mappings, got);
        if let Ok(ranges) = got {
            for id in 0..80 {
                let want = pairs.iter().find(|pair| pair.0 == id).map(|pair| pair.1);
                prop_assert_eq!(host_id(&ranges, id), want);
            }
            prop_assert_eq!(parse(&lines(&ranges)), Some(ranges.clone()));
            let mut turned = ranges.clone();
            turned.reverse();
            prop_assert!(same(&turned, &ranges));
        }
    }
}
