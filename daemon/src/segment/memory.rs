//! How much memory there is to have.

use std::fs;
use std::path::Path;

/// Bytes that could be allocated now without anyone being killed for them: what the machine and
/// the control groups (version 2) of this process leave. `u64::MAX` where nothing can be learnt.
pub(super) fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    let groups = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| of_groups(Path::new("/sys/fs/cgroup"), group_path(&text)?));
    machine.unwrap_or(u64::MAX).min(groups.unwrap_or(u64::MAX))
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The path of the control group, as the kernel tells it to this process.
fn group_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// What the group at `path` below `root` and all above it leave, the least of them.
fn of_groups(root: &Path, path: &str) -> Option<u64> {
    let own = root.join(path);
    own.ancestors().take_while(|group| group.starts_with(root)).filter_map(of_group).min()
}

/// The limit less what is used; files that can be dropped for it count as unused.
fn of_group(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_kib() {
        assert_eq!(of_machine("MemTotal: 9 kB\nMemAvailable:     7 kB\n"), Some(7 * 1024));
        assert_eq!(of_machine("MemTotal: 9 kB\n"), None);
        assert!(available_bytes() > 0);
    }

    #[test]
    fn the_tightest_group_above_counts_and_droppable_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("user/daemon");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(own.join("memory.current"), "10\n").unwrap();
        assert_eq!(of_groups(root.path(), "user/daemon"), None);

        let user = root.path().join("user");
        fs::write(user.join("memory.max"), "1000\n").unwrap();
        fs::write(user.join("memory.current"), "700\n").unwrap();
        fs::write(user.join("memory.stat"), "anon 500\ninactive_file 100\nactive_file 50\n")
            .unwrap();
        assert_eq!(of_groups(root.path(), "user/daemon"), Some(450));
        assert_eq!(group_path("1:cpu:/x\n0::/user/daemon\n"), Some("user/daemon"));
    }
}
