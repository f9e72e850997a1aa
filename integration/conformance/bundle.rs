//! bundle.md

use std::fs;

use crate::bundle::Bundle;

#[test]
fn config_json_is_read_from_the_root_of_the_bundle() {
    let mut bundle = Bundle::sh("echo by its name");
    assert_eq!(bundle.run().ok(), "by its name\n");
    bundle.args(&["echo", "by another"]);
    bundle.write_config();
    fs::rename(bundle.dir.join("config.json"), bundle.dir.join("Config.json")).unwrap();
    fs::create_dir(bundle.dir.join("etc")).unwrap();
    fs::copy(bundle.dir.join("Config.json"), bundle.dir.join("etc/config.json")).unwrap();
    let output = crate::runtime::run(&mut bundle.command_on_config_as_it_is(&["create", &bundle.id]));
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn a_bundle_without_its_root_filesystem_is_refused() {
    super::refused(|bundle| fs::rename(bundle.rootfs(""), bundle.dir.join("elsewhere")).unwrap());
}
