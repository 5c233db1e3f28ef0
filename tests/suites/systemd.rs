//! The service on a real systemd, each test on a machine of its own: started, watched, reloaded and stopped as an
//! administrator does it. Needs root (`make test-systemd`).

#[path = "systemd/boxes.rs"]
mod boxes;
#[path = "systemd/broker.rs"]
mod broker;
#[path = "systemd/credentials.rs"]
mod credentials;
#[path = "systemd/handlers.rs"]
mod handlers;
#[path = "systemd/instances.rs"]
mod instances;
#[path = "systemd/metrics.rs"]
mod metrics;
#[path = "systemd/package.rs"]
mod package;
#[path = "systemd/plugins.rs"]
mod plugins;
#[path = "systemd/reload.rs"]
mod reload;
#[path = "systemd/start.rs"]
mod start;
#[path = "systemd/stop.rs"]
mod stop;
#[path = "systemd/unit.rs"]
mod unit;
#[path = "systemd/upgrade.rs"]
mod upgrade;
#[path = "systemd/watchdog.rs"]
mod watchdog;

use warren_tests::{Machine, Service, artefacts};

/// Puts the scenario fixture on a machine; gives the table that configures it for a service.
fn scenario(machine: &Machine, service: &Service<'_>) -> String {
    let plugin = std::fs::read(artefacts::plugin("fixture-scenario")).expect("read");
    machine.install_plugin("fixture-scenario", &plugin);
    let record = format!("{}/record", service.state());
    format!(
        "[handlers.scenario]\nplugin = \"scenario\"\n[handlers.scenario.settings]\nrecord = \"{record}\"\n"
    )
}
