//! config.json of a bundle that somebody else wrote: a plan or one line that says what is wrong, for `create` and `check`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rrun::host::Host;
use rrun::plan::build::Options;
use rrun::plan::spec::Spec;
use rrun::plan::{Descriptors, Plan, annotations};

static HOST: LazyLock<Host> = LazyLock::new(|| Host::detect().expect("this host"));

fuzz_target!(|text: &[u8]| {
    if let Ok(lenient) = Spec::parse_leniently(text) {
        let _ = Plan::draft(&lenient.value, &options(), &HOST);
    }
    let planned = Spec::parse(text).and_then(|mut spec| {
        annotations::apply(&mut spec, false, || Ok("run.oci.".into()))?;
        Plan::build(&spec, &options(), &HOST)
    });
    if let Err(error) = planned {
        assert!(!format!("{error:#}").contains('\n'), "{error:#}");
    }
});

fn options() -> Options {
    Options {
        id: "c1".into(),
        bundle: "/bundle".into(),
        rootfs: "/bundle/rootfs".into(),
        no_pivot: false,
        detached: true,
        console_socket: true,
        descriptors: Descriptors::default(),
        no_new_keyring: false,
        cgroup_of_unit: None,
        notify: None,
    }
}
