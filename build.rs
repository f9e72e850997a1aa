//! How the static binary is linked; each line's gain is in docs/performance.md.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=link");
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "musl") {
        let link = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it") + "/link";
        for script in ["order", "layout"] {
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{link}/{script}.ld");
        }
        let is = |name, value| env::var(name).is_ok_and(|found| found == value);
        // src/sys/entry.rs; without optimization it would call by way of tables
        if is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is("OPT_LEVEL", "0") {
            println!("cargo::rustc-link-arg-bins=-Wl,--entry=rrun_entry");
        }
    }
}
