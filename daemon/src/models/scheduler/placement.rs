//! Where a model goes, and who leaves for it: a pure function over figures.
//!
//! For each device that the model may use, in order of preference:
//! 1. there is room: it is loaded there;
//! 2. there will be, once those that are leaving have left: it waits;
//! 3. there would be without some idle models: the least recently used of them leave;
//! 4. (where it has no other device) there would be without some that nobody holds, though they
//!    have work: these take no more, and leave when it is done.
//!
//! What is on its way into memory is waited for: it may be idle soon. What can never fit is refused
//! at once, and so is what has no room since others are held: their holders may take for ever.

use crate::ground::bytes::shown;
use crate::models::scheduler::device::{Device, DeviceChoice, DeviceFigures, Devices};
use crate::models::scheduler::{InstanceId, Policy};
use emberd_engine::Need;

use emberd_protocol::ModelId;
use std::time::Instant;

/// A model in memory, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Which copy.
    pub copy: InstanceId,
    /// Of which model.
    pub model: ModelId,
    /// Where.
    pub device: Device,
    /// What it takes there.
    pub bytes: u64,
    /// Whether it counts for `sharing.max_shared_models`.
    pub is_shared: bool,
    /// Whether it could go.
    pub standing: Standing,
}

/// Whether a model in memory could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody holds or uses it, since then.
    Idle(Instant),
    /// Nobody holds it, but it has work; last used then.
    Busy(Instant),
    /// It is held.
    Held,
    /// It is on its way in.
    Coming,
    /// It is on its way out.
    Leaving,
}

/// What a model wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// What it takes.
    pub need: Need,
    /// Where it may compute.
    pub choice: DeviceChoice,
    /// Whether it counts for `sharing.max_shared_models`.
    pub is_shared: bool,
    /// A device that had no memory for it a moment ago.
    pub avoid: Option<Device>,
}

/// What is decided, with reasons for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What.
    pub verdict: PlacementVerdict,
    /// Where, if anywhere.
    pub device: Option<Device>,
    /// Why.
    pub reasons: Vec<String>,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementVerdict {
    /// It is loaded.
    Load {
        /// What it will take.
        bytes: u64,
    },
    /// It waits for what is coming or leaving.
    Wait,
    /// These leave first; those with work when it is done.
    MakeRoom(Vec<InstanceId>),
    /// No device can ever hold it, or none is there: `DEVICE_ERROR`.
    Never,
    /// The memory is held: `DEVICE_ERROR`, which may pass.
    NoMemory,
    /// As many models as may be are loaded, and all are held: `LIMIT_EXCEEDED`, which may pass.
    TooMany,
}

/// Decides.
#[must_use]
pub fn place(wish: &Wish, policy: &Policy, devices: &Devices, residents: &[Resident]) -> Placement {
    let mut reasons = Vec::new();
    let candidates = candidates(wish, devices, residents, &mut reasons);
    if candidates.is_empty() {
        return Placement { verdict: PlacementVerdict::Never, device: None, reasons };
    }
    let mut refused = None;
    for (at, (figures, bytes)) in candidates.iter().enumerate() {
        let room = Room { wish, policy, figures, bytes: *bytes, residents };
        let may_drain = at + 1 == candidates.len();
        let (verdict, reason) = room.decide(may_drain);
        reasons.push(reason);
        let device = Some(figures.device);
        match verdict {
            PlacementVerdict::NoMemory | PlacementVerdict::TooMany | PlacementVerdict::Never => {
                refused = Some(Placement { verdict, device, reasons: Vec::new() });
            }
            verdict => return Placement { verdict, device, reasons },
        }
    }
    let refused = refused.unwrap_or(Placement {
        verdict: PlacementVerdict::Never,
        device: None,
        reasons: Vec::new(),
    });
    Placement { reasons, ..refused }
}

/// The devices that the model could be on, the preferred first, and what it takes there.
fn candidates<'a>(
    wish: &Wish,
    devices: &'a Devices,
    residents: &[Resident],
    reasons: &mut Vec<String>,
) -> Vec<(&'a DeviceFigures, u64)> {
    let mut candidates = Vec::new();
    if wish.choice.allows_gpus() && wish.need.gpu_bytes.is_some() {
        reasons.extend(devices.missing.iter().cloned());
    }
    let there = &devices.figures;
    for figures in there.iter().filter(|figures| wish.choice.allows(figures.device)) {
        let device = figures.device;
        let Some(bytes) = device.share_of(wish.need) else {
            reasons.push(format!("{device}: this kind of model computes on the CPU only"));
            continue;
        };
        if wish.avoid == Some(device) {
            reasons.push(format!("{device}: had no memory for it a moment ago"));
            continue;
        }
        if bytes > figures.budget_bytes {
            reasons.push(format!(
                "{device}: it needs {}, which is more than the {} that models may ever take there",
                shown(bytes),
                shown(figures.budget_bytes),
            ));
            continue;
        }
        candidates.push((figures, bytes));
    }
    reasons.extend(no_device(wish.choice, devices));
    // GPUs before the CPU; among them the one with the most room, which spreads models.
    let free = |figures: &DeviceFigures| {
        figures.capacity_bytes().saturating_sub(used_bytes(figures.device, residents))
    };
    candidates.sort_by_key(|(figures, _)| {
        (figures.device == Device::Cpu, std::cmp::Reverse(free(figures)), figures.device)
    });
    candidates
}

/// Why a model that is to be on such a device has no place, if there is none.
fn no_device(choice: DeviceChoice, devices: &Devices) -> Option<String> {
    let there = &devices.figures;
    if there.iter().any(|figures| choice.allows(figures.device)) {
        return None;
    }
    let all: Vec<_> = there.iter().map(|figures| figures.device.to_string()).collect();
    Some(format!(
        "it is to be on \"{choice}\", and there is no such device (there is {}): set its device to \
         \"auto\" or \"cpu\"",
        all.join(", ")
    ))
}

/// The refusal of a model that has no place whatever it takes: for this nothing needs to be fetched.
/// `None` as long as GPUs may still be found.
pub(super) fn refuse_unseen(choice: DeviceChoice, devices: &Devices) -> Option<Placement> {
    let is_gpu = |figures: &DeviceFigures| figures.device != Device::Cpu;
    let were_looked_for = !devices.missing.is_empty() || devices.figures.iter().any(is_gpu);
    let reason = no_device(choice, devices).filter(|_| were_looked_for)?;
    let reasons = devices.missing.iter().cloned().chain([reason]).collect();
    Some(Placement { verdict: PlacementVerdict::Never, device: None, reasons })
}

/// What our models take of a device.
fn used_bytes(device: Device, residents: &[Resident]) -> u64 {
    residents.iter().filter(|r| r.device == device).map(|r| r.bytes).sum()
}

/// One device as the home of one model.
struct Room<'a> {
    wish: &'a Wish,
    policy: &'a Policy,
    figures: &'a DeviceFigures,
    bytes: u64,
    residents: &'a [Resident],
}

impl Room<'_> {
    fn decide(&self, may_drain: bool) -> (PlacementVerdict, String) {
        let device = self.figures.device;
        let capacity = self.figures.capacity_bytes();
        let used = used_bytes(device, self.residents);
        let figures = format!(
            "{device}: it needs {}, models have {} of {}",
            shown(self.bytes),
            shown(used),
            shown(capacity),
        );
        if self.has_room(|_| false) {
            return (PlacementVerdict::Load { bytes: self.bytes }, format!("{figures}: room"));
        }
        let is_leaving = |resident: &Resident| resident.standing == Standing::Leaving;
        if self.has_room(is_leaving) {
            return (PlacementVerdict::Wait, format!("{figures}: room once others have left"));
        }
        let is_idle = |resident: &Resident| matches!(resident.standing, Standing::Idle(_));
        if let Some(leave) = self.victims(is_idle) {
            let names = self.names(&leave);
            let reason = format!("{figures}: room without the idle {names}");
            return (PlacementVerdict::MakeRoom(leave), reason);
        }
        let is_unheld = |resident: &Resident| {
            matches!(resident.standing, Standing::Idle(_) | Standing::Busy(_))
        };
        if may_drain && let Some(leave) = self.victims(is_unheld) {
            let names = self.names(&leave);
            let reason = format!("{figures}: room once {names} has ended its work");
            return (PlacementVerdict::MakeRoom(leave), reason);
        }
        let is_coming = |resident: &Resident| {
            is_leaving(resident) || is_unheld(resident) || resident.standing == Standing::Coming
        };
        if may_drain && self.has_room(is_coming) {
            let reason = format!("{figures}: what is being loaded may be idle soon");
            return (PlacementVerdict::Wait, reason);
        }
        let held: Vec<InstanceId> = self
            .residents
            .iter()
            .filter(|resident| resident.standing == Standing::Held)
            .map(|resident| resident.copy)
            .collect();
        if self.wish.is_shared && self.too_many(&|_| false) && self.fits(&|_| false) {
            let reason = format!(
                "{} models are loaded, as many as may be (sharing.max_shared_models), and none of \
                 them is idle: held are {}",
                self.policy.max_shared_models,
                self.names(&held)
            );
            return (PlacementVerdict::TooMany, reason);
        }
        let held = self.names(&held);
        let held = if held.is_empty() { "other programs have the rest".to_owned() } else { held };
        (PlacementVerdict::NoMemory, format!("{figures}: no room; held are {held}"))
    }

    /// Whether it could be loaded if some were gone.
    fn has_room(&self, gone: impl Fn(&Resident) -> bool) -> bool {
        self.fits(&gone) && !(self.wish.is_shared && self.too_many(&gone))
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

    /// The least recently used of those that may go, as few as make room.
    fn victims(&self, may_go: impl Fn(&Resident) -> bool) -> Option<Vec<InstanceId>> {
        let mut willing: Vec<&Resident> = self.residents.iter().filter(|r| may_go(r)).collect();
        // Idle ones before those with work, each by their last use.
        willing.sort_by_key(|resident| match resident.standing {
            Standing::Idle(since) => (0, Some(since), resident.copy),
            Standing::Busy(since) => (1, Some(since), resident.copy),
            _ => (2, None, resident.copy),
        });
        let has_room_without = |chosen: &[InstanceId]| {
            self.has_room(|resident| {
                resident.standing == Standing::Leaving || chosen.contains(&resident.copy)
            })
        };
        let mut chosen = Vec::new();
        for resident in willing {
            // One that helps neither the device nor the count stays.
            let helps = resident.device == self.figures.device && resident.bytes > 0
                || self.wish.is_shared && resident.is_shared;
            if helps {
                chosen.push(resident.copy);
            }
            if has_room_without(&chosen) {
                break;
            }
        }
        if !has_room_without(&chosen) {
            return None;
        }
        // Those taken first may be more than the last one made necessary; the newest stay first.
        for at in (0..chosen.len()).rev() {
            let mut fewer = chosen.clone();
            fewer.remove(at);
            if has_room_without(&fewer) {
                chosen = fewer;
            }
        }
        Some(chosen)
    }

    fn names(&self, copies: &[InstanceId]) -> String {
        let of = |copy: &InstanceId| self.residents.iter().find(|resident| resident.copy == *copy);
        let names: Vec<String> = copies
            .iter()
            .filter_map(of)
            .map(|resident| format!("\"{}\"", resident.model))
            .collect();
        names.join(", ")
    }
}
