//! `process.ioPriority` → what ioprio_set(2) gets.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::spec::given;
use super::spec::process::IoPriority as Written;

/// uapi/linux/ioprio.h
const CLASSES: [(&str, i32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// IOPRIO_CLASS_SHIFT
const CLASS_SHIFT: i32 = 13;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IoPriority {
    pub class: &'static str,
    #[serde(skip)]
    number: i32,
    pub priority: i32,
}

impl IoPriority {
    /// As the kernel has it: class and priority in one number.
    pub fn value(self) -> i32 {
        self.number << CLASS_SHIFT | self.priority
    }
}

pub fn plan(written: &Written) -> Result<IoPriority> {
    let known = || CLASSES.map(|(name, _)| name).join(", ");
    let class =
        given(&written.class).with_context(|| format!("process.ioPriority.class: missing; use one of {}", known()))?;
    let Some((class, number)) = CLASSES.into_iter().find(|(name, _)| *name == class) else {
        bail!("process.ioPriority.class: {class} is no class; use one of {}", known());
    };
    let priority =
        written.priority.context("process.ioPriority.priority: missing; add one from 0, the highest, to 7")?;
    match i32::try_from(priority).ok().filter(|priority| (0..=7).contains(priority)) {
        Some(priority) => Ok(IoPriority { class, number, priority }),
        None => bail!("process.ioPriority.priority: {priority} is not from 0, the highest, to 7"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_priorities() {
        for (written, want) in [
            (r#"{"class":"IOPRIO_CLASS_RT","priority":0}"#, Ok(0x2000)),
            (r#"{"class":"IOPRIO_CLASS_BE","priority":7}"#, Ok(0x4007)),
            (r#"{"class":"IOPRIO_CLASS_IDLE","priority":4}"#, Ok(0x6004)),
            (r#"{"priority":4}"#, Err("class: missing; use one of IOPRIO_CLASS_RT, ")),
            (r#"{"class":"BE","priority":4}"#, Err("class: BE is no class; use one of IOPRIO_CLASS_RT, ")),
            (r#"{"class":"IOPRIO_CLASS_NONE","priority":0}"#, Err("class: IOPRIO_CLASS_NONE is no class")),
            (r#"{"class":"IOPRIO_CLASS_BE"}"#, Err("priority: missing")),
            (r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#, Err("priority: 8 is not from 0, the highest, to 7")),
            (r#"{"class":"IOPRIO_CLASS_BE","priority":-1}"#, Err("priority: -1 is not from 0")),
            (r#"{"class":"IOPRIO_CLASS_BE","priority":4294967296}"#, Err("priority: 4294967296 is not from 0")),
        ] {
            match (plan(&serde_json::from_str(written).unwrap()), want) {
                (Ok(planned), Ok(want)) => assert_eq!(planned.value(), want, "{written}"),
                (Err(error), Err(want)) => {
                    let error = error.to_string();
                    assert!(error.starts_with(&format!("process.ioPriority.{want}")), "{written}: {error}");
                }
                (planned, _) => panic!("{written}: {planned:?}"),
            }
        }
    }
}
