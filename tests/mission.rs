//! `docs/mission.md` against the program: it must list every setting, method and error code and no
//! other, and every proof that it names must be a test.

use crate::support::{emberd, run};
use emberd_protocol::ErrorCode;
use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn mission() -> String {
    std::fs::read_to_string(root().join("docs/mission.md")).unwrap()
}

/// The first name in quotes of each row of a table, by the heading above it.
fn rows(heading: &str, column: usize) -> BTreeSet<String> {
    let mission = mission();
    let (_, table) = mission.split_once(&format!("## {heading}\n")).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let name = |row: &str| Some(row.split('|').nth(column)?.split('`').nth(1)?.to_owned());
    table.lines().filter(|line| line.starts_with("| ")).filter_map(name).collect()
}

/// Every key of the settings, with a value or without.
fn keys() -> BTreeSet<String> {
    let output = run(emberd(&["config", "show", "--json"]), "");
    let lines: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut keys = BTreeSet::new();
    for line in lines.as_array().unwrap() {
        let key = line["key"].as_str().unwrap();
        keys.insert(match key.strip_prefix("models.") {
            Some(rest) => format!("models.<id>.{}", rest.split_once('.').unwrap().1),
            None => key.to_owned(),
        });
    }
    keys
}

#[test]
fn every_setting_is_listed_in_the_mission_and_no_other() {
    let keys = keys();
    assert!(keys.contains("models.<id>.local_path") && keys.contains("access.group"), "{keys:?}");
    assert_eq!(keys, rows("Settings", 1));
}

#[test]
fn no_removed_method_or_code_is_listed_in_the_mission() {
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(codes, rows("Error codes", 1));
    let sources = std::fs::read_dir(root().join("client/src/blocking")).unwrap().flatten();
    let sources = sources.map(|entry| entry.path()).filter(|path| path.is_file());
    let client: String = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let methods = rows("Methods", 2);
    assert!(methods.len() >= 15, "{methods:?}");
    for method in methods {
        let is_there =
            ["(", "<"].iter().any(|end| client.contains(&format!("pub fn {method}{end}")));
        assert!(is_there, "docs/mission.md has {method}, which is not a method of the client");
    }
}

#[test]
fn every_error_code_and_request_is_listed_in_the_mission() {
    let mission = mission();
    for code in ErrorCode::ALL {
        assert!(mission.contains(&format!("| `{code}` |")), "docs/mission.md lacks {code}");
    }
    let client = ["client.rs", "admin.rs", "text.rs", "rerank.rs", "embedding.rs", "lease.rs"]
        .map(|file| std::fs::read_to_string(root().join("client/src/blocking").join(file)).unwrap())
        .concat();
    let connects = ["connect", "connect_to", "connect_or_start", "builder", "ping", "daemon"];
    // Methods that every model of the client has, and accessors of results.
    let small = [
        "info",
        "id",
        "lease",
        "client",
        "embed_one",
        "dimension",
        "len",
        "is_empty",
        "labels",
        "row",
        "rows",
        "as_slice",
        "truncated",
        "tokens",
    ];
    let methods =
        client.split("    pub fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
    let mut count = 0;
    let is_left_out = |name: &str| connects.contains(&name) || small.contains(&name);
    for method in methods.filter(|name| !is_left_out(name) && !name.ends_with("_with")) {
        assert!(mission.contains(&format!("| `{method}` |")), "docs/mission.md lacks {method}");
        count += 1;
    }
    assert!(count >= 12, "{count} methods");
}

#[test]
fn every_proof_is_a_test() {
    let mut tests = BTreeSet::new();
    let sources = ["tests", "daemon/src", "daemon/tests", "daemon/engine", "client/tests"];
    let mut folders = sources.map(|folder| root().join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let names = text.split("#[test]").chain(text.split("#[tokio::test")).skip(1);
                tests.extend(names.filter_map(|after| {
                    Some(after.split("fn ").nth(1)?.split('(').next()?.to_owned())
                }));
            }
        }
    }
    let mission = mission();
    let rows = mission.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let mut proofs = 0;
    for row in rows {
        let proof = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let named: Vec<_> = proof.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || proof.contains("*not yet*"), "no proof: {row}");
        for name in named {
            assert!(tests.contains(name), "docs/mission.md names {name}, which is not a test");
            proofs += 1;
        }
    }
    assert!(proofs > 30, "{proofs} proofs");
}
