use super::*;
use proptest::prelude::*;

fn parse_error(text: &str) -> String {
    format!("{:#}", Spec::parse(text.as_bytes()).map(|_| "parsed").unwrap_err())
}

#[test]
fn broken_json_has_a_line_and_a_column() {
    for (text, want) in [
        ("", "config.json: line 1, column 0: EOF while parsing a value"),
        ("{\n  \"root\": {\n    \"path\": }\n}", "config.json: line 3, column 13: expected value"),
        ("{\"root\":{}", "config.json: line 1, column 10: EOF while parsing an object"),
        ("{} {}", "config.json: line 1, column 4: trailing characters"),
        ("{\"hostname\": \"a\nb\"}", "config.json: line 2, column 0: control character"),
        ("{\"root\": {\"path\": \"\\q\"}}", "config.json: line 1, column 21: invalid escape"),
    ] {
        let error = parse_error(text);
        assert!(error.starts_with(want), "{text}: {error}");
    }
    assert_eq!(format!("{:#}", Spec::parse(b"{\"a\":\"\xff\"}").unwrap_err()), "config.json: byte 6: not UTF-8");
}

#[test]
fn a_wrong_type_has_its_path() {
    for (text, want) in [
        (r#"{"process":{"args":[7]}}"#, "process.args[0]: expected a string, got number 7"),
        (r#"{"process":{"args":["a", {}]}}"#, "process.args[1]: expected a string, got an object"),
        (r#"{"process":{"args":["a", null]}}"#, "process.args[1]: expected a string, got null"),
        (r#"{"process":{"args":"sh"}}"#, "process.args: expected a list, got string sh"),
        (r#"{"process":{"terminal":"yes"}}"#, "process.terminal: expected a boolean, got string yes"),
        (
            r#"{"process":{"user":{"uid":-1}}}"#,
            "process.user.uid: expected a whole number from 0 to 4294967295, got number -1",
        ),
        (
            r#"{"process":{"user":{"uid":4294967296}}}"#,
            "process.user.uid: expected a whole number from 0 to 4294967295, got number 4294967296",
        ),
        (r#"{"process":{"oomScoreAdj":1.5}}"#, "process.oomScoreAdj: expected a whole number, got number 1.5"),
        (r#"{"process": [] }"#, "process: expected an object, got a list"),
        (r#"{"root":["rootfs"]}"#, "root: expected an object, got a list"),
        (r#"{"mounts":[{},["/proc"]]}"#, "mounts[1]: expected an object, got a list"),
        (r#"{"mounts":{}}"#, "mounts: expected a list, got an object"),
        (r#"{"annotations":{"a":"b","c.d":7}}"#, "annotations.c.d: expected a string, got number 7"),
        (r#"{"annotations":[]}"#, "annotations: expected an object, got a list"),
        (r#"{"hostname":true}"#, "hostname: expected a string, got true"),
        (
            r#"{"x":[{"y":"]}"}],"linux":{"devices":[{"path":"a\"[{"},{"major":"1"}]}}"#,
            "linux.devices[1].major: expected a whole number, got string 1",
        ),
        (
            r#"{"linux":{"resources":{"memory":{"limit":9223372036854775808}}}}"#,
            "linux.resources.memory.limit: expected a whole number from -9223372036854775808 to 9223372036854775807, \
             got number 9223372036854775808",
        ),
        (
            r#"{"linux":{"resources":{"memory":{"limit": -123456789012345678901234567890 }}}}"#,
            "linux.resources.memory.limit: expected a whole number from -9223372036854775808 to 9223372036854775807, \
             got number -123456789012345678901234567890",
        ),
        (
            r#"{"linux":{"resources":{"cpu":{"shares":18446744073709551616,"quota":1}}}}"#,
            "linux.resources.cpu.shares: expected a whole number from 0 to 18446744073709551615, \
             got number 18446744073709551616",
        ),
        (
            r#"{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"rate":1}]}}}}"#,
            "linux.resources.blockIO.throttleReadBpsDevice[1].minor: missing; add it",
        ),
        (
            r#"{"linux":{"resources":{"hugepageLimits":[{"limit":1}]}}}"#,
            "linux.resources.hugepageLimits[0].pageSize: missing; add it",
        ),
        (r#"{"linux":{"resources":[]}}"#, "linux.resources: expected an object, got a list"),
        (r#"{"linux":{"resources":{"memory":[67108864]}}}"#, "linux.resources.memory: expected an object, got a list"),
        (
            r#"{"linux":{"resources":{"blockIO":{"weightDevice":[[8,0,1,2]]}}}}"#,
            "linux.resources.blockIO.weightDevice[0]: expected an object, got a list",
        ),
        (
            r#"{"linux":{"resources":{"unified":{"a.b":"1","a.b":"2"}}}}"#,
            "linux.resources.unified.a.b: given twice; keep one",
        ),
        ("[]", "expected an object, got a list"),
        ("7", "expected an object, got number 7"),
    ] {
        assert_eq!(parse_error(text), format!("config.json: {want}"), "{text}");
    }
}

#[test]
fn a_key_given_twice_is_an_error() {
    for (text, path) in [
        (r#"{"root":{},"root":{}}"#, "root"),
        (r#"{"process":{"args":["a"],"cwd":"/","args":["b"]}}"#, "process.args"),
        (r#"{"linux":{"sysctl":{"a.b":"1","a.b":"2"}}}"#, "linux.sysctl.a.b"),
        (r#"{"annotations":{"a":"1","b":"", "a" : "1"}}"#, "annotations.a"),
    ] {
        assert_eq!(parse_error(text), format!("config.json: {path}: given twice; keep one"), "{text}");
    }
}

#[test]
fn no_string_holds_a_nul_not_even_an_ignored_one() {
    for (text, path) in [
        (r#"{"process":{"env":["A=1","B=\u0000"]}}"#, "process.env[1]"),
        (r#"{"annotations":{"a\\\\":"\\\u0000"}}"#, r"annotations.a\\\\"),
        (r#"{"annotations":{"a\u0000b":"x"}}"#, "annotations"),
        (r#"{"unknown":{"deep":[["\u0000"]]}}"#, "unknown.deep[0][0]"),
    ] {
        assert_eq!(parse_error(text), format!("config.json: {path}: holds a NUL character; remove it"), "{text}");
    }
    let harmless = r#"{"hostname":"a\\u0000\\\\u0000","annotations":{"é\\":"\u00e9\u0001"}}"#;
    assert_eq!(Spec::parse(harmless.as_bytes()).unwrap().hostname.unwrap(), r"a\u0000\\u0000");
}

#[test]
fn null_is_absent_and_unknown_keys_are_ignored() {
    let text = r#"{"ociVersion":null,"root":null,"process":null,"mounts":null,"hooks":null,"annotations":null,
        "linux":{"namespaces":null,"devices":[{"path":null,"fileMode":null}],"sysctl":null,"seccomp":null,"resources":null},
        "windows":{"layerFolders":[1,{"a":[]}]},"x":1}"#;
    let spec = Spec::parse(text.as_bytes()).unwrap();
    assert!(spec.root.is_none() && spec.process.is_none() && spec.mounts.is_empty() && spec.annotations.is_empty());
    let linux = spec.linux.unwrap();
    assert!(linux.namespaces.is_empty() && linux.seccomp.is_none() && linux.devices[0].path.is_none());
}

/// Every field of the spec once, so that a misspelt name shows: it would be ignored.
#[test]
fn every_field_is_read() {
    let text = r#"{"process":{"consoleSize":{"height":1,"width":2},"user":{"uid":1,"gid":2,"umask":3,"additionalGids":[4]},
            "noNewPrivileges":true,"oomScoreAdj":5,"apparmorProfile":"a","selinuxLabel":"s",
            "scheduler":{"policy":"p","nice":1,"priority":2,"flags":["f"],"runtime":3,"deadline":4,"period":5},
            "ioPriority":{"class":"c","priority":1},"execCPUAffinity":{"initial":"0","final":"1"}},
        "mounts":[{"destination":"d","type":"t","source":"s","options":["o"],
            "uidMappings":[{"containerID":1,"hostID":2,"size":3}],"gidMappings":[{"containerID":4}]}],
        "hooks":{"prestart":[{"path":"p","args":["a"],"env":["e"],"timeout":1}],"createRuntime":[{}],
            "createContainer":[{}],"startContainer":[{}],"poststart":[{}],"poststop":[{}]},
        "linux":{"uidMappings":[{}],"gidMappings":[{}],"timeOffsets":{"boottime":{"secs":-1,"nanosecs":2}},
            "netDevices":{"eth0":{"name":"n"}},"cgroupsPath":"c","rootfsPropagation":"r","maskedPaths":["m"],
            "readonlyPaths":["r"],"mountLabel":"l","personality":{"domain":"LINUX","flags":["f"]},
            "intelRdt":{"closID":"c","schemata":["s"],"l3CacheSchema":"3","memBwSchema":"m","enableMonitoring":true},
            "memoryPolicy":{"mode":"m","nodes":"0","flags":["f"]},
            "devices":[{"path":"p","type":"c","major":1,"minor":2,"fileMode":3,"uid":4,"gid":5}],
            "seccomp":{"defaultAction":"a","defaultErrnoRet":1,"architectures":["x"],"flags":[],"listenerPath":"l",
                "listenerMetadata":"m","syscalls":[{"names":["n"],"action":"a","errnoRet":2,
                    "args":[{"index":1,"value":18446744073709551615,"valueTwo":2,"op":"o"}]}]}}}"#;
    let debug = format!("{:?}", Spec::parse(text.as_bytes()).unwrap());
    let unread = debug.replace("oci_version: None, root: None", "").replace("hostname: None, domainname: None", "");
    let unread = unread.replace("terminal: None", "").replace("capabilities: None", "").replace("cwd: None", "");
    let unread = unread.replace("resources: None", "").replace("container_id: None, host_id: None, size: None", "");
    let unread =
        unread.replace("path: None, args: None, env: None, timeout: None", "").replace("host_id: None, size: None", "");
    // from annotations
    let unread = unread.replace("mount_context: None", "").replace("program: None", "");
    assert!(!unread.contains("None"), "{unread}");
}

#[test]
fn the_root_is_asked_for_by_name() {
    for (text, want) in [
        ("{}", Err("config.json: root: missing")),
        (r#"{"root":{}}"#, Err("config.json: root.path: missing")),
        (r#"{"root":{"path":""}}"#, Err("config.json: root.path: missing")),
        (r#"{"root":{"path":"rootfs"}}"#, Ok("rootfs")),
    ] {
        let spec = Spec::parse(text.as_bytes()).unwrap();
        match (spec.root_path(), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(format!("{got:#}").starts_with(want), "{text}: {got:#}"),
            (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(document::MAX_BYTES));
    assert!(parse_error(&long).contains("bytes are too many"));
    let deep = format!("{{\"annotations\":{}", "{\"a\":".repeat(100_000));
    assert!(!parse_error(&deep).is_empty());
    let deep = format!("{{\"unknown\":{}", "[".repeat(1_000_000));
    assert!(!parse_error(&deep).is_empty());
}

proptest! {
    /// Whatever is wrong, and wherever: one line and no panic.
    #[test]
    fn any_text_gives_a_spec_or_a_line(text in r#"(\{|\}|\[|\]|:|,|"process"|"args"|"mounts"|"linux"|"sysctl"|"a\\"|"\\u0000"|7|null|é| ){0,20}"#) {
        if let Err(error) = Spec::parse(text.as_bytes()) {
            let line = format!("{error:#}");
            prop_assert!(line.starts_with("config.json: ") && !line.contains('\n'), "{line}");
        }
    }
}
