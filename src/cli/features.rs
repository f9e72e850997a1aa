//! `rrun features`: what this binary can do, as JSON (features.md). Every list comes from the table that a parser uses.
//! It looks at nothing: no root, no cgroups, no state directory.

use std::collections::HashMap;

use anyhow::Result;
use oci_spec::runtime::{
    ApparmorBuilder, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder, LinuxFeature,
    LinuxFeatureBuilder, LinuxNamespaceType, MemoryPolicyBuilder, MountExtensionsBuilder, NetDevicesBuilder,
    SeccompBuilder, SelinuxBuilder,
};
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer, value};
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Call, Verb, print};
use crate::log;
use crate::plan::hooks::Hooks;
use crate::plan::seccomp::calls::ARCHITECTURES;
use crate::plan::seccomp::profile::{ACTIONS, FLAGS, OPERATORS};
use crate::plan::{annotations, capabilities, memory_policy, mount_options, namespaces};
use crate::systemd::annotation;

pub const VERB: Verb = Verb {
    stderr: log::Stderr::ErrorOnly,
    ..Verb::new("features", "Print what this version of rrun can do as JSON", Vec::new, run)
};

fn run(_call: &Call) -> Result<u8> {
    let mut json = Vec::new();
    features()?.serialize(&mut Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"    ")))?;
    json.push(b'\n');
    print(&String::from_utf8(json)?)?;
    Ok(0)
}

/// runc's name, which others share: features.md, "Annotations".
const CHECKPOINT: &str = "org.opencontainers.runc.checkpoint.enabled";

/// Nothing is left out: a missing key would mean "unknown", an empty list means "none".
fn features() -> Result<Features> {
    Ok(FeaturesBuilder::default()
        .oci_version_min("1.0.0")
        .oci_version_max(crate::OCI_VERSION)
        .hooks(Hooks::default().by_kind().map(|(kind, _)| kind.to_string()).to_vec())
        .mount_options(mount_options::all_words())
        .linux(linux()?)
        .annotations(HashMap::from([(CHECKPOINT.to_string(), "true".to_string())]))
        .potentially_unsafe_config_annotations(unsafe_annotations().map(String::from).collect::<Vec<_>>())
        .build()?)
}

/// One that ends with a dot stands for all that begin so.
fn unsafe_annotations() -> impl Iterator<Item = &'static str> {
    annotations::known().chain([annotation::PREFIX])
}

fn linux() -> Result<LinuxFeature> {
    let namespaces = namespaces::all_types().into_iter().map(LinuxNamespaceType::try_from);
    let cgroup = CgroupBuilder::default().v1(true).v2(true).systemd(true).systemd_user(true).rdma(true);
    let seccomp = SeccompBuilder::default()
        .enabled(true)
        .actions(known(ACTIONS.map(|(word, _)| word))?)
        .operators(OPERATORS.map(|(word, _)| word.to_string()).to_vec())
        .archs(known(ARCHITECTURES)?)
        .known_flags(FLAGS.map(String::from).to_vec())
        .supported_flags(FLAGS.map(String::from).to_vec());
    let idmap = IDMapBuilder::default().enabled(true).build()?;
    Ok(LinuxFeatureBuilder::default()
        .namespaces(namespaces.collect::<Result<Vec<_>, _>>()?)
        .capabilities(capabilities::all_names())
        .cgroup(cgroup.build()?)
        .seccomp(seccomp.build()?)
        .apparmor(ApparmorBuilder::default().enabled(true).build()?)
        .selinux(SelinuxBuilder::default().enabled(true).build()?)
        .intel_rdt(IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true).build()?)
        .memory_policy(
            MemoryPolicyBuilder::default().modes(memory_policy::modes()).flags(memory_policy::flags()).build()?,
        )
        .mount_extensions(MountExtensionsBuilder::default().idmap(idmap).build()?)
        .net_devices(NetDevicesBuilder::default().enabled(true).build()?)
        .build()?)
}

/// Words as the values that they are written as.
fn known<T: DeserializeOwned>(words: impl IntoIterator<Item = &'static str>) -> Result<Vec<T>> {
    let value = |word: &'static str| -> Result<T, value::Error> { T::deserialize(word.into_deserializer()) };
    Ok(words.into_iter().map(value).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_seccomp_are_those_that_profiles_use() {
        let json = serde_json::to_value(features().unwrap()).unwrap();
        let seccomp = &json["linux"]["seccomp"];
        let actions: Vec<_> = ACTIONS.iter().map(|(word, _)| *word).collect();
        assert_eq!((&seccomp["enabled"], &seccomp["actions"]), (&true.into(), &actions.into()));
        assert_eq!(seccomp["archs"], serde_json::json!(ARCHITECTURES));
        assert_eq!(seccomp["operators"].as_array().unwrap().len(), OPERATORS.len());
        assert_eq!((&seccomp["knownFlags"], &seccomp["supportedFlags"]), (&FLAGS.into(), &FLAGS.into()));
    }

    #[test]
    fn every_field_that_is_acted_on_is_told() {
        let json = serde_json::to_value(features().unwrap()).unwrap();
        for mode in json["linux"]["memoryPolicy"]["modes"].as_array().unwrap() {
            let written = |nodes| serde_json::from_value(serde_json::json!({"mode": mode, "nodes": nodes})).unwrap();
            assert!(["", "0"].into_iter().any(|nodes| memory_policy::plan(&written(nodes)).is_ok()), "{mode}");
        }
        let flags = &json["linux"]["memoryPolicy"]["flags"];
        for flag in flags.as_array().unwrap() {
            let written = serde_json::json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
            assert!(memory_policy::plan(&serde_json::from_value(written).unwrap()).is_ok(), "{flag}");
        }
        assert_eq!(
            (json["linux"]["memoryPolicy"]["modes"].as_array().unwrap().len(), flags.as_array().unwrap().len()),
            (7, 3)
        );
        let all = serde_json::json!({"enabled": true, "schemata": true, "monitoring": true});
        assert_eq!((&json["linux"]["intelRdt"], &json["linux"]["netDevices"]["enabled"]), (&all, &true.into()));
        let told = &json["potentiallyUnsafeConfigAnnotations"];
        assert!(told.as_array().unwrap().contains(&annotation::PREFIX.into()));
        assert!(annotations::known().all(|name| told.as_array().unwrap().contains(&name.into())), "{told}");
    }

    #[test]
    fn no_answer_is_unknown() {
        let json = serde_json::to_value(features().unwrap()).unwrap();
        assert!(!json.to_string().contains("null"), "{json}");
        assert_eq!(json["ociVersionMax"], crate::OCI_VERSION);
    }

    #[test]
    fn capabilities_stand_in_the_order_of_the_kernel() {
        let names = capabilities::all_names();
        assert_eq!((names[0].as_str(), names[40].as_str(), names.len()), ("CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", 41));
    }
}
