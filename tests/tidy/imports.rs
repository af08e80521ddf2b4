//! Which module paths a source file names. Knows enough of Rust's grammar for files that `rustfmt`
//! formatted.

use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

/// The path of a module in its package, `["cache", "memory"]` for `cache/memory.rs`.
pub(super) fn module_of(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

/// The file that defines a module or the item at a path: that of the longest prefix that is
/// a module.
pub(super) fn file_of(sources: &Path, path: &[String]) -> Option<PathBuf> {
    (1..=path.len()).rev().find_map(|len| {
        let module = path[..len].iter().collect::<PathBuf>();
        let files = [module.with_extension("rs"), module.join("mod.rs")];
        files.into_iter().find(|file| sources.join(file).is_file())
    })
}

/// Every path of the package that the text names, from the package's root. `module` is the module
/// that the text defines.
pub(super) fn paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let text = without_comments_and_strings(text);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("::") {
        let before = text[..at].trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
        let first = &text[before.len()..at];
        if before.ends_with("::") || before.ends_with('$') {
            continue;
        }
        let start: Vec<String> = match first {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        tree(&mut text[at + 2..].chars().peekable(), start, &mut found);
    }
    found
}

/// Follows a `use` tree or a path: names, and groups in braces.
fn tree(chars: &mut Peekable<Chars<'_>>, mut path: Vec<String>, found: &mut Vec<Vec<String>>) {
    loop {
        skip_space(chars);
        if chars.peek() == Some(&'{') {
            chars.next();
            while chars.peek().is_some_and(|c| *c != '}') {
                tree(chars, path.clone(), found);
                skip_space(chars);
                // Up to the next branch: a comma, or ` as name`.
                while chars.peek().is_some_and(|c| !matches!(c, ',' | '}')) {
                    chars.next();
                }
                if chars.peek() == Some(&',') {
                    chars.next();
                }
                skip_space(chars);
            }
            chars.next();
            return;
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        match name.as_str() {
            "" | "self" => return found.push(path),
            "super" => drop(path.pop()),
            _ => path.push(name),
        }
        let mut ahead = chars.clone();
        if (ahead.next(), ahead.next()) != (Some(':'), Some(':')) {
            return found.push(path);
        }
        chars.next();
        chars.next();
    }
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

fn without_comments_and_strings(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut is_string, mut previous) = (false, ' ');
        for (at, c) in line.char_indices() {
            if !is_string && line[at..].starts_with("//") {
                break;
            }
            if c == '"' && previous != '\\' && !line[at..].starts_with("\"'") {
                is_string = !is_string;
            }
            if !is_string {
                kept.push(c);
            }
            previous = c;
        }
        kept.push('\n');
    }
    kept
}

#[test]
fn paths_are_found_in_trees_in_code_and_upwards() {
    let text = "
        //! See `crate::not::this`.
        use crate::a::{self, b::{C, d::E as F}, G};
        use super::h;
        fn f() -> crate::i::J { super::super::k(\"crate::not::this\"); $crate::not::this() }
        use other::crate_name;
    ";
    let module = ["x", "y", "z"].map(str::to_owned);
    let found = paths(text, &module).into_iter().map(|path| path.join("::"));
    let expected = ["a", "a::b::C", "a::b::d::E", "a::G", "x::y::h", "i::J", "x::k"];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}
