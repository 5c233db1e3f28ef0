//! What of a handler's bounds holds on this machine, and what is to be said of the rest.

use rustix::process::Resource;

use super::Controllers;
use crate::config::Bounds;

/// Why some of a handler's bounds do not hold here, for an operator.
pub fn not_in_force(bounds: &Bounds, controllers: Controllers) -> Vec<String> {
    let most_files = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    let mut needs = |key: &str, controller: &str| {
        faults.push(format!(
            "{key} does not hold: it needs a delegated cgroup with the {controller} controller \
             (Delegate= in warrend's unit)"
        ));
    };
    if bounds.millicpus > 0 && !controllers.cpu {
        needs("cpus", "cpu");
    }
    // The default is for where it can hold; who states another bound counts on it.
    let stated = bounds.max_processes > 0 && bounds.max_processes != Bounds::default().max_processes;
    if stated && !controllers.pids {
        needs("max_processes", "pids");
    }
    if u64::from(bounds.max_files) > most_files {
        faults.push(format!(
            "max_files is {}, but warrend itself may have {most_files}, which holds instead \
             (LimitNOFILE= in its unit)",
            bounds.max_files
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_nothing_enforces_is_named_with_what_it_needs() {
        let bounds = Bounds { memory: 1 << 30, millicpus: 500, max_processes: 9, ..Bounds::default() };
        let all = Controllers { memory: true, cpu: true, pids: true };
        assert_eq!(not_in_force(&bounds, all), Vec::<String>::new());
        let faults = not_in_force(&bounds, Controllers { cpu: true, ..Controllers::default() });
        assert!(faults.len() == 1 && faults[0].contains("max_processes") && faults[0].contains("Delegate="));
        let none = not_in_force(&bounds, Controllers::default());
        assert!(none.len() == 2 && none[0].starts_with("cpus "), "{none:?}");
        assert_eq!(not_in_force(&Bounds::default(), Controllers::default()), Vec::<String>::new());
        let files = Bounds { max_files: u32::MAX, ..Bounds::default() };
        assert!(not_in_force(&files, all)[0].contains("LimitNOFILE"));
    }
}
