//! src/plan/seccomp/calls/table.rs is what the kernel's headers say, as the crate linux-raw-sys carries them for every
//! architecture. `UPDATE_CALLS=1 cargo test --test system_calls` writes it anew, after an update of that crate.
//! A second source, libseccomp's own tables, is compared in integration/seccomp.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// In the order of the table's columns.
const ARCHITECTURES: [&str; 5] = ["x86_64", "x86", "x32", "aarch64", "arm"];
/// Every number of x32 has it.
const X32_BIT: u32 = 1 << 30;
/// Bounds of number ranges, which the headers of arm name like calls.
const NO_CALLS: [&str; 4] = ["OABI_SYSCALL_BASE", "SYSCALL_MASK", "SYSCALL_BASE", "BASE"];

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/seccomp/calls/table.rs")
}

/// Where cargo keeps the source of linux-raw-sys.
fn headers() -> PathBuf {
    let cargo = env::var_os("CARGO").expect("run by cargo");
    let mut command = Command::new(cargo);
    command.args([
        "metadata",
        "--format-version=1",
        "--offline",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "linux-raw-sys").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("src")
}

/// Numbers of one architecture by name, without the bit of x32.
fn numbers(headers: &Path, architecture: &str) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(headers.join(architecture).join("general.rs")).unwrap();
    let constants = text.lines().filter_map(|line| line.strip_prefix("pub const __"));
    let calls = constants.filter_map(|rest| rest.strip_prefix("ARM_").unwrap_or(rest).strip_prefix("NR_"));
    let numbers = calls.filter_map(|call| {
        let (name, number) = call.split_once(": u32 = ")?;
        (!NO_CALLS.contains(&name)).then(|| (name.to_string(), number.trim_end_matches(';').parse::<u32>().unwrap()))
    });
    numbers.map(|(name, number)| (name, if architecture == "x32" { number - X32_BIT } else { number })).collect()
}

fn generated() -> String {
    let headers = headers();
    let columns = ARCHITECTURES.map(|architecture| numbers(&headers, architecture));
    for (column, architecture) in columns.iter().zip(ARCHITECTURES) {
        assert!(column.len() > 300, "{architecture} has only {} calls", column.len());
    }
    let names: std::collections::BTreeSet<&String> = columns.iter().flat_map(|column| column.keys()).collect();
    let rows = names.iter().map(|name| {
        let number = |column: &BTreeMap<String, u32>| column.get(*name).map_or("__".into(), u32::to_string);
        format!("    (\"{name}\", [{}]),\n", columns.iter().map(number).collect::<Vec<_>>().join(", "))
    });
    format!(
        "//! Made from the kernel's headers by tests/system_calls.rs; not to be edited.\n\
         //!\n\
         //! Sorted by name; the numbers of {}, where x32's lack its bit.\n\n\
         use super::NONE as __;\n\n\
         // A constant, not a static: only what calls.rs makes of it is part of the program.\n\
         #[allow(clippy::large_const_arrays)]\n\
         #[rustfmt::skip]\n\
         pub const ROWS: [(&str, [u32; {}]); {}] = [\n{}];\n",
        ARCHITECTURES.join(", "),
        ARCHITECTURES.len(),
        names.len(),
        rows.collect::<String>()
    )
}

#[test]
fn the_table_is_what_the_kernels_headers_say() {
    let generated = generated();
    if env::var_os("UPDATE_CALLS").is_some() {
        fs::write(table(), &generated).unwrap();
    }
    assert!(fs::read_to_string(table()).unwrap() == generated, "table.rs differs: UPDATE_CALLS=1 writes it anew");
}
