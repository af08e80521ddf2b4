//! Values that are texts: each function checks one kind. Errors are remedies.

use crate::ground::device::DeviceChoice;
use crate::settings::values::AccessGroup;
use emberd_engine::WeightType;
use emberd_protocol::SegmentBackend;
use nix::unistd::Group;
use std::path::{Path, PathBuf};

/// A device, or a class of devices.
pub(super) fn device(value: &str) -> Result<DeviceChoice, String> {
    value
        .parse()
        .map_err(|()| "use \"auto\", \"gpu\", \"cpu\", or one GPU such as \"cuda:0\"".into())
}

/// A group of users of this machine.
pub(super) fn group(value: &str) -> Result<AccessGroup, String> {
    match Group::from_name(value) {
        Ok(Some(group)) => Ok(AccessGroup { name: group.name, gid: group.gid.as_raw() }),
        _ => Err("give the name of a group of this machine".into()),
    }
}

/// A backend of shared memory.
pub(super) fn backend(value: &str) -> Result<SegmentBackend, String> {
    match value {
        "memfd" => Ok(SegmentBackend::Memfd),
        "posix" => Ok(SegmentBackend::Posix),
        _ => Err("use \"memfd\" or \"posix\"".into()),
    }
}

/// A path, relative to `folder` unless it is absolute. Empty, `remedy` is the error.
pub(super) fn path(value: &str, folder: &Path, remedy: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err(remedy.into()) } else { Ok(folder.join(value)) }
}

/// The folder of a model.
pub(super) fn model_folder(value: &str, folder: &Path) -> Result<PathBuf, String> {
    if value.starts_with("builtin:") {
        return Err("a built-in model has no folder: give it as the name".into());
    }
    path(value, folder, "give the folder that holds the model")
}

/// A name on the hub, or of a built-in model.
pub(super) fn model_name(name: &str) -> Result<String, String> {
    if name.strip_prefix("builtin:").is_some_and(|name| !name.is_empty()) {
        return Ok(name.into());
    }
    let is_part = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        !part.is_empty()
            && part.chars().all(is_allowed)
            && !part.contains("..")
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_part(part)) {
        return Ok(name.into());
    }
    Err("give a name on the hub, such as \"sentence-transformers/all-MiniLM-L6-v2\"".into())
}

/// A revision on the hub.
pub(super) fn revision(value: &str) -> Result<String, String> {
    if crate::hub::is_revision(value) {
        Ok(value.into())
    } else {
        Err("give a branch, a tag or a commit of the model's repository".into())
    }
}

/// A type of weights.
pub(super) fn weight_type(value: &str) -> Result<WeightType, String> {
    let types = [WeightType::F32, WeightType::Bf16];
    let found = types.into_iter().find(|dtype| weight_type_name(*dtype) == value);
    found.ok_or_else(|| "use \"f32\" or \"bf16\"".into())
}

/// The name of a type of weights.
pub(super) fn weight_type_name(dtype: WeightType) -> &'static str {
    match dtype {
        WeightType::F32 => "f32",
        WeightType::Bf16 => "bf16",
    }
}
