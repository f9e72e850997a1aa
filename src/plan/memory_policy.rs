//! `linux.memoryPolicy` → what set_mempolicy(2) gets.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::affinity::numbers;
use super::spec::given;
use super::spec::linux::MemoryPolicy as Written;

/// Whether a mode takes nodes: set_mempolicy(2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    None,
    Some,
    Any,
}

/// uapi/linux/mempolicy.h
const MODES: [(&str, i32, Nodes); 7] = [
    ("MPOL_DEFAULT", 0, Nodes::None),
    ("MPOL_BIND", 2, Nodes::Some),
    ("MPOL_INTERLEAVE", 3, Nodes::Some),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Nodes::Some),
    // without any: the node that the process runs on
    ("MPOL_PREFERRED", 1, Nodes::Any),
    ("MPOL_PREFERRED_MANY", 5, Nodes::Some),
    ("MPOL_LOCAL", 4, Nodes::None),
];

const FLAGS: [(&str, i32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// Beyond any kernel's MAX_NUMNODES, which tells by itself what it lacks.
const MOST: u32 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPolicy {
    pub mode: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<u32>,
}

/// Words of the config, as `features` tells them.
pub fn modes() -> Vec<String> {
    MODES.map(|(name, ..)| name.to_string()).to_vec()
}

pub fn flags() -> Vec<String> {
    FLAGS.map(|(name, _)| name.to_string()).to_vec()
}

impl MemoryPolicy {
    /// The mode with its flags in the upper bits.
    pub fn mode(&self) -> i32 {
        let mode = MODES.iter().find(|(name, ..)| *name == self.mode).map_or(0, |(_, number, _)| *number);
        let flags = FLAGS.iter().filter(|(name, _)| self.flags.contains(name));
        flags.fold(mode, |mode, (_, bit)| mode | bit)
    }

    /// Bit n is node n.
    pub fn mask(&self) -> Vec<u64> {
        let mut mask = Vec::new();
        for node in &self.nodes {
            let (word, bit) = (*node as usize / 64, node % 64);
            mask.resize(mask.len().max(word + 1), 0);
            mask[word] |= 1 << bit;
        }
        mask
    }
}

pub fn plan(written: &Written) -> Result<MemoryPolicy> {
    let known = || modes().join(", ");
    let mode = given(&written.mode).with_context(|| {
        format!("linux.memoryPolicy.mode: invalid memory policy mode: missing; use one of {}", known())
    })?;
    let Some((mode, _, takes)) = MODES.into_iter().find(|(name, ..)| *name == mode) else {
        bail!("linux.memoryPolicy.mode: invalid memory policy mode {mode}; use one of {}", known());
    };
    let nodes = match given(&written.nodes) {
        None => Vec::new(),
        Some(list) => numbers(list, MOST).with_context(|| {
            format!("linux.memoryPolicy.nodes: invalid memory policy nodes {list}: no list of nodes below {MOST}; write it as 0-3,7")
        })?,
    };
    match takes {
        Nodes::None => ensure!(
            nodes.is_empty(),
            "linux.memoryPolicy.nodes: {mode} takes none: mode requires 0 nodes but got {}; leave them out",
            nodes.len()
        ),
        Nodes::Some => {
            ensure!(!nodes.is_empty(), "linux.memoryPolicy.nodes: missing; {mode} needs some, such as 0-3,7")
        }
        Nodes::Any => {}
    }
    let mut flags = Vec::new();
    for (index, word) in written.flags.iter().enumerate() {
        let Some((flag, _)) = FLAGS.into_iter().find(|(name, _)| name == word) else {
            let known = self::flags().join(", ");
            bail!("linux.memoryPolicy.flags[{index}]: invalid memory policy flag {word}; use any of {known}");
        };
        flags.push(flag);
    }
    let both = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"];
    ensure!(
        !both.iter().all(|flag| flags.contains(flag)),
        "linux.memoryPolicy.flags: {} exclude each other",
        both.join(" and ")
    );
    Ok(MemoryPolicy { mode, flags, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(written: &str) -> Result<MemoryPolicy, String> {
        plan(&serde_json::from_str(written).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn modes_flags_and_nodes() {
        for (written, mode, mask) in [
            (r#"{"mode":"MPOL_DEFAULT"}"#, 0, vec![]),
            (r#"{"mode":"MPOL_LOCAL","nodes":""}"#, 4, vec![]),
            (r#"{"mode":"MPOL_PREFERRED"}"#, 1, vec![]),
            (r#"{"mode":"MPOL_PREFERRED","nodes":"1"}"#, 1, vec![2]),
            (r#"{"mode":"MPOL_PREFERRED_MANY","nodes":"0,1"}"#, 5, vec![3]),
            (r#"{"mode":"MPOL_WEIGHTED_INTERLEAVE","nodes":"64-65"}"#, 6, vec![0, 3]),
            (r#"{"mode":"MPOL_INTERLEAVE","nodes":"2-3","flags":["MPOL_F_STATIC_NODES"]}"#, 3 | 1 << 15, vec![12]),
            (r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#, 2 | 1 << 13, vec![1]),
            (r#"{"mode":"MPOL_BIND","nodes":"63","flags":["MPOL_F_RELATIVE_NODES"]}"#, 2 | 1 << 14, vec![1 << 63]),
        ] {
            let planned = planned(written).unwrap();
            assert_eq!((planned.mode(), planned.mask()), (mode, mask), "{written}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (written, want) in [
            ("{}", "mode: invalid memory policy mode: missing; use one of MPOL_DEFAULT, "),
            (r#"{"mode":"BIND"}"#, "mode: invalid memory policy mode BIND; use one of MPOL_DEFAULT, "),
            (
                r#"{"mode":"MPOL_DEFAULT","nodes":"0-7"}"#,
                "nodes: MPOL_DEFAULT takes none: mode requires 0 nodes but got 8;",
            ),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, "nodes: MPOL_LOCAL takes none"),
            (r#"{"mode":"MPOL_BIND"}"#, "nodes: missing; MPOL_BIND needs some"),
            (r#"{"mode":"MPOL_INTERLEAVE","nodes":""}"#, "nodes: missing; MPOL_INTERLEAVE needs some"),
            (r#"{"mode":"MPOL_PREFERRED_MANY"}"#, "nodes: missing; MPOL_PREFERRED_MANY"),
            (r#"{"mode":"MPOL_WEIGHTED_INTERLEAVE"}"#, "nodes: missing; MPOL_WEIGHTED_INTERLEAVE"),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0-"}"#,
                "nodes: invalid memory policy nodes 0-: no list of nodes below 4096",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"4096"}"#,
                "nodes: invalid memory policy nodes 4096: no list of nodes below 4096",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["STATIC"]}"#,
                "flags[0]: invalid memory policy flag STATIC; use any of MPOL_F_NUMA_BALANCING, ",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_RELATIVE_NODES","MPOL_F_STATIC_NODES"]}"#,
                "flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            ),
        ] {
            let error = planned(written).unwrap_err();
            assert!(error.starts_with(&format!("linux.memoryPolicy.{want}")), "{written}: {error}");
        }
    }
}
