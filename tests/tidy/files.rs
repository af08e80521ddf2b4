//! Files are short, and each type name has one meaning.

use super::{is_test, production, root, sources};
use std::collections::BTreeMap;
use std::process::Command;

const PACKAGES: [&str; 5] =
    ["daemon/engine/src", "daemon/src", "client/src", "protocol/src", "src"];

#[test]
fn production_files_are_short() {
    let lines: Vec<(String, usize)> = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path.display().to_string(), production(&text).lines().count()))
        .collect();
    let long: Vec<_> = lines.iter().filter(|(_, lines)| *lines > 500).collect();
    assert!(long.is_empty(), "files of more than 500 lines: {long:?}");
    let medium: Vec<_> = lines.iter().filter(|(_, lines)| *lines >= 300).collect();
    assert!(
        medium.len() * 10 <= lines.len(),
        "more than a tenth of {} files has 300 lines: {medium:?}",
        lines.len()
    );
}

#[test]
fn a_type_name_means_one_thing_in_a_package() {
    let mut twice = Vec::new();
    for package in PACKAGES {
        let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, text) in sources() {
            // The client's types for futures have the names of the blocking ones, in a module of their own.
            let is_async_face = path.starts_with("client/src/aio");
            if path.starts_with(package) && !is_test(&path) && !is_async_face {
                for name in visible_types(production(&text)) {
                    defined.entry(name.to_owned()).or_default().push(path.display().to_string());
                }
            }
        }
        assert!(defined.len() > 5, "{package}");
        twice.extend(defined.into_iter().filter(|(_, files)| files.len() > 1));
    }
    assert!(twice.is_empty(), "type names that are defined twice: {twice:#?}");
}

#[test]
fn source_files_form_no_circle() {
    let mut script = Command::new("python3");
    let output = match script.arg(root().join("scripts/structure")).arg("--check").output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: python3 cannot be run here ({error})"),
    };
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// The names of types that other files can see.
fn visible_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub")?;
        let rest = match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1.trim_start(),
            None => rest.strip_prefix(' ')?,
        };
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let (kind, rest) = rest.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "type" | "union");
        is_type.then(|| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())?
    })
}

#[test]
fn types_are_seen_whatever_their_visibility() {
    let text = "pub struct A;\npub(crate) enum B {\npub(in crate::x) type C<T> = T;\nstruct D;\n\
                pub(super) unsafe trait E: F {\npub fn g() {}\nmod h {\n    pub struct H;\n}\n\
                pub(crate)struct I;\n";
    assert_eq!(visible_types(text).collect::<Vec<_>>(), ["A", "B", "C", "E", "H", "I"]);
}
