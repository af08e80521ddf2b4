use crate::ground::device::Device;
use crate::ground::sync::lock;
use crate::models::devices::Machine;
use crate::models::devices::gpu::{
    Found, Gpu, GpuError, GpuMemory, budget_bytes, figures, trim_pool_within,
};
use crate::settings::Settings;
use std::sync::Mutex;

const GIB: u64 = 1 << 30;

/// A GPU made of counters.
#[derive(Debug, Default)]
struct Counted {
    memory: Mutex<GpuMemory>,
    /// The part of the process's own memory that tensors use.
    used_bytes: u64,
    /// Looks after a trim until memory is free again.
    slow: Mutex<u32>,
    /// Given back, and not yet free.
    on_its_way: Mutex<u64>,
    fails: bool,
}

impl Counted {
    fn new(total_bytes: u64, others_bytes: u64, own_bytes: u64, used_bytes: u64) -> Self {
        let free_bytes = total_bytes - others_bytes - own_bytes;
        let memory = Mutex::new(GpuMemory { total_bytes, free_bytes, own_bytes });
        Self { memory, used_bytes, ..Self::default() }
    }
}

impl Gpu for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn memory(&self) -> Result<GpuMemory, GpuError> {
        if self.fails {
            return Err(GpuError("it fell off the bus".into()));
        }
        let (mut memory, mut slow) = (lock(&self.memory), lock(&self.slow));
        match slow.checked_sub(1) {
            Some(less) => *slow = less,
            None => memory.free_bytes += std::mem::take(&mut *lock(&self.on_its_way)),
        }
        Ok(*memory)
    }

    fn trim(&self, keep_bytes: u64) -> Result<(), GpuError> {
        let mut memory = lock(&self.memory);
        let kept = memory.own_bytes.min(keep_bytes.max(self.used_bytes));
        *lock(&self.on_its_way) += memory.own_bytes - kept;
        memory.own_bytes = kept;
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<(), GpuError> {
        let mut memory = lock(&self.memory);
        let more = bytes.saturating_sub(memory.own_bytes);
        if more > memory.free_bytes {
            return Err(GpuError("out of memory".into()));
        }
        memory.free_bytes -= more;
        memory.own_bytes += more;
        Ok(())
    }

    fn tensors(&self) -> candle_core::Device {
        candle_core::Device::Cpu
    }
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::without_models();
    change(&mut settings);
    settings
}

#[test]
fn the_budget_is_a_fraction_minus_what_other_processes_use() {
    for (total, fraction, budget) in [
        (80 * GIB, 0.8, 64 * GIB),
        (80 * GIB, 1.0, 80 * GIB),
        (100, 0.5, 50),
        (3, 0.5, 1),
        (0, 0.8, 0),
        (u64::MAX, 1.0, u64::MAX),
    ] {
        assert_eq!(budget_bytes(total, fraction), budget, "{fraction} of {total}");
    }
    // Total, free, own; fraction; the others' memory, and the capacity for our models.
    for (total, free, own, fraction, others, capacity) in [
        (80, 80, 0, 0.5, 0, 40),
        // Memory that this process holds can be used again.
        (80, 20, 60, 1.0, 0, 80),
        (80, 10, 20, 1.0, 50, 30),
        (80, 10, 20, 0.25, 50, 20),
        // Figures of different moments need not add up.
        (80, 70, 30, 1.0, 0, 80),
        (0, 0, 0, 1.0, 0, 0),
    ] {
        let memory =
            GpuMemory { total_bytes: total * GIB, free_bytes: free * GIB, own_bytes: own * GIB };
        let figures = figures(Device::Cuda(0), "x", memory, fraction);
        assert_eq!(figures.others_bytes, others * GIB, "{memory:?}");
        assert_eq!(figures.capacity_bytes(), capacity * GIB, "{memory:?}");
    }
}

#[test]
fn returned_memory_is_awaited_for_a_limited_time() {
    // Total, others, own, used of the own; kept; given back.
    for (own, used, keep, returned) in
        [(30, 0, 0, 30), (30, 10, 0, 20), (30, 10, 25, 5), (30, 10, 40, 0), (0, 0, 0, 0)]
    {
        for slow in [0, 3] {
            let gpu = Counted::new(80 * GIB, 10 * GIB, own * GIB, used * GIB);
            // The first look is the one before.
            *lock(&gpu.slow) = slow + 1;
            let mut pauses = 0;
            let given = trim_pool_within(&gpu, keep * GIB, 100, || pauses += 1).unwrap();
            assert_eq!(given, returned * GIB, "{own} {used} {keep}");
            assert_eq!(lock(&gpu.memory).free_bytes, (70 - own + returned) * GIB);
            assert_eq!(pauses, if returned == 0 { 0 } else { slow });
        }
    }
    let gpu = Counted::new(80 * GIB, 0, 30 * GIB, 0);
    *lock(&gpu.slow) = u32::MAX;
    let mut pauses = 0;
    assert_eq!(trim_pool_within(&gpu, 0, 7, || pauses += 1), Ok(30 * GIB));
    assert_eq!(pauses, 7);
}

fn one() -> Found {
    let gpu = Counted::new(80 * GIB, 10 * GIB, 0, 0);
    Found { gpus: vec![(0, Box::new(gpu))], missing: Vec::new() }
}

#[test]
fn without_growth_the_share_is_reserved_at_start() {
    let gpu = Device::Cuda(0);
    for (may_grow, fraction, free) in [(true, 0.5, 70), (false, 0.5, 30), (false, 0.25, 50)] {
        let settings = settings(|s| {
            s.allow_gpu_growth = may_grow;
            s.gpu_memory_fraction = fraction;
        });
        let machine = Machine::with(&settings, one);
        for _ in 0..2 {
            let devices = machine.ask();
            assert_eq!(devices.figures[1].device, gpu);
            assert_eq!(devices.figures[1].free_bytes, free * GIB, "{may_grow} {fraction}");
            assert_eq!(devices.figures[1].others_bytes, 10 * GIB);
            // After an unload the memory is still held by this process, or still free.
            machine.trim_pool(gpu);
        }
    }
    // The share cannot be reserved, since others hold it. The rest is used as models need it.
    let settings = settings(|s| {
        s.allow_gpu_growth = false;
        s.gpu_memory_fraction = 1.0;
    });
    let devices = Machine::with(&settings, one).ask();
    assert_eq!(devices.figures[1].free_bytes, 70 * GIB);
    assert_eq!(devices.figures[1].capacity_bytes(), 70 * GIB);
}

#[test]
fn gpus_are_looked_for_when_a_model_may_be_on_one() {
    let on_cpu = settings(|s| s.device_preference = crate::models::scheduler::DeviceChoice::Cpu);
    let machine = Machine::with(&on_cpu, one);
    assert_eq!(machine.ask().figures.len(), 1);
    assert!(machine.tensors(Device::Cuda(0)).is_none());
    let anywhere = settings(|_| {});
    assert!(machine.reconfigure(&anywhere));
    assert_eq!(machine.ask().figures.len(), 2);
    assert!(machine.tensors(Device::Cuda(0)).is_some());
    assert!(machine.tensors(Device::Cuda(1)).is_none());
    assert!(!machine.reconfigure(&anywhere), "they were found");
}

#[test]
fn an_unusable_gpu_is_reported_with_the_reason() {
    fn none() -> Found {
        Found { gpus: Vec::new(), missing: vec!["there is no driver".into()] }
    }
    fn broken() -> Found {
        let gpu = Counted { fails: true, ..Counted::new(GIB, 0, 0, 0) };
        Found { gpus: vec![(3, Box::new(gpu))], missing: Vec::new() }
    }
    for (find, reason) in [
        (none as fn() -> Found, "there is no driver"),
        (broken, "cuda:3 does not answer: it fell off the bus"),
    ] {
        let devices = Machine::with(&settings(|_| {}), find).ask();
        assert_eq!(devices.figures.len(), 1);
        assert_eq!(devices.missing, [reason]);
    }
}
