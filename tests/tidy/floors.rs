//! The order of a package's folders. A file imports only from its own folder and from lower floors. So
//! the folders form no circle, and a folder can be read knowing only those below it.

use super::imports::{file_of, module_of, paths};
use super::{root, sources};
use std::collections::BTreeSet;
use std::path::Path;

/// The floors of a package from the top down. Folders that share a floor do not import each other.
struct House {
    sources: &'static str,
    floors: &'static [&'static [&'static str]],
}

const DAEMON: House = House {
    sources: "daemon/src",
    floors: &[
        &["daemon"],
        &["connection"],
        &["request"],
        &["models"],
        &["batching"],
        &["settings"],
        &["cache", "hub", "segment"],
        &["ground"],
    ],
};

const ENGINE: House = House {
    sources: "daemon/engine/src",
    floors: &[
        &["builtin", "load", "memory_need"],
        &["heads", "seq2seq"],
        &["encoder", "tokenizer"],
        &["checkpoint"],
        &["layers"],
        &["api", "kernels"],
        &["device_memory", "side_by_side"],
    ],
};

#[test]
fn the_daemon_imports_downwards() {
    assert_eq!(DAEMON.imports_upwards(), [""; 0]);
}

#[test]
fn the_engine_imports_downwards() {
    assert_eq!(ENGINE.imports_upwards(), [""; 0]);
}

#[test]
fn errors_of_requests_are_named_by_the_request_floor_alone() {
    for (path, text) in sources() {
        let Ok(file) = path.strip_prefix("daemon/src") else { continue };
        let module = module_of(file);
        let names_them =
            |path: &Vec<String>| path.starts_with(&["request", "failure"].map(String::from));
        let is_outside = module.first().is_none_or(|floor| floor != "request");
        let is_named = is_outside && paths(&text, &module).iter().any(names_them);
        assert!(!is_named, "{} names daemon/src/request/failure.rs", path.display());
    }
}

#[test]
fn the_top_of_the_daemon_is_short() {
    let entries = std::fs::read_dir(root().join("daemon/src")).unwrap().count();
    assert!(entries <= 20, "{entries} files and folders");
}

impl House {
    /// A sentence for each import from a higher floor or from another folder on the same floor.
    fn imports_upwards(&self) -> Vec<String> {
        let mut upwards = BTreeSet::new();
        let mut imports = 0;
        for (path, text) in sources() {
            let Ok(file) = path.strip_prefix(self.sources) else { continue };
            let module = module_of(file);
            // The package's root may name all floors.
            let Some(own) = module.first() else { continue };
            let floor = self.floor(own);
            assert!(floor.is_some(), "{} has no floor in {}", path.display(), file!());
            for import in paths(&text, &module) {
                let Some(other) = import.first().filter(|other| *other != own) else { continue };
                // A re-export of the package's root, or a macro.
                let Some(other_floor) = self.floor(other) else { continue };
                imports += 1;
                if Some(other_floor) <= floor {
                    let sources = Path::new(self.sources);
                    let defined = file_of(&root().join(sources), &import).unwrap();
                    let defined = sources.join(defined);
                    upwards.insert(format!("{} imports {}", path.display(), defined.display()));
                }
            }
        }
        assert!(imports > 100, "{imports} imports in {}", self.sources);
        upwards.into_iter().collect()
    }

    fn floor(&self, name: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&name))
    }
}
