//! What `update` refuses: nothing has changed then, neither in the kernel nor on record.

use serde_json::json;

use super::{running, stored, update, update_to, value};
use crate::bundle::Bundle;

#[test]
fn a_value_that_is_refused_brings_the_others_back() {
    layout!(V1, Hybrid);
    need!(rrun); // runc tries the refused value of memory once more, and leaves what came before it
    let bundle = running(json!({
        "cpu": {"shares": 600, "quota": 30000, "period": 50000, "cpus": "0"}, "pids": {"limit": 44},
        "memory": {"limit": 60 << 20, "swap": 80 << 20},
    }));
    let before = stored(&bundle);
    for (flags, says) in [
        // the kernel refuses: in use, not there
        (&["--memory", "4096", "--memory-swap", "-1"][..], &["memory.limit", "4096"][..]),
        (&["--cpuset-cpus", "4000"], &["cpu.cpus", "cpuset.cpus = 4000"]),
    ] {
        let others = ["--cpu-share", "700", "--cpu-quota", "60000", "--cpu-period", "70000", "--pids-limit", "55"];
        let output = update(&bundle, &[&others, flags].concat());
        output.refused(says);
        for (controller, file, want) in [
            ("cpu", "cpu.shares", "600"),
            ("cpu", "cpu.cfs_quota_us", "30000"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("cpuset", "cpuset.cpus", "0"),
            ("pids", "pids.max", "44"),
            ("memory", "memory.limit_in_bytes", "62914560"),
            ("memory", "memory.memsw.limit_in_bytes", "83886080"),
        ] {
            assert_eq!(value(&bundle, controller, file), want, "{file} after {output}");
        }
        assert_eq!(stored(&bundle), before);
    }
}

#[test]
fn a_limit_below_what_is_in_use_names_it() {
    layout!(V1, Hybrid);
    need!(rrun);
    let bundle = running(json!({}));
    let output = update(&bundle, &["--memory", "4096"]);
    output.refused(&["linux.resources.memory.limit: 4096 bytes are too few for memory.limit_in_bytes: ", "are in use"]);
}

/// Values that are wrong by themselves, and what the one line names.
const REFUSED: [(&str, &str); 20] = [
    ("", "is empty"),
    ("\n", "is empty"),
    ("{", "line 1, column 1"),
    ("{\"cpu\": {\"shares\": 5}", "line 1"),
    ("[]", "expected an object, got a list"),
    ("null", "expected an object"),
    ("\"x\"", "expected an object"),
    ("{\"cpu\": {\"shares\": \"5\"}}", "cpu.shares: expected a whole number"),
    ("{\"cpu\": {\"shares\": -5}}", "cpu.shares: expected a whole number"),
    ("{\"cpu\": {\"shares\": 1}}", "linux.resources.cpu.shares: 1 is outside"),
    ("{\"cpu\": {\"quota\": 5}}", "linux.resources.cpu.quota: 5 is below"),
    ("{\"cpu\": {\"period\": 5}}", "linux.resources.cpu.period: 5 is outside"),
    ("{\"cpu\": {\"idle\": 7}}", "linux.resources.cpu.idle: 7 is neither"),
    ("{\"cpu\": {\"cpus\": \"0-\"}}", "linux.resources.cpu.cpus: 0- is not a list"),
    ("{\"memory\": {\"limit\": -7}}", "linux.resources.memory.limit: -7 is negative"),
    ("{\"memory\": {\"swap\": 1000000}}", "linux.resources.memory.swap: 1000000 is below memory.limit"),
    ("{\"memory\": {\"swappiness\": 101}}", "linux.resources.memory.swappiness: 101 is more"),
    ("{\"blockIO\": {\"weight\": 5}}", "linux.resources.blockIO.weight: 5 is outside"),
    (
        "{\"hugepageLimits\": [{\"pageSize\": \"../x\", \"limit\": 5}]}",
        "linux.resources.hugepageLimits[0].pageSize: ../x",
    ),
    ("{\"unified\": {\"cgroup.kill\": \"1\"}}", "linux.resources.unified.cgroup.kill: is not a limit"),
];

#[test]
fn bad_values_are_refused_and_change_nothing() {
    layout!(V1, Hybrid);
    need!(rrun); // runc hands the wrong ones to the kernel, or takes them for unset
    let bundle = running(json!({"cpu": {"shares": 600}, "memory": {"limit": 60 << 20}, "pids": {"limit": 44}}));
    let before = stored(&bundle);
    for (text, says) in REFUSED {
        let text = text.replace("{\"cpu\": {", "{\"pids\": {\"limit\": 9}, \"cpu\": {");
        update_to(&bundle, &text).refused(&[says]);
        assert_eq!(value(&bundle, "pids", "pids.max"), "44", "{text}");
        assert_eq!((stored(&bundle), bundle.status().as_str()), (before.clone(), "running"), "{text}");
    }
    for (flags, says) in [
        (&["--cpu-share", "x"][..], "--cpu-share: x is not a whole number"),
        (&["--cpu-quota", "1.5"], "--cpu-quota: 1.5 is not a whole number"),
        (&["--memory", "5q"], "--memory: 5q is not a size such as 100m"),
        (&["--memory-swap", "-5"], "--memory-swap: -5 is not a size"),
        (&["--blkio-weight", "70000"], "--blkio-weight: 70000 is not a weight"),
        (&["--pids-limit", "many"], "--pids-limit: many is not"),
        (&["--resources", "/nowhere/r.json"], "--resources /nowhere/r.json: open /nowhere/r.json: missing (ENOENT)"),
        (&["--resources", "/"], "--resources /: / is not a regular file"),
        (&["--l3-cache-schema", "L3:0=f"], "linux.intelRdt: the container was made without it"),
        (&["--mem-bw-schema", "0=20"], "--mem-bw-schema: linux.intelRdt.memBwSchema: 0=20 does not begin with MB:"),
    ] {
        update(&bundle, &[&["--pids-limit", "9"], flags].concat()).refused(&[says]);
        assert_eq!(value(&bundle, "pids", "pids.max"), "44", "{flags:?}");
    }
}

#[test]
fn without_a_container_that_lives_it_is_refused() {
    let bundle = Bundle::new();
    update(&bundle, &["--pids-limit", "5"]).refused(&["container does not exist"]);
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    update(&bundle, &["--pids-limit", "5"]).refused(&["container not running"]);
}

/// A FIFO that nobody writes to keeps nobody waiting.
#[test]
fn a_fifo_of_resources_is_not_waited_for() {
    need!(rrun); // runc waits for a writer
    let bundle = running(json!({}));
    let fifo = bundle.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let file = fifo.to_str().unwrap();
    bundle.call(&["update", "--resources", file, &bundle.id]).refused(&[&format!("--resources {file}: ")]);
}
