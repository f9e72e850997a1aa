//! rrun's own sources as text, for tests that read them: code without comments and literals, and the string literals.
//! A scanner, not a parser: it knows what a comment, a literal and a pair of braces are.

use std::fs;
use std::ops::Range;
use std::path::Path;

pub struct Source {
    /// Below src/, without `.rs`: `cli/words`.
    pub name: String,
    /// Comments and the insides of literals are blanks; every byte stands where it stood.
    pub code: String,
    /// Where each string literal begins, and what it says.
    pub literals: Vec<(usize, String)>,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let (code, literals) = scan(text);
        Self { name: name.into(), code, literals }
    }

    /// Every file of src/ but those that hold only tests.
    pub fn all() -> Vec<Self> {
        let mut sources = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        collect(&root, &root, &mut sources);
        assert!(sources.len() > 20, "{} files are not rrun", sources.len());
        sources
    }

    pub fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// The items that are compiled for tests alone.
    pub fn tests(&self) -> Vec<Range<usize>> {
        self.code.match_indices("#[cfg(test)]").map(|(at, _)| at..self.end_of_item(at)).collect()
    }

    /// From `at`, which no brace precedes, to the `;` or the closing brace of the item that begins there.
    pub fn end_of_item(&self, at: usize) -> usize {
        let mut depth = 0;
        for (offset, c) in self.code[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return at + offset + 1,
                '}' => depth -= 1,
                ';' if depth == 0 => return at + offset + 1,
                _ => {}
            }
        }
        self.code.len()
    }
}

fn collect(root: &Path, dir: &Path, sources: &mut Vec<Source>) {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let name = path.strip_prefix(root).unwrap().with_extension("");
            sources.push(Source::new(name.to_str().unwrap(), &fs::read_to_string(&path).unwrap()));
        }
    }
}

fn scan(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut code, mut literals) = (String::with_capacity(text.len()), Vec::new());
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some((length, said)) = raw_string(rest).filter(|_| !in_word) {
            literals.push((at, said));
            length
        } else if c == '"' {
            let (length, said) = string(rest);
            literals.push((at, said));
            length
        } else if let Some(length) = character(rest) {
            length
        } else {
            code.push(c);
            at += c.len_utf8();
            continue;
        };
        code.extend(text[at..at + length].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        at += length;
    }
    (code, literals)
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// `r"…"`, `br#"…"#` and the like.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let said = body[hashes..].strip_prefix('"')?;
    let end = said.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some((text.len() - said.len() + end + 1 + hashes, said[..end].into()))
}

fn string(text: &str) -> (usize, String) {
    let mut said = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (at + 1, said),
            '\\' => match chars.next() {
                // A line that is continued: neither its end nor the next one's indentation is said.
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n' | 't' | 'r')) => said.push(' '),
                Some((_, escaped)) => said.push(escaped),
                None => break,
            },
            c => said.push(c),
        }
    }
    (text.len(), said)
}

/// `'x'` and `'\n'`, but not the `'a` of a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if let Some(escaped) = inside.strip_prefix('\\') {
        let first = escaped.chars().next()?.len_utf8();
        return Some(2 + first + escaped[first..].find('\'')? + 1);
    }
    let length = inside.chars().next()?.len_utf8();
    inside[length..].starts_with('\'').then_some(length + 2)
}

#[test]
fn the_scanner_tells_code_from_what_is_said() {
    let text = r####"// "no" 'x
    /* "no" /* */ "no" */ let a = '"'; let b = '\''; let c: &'a str = "one \"two\" \
        three"; let d = r#"four "five""#; let e = b"six"; let er"; x""####;
    let source = Source::new("x", text);
    let said: Vec<_> = source.literals.iter().map(|(_, said)| said.as_str()).collect();
    assert_eq!(said, ["one \"two\" three", "four \"five\"", "six", "; x"]);
    assert!(!source.code.contains("no") && source.code.contains("&'a str ="), "{}", source.code);
    assert_eq!((source.code.len(), source.line(source.literals[1].0)), (text.len(), 3));
}

#[test]
fn the_scanner_finds_what_is_for_tests_alone() {
    let source = Source::new("x", "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod t { fn f() { '}' } }\nc");
    let tests: Vec<_> = source.tests().into_iter().map(|range| &source.code[range]).collect();
    assert_eq!(tests, ["#[cfg(test)]\nmod tests;", "#[cfg(test)]\nmod t { fn f() {     } }"]);
}
