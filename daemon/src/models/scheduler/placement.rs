//! On which device a model is loaded, and which models are unloaded for it: a pure function of
//! figures.
//!
//! For each device that the model may use, in order of preference:
//! 1. There is room: the model is loaded there.
//! 2. There will be room when the instances that are leaving have left: it waits.
//! 3. There would be room without some idle instances: the least recently used of them leave.
//! 4. On the last device only: there would be room without some instances that no lease holds but
//!    that have work: they accept no more, and leave when it is done.
//!
//! An instance that is loading is waited for, since it may be idle soon. A model that can never fit
//! is refused at once, and so is one whose room is held by leases: their holders may keep them for
//! ever.

use crate::ground::bytes::shown;
use crate::ground::device::{Device, DeviceChoice};
use crate::models::scheduler::device::{DeviceFigures, Devices, need_on};
use crate::models::scheduler::ids::InstanceId;
use crate::models::scheduler::policy::Policy;
use emberd_engine::Need;
use emberd_protocol::ModelId;
use std::time::Instant;

/// An instance in memory, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// The instance.
    pub instance: InstanceId,
    /// Its model.
    pub model: ModelId,
    /// Its device.
    pub device: Device,
    /// The memory that it takes there.
    pub bytes: u64,
    /// Whether it counts for `sharing.max_shared_models`.
    pub is_shared: bool,
    /// Whether it can be unloaded.
    pub residency: Residency,
}

/// Whether an instance in memory can be unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Neither held nor used since then.
    Idle(Instant),
    /// No lease holds it, but it has work; last used then.
    Busy(Instant),
    /// Leases hold it.
    Held,
    /// It is being loaded.
    Loading,
    /// It is draining or being unloaded.
    Leaving,
}

/// A model that needs a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementRequest {
    /// The memory that it takes.
    pub need: Need,
    /// The devices that it may use.
    pub choice: DeviceChoice,
    /// Whether it counts for `sharing.max_shared_models`.
    pub is_shared: bool,
    /// A device that ran out of memory when the model was loaded there a moment ago.
    pub avoid: Option<Device>,
}

/// A decision, with reasons for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The decision.
    pub verdict: PlacementVerdict,
    /// The device that it concerns, if any.
    pub device: Option<Device>,
    /// Why, device by device.
    pub reasons: Vec<String>,
}

/// A decision about a model that needs a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementVerdict {
    /// It is loaded.
    Load {
        /// The memory that it needs.
        bytes: u64,
    },
    /// It waits for instances that are loading or leaving.
    Wait,
    /// These instances leave first; those with work when it is done.
    MakeRoom(Vec<InstanceId>),
    /// No device can ever take it, or none is available: `DEVICE_ERROR`.
    Never,
    /// The memory is held, which may change: `DEVICE_ERROR`.
    NoMemory,
    /// The maximum of shared models is loaded and all are held, which may change:
    /// `LIMIT_EXCEEDED`.
    TooMany,
}

/// Decides on which device a model is loaded, and which instances leave for it.
#[must_use]
pub fn place(
    request: &PlacementRequest,
    policy: &Policy,
    devices: &Devices,
    residents: &[Resident],
) -> Placement {
    let mut reasons = Vec::new();
    let candidates = candidates(request, devices, residents, &mut reasons);
    let mut refused = None;
    for (at, (figures, bytes)) in candidates.iter().enumerate() {
        let candidate = DeviceCandidate { request, policy, figures, bytes: *bytes, residents };
        let may_drain = at + 1 == candidates.len();
        let (verdict, reason) = candidate.decide(may_drain);
        reasons.push(reason);
        let device = Some(figures.device);
        match verdict {
            PlacementVerdict::NoMemory | PlacementVerdict::TooMany | PlacementVerdict::Never => {
                refused = Some((verdict, device));
            }
            PlacementVerdict::Load { .. }
            | PlacementVerdict::Wait
            | PlacementVerdict::MakeRoom(_) => return Placement { verdict, device, reasons },
        }
    }
    let (verdict, device) = refused.unwrap_or((PlacementVerdict::Never, None));
    Placement { verdict, device, reasons }
}

/// Refuses a model that no device can take whatever its size, so its files need not be fetched.
/// `None` as long as GPUs have not been looked for.
pub(super) fn refuse_unseen(choice: DeviceChoice, devices: &Devices) -> Option<Placement> {
    let is_gpu = |figures: &DeviceFigures| figures.device != Device::Cpu;
    let were_looked_for = !devices.missing.is_empty() || devices.figures.iter().any(is_gpu);
    let reason = no_device(choice, devices).filter(|_| were_looked_for)?;
    let reasons = devices.missing.iter().cloned().chain([reason]).collect();
    Some(Placement { verdict: PlacementVerdict::Never, device: None, reasons })
}

/// The devices that can take the model, the preferred first, and the memory that it needs there.
fn candidates<'a>(
    request: &PlacementRequest,
    devices: &'a Devices,
    residents: &[Resident],
    reasons: &mut Vec<String>,
) -> Vec<(&'a DeviceFigures, u64)> {
    let mut candidates = Vec::new();
    if request.choice.allows_gpus() && request.need.gpu_bytes.is_some() {
        reasons.extend(devices.missing.iter().cloned());
    }
    for figures in devices.figures.iter().filter(|f| request.choice.allows(f.device)) {
        let device = figures.device;
        let Some(bytes) = need_on(device, request.need) else {
            reasons.push(format!("{device}: this kind of model runs on the CPU only"));
            continue;
        };
        if request.avoid == Some(device) {
            reasons.push(format!("{device}: ran out of memory for this model a moment ago"));
            continue;
        }
        if bytes > figures.budget_bytes {
            reasons.push(format!(
                "{device}: needs {}, more than the {} that models may use there",
                shown(bytes),
                shown(figures.budget_bytes),
            ));
            continue;
        }
        candidates.push((figures, bytes));
    }
    reasons.extend(no_device(request.choice, devices));
    // GPUs before the CPU; among them the one with the most room, which spreads models.
    let free = |figures: &DeviceFigures| {
        figures.capacity_bytes().saturating_sub(used_bytes(figures.device, residents))
    };
    candidates.sort_by_key(|(figures, _)| {
        (figures.device == Device::Cpu, std::cmp::Reverse(free(figures)), figures.device)
    });
    candidates
}

/// Why a choice allows none of the devices, if it allows none.
fn no_device(choice: DeviceChoice, devices: &Devices) -> Option<String> {
    let available = &devices.figures;
    if available.iter().any(|figures| choice.allows(figures.device)) {
        return None;
    }
    let all: Vec<_> = available.iter().map(|figures| figures.device.to_string()).collect();
    Some(format!(
        "its device is set to \"{choice}\", but this machine has only {}: set it to \"auto\" or \
         \"cpu\"",
        all.join(", ")
    ))
}

/// The memory that our models take on a device.
fn used_bytes(device: Device, residents: &[Resident]) -> u64 {
    residents.iter().filter(|r| r.device == device).map(|r| r.bytes).sum()
}

/// One device for one model.
struct DeviceCandidate<'a> {
    request: &'a PlacementRequest,
    policy: &'a Policy,
    figures: &'a DeviceFigures,
    /// The memory that the model needs on this device.
    bytes: u64,
    residents: &'a [Resident],
}

impl DeviceCandidate<'_> {
    fn decide(&self, may_drain: bool) -> (PlacementVerdict, String) {
        let device = self.figures.device;
        let figures = format!(
            "{device}: needs {}, models use {} of {}",
            shown(self.bytes),
            shown(used_bytes(device, self.residents)),
            shown(self.figures.capacity_bytes()),
        );
        if self.has_room(|_| false) {
            return (PlacementVerdict::Load { bytes: self.bytes }, format!("{figures}: it fits"));
        }
        let is_leaving = |resident: &Resident| resident.residency == Residency::Leaving;
        if self.has_room(is_leaving) {
            let reason = format!("{figures}: it fits once others are unloaded");
            return (PlacementVerdict::Wait, reason);
        }
        let is_idle = |resident: &Resident| matches!(resident.residency, Residency::Idle(_));
        if let Some(evicted) = self.victims(is_idle) {
            let reason = format!(
                "{figures}: it fits once {} is unloaded, which is idle",
                self.names(&evicted)
            );
            return (PlacementVerdict::MakeRoom(evicted), reason);
        }
        let is_unheld = |resident: &Resident| {
            matches!(resident.residency, Residency::Idle(_) | Residency::Busy(_))
        };
        if may_drain && let Some(evicted) = self.victims(is_unheld) {
            let names = self.names(&evicted);
            let reason = format!("{figures}: it fits once the running work of {names} ends");
            return (PlacementVerdict::MakeRoom(evicted), reason);
        }
        let may_leave = |resident: &Resident| {
            is_leaving(resident) || is_unheld(resident) || resident.residency == Residency::Loading
        };
        if may_drain && self.has_room(may_leave) {
            let reason =
                format!("{figures}: it may fit once models that are still loading become idle");
            return (PlacementVerdict::Wait, reason);
        }
        self.refuse(&figures)
    }

    /// The refusal of a model whose room is held.
    fn refuse(&self, figures: &str) -> (PlacementVerdict, String) {
        let held = self.residents.iter().filter(|r| r.residency == Residency::Held);
        let held = self.names(&held.map(|resident| resident.instance).collect::<Vec<_>>());
        if self.request.is_shared && self.too_many(&|_| false) && self.fits(&|_| false) {
            let reason = format!(
                "sharing.max_shared_models allows {} models and none of the loaded ones is idle: \
                 leases hold {held}",
                self.policy.max_shared_models,
            );
            return (PlacementVerdict::TooMany, reason);
        }
        let holders = if held.is_empty() {
            "other programs use the rest".into()
        } else {
            format!("leases hold {held}")
        };
        (PlacementVerdict::NoMemory, format!("{figures}: it does not fit; {holders}"))
    }

    /// Whether the model could be loaded if some instances were gone.
    fn has_room(&self, gone: impl Fn(&Resident) -> bool) -> bool {
        self.fits(&gone) && !(self.request.is_shared && self.too_many(&gone))
    }

    fn fits(&self, gone: &dyn Fn(&Resident) -> bool) -> bool {
        let here = self.residents.iter().filter(|r| r.device == self.figures.device);
        let used: u64 = here.filter(|r| !gone(r)).map(|r| r.bytes).sum();
        used.saturating_add(self.bytes) <= self.figures.capacity_bytes()
    }

    fn too_many(&self, gone: &dyn Fn(&Resident) -> bool) -> bool {
        let shared = self.residents.iter().filter(|r| r.is_shared && !gone(r)).count();
        shared >= self.policy.max_shared_models
    }

    /// The least recently used of those that may leave, as few as make room.
    fn victims(&self, may_leave: impl Fn(&Resident) -> bool) -> Option<Vec<InstanceId>> {
        let mut willing: Vec<&Resident> = self.residents.iter().filter(|r| may_leave(r)).collect();
        // Idle ones before those with work, each by their last use.
        willing.sort_by_key(|resident| match resident.residency {
            Residency::Idle(since) => (0, Some(since), resident.instance),
            Residency::Busy(since) => (1, Some(since), resident.instance),
            Residency::Held | Residency::Loading | Residency::Leaving => {
                (2, None, resident.instance)
            }
        });
        let has_room_without = |chosen: &[InstanceId]| {
            self.has_room(|resident| {
                resident.residency == Residency::Leaving || chosen.contains(&resident.instance)
            })
        };
        let mut chosen = Vec::new();
        for resident in willing {
            // One that frees neither memory here nor one of the shared models stays.
            let helps = resident.device == self.figures.device && resident.bytes > 0
                || self.request.is_shared && resident.is_shared;
            if helps {
                chosen.push(resident.instance);
            }
            if has_room_without(&chosen) {
                break;
            }
        }
        if !has_room_without(&chosen) {
            return None;
        }
        // The last one may have made some of the earlier ones unnecessary: those used last stay.
        for at in (0..chosen.len()).rev() {
            let mut fewer = chosen.clone();
            fewer.remove(at);
            if has_room_without(&fewer) {
                chosen = fewer;
            }
        }
        Some(chosen)
    }

    fn names(&self, instances: &[InstanceId]) -> String {
        let of = |id: &InstanceId| self.residents.iter().find(|r| r.instance == *id);
        let names: Vec<String> =
            instances.iter().filter_map(of).map(|r| format!("\"{}\"", r.model)).collect();
        names.join(", ")
    }
}
