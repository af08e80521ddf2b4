//! Finds the daemon's program.

use crate::error::StartError;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The name of the program's file.
const NAME: &str = "emberd";

/// Where to look for the program.
#[derive(Debug, Default)]
pub(crate) struct ProgramSearch {
    /// Set if the program was named: then it is the only candidate.
    pub(crate) explicit: Option<PathBuf>,
    /// The running program: the daemon's may be installed beside it.
    pub(crate) this_program: Option<PathBuf>,
    /// `$PATH`.
    pub(crate) search_path: Option<OsString>,
}

impl ProgramSearch {
    /// The first candidate that exists and can be run.
    pub(super) fn find(&self) -> Result<PathBuf, StartError> {
        let mut looked_for = self.candidates();
        match looked_for.iter().position(|path| is_program(path)) {
            Some(at) => Ok(looked_for.swap_remove(at)),
            None => Err(StartError::NotFound { looked_for }),
        }
    }

    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(explicit) = &self.explicit {
            return vec![explicit.clone()];
        }
        let beside = self.this_program.as_deref().and_then(Path::parent).map(|dir| dir.join(NAME));
        let search = self.search_path.iter().flat_map(std::env::split_paths);
        // An empty part of `$PATH` means the working folder, whose files cannot be trusted.
        let search = search.filter(|dir| dir.is_absolute()).map(|dir| dir.join(NAME));
        beside.into_iter().chain(search).collect()
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use tempfile::TempDir;

    #[test]
    fn the_named_program_is_the_only_one_then_comes_the_neighbour_then_the_search_path() {
        let folder = TempDir::new().unwrap();
        let (beside, searched) = (folder.path().join("beside"), folder.path().join("searched"));
        let mut program = ProgramSearch {
            explicit: None,
            this_program: Some(beside.join("this")),
            search_path: Some(format!("::relative:{}", searched.display()).into()),
        };
        let Err(StartError::NotFound { looked_for }) = program.find() else {
            panic!("found a program")
        };
        assert_eq!(looked_for, [beside.join(NAME), searched.join(NAME)]);

        for dir in [&searched, &beside] {
            fs::create_dir(dir).unwrap();
            File::create(dir.join(NAME)).unwrap();
            program.find().expect_err("a file that cannot be run is not a program");
        }
        for dir in [&searched, &beside] {
            fs::set_permissions(dir.join(NAME), Permissions::from_mode(0o755)).unwrap();
            assert_eq!(program.find().unwrap(), dir.join(NAME));
        }
        program.explicit = Some(folder.path().join("other"));
        let error = program.find().unwrap_err();
        let named = format!("looked for {}/other: build it", folder.path().display());
        assert!(error.to_string().contains(&named), "{error}");
    }
}
