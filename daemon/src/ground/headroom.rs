//! How much memory is available: on the machine, and within the control groups of this process.

use std::fs;
use std::path::Path;

/// Memory that can be allocated without the kernel killing a process for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headroom {
    /// The machine's memory, or the tightest limit on this process.
    pub(crate) total_bytes: u64,
    /// How much of it is free now. Memory that the kernel can drop, such as cached files, counts as
    /// free.
    pub(crate) free_bytes: u64,
}

/// Without any information there is no limit: the system itself refuses what it does not have.
const UNKNOWN: Headroom = Headroom { total_bytes: u64::MAX, free_bytes: u64::MAX };

impl Headroom {
    /// The headroom of this process now.
    #[must_use]
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let machine = of_machine(&read("/proc/meminfo"));
        let root = Path::new("/sys/fs/cgroup");
        of_groups(root, &read("/proc/self/cgroup")).fold(machine, Self::tightest)
    }

    fn tightest(self, other: Self) -> Self {
        Self {
            total_bytes: self.total_bytes.min(other.total_bytes),
            free_bytes: self.free_bytes.min(other.free_bytes),
        }
    }
}

fn of_machine(meminfo: &str) -> Headroom {
    let of = |name: &str| {
        let kib = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total_bytes = of("MemTotal:").unwrap_or(UNKNOWN.total_bytes);
    Headroom { total_bytes, free_bytes: of("MemAvailable:").unwrap_or(total_bytes) }
}

/// The file names of a version of control groups.
struct Version {
    /// Limits; beyond one of them the kernel kills processes, or slows them to a halt.
    limits: &'static [&'static str],
    used: &'static str,
    /// The part of the used memory that caches files.
    files: [&'static str; 2],
}

const V1: Version = Version {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    // In version 1 the plain names leave out the groups below.
    files: ["total_active_file", "total_inactive_file"],
};

const V2: Version = Version {
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    files: ["active_file", "inactive_file"],
};

/// The headroom in each control group of a process, and in all groups above them.
fn of_groups(root: &Path, cgroup: &str) -> impl Iterator<Item = Headroom> {
    cgroup.lines().filter_map(|line| of_line(root, line)).flatten()
}

fn of_line(root: &Path, line: &str) -> Option<Vec<Headroom>> {
    // The hierarchy's number, the controllers in it (none in version 2), the path below its root.
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, version) = match controllers {
        "" => (root.to_owned(), V2),
        names if names.split(',').any(|name| name == "memory") => (root.join("memory"), V1),
        _ => return None,
    };
    let own = root.join(path.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(&root));
    Some(groups.filter_map(|group| of_group(group, &version)).collect())
}

/// The headroom in one group. Cached files, which the kernel can drop, count as unused.
fn of_group(group: &Path, version: &Version) -> Option<Headroom> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = version.limits.iter().filter_map(|name| number(name)).min()?;
    let used = number(version.used)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| version.files.contains(name))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum();
    let free_bytes = limit.saturating_sub(used.saturating_sub(files));
    Some(Headroom { total_bytes: limit, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tightest(root: &Path, cgroup: &str) -> Headroom {
        of_groups(root, cgroup).fold(UNKNOWN, Headroom::tightest)
    }

    #[test]
    fn the_machine_reports_kib() {
        let headroom = of_machine("MemTotal: 9 kB\nMemAvailable:     7 kB\n");
        assert_eq!(headroom, Headroom { total_bytes: 9 * 1024, free_bytes: 7 * 1024 });
        assert_eq!(of_machine(""), UNKNOWN);
        let now = Headroom::now();
        assert!(0 < now.free_bytes && now.free_bytes <= now.total_bytes, "{now:?}");
        assert!(now.total_bytes < u64::MAX);
    }

    #[test]
    fn the_tightest_group_above_counts_and_droppable_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("user/daemon");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(own.join("memory.high"), "max\n").unwrap();
        fs::write(own.join("memory.current"), "10\n").unwrap();
        let cgroup = "0::/user/daemon\n";
        assert_eq!(tightest(root.path(), cgroup), UNKNOWN);

        let user = root.path().join("user");
        fs::write(user.join("memory.max"), "1000\n").unwrap();
        fs::write(user.join("memory.current"), "700\n").unwrap();
        fs::write(user.join("memory.stat"), "anon 500\ninactive_file 100\nactive_file 50\n")
            .unwrap();
        let headroom = tightest(root.path(), cgroup);
        assert_eq!(headroom, Headroom { total_bytes: 1000, free_bytes: 450 });

        fs::write(own.join("memory.high"), "600\n").unwrap();
        let headroom = tightest(root.path(), cgroup);
        assert_eq!(headroom, Headroom { total_bytes: 600, free_bytes: 450 });
        assert_eq!(tightest(root.path(), "0::/\n"), UNKNOWN);
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own_for_memory() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("memory/daemon");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.limit_in_bytes"), "1000\n").unwrap();
        fs::write(own.join("memory.usage_in_bytes"), "600\n").unwrap();
        fs::write(own.join("memory.stat"), "active_file 9\ntotal_active_file 200\n").unwrap();
        let cgroup = "12:cpu,cpuacct:/other\n8:memory:/daemon\n0::/\n";
        let headroom = tightest(root.path(), cgroup);
        assert_eq!(headroom, Headroom { total_bytes: 1000, free_bytes: 600 });
        // A container sees the path outside, and its own group as the root.
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "700\n").unwrap();
        fs::write(root.path().join("memory/memory.usage_in_bytes"), "0\n").unwrap();
        let headroom = tightest(root.path(), "8:memory:/docker/0123\n");
        assert_eq!(headroom, Headroom { total_bytes: 700, free_bytes: 700 });
    }
}
