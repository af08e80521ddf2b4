//! Faults in the settings, as people see them.

use std::fmt;
use std::path::PathBuf;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Unreadable {
        /// Path of the settings file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// They have these faults.
    #[error("{}", list(.0))]
    Wrong(Vec<Problem>),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the name of the variable.
    pub path: PathBuf,
    /// The line, from 1; 0 for a variable.
    pub line: usize,
    /// The key; empty if the text is not TOML.
    pub key: String,
    /// The fault and its remedy.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
