//! Reading settings again, and what may go wrong with it.

use crate::settings::Settings;
use std::error::Error;

/// Reads the settings again.
pub(crate) type SettingsReader = dyn Fn() -> Result<Settings, SettingsReadError> + Send + Sync;

/// What is wrong with settings, in the words of the program that reads them.
pub(crate) type SettingsReadError = Box<dyn Error + Send + Sync>;

/// Why the settings in force stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The daemon was built without a reader.
    #[error("the program that built this daemon gave it no settings to read again")]
    NoReader,
    /// They cannot be read, or something in them is wrong.
    #[error(transparent)]
    Read(SettingsReadError),
    /// A defect.
    #[error("reading the settings panicked")]
    Panicked,
}
