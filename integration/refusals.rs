//! How a bundle is refused: by a line that names the field, before anything is made, and foreseen by `check`.

use crate::bundle::Bundle;
use crate::runtime::{on_rrun, run};

/// Who is expected to refuse. The words of the line are rrun's in any case.
#[derive(Clone, Copy, PartialEq)]
pub enum Who {
    Everybody,
    /// Peers take it, or break on it later.
    Rrun,
}
#[track_caller]
pub fn refuses(who: Who, bundle: &Bundle, words: &[&str]) {
    refuses_unforeseen(who, bundle, words);
    if on_rrun() {
        foreseen(bundle, words);
    }
}

/// What can be told only by making it.
#[track_caller]
pub fn refuses_unforeseen(who: Who, bundle: &Bundle, words: &[&str]) {
    if who == Who::Rrun && !on_rrun() {
        return crate::need::skip("rrun");
    }
    for verb in ["create", "run"] {
        let output = run(&mut bundle.command_on_config_as_it_is(&[verb, "--pid-file", "pid", &bundle.id]));
        if on_rrun() {
            output.refused(words);
            let start = format!("{verb} {}: ", bundle.id);
            assert!(output.stderr.starts_with(&start), "begins with another command: {output}");
        } else {
            assert_ne!(output.code, 0, "{output}");
        }
        bundle.leaves_nothing();
        assert!(!bundle.dir.join("pid").exists(), "a pid file is left");
    }
}

/// `check` tells what `create` refuses.
#[track_caller]
pub fn foreseen(bundle: &Bundle, words: &[&str]) {
    let output = run(&mut bundle.command_on_config_as_it_is(&["check"]));
    assert_eq!((output.code, output.stderr.as_str()), (1, ""), "{output}");
    let mut problems = output.stdout.lines().filter(|line| line.starts_with("problem: "));
    let is_said = |line: &str, word: &str| line.contains(word.strip_prefix("config.json: ").unwrap_or(word));
    assert!(problems.any(|line| words.iter().all(|word| is_said(line, word))), "{words:?}: {output}");
    bundle.leaves_nothing();
}
