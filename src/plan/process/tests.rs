use super::*;

/// A process with one field more, or another.
fn plan_with(field: &str) -> Result<ProcessPlan> {
    let mut process = serde_json::json!({"args": ["sh"], "cwd": "/"});
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{field}}}")).unwrap();
    process.as_object_mut().unwrap().extend(fields);
    plan(&spec::document::read(process.to_string().as_bytes())?, &Host::default(), &mut Vec::new())
}

#[test]
fn what_is_absent_has_its_default() {
    let planned = plan_with("").unwrap();
    assert_eq!((planned.uid, planned.gid, planned.umask), (0, 0, 0o022));
    assert_eq!(planned.capabilities, crate::plan::Capabilities::default());
    assert!(planned.env.is_empty() && planned.additional_gids.is_empty() && planned.rlimits.is_empty());
    assert!(!planned.no_new_privileges && planned.oom_score_adj.is_none() && planned.terminal.is_none());
}

#[test]
fn the_last_of_two_variables_counts_in_the_place_of_the_first() {
    let planned = plan_with(r#""env":["A=1","B=2","A=3","C=","A=4=5","D= "]"#).unwrap();
    assert_eq!(planned.env, ["A=4=5", "B=2", "C=", "D= "]);
}

#[test]
fn limits_and_ids_are_taken_over() {
    let planned = plan_with(
        r#""rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":18446744073709551615},{"type":"RLIMIT_CORE","soft":0,"hard":0}],
        "user":{"uid":4294967294,"gid":5,"umask":511,"additionalGids":[7,7,0]},"oomScoreAdj":-1000,"noNewPrivileges":true,
        "execCPUAffinity":{"initial":"0-3"},"apparmorProfile":"","selinuxLabel":"""#,
    )
    .unwrap();
    let limit = |name: &str, resource, soft, hard| Rlimit { name: name.into(), resource, soft, hard };
    assert_eq!(planned.rlimits, [limit("RLIMIT_NOFILE", 7, 1, u64::MAX), limit("RLIMIT_CORE", 4, 0, 0)]);
    assert_eq!((planned.uid, planned.gid, planned.umask), (4294967294, 5, 0o777));
    assert_eq!(planned.additional_gids, [7, 7, 0]);
    assert_eq!((planned.oom_score_adj, planned.no_new_privileges), (Some(-1000), true));
}

/// asm-generic/resource.h
#[test]
fn the_sixteen_limits_have_sixteen_numbers() {
    let mut numbers: Vec<u32> = RLIMITS.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..16).collect::<Vec<u32>>());
    assert!(RLIMITS.iter().map(|(name, _)| name).is_sorted());
}

#[test]
fn a_terminal_has_a_size_only_when_both_sides_are_given() {
    for (field, want) in [
        (r#""terminal":false,"consoleSize":{"height":70000,"width":1}"#, None),
        (r#""terminal":true"#, Some(None)),
        (r#""terminal":true,"consoleSize":{"height":0,"width":80}"#, Some(None)),
        (r#""terminal":true,"consoleSize":{"height":25,"width":80}"#, Some(Some((25, 80)))),
    ] {
        assert_eq!(plan_with(field).unwrap().terminal, want.map(|size| Terminal { size }), "{field}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_path() {
    for (field, want) in [
        (r#""args":[]"#, "args: empty"),
        (r#""args":null"#, "args: empty"),
        (r#""args":["","x"]"#, "args[0]: empty"),
        (r#""cwd":null"#, "cwd: missing"),
        (r#""cwd":"""#, "cwd: missing"),
        (r#""cwd":"tmp""#, "cwd: tmp is not absolute"),
        (r#""env":["A=1","B"]"#, "env[1]: B has no ="),
        (r#""env":["=1"]"#, "env[0]: =1 has no name before the ="),
        (r#""execCPUAffinity":{"initial":"zz"}"#, "execCPUAffinity.initial: zz is no list of CPUs"),
        (r#""execCPUAffinity":{"final":"0-"}"#, "execCPUAffinity.final: 0- is no list of CPUs"),
        (r#""env":[""]"#, "env[0]: is empty"),
        (r#""user":{"uid":4294967295}"#, "user.uid: 4294967295 means no id"),
        (r#""user":{"gid":4294967295}"#, "user.gid: 4294967295 means no id"),
        (r#""user":{"additionalGids":[1,4294967295]}"#, "user.additionalGids[1]: 4294967295 means no id"),
        (r#""user":{"umask":512}"#, "user.umask: 512 is above 511"),
        (r#""oomScoreAdj":1001"#, "oomScoreAdj: 1001 is not from -1000 to 1000"),
        (r#""oomScoreAdj":-9223372036854775808"#, "oomScoreAdj: -9223372036854775808 is not from"),
        (r#""rlimits":[{"soft":1,"hard":1}]"#, "rlimits[0].type: missing"),
        (
            r#""rlimits":[{"type":"RLIMIT_FOO","soft":1,"hard":1}]"#,
            "rlimits[0].type: RLIMIT_FOO is no rlimit; use one of RLIMIT_AS, ",
        ),
        (r#""rlimits":[{"type":"NOFILE","soft":1,"hard":1}]"#, "rlimits[0].type: NOFILE is no rlimit"),
        (r#""rlimits":[{"type":"RLIMIT_AS","soft":2,"hard":1}]"#, "rlimits[0].soft: 2 is above the hard limit 1"),
        (r#""rlimits":[{"type":"RLIMIT_AS","hard":1}]"#, "rlimits[0].soft: missing"),
        (r#""rlimits":[{"type":"RLIMIT_AS","soft":1}]"#, "rlimits[0].hard: missing"),
        (
            r#""rlimits":[{"type":"RLIMIT_AS","soft":1,"hard":1},{"type":"RLIMIT_AS","soft":1,"hard":1}]"#,
            "rlimits[1].type: RLIMIT_AS is listed twice",
        ),
        (r#""terminal":true,"consoleSize":{}"#, "consoleSize.height: is missing"),
        (r#""terminal":true,"consoleSize":{"height":25}"#, "consoleSize.width: is missing"),
        (r#""terminal":true,"consoleSize":{"height":65536,"width":1}"#, "consoleSize.height: 65536 is above 65535"),
        (r#""terminal":true,"consoleSize":{"height":1,"width":65536}"#, "consoleSize.width: 65536 is above 65535"),
        (r#""scheduler":{"policy":"OTHER"}"#, "scheduler.policy: OTHER is no policy"),
        (r#""ioPriority":{"class":"BE"}"#, "ioPriority.class: BE is no class"),
        (r#""apparmorProfile":"docker-default""#, "apparmorProfile: docker-default cannot be applied: AppArmor is off"),
        (r#""selinuxLabel":"system_u""#, "selinuxLabel: system_u cannot be applied: SELinux is off"),
    ] {
        let error = plan_with(field).unwrap_err().to_string();
        assert!(error.starts_with(&format!("process.{want}")), "{field}: {error}");
    }
}

#[test]
fn nobody_runs_where_there_is_no_process_but_somebody_inside_waits() {
    let maps = |uid: u32| {
        let map = serde_json::json!([{"containerID": uid, "hostID": 1000, "size": 10}]);
        let linux: spec::Linux =
            serde_json::from_value(serde_json::json!({"uidMappings": map, "gidMappings": map})).unwrap();
        super::super::id_maps::plan(&linux, super::super::id_maps::User::New, &Host::default()).unwrap()
    };
    for (maps, want) in [(None, 0), (maps(0), 0), (maps(7), 7)] {
        let process = absent(maps.as_ref(), &Host::default());
        assert!(process.is_absent() && process.cwd == "/");
        assert_eq!((process.uid, process.gid), (want, want), "{maps:?}");
    }
}

#[test]
fn a_limit_that_leaves_no_room_for_a_program_is_told() {
    for (kind, soft, told) in [
        ("RLIMIT_AS", 4096, true),
        ("RLIMIT_AS", 1 << 20, false),
        ("RLIMIT_DATA", 0, true),
        ("RLIMIT_STACK", 8192, true),
        ("RLIMIT_STACK", 8 << 20, false),
        ("RLIMIT_FSIZE", 0, false),
        ("RLIMIT_CPU", 1, false),
    ] {
        let rlimit = serde_json::json!([{"type": kind, "soft": soft, "hard": u64::MAX}]);
        let mut warnings = Vec::new();
        let written: Vec<spec::process::Rlimit> = serde_json::from_value(rlimit).unwrap();
        assert_eq!(rlimits(&written, &mut warnings).unwrap().len(), 1);
        let wanted = format!("process.rlimits[0].soft: {kind} of {soft} bytes");
        assert_eq!(warnings.iter().any(|warning| warning.starts_with(&wanted)), told, "{kind} {soft}: {warnings:?}");
    }
}
