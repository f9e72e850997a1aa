//! `linux.resources.hugepageLimits`. Two counters each: pages in use, and pages reserved. The spec prefers the second,
//! which refuses in time instead of killing at the fault; kernels before 5.7 have only the first.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::HugepageLimit;

const NO_SIZE: &[(Errno, &str)] =
    &[(Errno::ENOENT, "this host has no huge pages of that size; see /sys/kernel/mm/hugepages")];

pub fn v1(limits: &[HugepageLimit]) -> Result<Vec<Write>> {
    writes(limits, "limit_in_bytes")
}

pub fn v2(limits: &[HugepageLimit]) -> Result<Vec<Write>> {
    writes(limits, "max")
}

fn writes(limits: &[HugepageLimit], file: &str) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (n, HugepageLimit { page_size, limit }) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{n}]");
        if !is_page_size(page_size) {
            bail!("{field}.pageSize: {page_size} is not a size such as 2MB or 1GB");
        }
        writes.push(Write::new(field.clone(), format!("hugetlb.{page_size}.{file}"), limit).meaning(NO_SIZE));
        writes.push(
            Write::new(field, format!("hugetlb.{page_size}.rsvd.{file}"), limit).on(Errno::ENOENT, Otherwise::Leave),
        );
    }
    Ok(writes)
}

/// `^[1-9][0-9]*[KMG]B$`: it becomes part of a file's name.
fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;

    fn limit(page_size: &str, limit: u64) -> Vec<HugepageLimit> {
        vec![HugepageLimit { page_size: page_size.into(), limit }]
    }

    #[test]
    fn both_counters_are_limited() {
        let v1_want = ["hugetlb.2MB.limit_in_bytes = 5", "hugetlb.2MB.rsvd.limit_in_bytes = 5; ENOENT: leave"];
        assert_eq!(shown(v1(&limit("2MB", 5))), Ok(v1_want.map(String::from).to_vec()));
        let v2_want = ["hugetlb.1GB.max = 0", "hugetlb.1GB.rsvd.max = 0; ENOENT: leave"];
        assert_eq!(shown(v2(&limit("1GB", 0))), Ok(v2_want.map(String::from).to_vec()));
        assert_eq!(shown(v1(&[])), Ok(vec![]));
        assert!(shown(v1(&limit("64KB", u64::MAX))).unwrap()[0].ends_with("= 18446744073709551615"));
    }

    #[test]
    fn sizes_that_are_none() {
        for size in ["", "2", "MB", "0MB", "02MB", "2mb", "2TB", "2M", "-2MB", "2 MB", "../2MB", "2MB/", "2MB\n", "²MB"]
        {
            let error = shown(v1(&limit(size, 1))).unwrap_err();
            assert!(error.starts_with("linux.resources.hugepageLimits[0].pageSize: "), "{size}: {error}");
        }
    }
}
