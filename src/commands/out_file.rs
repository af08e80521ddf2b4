//! Where output goes. A file gets its name when it is whole, so that none ever looks done that is
//! not.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names to try for a file on its way. More than one is taken only by programs that were killed.
const NAMES: u32 = 1000;

/// Standard output, or a file.
pub(super) struct OutFile {
    pub(super) writer: Box<dyn Write>,
    /// What is written, and what it becomes.
    rename: Option<(PathBuf, PathBuf)>,
}

impl OutFile {
    /// Opens a place; `None` is standard output.
    ///
    /// A file is written under another name beside what it becomes, behind all symbolic links, and
    /// gets the mode of what it replaces. A pipe, a device, whatever lies below `/dev` and `/proc`,
    /// and a file in a folder that takes no new ones are written to as they are.
    pub(super) fn open(place: Option<&Path>) -> io::Result<Self> {
        let Some(place) = place else {
            let writer = Box::new(BufWriter::new(io::stdout().lock()));
            return Ok(Self { writer, rename: None });
        };
        let in_place = |place| {
            let writer = Box::new(BufWriter::new(File::create(place)?));
            Ok(Self { writer, rename: None })
        };
        let is_systems = |path: &Path| path.starts_with("/dev") || path.starts_with("/proc");
        let (target, mode) = match fs::metadata(place) {
            Ok(found) if found.is_file() => {
                // Whether it may be written is not for the folder to say.
                OpenOptions::new().write(true).open(place)?;
                (fs::canonicalize(place)?, Some(found.permissions()))
            }
            Ok(_) => return in_place(place),
            // A link to what is not there yet.
            Err(_) if fs::symlink_metadata(place).is_ok() => return in_place(place),
            Err(_) => (std::path::absolute(place)?, None),
        };
        if is_systems(&std::path::absolute(place)?) || is_systems(&target) {
            return in_place(place);
        }
        match create_beside(&target, mode.as_ref()) {
            Ok((file, partial)) => {
                let writer = Box::new(BufWriter::new(file));
                Ok(Self { writer, rename: Some((partial, target)) })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mode.is_some() => {
                in_place(place)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        match self.rename.take() {
            Some((partial, target)) => {
                let renamed = fs::rename(&partial, target);
                if renamed.is_err() {
                    // Else it would stay.
                    let _ = fs::remove_file(partial);
                }
                renamed
            }
            None => Ok(()),
        }
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.rename {
            // What failed has been said.
            let _ = fs::remove_file(partial);
        }
    }
}

/// A new file of a name that nobody has, in the folder of `target`.
fn create_beside(target: &Path, mode: Option<&Permissions>) -> io::Result<(File, PathBuf)> {
    let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    for number in 0..NAMES {
        let mut partial = name.to_owned();
        partial.push(format!(".{}-{number}.partial", std::process::id()));
        let partial = target.with_file_name(partial);
        let mut options = OpenOptions::new();
        // What others may not read is at no time theirs to read.
        options.write(true).create_new(true).mode(if mode.is_some() { 0o600 } else { 0o666 });
        match options.open(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                if let Some(mode) = mode {
                    file.set_permissions(mode.clone())?;
                }
                return Ok((file, partial));
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
