//! A daemon that is stuck or killed comes back, and leaves no core behind.

use warren_tests::{Machine, Network, Node, Service, artefacts, wait};

use crate::scenario;

/// As the shipped unit has it, in a shorter time.
const QUICK: &str = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\nRestartSec=100ms\n";

fn running<'a>(machine: &'a Machine, queue: &str) -> Service<'a> {
    let service = Service::of(machine);
    let rest = scenario(machine, &service);
    service.configure(&Node::shared().uri(), queue, &rest);
    service.drop_in("quick", QUICK);
    service.start();
    service.do_task("before", "Scenario ok");
    service
}

/// Waits until another daemon is active, and has it do a task.
fn assert_back(service: &Service<'_>, old: u32) {
    service.wait_show("NRestarts", |count| count == "1");
    service.wait_show("ActiveState", |state| state == "active");
    assert_ne!(service.pid(), old);
    service.do_task("after", "Scenario ok");
}

#[test]
fn one_that_is_stopped_by_a_signal_comes_back() {
    let machine = Machine::start(Network::Shared);
    let service = running(&machine, "systemd_stopped");
    let pid = service.pid();
    service.kill("STOP");
    assert_back(&service, pid);
    let said = service.said();
    assert!(said.contains("Watchdog timeout"), "{said}");
}

#[test]
fn one_that_a_handler_asks_to_end_comes_back() {
    let machine = Machine::start(Network::Shared);
    let service = running(&machine, "systemd_asked");
    let pid = service.pid();
    // As `pkill -u warren` in a handler's script does: not systemctl's doing, and an exit without an error.
    service.kill("TERM");
    assert_back(&service, pid);
    assert!(service.systemctl("stop"));
    service.wait_show("ActiveState", |state| state == "inactive");
}

#[test]
fn one_whose_data_path_is_stuck_is_aborted_without_a_core_and_comes_back() {
    let machine = Machine::start(Network::Shared);
    let service = running(&machine, "systemd_stuck");
    // What is installed need not have failpoints.
    machine.write("/opt/warrend", std::fs::read(artefacts::program("warrend")).expect("read"));
    machine.ok(&["chmod", "0755", "/opt/warrend"]);
    // Gone with the runtime directory, and so with the daemon that it holds.
    let hold = "/run/warren/hold";
    service.drop_in(
        "stuck",
        &format!(
            "[Service]\nExecStart=\nExecStart=/opt/warrend --config /etc/warren/warren.toml\n\
             Environment=\"FAILPOINTS=data::turn=return(hold {hold})\"\n"
        ),
    );
    assert!(service.systemctl("restart"));
    let pid = service.pid();
    let limits = machine.read(&format!("/proc/{pid}/limits")).expect("the daemon");
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core")).expect("it").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    machine.write(hold, "");
    assert_back(&service, pid);
    let said = service.said();
    assert!(said.contains("Watchdog timeout") && said.contains("code=killed, status=6/ABRT"), "{said}");
    let cores = machine.ok(&["find", "/var/lib/warren", "/opt", "/tmp", "/var/tmp", "-name", "*core*"]);
    assert_eq!(cores, "", "no core was written");
}

#[test]
fn one_that_is_killed_comes_back_and_does_its_task_again() {
    let machine = Machine::start(Network::Shared);
    let service = running(&machine, "systemd_killed");
    service.publish("held", "Scenario hold gate");
    let record = format!("{}/record", service.state());
    let starts = || machine.read(&record).unwrap_or_default().matches("start held").count();
    wait::until("it runs", || (starts() == 1).then_some(()));
    let pid = service.pid();
    // The daemon and its hosts have groups of their own below the unit's.
    let groups = || machine.ok(&["find", "/sys/fs/cgroup/system.slice/warrend.service", "-name", "host-*"]);
    assert!(groups().contains(&format!("/host-{pid}-")), "{}", groups());
    service.kill("KILL");
    assert_back(&service, pid);
    assert!(!groups().contains(&format!("/host-{pid}-")), "{}", groups());
    wait::until("it runs again", || (starts() == 2).then_some(()));
    machine.write(&format!("{}/gate", service.state()), "");
    assert_eq!(service.wait_task("held")["OUTCOME"], "done");
}
