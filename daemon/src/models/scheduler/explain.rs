//! Decisions in the protocol's words, for `emberd why` and `emberd plan`.

use crate::models::scheduler::device::need_on;
use crate::models::scheduler::ids::InstanceId;
use crate::models::scheduler::instances::{Instance, Instances};
use crate::models::scheduler::placement::{Placement, PlacementVerdict};
use emberd_engine::Need;
use emberd_protocol::{Decision, ModelId, Reason, Verdict};
use std::collections::BTreeSet;

/// A decision that concerns no device.
pub(super) fn decision(model: &ModelId, verdict: Verdict, reason: String) -> Decision {
    Decision {
        model: model.clone(),
        verdict,
        device: String::new(),
        need_bytes: 0,
        evicts: Vec::new(),
        reasons: vec![Reason(reason)],
        age_ms: 0,
    }
}

/// A decision about an instance in memory.
pub(super) fn of_instance(instance: &Instance, verdict: Verdict, reason: String) -> Decision {
    Decision {
        device: instance.device.to_string(),
        need_bytes: instance.bytes,
        ..decision(&instance.model, verdict, reason)
    }
}

/// A placement of a model.
pub(super) fn of_placement(
    model: &ModelId,
    need: Need,
    placement: &Placement,
    instances: &Instances,
) -> Decision {
    let (verdict, evicted) = match &placement.verdict {
        PlacementVerdict::Load { .. } => (Verdict::Load, &[][..]),
        PlacementVerdict::Wait => (Verdict::Wait, &[][..]),
        PlacementVerdict::MakeRoom(evicted) => (Verdict::Wait, &evicted[..]),
        PlacementVerdict::Never | PlacementVerdict::NoMemory | PlacementVerdict::TooMany => {
            (Verdict::Refuse, &[][..])
        }
    };
    let model_of = |id: &InstanceId| Some(instances.get(*id)?.model.clone());
    let evicts: BTreeSet<ModelId> = evicted.iter().filter_map(model_of).collect();
    let need_bytes = placement.device.and_then(|device| need_on(device, need));
    Decision {
        model: model.clone(),
        verdict,
        device: placement.device.map(|device| device.to_string()).unwrap_or_default(),
        need_bytes: need_bytes.unwrap_or(need.cpu_bytes),
        evicts: evicts.into_iter().collect(),
        reasons: placement.reasons.iter().cloned().map(Reason).collect(),
        age_ms: 0,
    }
}
