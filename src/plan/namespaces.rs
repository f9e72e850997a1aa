//! The namespaces that a container gets.

/// Every type that a config may ask for, by the spec's words.
pub fn all_types() -> Vec<&'static str> {
    vec!["cgroup", "ipc", "mount", "network", "pid", "time", "uts"]
}
