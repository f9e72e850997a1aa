//! Paths that cannot escape. Whatever lies inside a rootfs is untrusted; it is reached through [`Rootfs`] alone.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Serialize, Serializer};

/// A path as the container sees it, without its leading `/` and without `..`; empty for `/` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InRoot(PathBuf);

impl InRoot {
    /// `..` is resolved as a shell user expects, and stops at `/`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let mut inside = PathBuf::new();
        for component in path.as_ref().components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => {
                    inside.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Self(inside)
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// The directory it lies in and its last name; `None` for `/`.
    pub fn split(&self) -> Option<(InRoot, &OsStr)> {
        Some((InRoot(self.0.parent()?.to_path_buf()), self.0.file_name()?))
    }

    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self::new(self.0.join(Self::new(name).0))
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(self.0.as_os_str().as_bytes()))
    }
}

impl Serialize for InRoot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn in_root_drops_what_leads_out() {
        for (path, want) in [
            ("/", "/"),
            ("", "/"),
            ("/etc", "/etc"),
            ("etc/", "/etc"),
            ("//proc/./sys", "/proc/sys"),
            ("/a/../../b", "/b"),
            ("../..", "/"),
            ("/proc/..", "/"),
        ] {
            assert_eq!(InRoot::new(path).to_string(), want, "{path}");
        }
        assert!(InRoot::new("/..").is_root());
    }

    proptest! {
        #[test]
        fn in_root_never_leaves_the_root(path in "(/|\\.|\\.\\.|[a-c]){0,24}") {
            let InRoot(inside) = InRoot::new(&path);
            prop_assert!(inside.components().all(|c| matches!(c, Component::Normal(_))), "{path} became {}", inside.display());
            prop_assert_eq!(InRoot::new(&inside), InRoot(inside), "not idempotent");
        }
    }
}
