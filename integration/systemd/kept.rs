//! What systemd knows roughly or not at all. It writes all of its values anew with every change of one.

use serde_json::{Value, json};

use super::{create, goes, in_unit, unit, value, with_systemd};
use crate::bundle::Bundle;
use crate::layout::is_v2;

/// Controller, file, and what it says.
type Said = [(&'static str, &'static str, &'static str)];

fn said() -> &'static Said {
    match is_v2() {
        // 40.2 %; at most 41 % is what systemd can say
        true => &[("", "cpu.max", "20100 50000"), ("", "memory.oom.group", "1"), ("", "cpu.weight.nice", "5")],
        false => &[("cpu", "cpu.cfs_quota_us", "20100"), ("cpu", "cpu.cfs_period_us", "50000")],
    }
}

#[test]
fn what_systemd_writes_otherwise_is_as_the_config_has_it() {
    systemd!();
    need!(rrun); // others lose it
    let _systemd = with_systemd();
    let mut bundle = in_unit(Bundle::sleeping());
    let unified = if is_v2() { json!({"memory.oom.group": "1", "cpu.weight.nice": "5"}) } else { Value::Null };
    bundle.set(
        "/linux/resources",
        json!({
            "cpu": {"quota": 20100, "period": 50000}, "memory": {"limit": 50 << 20}, "pids": {"limit": 40},
            "unified": unified,
        }),
    );
    create(&bundle);
    bundle.start().ok();
    let is_as_it_was = |after: &str| {
        for (controller, file, want) in said() {
            assert_eq!(value(&bundle, controller, file), *want, "{file} after {after}");
        }
    };
    is_as_it_was("create");
    for flags in [["--pids-limit", "50"], ["--memory", "60m"]] {
        bundle.call(&[&["update"], &flags[..], &[&bundle.id]].concat()).ok();
        is_as_it_was(flags[0]);
    }
    bundle.delete_force().ok();
    goes(&unit(&bundle));
}
