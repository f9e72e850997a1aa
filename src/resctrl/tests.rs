//! A directory stands for resctrl: no machine at hand has one. What the kernel does by itself (files of a new group,
//! refusals, processes that move) is not seen here.

use super::*;
use crate::plan::spec::linux::IntelRdt as Written;

const SCHEMATA: &str = "    MB:0=100\n    L3:0=7ff\n";

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.group("");
        fs::create_dir_all(fake.path("info/MB")).unwrap();
        fs::write(fake.path("info/MB/bandwidth_gran"), "10\n").unwrap();
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.0.path().into() } else { self.0.path().join(path) }
    }

    /// As the kernel makes one.
    fn group(&self, name: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.join("mon_groups")).unwrap();
        fs::write(path.join("schemata"), SCHEMATA).unwrap();
        fs::write(path.join("tasks"), "").unwrap();
        self
    }

    fn find<'p>(&self, plan: &'p IntelRdt) -> Result<Group<'p>, String> {
        Group::find_at(plan, self.path("")).map_err(|error| format!("{error:#}"))
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }
}

fn plan(written: &str) -> IntelRdt {
    let written: Written = serde_json::from_str(written).unwrap();
    crate::plan::intel_rdt::plan(&written, "c1", false, &mut Vec::new()).unwrap()
}

#[test]
fn a_group_that_exists_is_compared_and_gets_its_lines_in_order() {
    let fake = Fake::new();
    fake.group("gold");
    let plan = plan(r#"{"closID":"gold","memBwSchema":"MB:0=95","l3CacheSchema":"L3:0=7ff","schemata":["L2:0=f"]}"#);
    let group = fake.find(&plan).unwrap();
    assert_eq!(group.record(), RdtGroup { path: fake.path("gold"), ours: false, passing: false, monitor: None });
    group.make().unwrap();
    assert_eq!(fake.read("gold/schemata"), format!("{SCHEMATA}L3:0=7ff\nMB:0=95\nL2:0=f\n"));
    group.record().add(Pid::from_raw(7)).unwrap();
    assert_eq!(fake.read("gold/tasks"), "7");
    group.record().remove(Until::Up).unwrap();
    assert!(fake.path("gold").exists(), "it is not ours");
}

#[test]
fn without_a_schema_nothing_is_written() {
    for (written, name) in [(r#"{"closID":"gold"}"#, "gold"), (r#"{"closID":"/"}"#, ""), ("{}", "c1")] {
        let fake = Fake::new();
        fake.group(name);
        let plan = plan(written);
        let group = fake.find(&plan).unwrap();
        group.make().unwrap();
        group.record().add(Pid::from_raw(7)).unwrap();
        group.record().remove(Until::Up).unwrap();
        let file = fake.path(name).join("schemata");
        assert_eq!(
            (fs::read_to_string(file).unwrap().as_str(), fake.path(name).exists()),
            (SCHEMATA, true),
            "{written}"
        );
        assert_eq!(fs::read_to_string(fake.path(name).join("tasks")).unwrap(), "7");
    }
}

#[test]
fn a_group_of_its_own_goes_with_the_container() {
    let (fake, plan) = (Fake::new(), plan("{}"));
    let group = fake.find(&plan).unwrap();
    group.make().unwrap();
    assert!(fake.path("c1").is_dir() && group.record().ours);
    group.record().remove(Until::Up).unwrap();
    assert!(!fake.path("c1").exists());
    group.record().remove(Until::Up).unwrap();
}

#[test]
fn a_named_group_stays_but_not_of_a_container_that_does_not_come_up() {
    let (fake, plan) = (Fake::new(), plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#));
    let group = fake.find(&plan).unwrap();
    assert!(!group.record().ours);
    // a directory of ours has no schemata: the line is refused, and what was made is gone
    let error = format!("{:#}", group.make().unwrap_err());
    assert!(error.starts_with("linux.intelRdt.l3CacheSchema: open "), "{error}");
    assert!(!fake.path("gold").exists());
    fs::create_dir(fake.path("gold")).unwrap();
    group.record().remove(Until::Up).unwrap();
    assert!(fake.path("gold").exists(), "after a container that came up it stays");
    group.undo().unwrap();
    assert!(!fake.path("gold").exists());
}

// killed between its making and its first line it would be another group than the next `create` means, for ever
#[test]
fn a_named_group_that_a_killed_create_began_goes_unless_others_are_in_it() {
    let plan = plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#);
    for (other, until, stays) in [
        (None, Until::NotUp, false),
        (None, Until::Up, true),
        (Some("tasks"), Until::NotUp, true),
        (Some("mon_groups"), Until::NotUp, true),
    ] {
        let fake = Fake::new();
        let record = fake.find(&plan).unwrap().record();
        assert!(record.passing && !record.ours);
        let gold = fake.path("gold");
        match other {
            Some("tasks") => {
                fake.group("gold");
                fs::write(gold.join("tasks"), "7\n").unwrap();
            }
            Some(_) => fs::create_dir_all(gold.join("mon_groups/c2")).unwrap(),
            None => fs::create_dir(&gold).unwrap(),
        }
        record.remove(until).unwrap();
        assert_eq!(gold.exists(), stays, "{other:?} {until:?}");
    }
}

/// Whose it is, who made it: the other joins it, and its failure takes nothing from who is in.
#[test]
fn of_two_that_make_the_same_group_both_have_it_and_one_removes_it() {
    let plan = plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=7ff"}"#);
    let fake = Fake::new();
    let (first, second) = (fake.find(&plan).unwrap(), fake.find(&plan).unwrap());
    // the first has it, and what the kernel fills comes a moment later than the second looks
    fs::create_dir(fake.path("gold")).unwrap();
    first.made.set(true);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            fake.group("gold");
        });
        second.make().unwrap();
        made.join().unwrap();
    });
    assert!(!second.made.get());
    second.undo().unwrap();
    assert!(fake.path("gold/schemata").exists(), "the first's");
    second.record().add(Pid::from_raw(7)).unwrap();
    first.undo().unwrap();
    assert!(fake.path("gold/schemata").exists(), "the second is in it");
}

#[test]
fn what_is_refused_before_anything_is_made() {
    let fake = Fake::new();
    fake.group("gold");
    fs::create_dir(fake.path("gold/mon_groups/c1")).unwrap();
    for (written, want) in [
        (r#"{"closID":"silver"}"#, "linux.intelRdt.closID: resctrl has no group silver"),
        (
            r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#,
            "linux.intelRdt.l3CacheSchema: L3:0=f is not what the group gold has, which is there already: L3:0=7ff",
        ),
        (r#"{"closID":"gold","memBwSchema":"MB:0=20"}"#, "linux.intelRdt.memBwSchema: MB:0=20 is not what"),
        (r#"{"closID":"/","memBwSchema":"MB:1=20"}"#, "linux.intelRdt.memBwSchema: MB:1=20 is not what the group /"),
        (r#"{"closID":"gold","enableMonitoring":true}"#, "linux.intelRdt.enableMonitoring: "),
    ] {
        let error = fake.find(&plan(written)).err().unwrap();
        assert!(error.starts_with(want), "{written}: {error}");
        assert!(!fake.path("silver").exists() && fake.read("gold/schemata") == SCHEMATA);
    }
}

#[test]
fn monitoring_has_a_group_in_the_group() {
    for (written, group, ours) in [
        (r#"{"closID":"/","enableMonitoring":true}"#, "", false),
        (r#"{"closID":"gold","enableMonitoring":true}"#, "gold", false),
    ] {
        let fake = Fake::new();
        fake.group(group);
        let plan = plan(written);
        let found = fake.find(&plan).unwrap();
        found.make().unwrap();
        let monitor = fake.path(group).join("mon_groups/c1");
        assert_eq!(
            found.record(),
            RdtGroup { path: fake.path(group), ours, passing: false, monitor: Some(monitor.clone()) }
        );
        fs::write(monitor.join("tasks"), "").unwrap();
        found.record().add(Pid::from_raw(8)).unwrap();
        let tasks = |dir: &Path| fs::read_to_string(dir.join("tasks")).unwrap();
        assert_eq!((tasks(&fake.path(group)), tasks(&monitor)), ("8".into(), "8".into()));
        // the kernel's own files do not keep it from being removed
        fs::remove_file(monitor.join("tasks")).unwrap();
        found.record().remove(Until::Up).unwrap();
        assert!(!monitor.exists() && fake.path(group).exists());
    }
}

#[test]
fn what_the_kernel_says_is_told() {
    let fake = Fake::new();
    fs::write(fake.path("info/last_cmd_status"), "Mask f000 out of range\n").unwrap();
    let plan = plan(r#"{"schemata":["L3:0=f000"]}"#);
    let error = format!("{:#}", fake.find(&plan).unwrap().make().unwrap_err());
    assert!(error.starts_with("linux.intelRdt.schemata[0]: resctrl says: Mask f000 out of range: open "), "{error}");
}

#[test]
fn an_update_can_be_put_back() {
    let fake = Fake::new();
    let group = RdtGroup { path: fake.path(""), ours: false, passing: false, monitor: None };
    let before = group.set(Some("L3:0=f"), Some("MB:0=20")).unwrap();
    assert_eq!(fake.read("schemata"), format!("{SCHEMATA}L3:0=f\nMB:0=20\n"));
    before.put_back().unwrap();
    assert!(fake.read("schemata").ends_with("MB:0=20\nL3:0=7ff\nMB:0=100\n"));
}

#[test]
fn what_another_has_made_meanwhile_stays() {
    for (written, there, taken, want) in [
        ("{}", "", "c1", "linux.intelRdt.closID: mkdir resctrl "),
        (r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#, "", "gold", "read "),
        (
            r#"{"closID":"gold","enableMonitoring":true}"#,
            "gold",
            "gold/mon_groups/c1",
            "linux.intelRdt.enableMonitoring: ",
        ),
    ] {
        let (fake, plan) = (Fake::new(), plan(written));
        fake.group(there);
        let group = fake.find(&plan).unwrap();
        fs::create_dir(fake.path(taken)).unwrap();
        let error = format!("{:#}", group.make().unwrap_err());
        assert!(error.starts_with(want), "{error}");
        assert!(fake.path(taken).exists(), "{taken} is another's");
    }
}
