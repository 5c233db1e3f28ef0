//! Hosts that come and go leave nothing in the daemon.

use crate::bed::{Watched, run, spawner};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Alone in its process (`harness = false` is not worth it): other tests' hosts would be counted, so it
/// starts itself again.
#[test]
fn two_hundred_hosts_leave_descriptors_and_memory_flat() {
    if std::env::var_os("ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "resources::two_hundred_hosts_leave_descriptors_and_memory_flat", "--quiet"])
            .env("ALONE", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .expect("this test runs again");
        assert!(status.success());
        return;
    }
    run(async {
        let spawner = spawner();
        let mut before = (0, 0);
        for round in 0..200 {
            let mut host = Watched::start(&spawner);
            host.send(if round % 3 == 0 { "segv" } else { "done" });
            if round % 3 != 0 {
                host.report().await;
                assert!(host.host.rss_bytes().unwrap() > 0);
                if round % 3 == 1 { host.host.quit() } else { host.host.kill() }
            }
            host.exit().await;
            drop(host);
            if round == 20 {
                before = (open_descriptors(), resident_kib());
            }
        }
        assert_eq!(open_descriptors(), before.0);
        let grown = resident_kib().saturating_sub(before.1);
        assert!(grown < 1024, "{grown} KiB more after 180 hosts");
    });
}
