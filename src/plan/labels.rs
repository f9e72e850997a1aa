//! Labels of security modules: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`, and the flags of
//! `exec` that stand for the first two. A process that cannot get its own is refused: it would run with other rights.

use anyhow::{Result, ensure};

use super::mount_options::{FSCONFIG_MAX, WITH_LABELS};
use super::spec::{self, Spec, given};
use super::{MountPlan, Parameter, Source};
use crate::host::Host;
use crate::host::security::Security;

/// Whether it matters which security modules the host has.
pub fn are_given(spec: &Spec) -> bool {
    let of_mounts = spec.linux.as_ref().is_some_and(|linux| given(&linux.mount_label).is_some());
    of_mounts || spec.process.as_ref().is_some_and(are_given_to)
}

pub fn are_given_to(process: &spec::Process) -> bool {
    given(&process.apparmor_profile).or(given(&process.selinux_label)).is_some()
}

pub fn apparmor(field: &str, profile: Option<&str>, host: &Host) -> Result<Option<String>> {
    let Some(profile) = profile else { return Ok(None) };
    ensure!(
        host.security.apparmor,
        "{field}: {profile} cannot be applied: AppArmor is off on this host; boot it with security=apparmor, or remove \
         the field"
    );
    // the kernel cuts blanks off and takes the rest for the name
    let clean = !profile.chars().any(char::is_control) && profile.trim() == profile;
    ensure!(clean, "{field}: {profile} has blanks around it or control characters; write the name of a loaded profile");
    Ok(Some(profile.into()))
}

pub fn selinux(field: &str, label: Option<&str>, host: &Host) -> Result<Option<String>> {
    let Some(label) = label else { return Ok(None) };
    ensure!(
        host.security.selinux,
        "{field}: {label} cannot be applied: SELinux is off on this host; switch it on there, or remove the field"
    );
    check_label(field, label)?;
    Ok(Some(label.into()))
}

/// `user:role:type`, and a level where the policy has those.
fn check_label(field: &str, label: &str) -> Result<()> {
    let parts = label.split(':').take_while(|part| !part.is_empty()).count();
    let clean = !label.chars().any(|c| c.is_control() || c.is_whitespace());
    ensure!(parts >= 3 && clean, "{field}: {label} is no label; write user:role:type:level");
    Ok(())
}

/// The spec: ignored where SELinux is off.
pub fn of_mounts(linux: &spec::Linux, security: Security, warnings: &mut Vec<String>) -> Result<Option<String>> {
    let Some(label) = given(&linux.mount_label) else { return Ok(None) };
    check_label("linux.mountLabel", label)?;
    ensure!(
        label.len() <= FSCONFIG_MAX,
        "linux.mountLabel: {label} is too long; fsconfig(2) takes {FSCONFIG_MAX} bytes"
    );
    if !security.selinux {
        warnings.push(format!("linux.mountLabel: {label} is left out: SELinux is off on this host"));
        return Ok(None);
    }
    Ok(Some(label.into()))
}

/// File systems of which the host has the one instance, with labels of its own: another context is EBUSY.
const OF_THE_HOST: [&str; 10] =
    ["proc", "sysfs", "debugfs", "tracefs", "securityfs", "selinuxfs", "configfs", "devtmpfs", "pstore", "efivarfs"];
/// Those that take a context from root of a user namespace: selinux_set_mnt_opts of the kernel.
const IN_A_USER_NAMESPACE: [&str; 4] = ["tmpfs", "ramfs", "devpts", "overlay"];
/// One for each ipc namespace, mounted by the kernel when that is made: it keeps its context, so its root is labelled.
const BY_ATTRIBUTE: &str = "mqueue";

/// Every new file system gets the label, unless its options say one.
pub fn label(mounts: &mut [MountPlan], label: &str, option: &str, in_user_namespace: bool) {
    for mount in mounts {
        let Source::Filesystem { fstype, parameters, .. } = &mut mount.source else { continue };
        let fstype = fstype.as_str();
        let labelled =
            parameters.iter().any(|parameter| matches!(parameter, Parameter::Value(key, _) if key == option));
        let possible = match in_user_namespace {
            true => IN_A_USER_NAMESPACE.contains(&fstype),
            false => !OF_THE_HOST.contains(&fstype),
        };
        if fstype == BY_ATTRIBUTE {
            mount.label = Some(label.into());
        } else if possible && !labelled {
            parameters.push(Parameter::Value(option.into(), label.into()));
        }
    }
}

/// Which option gets the label.
pub fn option(linux: &spec::Linux) -> Result<&str> {
    let Some(option) = given(&linux.mount_context) else { return Ok(CONTEXT) };
    let known = WITH_LABELS.join(", ");
    ensure!(WITH_LABELS.contains(&option), "annotations.run.oci.mount_context_type: {option} is none of {known}");
    Ok(option)
}

/// The option of mount(8), for a tmpfs that rrun adds itself.
pub const CONTEXT: &str = "context";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::{AttrChange, SourceLink};
    use crate::rootfs::InRoot;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";
    const OFF: Security = Security { apparmor: false, selinux: false };
    const ON: Security = Security { apparmor: true, selinux: true };

    fn host(security: Security) -> Host {
        Host { security, ..Host::default() }
    }

    fn spec(value: Value) -> Spec {
        Spec::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn only_a_config_with_a_label_asks_which_modules_there_are() {
        for (config, given) in [
            (json!({"process": {"args": ["x"], "apparmorProfile": "", "selinuxLabel": ""}, "linux": {}}), false),
            (json!({"linux": {"mountLabel": ""}}), false),
            (json!({"process": {"apparmorProfile": "p"}}), true),
            (json!({"process": {"selinuxLabel": "l"}}), true),
            (json!({"linux": {"mountLabel": "l"}}), true),
        ] {
            assert_eq!(are_given(&spec(config.clone())), given, "{config}");
        }
    }

    #[test]
    fn a_module_that_is_off_is_named_with_the_remedy() {
        let off = host(OFF);
        let error = apparmor("process.apparmorProfile", Some("docker-default"), &off).unwrap_err().to_string();
        let want =
            "process.apparmorProfile: docker-default cannot be applied: AppArmor is off on this host; boot it with";
        assert!(error.starts_with(want), "{error}");
        let error = selinux("--process-label", Some(LABEL), &off).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--process-label: {LABEL} cannot be applied: SELinux is off")), "{error}");
        assert_eq!((apparmor("", None, &off).unwrap(), selinux("", None, &off).unwrap()), (None, None));
    }

    #[test]
    fn what_is_no_name_or_label_is_refused() {
        let on = host(ON);
        for profile in ["p", "docker-default", "/usr/bin/x", ":ns:p", "a//&b", "with blank", "unconfined"] {
            assert_eq!(apparmor("f", Some(profile), &on).unwrap().as_deref(), Some(profile));
        }
        for profile in [" p", "p ", "p\n", "a\tb", "\u{1}"] {
            assert!(apparmor("f", Some(profile), &on).unwrap_err().to_string().starts_with("f: "), "{profile:?}");
        }
        for label in [LABEL, "u:r:t", "u:r:t:s0-s15:c0.c1023"] {
            assert_eq!(selinux("f", Some(label), &on).unwrap().as_deref(), Some(label));
        }
        for label in ["x", "u:r", "u::t:s0", ":r:t", "u:r:t s0", "u:r:t\n"] {
            assert!(selinux("f", Some(label), &on).unwrap_err().to_string().contains("is no label"), "{label:?}");
        }
    }

    #[test]
    fn a_label_of_mounts_is_left_out_where_selinux_is_off() {
        let linux = spec(json!({"linux": {"mountLabel": LABEL}})).linux.unwrap();
        let mut warnings = Vec::new();
        assert_eq!(of_mounts(&linux, OFF, &mut warnings).unwrap(), None);
        assert_eq!(warnings, [format!("linux.mountLabel: {LABEL} is left out: SELinux is off on this host")]);
        assert_eq!(of_mounts(&linux, ON, &mut Vec::new()).unwrap().as_deref(), Some(LABEL));
        let long = spec(json!({"linux": {"mountLabel": format!("u:r:t:{}", "c".repeat(250))}})).linux.unwrap();
        for (linux, want) in [
            (long, "is too long; fsconfig(2) takes 255 bytes"),
            (spec(json!({"linux": {"mountLabel": "nonsense"}})).linux.unwrap(), "nonsense is no label"),
        ] {
            let error = of_mounts(&linux, ON, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.starts_with("linux.mountLabel: ") && error.contains(want), "{error}");
        }
    }

    fn mount(source: Source) -> MountPlan {
        MountPlan {
            field: "mounts[0]".into(),
            target: InRoot::new("/x"),
            source,
            attributes: AttrChange::default(),
            unnamed: AttrChange::default(),
            recursive: AttrChange::default(),
            propagation: Vec::new(),
            ids: None,
            target_nofollow: false,
            readonly_at_end: false,
            label: None,
        }
    }

    fn filesystem(fstype: &str, parameters: Vec<Parameter>) -> Source {
        Source::Filesystem { fstype: fstype.into(), device: "none".into(), parameters, copy_up: false }
    }

    #[test]
    fn file_systems_of_the_containers_own_get_the_label() {
        let context = Parameter::Value("context".into(), LABEL.into());
        let own = Parameter::Value("context".into(), "u:r:other_t".into());
        for (fstype, given, outside, in_user_namespace) in [
            ("tmpfs", None, Some(&context), Some(&context)),
            ("devpts", None, Some(&context), Some(&context)),
            ("overlay", None, Some(&context), Some(&context)),
            ("ext4", None, Some(&context), None),
            ("hugetlbfs", None, Some(&context), None),
            ("tmpfs", Some(&own), Some(&own), Some(&own)),
            ("proc", None, None, None),
            ("sysfs", None, None, None),
            ("mqueue", None, None, None),
        ] {
            for (in_user_namespace, want) in [(false, outside), (true, in_user_namespace)] {
                let mut mounts = [mount(filesystem(fstype, given.into_iter().cloned().collect()))];
                label(&mut mounts, LABEL, CONTEXT, in_user_namespace);
                let Source::Filesystem { parameters, .. } = &mounts[0].source else { panic!("{mounts:?}") };
                assert_eq!(parameters.iter().collect::<Vec<_>>(), want.into_iter().collect::<Vec<_>>(), "{fstype}");
                let attribute = (fstype == "mqueue").then_some(LABEL);
                assert_eq!(mounts[0].label.as_deref(), attribute, "{fstype}");
            }
        }
        let mut bound = [mount(Source::Bind { from: "/x".into(), recursive: true, symlink: SourceLink::Followed })];
        label(&mut bound, LABEL, CONTEXT, false);
        assert!(
            matches!(bound[0].source, Source::Bind { .. }) && bound[0].label.is_none(),
            "what is bound keeps its own"
        );
    }

    #[test]
    fn quotes_around_a_label_are_for_mount_alone() {
        for (key, value, want) in [
            ("context", "\"u:r:t:s0:c1,c2\"", "u:r:t:s0:c1,c2"),
            ("rootcontext", "\"u:r:t\"", "u:r:t"),
            ("context", "u:r:t", "u:r:t"),
            ("context", "\"", "\""),
            ("source", "\"x\"", "\"x\""),
        ] {
            assert_eq!(crate::plan::mount_options::unquoted(key, value), want, "{key}={value}");
        }
    }

    #[test]
    fn an_annotation_chooses_the_option() {
        let chosen = |word: Option<&str>| {
            let linux = spec::Linux { mount_context: word.map(String::from), ..spec::Linux::default() };
            option(&linux).map(String::from).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None), Ok("context".into()));
        assert_eq!(chosen(Some("rootcontext")), Ok("rootcontext".into()));
        let error = chosen(Some("x")).unwrap_err();
        assert!(error.starts_with("annotations.run.oci.mount_context_type: x is none of context, "), "{error}");
    }
}
