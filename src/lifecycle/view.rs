//! What `state` and `list` say about a container, in the keys and the order that callers know (runtime.md "State",
//! with the additions of other runtimes: rootfs, created, owner).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateView {
    /// The version that rrun follows, not the bundle's: [`crate::OCI_VERSION`].
    pub oci_version: String,
    pub id: String,
    /// As the caller sees it; 0 when stopped.
    pub pid: i32,
    pub status: &'static str,
    /// Absolute, symlinks resolved.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds: callers parse it as a date, so it may not be empty.
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who owns the state directory; only `list` fills it.
    pub owner: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_the_order_that_callers_know() {
        let mut view = StateView {
            oci_version: crate::OCI_VERSION.into(),
            id: "c1".into(),
            pid: 7,
            status: "running",
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-21T09:59:49.000000001Z".into(),
            annotations: BTreeMap::new(),
            owner: String::new(),
        };
        assert_eq!(
            serde_json::to_string(&view).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"c1","pid":7,"status":"running","bundle":"/b","rootfs":"/b/rootfs","created":"2026-11-21T09:59:49.000000001Z","owner":""}"#
        );
        view.annotations.insert("a".into(), "b/c\"".into());
        assert!(serde_json::to_string(&view).unwrap().contains(r#","annotations":{"a":"b/c\""},"owner""#));
    }
}
