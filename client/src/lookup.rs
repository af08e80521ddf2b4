//! Where the program is.

use crate::start::StartError;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the program is called.
const NAME: &str = "emberd";

/// Where it may be; read by the caller, since this file does not read the environment.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// It was named, and no other is meant.
    pub(crate) explicit: Option<PathBuf>,
    /// The program that runs: both may be installed in one folder.
    pub(crate) this_program: Option<PathBuf>,
    /// `$PATH`.
    pub(crate) search: Option<OsString>,
}

/// The first that is there.
pub(crate) fn find(places: &Places) -> Result<PathBuf, StartError> {
    let mut looked_for = candidates(places);
    match looked_for.iter().position(|path| is_program(path)) {
        Some(at) => Ok(looked_for.swap_remove(at)),
        None => Err(StartError::NotFound { looked_for }),
    }
}

fn candidates(places: &Places) -> Vec<PathBuf> {
    if let Some(explicit) = &places.explicit {
        return vec![explicit.clone()];
    }
    let beside = places.this_program.as_deref().and_then(Path::parent).map(|dir| dir.join(NAME));
    let search = places.search.iter().flat_map(std::env::split_paths);
    // An empty part of `$PATH` means the working folder, where nothing is to be trusted.
    let search = search.filter(|dir| dir.is_absolute()).map(|dir| dir.join(NAME));
    beside.into_iter().chain(search).collect()
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
        let mut places = Places {
            explicit: None,
            this_program: Some(beside.join("this")),
            search: Some(format!("::relative:{}", searched.display()).into()),
        };
        let Err(StartError::NotFound { looked_for }) = find(&places) else { panic!("it is not") };
        assert_eq!(looked_for, [beside.join(NAME), searched.join(NAME)]);

        for dir in [&searched, &beside] {
            fs::create_dir(dir).unwrap();
            File::create(dir.join(NAME)).unwrap();
            find(&places).expect_err("a file that cannot be run is no program");
        }
        for dir in [&searched, &beside] {
            fs::set_permissions(dir.join(NAME), Permissions::from_mode(0o755)).unwrap();
            assert_eq!(find(&places).unwrap(), dir.join(NAME));
        }
        places.explicit = Some(folder.path().join("other"));
        let error = find(&places).unwrap_err();
        let named = format!("looked for {}/other: build it", folder.path().display());
        assert!(error.to_string().contains(&named), "{error}");
    }
}
