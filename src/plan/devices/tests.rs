use super::*;

fn plan_of(json: &str, dev: Dev) -> (Result<Vec<DevicePlan>>, Vec<String>) {
    let mut warnings = Vec::new();
    let devices: spec::List<spec::linux::Device> = spec::document::read(json.as_bytes()).unwrap();
    (plan(&devices, dev, &mut warnings), warnings)
}

fn paths(planned: &[DevicePlan]) -> Vec<String> {
    planned.iter().map(|device| device.path.to_string()).collect()
}

#[test]
fn everyone_gets_the_default_nodes_and_links() {
    let (planned, warnings) = plan_of("[]", Dev::Container);
    let planned = planned.unwrap();
    assert_eq!(paths(&planned), ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]);
    for device in &planned {
        assert_eq!(
            (device.kind, device.mode, device.uid, device.gid),
            (DeviceKind::Char, 0o666, 0, 0),
            "{}",
            device.path
        );
    }
    assert_eq!(links(Dev::Container).len(), 6);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_listed_device_takes_the_place_of_a_default_one() {
    let json = r#"[{"path":"/dev/./null","type":"c","major":1,"minor":3,"fileMode":8630,"uid":7,"gid":8},
        {"path":"/data/pipe","type":"p","fileMode":4480},
        {"path":"/dev/ptmx","type":"c","major":5,"minor":2},
        {"path":"/dev/sda","type":"b","major":4095,"minor":1048575}]"#;
    let (planned, warnings) = plan_of(json, Dev::Container);
    let planned = planned.unwrap();
    let want =
        ["/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/null", "/data/pipe", "/dev/sda"];
    assert_eq!(paths(&planned), want);
    let null = &planned[5];
    assert_eq!((null.field.as_str(), null.mode, null.uid, null.gid), ("linux.devices[0]", 0o666, 7, 8));
    assert_eq!((planned[6].kind, planned[6].mode), (DeviceKind::Fifo, 0o600));
    assert_eq!((planned[7].kind, planned[7].mode), (DeviceKind::Block, 0o666));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn nothing_is_made_in_a_dev_of_the_host() {
    let json = r#"[{"path":"/dev/a","type":"c","major":1,"minor":3},{"path":"/dev/b/c","type":"p"},
        {"path":"/x","type":"u","major":1,"minor":5}]"#;
    let (planned, warnings) = plan_of(json, Dev::Host);
    assert_eq!(paths(&planned.unwrap()), ["/x"]);
    assert_eq!(warnings, ["linux.devices: 2 below /dev left out: /dev is bound from the host"]);
    assert!(links(Dev::Host).is_empty());
}

#[test]
fn doubles_are_named() {
    let json = r#"[{"path":"/dev/a","type":"c","major":9,"minor":1},{"path":"/dev/b","type":"c","major":9,"minor":1},
        {"path":"/dev/c","type":"b","major":9,"minor":1},{"path":"/dev/a","type":"p"},{"path":"/dev/d","type":"p"}]"#;
    let (planned, warnings) = plan_of(json, Dev::Container);
    assert_eq!(paths(&planned.unwrap())[6..], ["/dev/b", "/dev/c", "/dev/a", "/dev/d"]);
    assert_eq!(
        warnings,
        [
            "linux.devices[1]: /dev/b is the same device 9:1 as /dev/a",
            "linux.devices[3].path: /dev/a is given twice; linux.devices[3] counts",
        ]
    );
}

#[test]
fn a_wrong_device_is_refused() {
    for (json, want) in [
        (r#"{"type":"c"}"#, "path: missing"),
        (r#"{"path":"","type":"c"}"#, "path: missing"),
        (r#"{"path":"dev/x","type":"c"}"#, "path: dev/x is not absolute"),
        (r#"{"path":"/dev/..","type":"p"}"#, "path: /dev/.. is the root itself"),
        (r#"{"path":"/x"}"#, "type: missing"),
        (r#"{"path":"/x","type":"a"}"#, "type: a is no type of device; use c, b, u or p"),
        (r#"{"path":"/x","type":"c","minor":1}"#, "major: missing"),
        (r#"{"path":"/x","type":"b","major":1}"#, "minor: missing"),
        (r#"{"path":"/x","type":"u","major":-1,"minor":1}"#, "major: -1 is not from 0 to 4095"),
        (r#"{"path":"/x","type":"c","major":4096,"minor":1}"#, "major: 4096 is not from 0 to 4095"),
        (r#"{"path":"/x","type":"c","major":1,"minor":1048576}"#, "minor: 1048576 is not from 0 to 1048575"),
        (r#"{"path":"/x","type":"p","uid":4294967295}"#, "uid: 4294967295 means no id"),
        (r#"{"path":"/x","type":"p","gid":4294967295}"#, "gid: 4294967295 means no id"),
    ] {
        let error = plan_of(&format!("[{{\"path\":\"/dev/a\",\"type\":\"p\"}},{json}]"), Dev::Container).0.unwrap_err();
        assert!(error.to_string().starts_with(&format!("linux.devices[1].{want}")), "{json}: {error}");
    }
}
