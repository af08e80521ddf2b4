//! The output of a command. A file gets its name when it is complete, so that a partial one is never
//! mistaken for a complete one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names to try for a partial file. A name is taken only if a killed program left its file behind.
const NAMES: u32 = 1000;

/// Standard output, or a file.
pub(super) struct OutFile {
    pub(super) writer: Box<dyn Write>,
    /// The partial file and its final name.
    rename: Option<(PathBuf, PathBuf)>,
}

impl OutFile {
    /// Opens a path; `None` is standard output.
    ///
    /// A regular file is written under another name in the same folder and then renamed. Symbolic links
    /// are followed, and the file keeps the mode of the one that it replaces. Pipes, devices, everything
    /// below `/dev` and `/proc`, and files in a folder without write permission are written in place.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            let writer = Box::new(BufWriter::new(io::stdout().lock()));
            return Ok(Self { writer, rename: None });
        };
        let in_place = |path: &Path| {
            let writer = Box::new(BufWriter::new(File::create(path)?));
            Ok(Self { writer, rename: None })
        };
        let is_systems = |path: &Path| path.starts_with("/dev") || path.starts_with("/proc");
        let (target, mode) = match fs::metadata(path) {
            Ok(found) if found.is_file() => {
                // A read-only file is not replaced, even if its folder is writable.
                OpenOptions::new().write(true).open(path)?;
                (fs::canonicalize(path)?, Some(found.permissions()))
            }
            Ok(_) => return in_place(path),
            // A dangling link.
            Err(_) if fs::symlink_metadata(path).is_ok() => return in_place(path),
            Err(_) => (std::path::absolute(path)?, None),
        };
        if is_systems(&std::path::absolute(path)?) || is_systems(&target) {
            return in_place(path);
        }
        match create_beside(&target, mode.as_ref()) {
            Ok((file, partial)) => {
                let writer = Box::new(BufWriter::new(file));
                Ok(Self { writer, rename: Some((partial, target)) })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mode.is_some() => {
                in_place(path)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the file its final name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        match self.rename.take() {
            Some((partial, target)) => {
                let renamed = fs::rename(&partial, target);
                if renamed.is_err() {
                    // The partial file would stay behind otherwise.
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
            // The failure has been reported.
            let _ = fs::remove_file(partial);
        }
    }
}

/// A new file with an unused name in the folder of `target`.
fn create_beside(target: &Path, mode: Option<&Permissions>) -> io::Result<(File, PathBuf)> {
    let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    for number in 0..NAMES {
        let mut partial = name.to_owned();
        partial.push(format!(".{}-{number}.partial", std::process::id()));
        let partial = target.with_file_name(partial);
        let mut options = OpenOptions::new();
        // A file that others may not read is never readable to them, not even while it is written.
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
