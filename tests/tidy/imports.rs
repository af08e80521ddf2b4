//! Which module paths a source file names. Knows enough of Rust's grammar for the sources here.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Range;
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
/// that the text defines. An empty path is the root itself, or all its names.
pub(super) fn paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let text = code(text);
    let inline = inline_modules(&text);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("::") {
        let before = text[..at].trim_end_matches(is_of_name);
        let first = &text[before.len()..at];
        if before.ends_with("::") || before.ends_with('$') {
            continue;
        }
        let mut own = module.to_vec();
        let around = inline.iter().filter(|(range, _)| range.contains(&at));
        own.extend(around.map(|(_, name)| name.clone()));
        let start: Vec<String> = match first {
            "crate" => Vec::new(),
            "self" => own,
            "super" => own[..own.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        tree(&mut text[at + 2..].chars().peekable(), start, &mut found);
    }
    found.into_iter().map(|(path, _)| path).collect()
}

/// The names that the package's root re-exports from its own modules, with their paths.
pub(super) fn re_exports(root: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = Vec::new();
    let text = code(root);
    for (at, visible) in text.match_indices("pub use ") {
        let rest = &text[at + visible.len()..];
        let rest = rest.strip_prefix("crate::").or(rest.strip_prefix("self::")).unwrap_or(rest);
        tree(&mut rest.chars().peekable(), Vec::new(), &mut found);
    }
    found.into_iter().map(|(path, name)| (name, path)).collect()
}

/// Follows a `use` tree or a path: names, and groups in braces. Finds paths, and the names that they
/// get.
fn tree(
    chars: &mut Peekable<Chars<'_>>,
    mut path: Vec<String>,
    found: &mut Vec<(Vec<String>, String)>,
) {
    loop {
        skip_space(chars);
        if chars.peek() == Some(&'{') {
            chars.next();
            skip_space(chars);
            while chars.peek().is_some_and(|c| *c != '}') {
                tree(chars, path.clone(), found);
                skip_space(chars);
                // Up to the next branch.
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
        match name(chars).as_str() {
            "" | "self" => break,
            "super" => drop(path.pop()),
            other => path.push(other.to_owned()),
        }
        let mut ahead = chars.clone();
        if (ahead.next(), ahead.next()) != (Some(':'), Some(':')) {
            break;
        }
        chars.next();
        chars.next();
    }
    let mut ahead = chars.clone();
    skip_space(&mut ahead);
    let own_name = path.last().cloned().unwrap_or_default();
    let is_renamed = name(&mut ahead) == "as";
    skip_space(&mut ahead);
    found.push((path, if is_renamed { name(&mut ahead) } else { own_name }));
}

fn name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| is_of_name(*c)) {
        name.push(c);
    }
    name
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

/// The modules that are written out in a text, outer ones first, with their names.
fn inline_modules(text: &str) -> Vec<(Range<usize>, String)> {
    let mut modules = Vec::new();
    for (at, keyword) in text.match_indices("mod ") {
        if text[..at].ends_with(is_of_name) {
            continue;
        }
        let mut chars = text[at + keyword.len()..].chars().peekable();
        let module = name(&mut chars);
        skip_space(&mut chars);
        if chars.next_if_eq(&'{').is_none() {
            continue;
        }
        let body: String = chars.collect();
        let start = text.len() - body.len();
        let mut depth = 1;
        let end = body.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        modules.push((start..start + end.unwrap_or(body.len()), module));
    }
    modules
}

/// The text without comments, and without the contents of literals. No space is left around `::`.
pub(super) fn code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_in_name = kept.ends_with(is_of_name);
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_len(rest),
            '"' => string_len(rest),
            'r' if !is_in_name || kept.ends_with(is_of_literal_prefix) => raw_string_len(rest),
            '\'' => char_len(rest),
            _ => 0,
        };
        if skipped == 0 {
            kept.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            // Keeps what stands before and behind apart.
            kept.push(' ');
            rest = &rest[skipped..];
        }
    }
    let mut parts = kept.split("::");
    let mut joined = parts.next().unwrap_or_default().trim_end().to_owned();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        joined.push_str("::");
        let part = part.trim_start();
        joined.push_str(if parts.peek().is_some() { part.trim_end() } else { part });
    }
    joined
}

fn is_of_literal_prefix(c: char) -> bool {
    matches!(c, 'b' | 'c')
}

/// The length of a comment that begins here; such comments nest.
fn comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string that begins here.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            '\\' if !is_escaped => is_escaped = true,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// The length of a raw string that begins here with `r`, or 0.
fn raw_string_len(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let Some(body) = text[1 + hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let closed = body.find(&end).map(|at| at + end.len());
    text.len() - body.len() + closed.unwrap_or(body.len())
}

/// The length of a character that begins here, or 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let rest = &text[at + c.len_utf8()..];
            at + c.len_utf8() + rest.find('\'').map_or(rest.len(), |end| end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[test]
fn paths_are_found_in_trees_in_code_and_upwards() {
    let text = "
        //! See `crate::not::this`.
        use crate::a::{self, b::{C, d::E as F}, G};
        use super::h;
        fn f() -> crate::i::J { super::super::k(\"crate::not::this\"); $crate::not::this() }
        use other::crate_name;
        use crate :: l
            :: M;
        mod inline { use super::n; mod deeper { use super::super::super::o; } }
        use self::p;
    ";
    let module = ["x", "y", "z"].map(str::to_owned);
    let found = paths(text, &module).into_iter().map(|path| path.join("::"));
    let expected = [
        "a",
        "a::b::C",
        "a::b::d::E",
        "a::G",
        "x::y::h",
        "i::J",
        "x::k",
        "l::M",
        "x::y::z::n",
        "x::y::o",
        "x::y::z::p",
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn literals_and_comments_hide_nothing_behind_them() {
    for literal in [
        r#""ends in a backslash \\""#,
        r#""a quote \" within""#,
        "\"over\n lines\"",
        "\"over \\\n lines\"",
        r###"r"\""###,
        r###"br#"a " within"#"###,
        r#"b'"'"#,
        r#"'"'"#,
        r"'\''",
        r"'\u{22}'",
        "/* one /* two */ \" */",
        "r#type",
        "&'a str",
    ] {
        let text = format!("f({literal}); crate::a::b(\"crate::no\", {literal}); crate::c");
        let found = paths(&text, &[]).into_iter().map(|path| path.join("::"));
        assert_eq!(found.collect::<Vec<_>>(), ["a::b", "c"], "{literal}");
    }
}

#[test]
fn re_exports_are_found_with_the_names_they_get() {
    let text = "mod a;\npub use crate::a::{b::{C, D as E}, f};\npub use a::G;\nuse crate::h;";
    let found: Vec<_> =
        re_exports(text).into_iter().map(|(name, path)| (name, path.join("::"))).collect();
    let expected = [("C", "a::b::C"), ("E", "a::b::D"), ("G", "a::G"), ("f", "a::f")];
    assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
}
