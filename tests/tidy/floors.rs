//! The order of a package's folders. A file imports only from its own folder and from lower floors. So
//! the folders form no circle, and a folder can be read knowing only those below it.

use super::imports::{code, file_of, module_of, paths, re_exports};
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

const CLIENT: House = House {
    sources: "client/src",
    floors: &[
        &["aio", "blocking"],
        &["builder", "calls"],
        &["transport"],
        &["wire"],
        &["results"],
        &["segment"],
        &["error"],
        &["environment", "options", "sync"],
    ],
};

const PROTOCOL: House = House {
    sources: "protocol/src",
    floors: &[
        &["decoder"],
        &["frame"],
        &["header"],
        &["frame_error", "request", "response"],
        &["generation", "handshake", "status"],
        &["admin", "decision", "model", "segment", "target"],
        &["codec", "error", "event", "id"],
        &["bounded", "frame_kind", "limits", "socket", "text"],
    ],
};

const PROGRAM: House = House {
    sources: "src",
    floors: &[
        &["commands"],
        &["serve"],
        &["args", "detach", "output"],
        &["exit"],
        &["format", "listen"],
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
fn the_client_imports_downwards() {
    assert_eq!(CLIENT.imports_upwards(), [""; 0]);
}

#[test]
fn the_protocol_imports_downwards() {
    assert_eq!(PROTOCOL.imports_upwards(), [""; 0]);
}

#[test]
fn the_program_imports_downwards() {
    assert_eq!(PROGRAM.imports_upwards(), [""; 0]);
}

#[test]
fn no_code_is_hidden_from_these_tests() {
    for (path, text) in sources() {
        let text = code(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        for hidden in ["#[path", "# [path", "include!", "crate as ", "super as "] {
            assert!(!text.contains(hidden), "{} has {hidden:?}", path.display());
        }
    }
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
    ///
    /// A name that the package's root re-exports counts as an import from where it is defined. Any
    /// other name of the root has no floor, so it must not be imported, and neither must all of them.
    fn imports_upwards(&self) -> Vec<String> {
        let sources_folder = Path::new(self.sources);
        let root_file = ["lib.rs", "main.rs"].map(|name| root().join(sources_folder).join(name));
        let root_file = root_file.into_iter().find(|file| file.exists()).unwrap();
        let exports = re_exports(&std::fs::read_to_string(root_file).unwrap());
        let mut upwards = BTreeSet::new();
        let mut imports = 0;
        for (path, text) in sources() {
            let Ok(file) = path.strip_prefix(self.sources) else { continue };
            let module = module_of(file);
            // The package's root may name all floors.
            let Some(own) = module.first() else { continue };
            let floor = self.floor(own);
            assert!(floor.is_some(), "{} has no floor in {}", path.display(), file!());
            for mut import in paths(&text, &module) {
                if import.first().is_some_and(|name| self.floor(name).is_none())
                    && let Some(defined) = exports.get(&import[0])
                {
                    import.splice(..1, defined.iter().cloned());
                }
                let other = import.first().filter(|other| self.floor(other).is_some());
                let Some(other) = other else {
                    let name = format!("crate::{}", import.join("::"));
                    upwards.insert(format!("{} imports {name} from the root", path.display()));
                    continue;
                };
                if other == own {
                    continue;
                }
                imports += 1;
                if self.floor(other) <= floor {
                    let defined = file_of(&root().join(sources_folder), &import).unwrap();
                    let defined = sources_folder.join(defined);
                    upwards.insert(format!("{} imports {}", path.display(), defined.display()));
                }
            }
        }
        assert!(imports > 20, "{imports} imports in {}", self.sources);
        upwards.into_iter().collect()
    }

    fn floor(&self, name: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&name))
    }
}
