//! A table of placements.

use crate::models::scheduler::device::need_on;
use crate::models::scheduler::tests::play::{GIB, both, cpu, gpu, id, policy};
use crate::models::scheduler::{
    Device, DeviceChoice, DeviceFigures, Devices, InstanceId, PlacementRequest, PlacementVerdict,
    Residency, Resident, place,
};
use DeviceChoice::{Auto, Cpu, Gpu};
use emberd_engine::Need;
use std::time::{Duration, Instant};

#[test]
fn a_missing_gpu_is_explained_if_one_could_be_used() {
    let driver = "there is no driver";
    let devices = Devices { figures: vec![cpu(64 * GIB)], missing: vec![driver.into()] };
    for (choice, need, is_explained, verdict) in [
        (Auto, both(GIB), true, PlacementVerdict::Load { bytes: GIB }),
        (Gpu, both(GIB), true, PlacementVerdict::Never),
        (DeviceChoice::Cuda(0), both(GIB), true, PlacementVerdict::Never),
        (Cpu, both(GIB), false, PlacementVerdict::Load { bytes: GIB }),
        // No GPU would have helped.
        (
            Auto,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            false,
            PlacementVerdict::Load { bytes: GIB },
        ),
    ] {
        let request = PlacementRequest { need, choice, is_shared: true, avoid: None };
        let placement = place(&request, &policy(), &devices, &[]);
        assert_eq!(placement.verdict, verdict, "{choice}");
        let explained = placement.reasons.iter().any(|reason| reason == driver);
        assert_eq!(explained, is_explained, "{choice}: {:?}", placement.reasons);
    }
}

/// A table of placements: devices, instances in memory, the request, and the decision.
#[test]
fn placements() {
    struct Case {
        what: &'static str,
        devices: Vec<DeviceFigures>,
        there: Vec<(Device, u64, Residency)>,
        choice: DeviceChoice,
        need: Need,
        decided: (&'static str, Option<Device>),
    }
    let now = Instant::now();
    let idle = |ago| Residency::Idle(now.checked_sub(Duration::from_secs(ago)).unwrap());
    let (g0, g1) = (Device::Cuda(0), Device::Cuda(1));
    let one = || vec![cpu(64 * GIB), gpu(0, 80 * GIB, 0)];
    let two = || vec![cpu(64 * GIB), gpu(0, 80 * GIB, 40 * GIB), gpu(1, 80 * GIB, 0)];
    let case = |what, devices, there, choice, need, decided| Case {
        what,
        devices,
        there,
        choice,
        need,
        decided,
    };
    let cases = [
        case("a GPU with room", one(), vec![], Auto, both(GIB), ("load", Some(g0))),
        case("the CPU, as configured", one(), vec![], Cpu, both(GIB), ("load", Some(Device::Cpu))),
        case(
            "no GPU: the CPU",
            vec![cpu(64 * GIB)],
            vec![],
            Auto,
            both(GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "no GPU, and it must be one",
            vec![cpu(64 * GIB)],
            vec![],
            Gpu,
            both(GIB),
            ("never", None),
        ),
        case(
            "a GPU that is not there",
            one(),
            vec![],
            DeviceChoice::Cuda(3),
            both(GIB),
            ("never", None),
        ),
        case(
            "a kind that no GPU computes",
            one(),
            vec![],
            Auto,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            ("load", Some(Device::Cpu)),
        ),
        case(
            "the same, and it must be one",
            one(),
            vec![],
            Gpu,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            ("never", None),
        ),
        case(
            "of two GPUs the one with more room",
            two(),
            vec![],
            Auto,
            both(GIB),
            ("load", Some(g1)),
        ),
        case(
            "others take the memory of one",
            two(),
            vec![(g1, 60 * GIB, Residency::Held)],
            Gpu,
            both(30 * GIB),
            ("load", Some(g0)),
        ),
        case(
            "the fraction binds",
            one(),
            vec![(g0, 60 * GIB, Residency::Held)],
            Auto,
            both(10 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "held, and it must be a GPU",
            one(),
            vec![(g0, 60 * GIB, Residency::Held)],
            Gpu,
            both(10 * GIB),
            ("no memory", Some(g0)),
        ),
        case(
            "an idle one makes room",
            one(),
            vec![(g0, 60 * GIB, idle(9))],
            Auto,
            both(10 * GIB),
            ("evict 0", Some(g0)),
        ),
        case(
            "the oldest idle one that helps",
            one(),
            vec![(g0, 30 * GIB, idle(1)), (g0, 30 * GIB, idle(5)), (Device::Cpu, GIB, idle(9))],
            Auto,
            both(20 * GIB),
            ("evict 1", Some(g0)),
        ),
        case(
            "as few as make room",
            one(),
            vec![(g0, GIB, idle(9)), (g0, 60 * GIB, idle(5))],
            Auto,
            both(50 * GIB),
            ("evict 1", Some(g0)),
        ),
        case(
            "what is leaving is waited for",
            one(),
            vec![(g0, 60 * GIB, Residency::Leaving)],
            Auto,
            both(10 * GIB),
            ("wait", Some(g0)),
        ),
        case(
            "busy ones are not waited for where there is a CPU",
            one(),
            vec![(g0, 60 * GIB, Residency::Busy(now))],
            Auto,
            both(10 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "busy ones drain where there is not",
            one(),
            vec![(g0, 60 * GIB, Residency::Busy(now))],
            Gpu,
            both(10 * GIB),
            ("evict 0", Some(g0)),
        ),
        case(
            "what is coming may be idle soon",
            one(),
            vec![(g0, 60 * GIB, Residency::Loading)],
            Gpu,
            both(10 * GIB),
            ("wait", Some(g0)),
        ),
        case(
            "larger than any GPU: the CPU",
            vec![cpu(128 * GIB), gpu(0, 80 * GIB, 0)],
            vec![],
            Auto,
            both(70 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "larger than the GPU",
            one(),
            vec![(g0, GIB, idle(9))],
            Gpu,
            both(65 * GIB),
            ("never", None),
        ),
        case("larger than anything", one(), vec![], Auto, both(65 * GIB), ("never", None)),
        case(
            "both full and held",
            one(),
            vec![(g0, 64 * GIB, Residency::Held), (Device::Cpu, 60 * GIB, Residency::Held)],
            Auto,
            both(10 * GIB),
            ("no memory", Some(Device::Cpu)),
        ),
    ];
    for case in cases {
        let residents: Vec<Resident> = case
            .there
            .iter()
            .enumerate()
            .map(|(at, (device, bytes, residency))| Resident {
                instance: InstanceId(at as u64),
                model: id(&format!("m{at}")),
                device: *device,
                bytes: *bytes,
                is_shared: true,
                residency: *residency,
            })
            .collect();
        let request =
            PlacementRequest { need: case.need, choice: case.choice, is_shared: true, avoid: None };
        let placement = place(&request, &policy(), &case.devices.clone().into(), &residents);
        let verdict = match &placement.verdict {
            PlacementVerdict::Load { bytes } => {
                assert_eq!(Some(*bytes), need_on(placement.device.unwrap(), case.need));
                "load".to_owned()
            }
            PlacementVerdict::Wait => "wait".into(),
            PlacementVerdict::MakeRoom(instances) => {
                let instances: Vec<_> =
                    instances.iter().map(|instance| instance.0.to_string()).collect();
                format!("evict {}", instances.join(" "))
            }
            PlacementVerdict::Never => "never".into(),
            PlacementVerdict::NoMemory => "no memory".into(),
            PlacementVerdict::TooMany => "too many".into(),
        };
        assert_eq!(
            (verdict.as_str(), placement.device),
            case.decided,
            "{}: {placement:?}",
            case.what
        );
        assert!(!placement.reasons.is_empty(), "{}", case.what);
    }
}
