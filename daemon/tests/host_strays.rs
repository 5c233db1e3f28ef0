//! What a crashed host leaves behind dies with it. On its own, because the process must be a subreaper whose
//! only children are hosts.

#[allow(dead_code)] // The bed serves another suite too.
#[path = "host/bed.rs"]
mod bed;

use bed::{Watched, group_is_empty, run, spawner};

fn children() -> usize {
    let me = std::process::id().to_string();
    let is_mine = |stat: String| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(me.as_str()))
    };
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|entry| std::fs::read_to_string(entry.path().join("stat")).is_ok_and(is_mine))
        .count()
}

#[test]
fn children_of_a_crashed_host_die_and_other_hosts_do_not() {
    // Compile the plugin before: the compiler is a child, too.
    let _ = bed::spec("{}");
    warren::host::become_subreaper().expect("this kernel has subreapers");
    run(async {
        let spawner = spawner();
        let mut other = Watched::start(&spawner);
        other.run("done").await;
        let mut host = Watched::start(&spawner);
        host.run("done").await;
        let pid = host.host.pid().unwrap();
        host.send("child-crash");
        let exit = host.exit().await;
        assert_eq!(exit.why, "signal 6 (SIGABRT)");
        assert!(group_is_empty(pid));
        // All that is left are the other host's: those that had left the group are dead and reaped.
        assert_eq!(children(), 1);
        other.run("done").await;
        drop(other);
    });
}
