/// How long files are, and how their types are named.
mod files;
/// Which folder may import which.
mod floors;
mod imports;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["src", "client/src", "daemon/src", "daemon/engine/src", "protocol/src"] {
        walk(&root().join(folder), &mut found);
    }
    assert!(found.len() > 40);
    found
}

/// Whether a file has only tests: it, or a folder above it, is named `tests`.
fn is_test(path: &Path) -> bool {
    path.with_extension("").iter().any(|part| part == "tests")
}

/// A file without the tests at its end.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The packages that a package is built from.
fn tree(package: &str) -> Vec<String> {
    let mut names: Vec<_> = packages(package)
        .iter()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    names.dedup();
    names
}

/// The same with their versions.
fn packages(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none", "-p", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut packages: Vec<_> = text.lines().map(name_and_version).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[test]
fn dependencies_run_one_way() {
    let protocol = tree("emberd-protocol");
    let client = tree("emberd-client");
    let daemon = tree("emberd-daemon");
    assert!(protocol.len() > 2 && daemon.len() > 50);
    for heavy in ["candle-core", "tokenizers", "hf-hub", "tokio", "emberd-daemon", "gemm", "rayon"]
    {
        assert!(!client.iter().any(|name| name == heavy), "the client depends on {heavy}");
        assert!(!protocol.iter().any(|name| name == heavy), "the protocol depends on {heavy}");
    }
    assert!(!daemon.iter().any(|name| name == "emberd-client"), "daemon depends on client");
    assert!(!protocol.iter().any(|name| name == "nix" || name == "interprocess"));
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let size = format!("{} packages", packages("emberd-client").len());
    assert!(readme.contains(&size), "the README should say that the client builds from {size}");
}

#[test]
fn bincode_and_daemonize_are_named_in_one_file_each() {
    for (library, home) in
        [("bincode::", "protocol/src/codec.rs"), ("daemonize::", "src/detach.rs")]
    {
        let users: Vec<_> = sources()
            .into_iter()
            .filter(|(_, text)| {
                text.lines()
                    .any(|line| !line.trim_start().starts_with("//") && line.contains(library))
            })
            .map(|(path, _)| path)
            .collect();
        assert_eq!(users, [Path::new(home)], "{library}");
    }
}

#[test]
fn unsafe_code_is_confined_to_named_files_and_justified() {
    // The conformance suite maps segments as a client would.
    let allowed = [
        "daemon/src/segment/tests/conformance.rs",
        "client/src/segment.rs",
        "client/src/wire/socket.rs",
        "daemon/src/ground/memory.rs",
        "daemon/src/models/devices/cuda.rs",
        "daemon/engine/src/kernels/prefetch.rs",
        "daemon/src/connection/frames.rs",
        "daemon/src/segment/mapping.rs",
        "daemon/src/segment/slot.rs",
        "daemon/src/segment/posix_segment.rs",
        "daemon/src/segment/rows.rs",
    ];
    for (path, text) in sources() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let uses = code.filter(|line| line.contains("unsafe ")).count();
        let is_allowed = allowed.iter().any(|name| Path::new(name) == path);
        assert!(uses == 0 || is_allowed, "{} has unsafe code", path.display());
    }
    for forbidding in ["src/main.rs", "protocol/src/lib.rs"] {
        let text = std::fs::read_to_string(root().join(forbidding)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{forbidding}");
    }
}

#[test]
fn only_the_program_reads_the_environment_and_exits() {
    for (path, text) in sources() {
        // The client looks up the socket's path in the environment, in one file.
        if path.starts_with("src") || path == Path::new("client/src/environment.rs") {
            continue;
        }
        // A file with a test only; a variable makes it run longer.
        if path == Path::new("daemon/src/models/scheduler/tests/random.rs") {
            continue;
        }
        for call in ["env::var", "process::exit", "println!", "eprintln!"] {
            let code = text.split("#[cfg(test)]").next().unwrap();
            let used = code
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(call));
            assert!(!used, "{} uses {call}", path.display());
        }
    }
}

#[test]
fn every_relative_link_of_the_documents_leads_somewhere() {
    let mut documents = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|extension| extension == "md") => {
                    documents.push(path);
                }
                _ => {}
            }
        }
    }
    assert!(documents.len() > 10);
    documents
        .extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)));
    for path in documents {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} links to {link}", path.display());
        }
    }
}
