//! `linux.resources.rdma`: handles and objects of each adapter. The file is the same in v1 and v2.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::Write;
use crate::plan::spec::resources::Rdma;

const NO_DEVICE: &[(Errno, &str)] = &[(Errno::ENODEV, "this host has no RDMA adapter of that name")];

pub fn both(adapters: &BTreeMap<String, Rdma>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (name, rdma) in adapters {
        let field = format!("linux.resources.rdma.{name}");
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            bail!("{field}: is no adapter's name");
        }
        let mut line = name.clone();
        for (key, value) in [("hca_handle", rdma.hca_handles), ("hca_object", rdma.hca_objects)] {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        if line == *name {
            bail!("{field}: has neither hcaHandles nor hcaObjects; add at least one");
        }
        writes.push(Write::new(field, "rdma.max", line).meaning(NO_DEVICE));
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;

    #[test]
    fn values() {
        for (hca_handles, hca_objects, want) in [
            (Some(3), None, "rdma.max = mlx5_1 hca_handle=3"),
            (None, Some(0), "rdma.max = mlx5_1 hca_object=0"),
            (Some(3), Some(10000), "rdma.max = mlx5_1 hca_handle=3 hca_object=10000"),
        ] {
            let adapters = [("mlx5_1".to_string(), Rdma { hca_handles, hca_objects })].into();
            let got = shown(both(&adapters)).unwrap();
            assert_eq!(got, [want], "{adapters:?}");
        }
        // the spec: at least one of them
        for name in ["", "a b", "a\nb", "a/b", "mlx5_1"] {
            let adapters = [(name.to_string(), Rdma::default())].into();
            assert!(shown(both(&adapters)).unwrap_err().starts_with("linux.resources.rdma."), "{name:?}");
        }
    }
}
