//! `docs/mission.md` against the program: no setting, method or error code may be missing there,
//! and every proof that it names must be a test.

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

#[test]
fn every_setting_stands_in_the_mission() {
    let output = run(emberd(&["config", "show", "--json"]), "");
    let lines: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mission = mission();
    let mut keys = BTreeSet::new();
    for line in lines.as_array().unwrap() {
        let key = line["key"].as_str().unwrap();
        keys.insert(match key.strip_prefix("models.") {
            Some(rest) => format!("models.<id>.{}", rest.split_once('.').unwrap().1),
            None => key.to_owned(),
        });
    }
    // Where a folder is given, there is one more.
    keys.insert("models.<id>.local_path".into());
    assert!(keys.len() > 25, "{keys:?}");
    for key in &keys {
        assert!(mission.contains(&format!("| `{key}` |")), "docs/mission.md lacks {key}");
    }
    for row in mission.lines().filter_map(|line| line.strip_prefix("| `models.<id>.")) {
        let key = format!("models.<id>.{}", row.split('`').next().unwrap());
        assert!(keys.contains(&key), "docs/mission.md has {key}, which is no setting");
    }
}

#[test]
fn every_error_code_and_request_stands_in_the_mission() {
    let mission = mission();
    for code in ErrorCode::ALL {
        assert!(mission.contains(&format!("| `{code}` |")), "docs/mission.md lacks {code}");
    }
    let client = ["client.rs", "care.rs", "text.rs", "rerank.rs"]
        .map(|file| std::fs::read_to_string(root().join("client/src").join(file)).unwrap())
        .concat();
    let connects = ["connect", "connect_to", "connect_or_start", "builder", "ping", "daemon"];
    // What every model in the hands of a program has, and what an answer shows.
    let small = [
        "info",
        "lease",
        "client",
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
    let mut folders =
        vec![root().join("tests"), root().join("daemon/src"), root().join("client/tests")];
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
            assert!(tests.contains(name), "docs/mission.md names {name}, which is no test");
            proofs += 1;
        }
    }
    assert!(proofs > 30, "{proofs} proofs");
}
