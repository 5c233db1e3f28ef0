//! How each fault is done, and undone.

use std::time::Duration;

use rustix::process::Signal;

use super::field::Field;
use super::plan::{Fault, Kind};

/// Does it. Returns when it is undone; `false` when there was nothing to do it to.
pub(super) fn inflict(field: &mut Field, fault: &Fault) -> bool {
    let lasts = Duration::from_millis(fault.lasts_ms);
    match fault.kind {
        Kind::NodeKilled => field.node.restart().expect("the node comes back"),
        Kind::NodeStopped => {
            field.node.ctl(&["stop_app"]).expect("stop_app");
            field.node.ctl(&["start_app"]).expect("start_app");
        }
        Kind::NodeFrozen => {
            field.node.freeze().expect("the node is there");
            std::thread::sleep(lasts);
            field.node.thaw().expect("the node is there");
        }
        Kind::ConnectionsClosed => field.node.close_all_connections().expect("close_all_connections"),
        Kind::ProxyCut => drop(field.proxy.cut()),
        Kind::ProxyStalled => {
            field.proxy.stall();
            std::thread::sleep(lasts);
            field.proxy.forward();
        }
        Kind::MemoryAlarm => {
            field.node.alarm(true);
            std::thread::sleep(lasts);
            field.node.alarm(false);
        }
        Kind::DeadQueueDeleted => return field.delete_dead_queue(),
        Kind::DelayQueuesDeleted => field.delete_delay_queues(),
        Kind::DaemonKilled => {
            let place = &mut field.places[usize::from(fault.second)];
            place.kill();
            place.start();
        }
        Kind::DaemonDrained => {
            let place = &mut field.places[usize::from(fault.second)];
            place.drain();
            place.start();
        }
        Kind::Reloaded => field.reload(),
        Kind::HostKilled => return field.signal_host(fault.second, Signal::KILL),
        Kind::HostFrozen => return field.signal_host(fault.second, Signal::STOP),
        Kind::SecondToggled => {
            let place = &mut field.places[1];
            if place.daemon.is_some() { place.drain() } else { place.start() }
        }
    }
    true
}
