//! The rules of the settings, as the scheduler applies them.

use crate::ground::device::DeviceChoice;
use std::time::Duration;

/// The rules for all models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `sharing.enabled`.
    pub sharing: bool,
    /// `sharing.max_shared_models`.
    pub max_shared_models: usize,
    /// `sharing.unload_after_seconds`.
    pub unload_after: Duration,
    /// `sharing.reference_counting`.
    pub reference_counting: bool,
    /// `device_preference`, for models without a device of their own.
    pub device_preference: DeviceChoice,
    /// `limits.leases`: leases of one connection.
    pub max_leases: usize,
}

/// The rules for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPolicy {
    /// `models.<id>.shared`.
    pub is_shared: bool,
    /// `models.<id>.device`.
    pub device: DeviceChoice,
}
