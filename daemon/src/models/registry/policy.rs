//! The scheduler's rules, from the settings.

use crate::ground::device::DeviceChoice;
use crate::models::scheduler::{ModelPolicy, Policy};
use crate::settings::Settings;
use emberd_protocol::ModelId;

/// The rules for all models.
pub(super) fn policy(settings: &Settings) -> Policy {
    Policy {
        sharing: settings.sharing.enabled,
        max_shared_models: settings.sharing.max_shared_models,
        unload_after: settings.sharing.unload_after,
        reference_counting: settings.sharing.reference_counting,
        device_preference: settings.device_preference,
        max_leases: settings.limits.leases as usize,
    }
}

/// The rules for each model.
pub(super) fn model_policies(settings: &Settings) -> impl Iterator<Item = (ModelId, ModelPolicy)> {
    settings.models.iter().map(|(id, model)| {
        // Built-in models compute on the CPU, whatever device the other models prefer.
        let device = if model.device == DeviceChoice::Auto && model.is_builtin() {
            DeviceChoice::Cpu
        } else {
            model.device
        };
        (id.clone(), ModelPolicy { is_shared: model.shared, device })
    })
}
