use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Member, Task, Team};

#[test]
fn all_members_finish_a_part_before_any_begins_the_next() {
    for threads in 1..5 {
        let mut team = Team::start(threads).unwrap();
        let (count, wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for task in 0..50 {
            let (count, wrong) = (Arc::clone(&count), Arc::clone(&wrong));
            let task: Task = Arc::new(move |member: Member<'_>| {
                for part in 1..20 {
                    count.fetch_add(1, Ordering::SeqCst);
                    member.wait();
                    let all = (task * 19 + part) * member.count;
                    if count.load(Ordering::SeqCst) != all {
                        wrong.fetch_add(1, Ordering::SeqCst);
                    }
                    member.wait();
                }
            });
            team.run(&task).unwrap();
        }
        assert_eq!(wrong.load(Ordering::SeqCst), 0, "{threads} threads");
    }
}

#[test]
fn parts_cover_all_items_once_and_in_order() {
    for threads in 1..6 {
        let mut team = Team::start(threads).unwrap();
        for items in [0, 1, 3, 5, 17] {
            let parts = Arc::new(Mutex::new(Vec::new()));
            let into = Arc::clone(&parts);
            let task: Task = Arc::new(move |member: Member<'_>| {
                into.lock().unwrap().push((member.index, member.part(items)));
            });
            team.run(&task).unwrap();
            let mut parts = parts.lock().unwrap().clone();
            parts.sort_by_key(|(index, _)| *index);
            let covered: Vec<usize> = parts.into_iter().flat_map(|(_, part)| part).collect();
            assert_eq!(covered, (0..items).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_panic_of_one_member_ends_the_task_for_all() {
    for failing in 0..3 {
        let mut team = Team::start(3).unwrap();
        let failing: Task = Arc::new(move |member: Member<'_>| {
            assert_ne!(member.index, failing, "on purpose");
            member.wait();
        });
        assert!(team.run(&failing).is_err());
        let harmless: Task = Arc::new(|_: Member<'_>| {});
        assert!(team.run(&harmless).is_err());
    }
}
