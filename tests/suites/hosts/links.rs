//! Plugins behind symbolic links, as volumes of Kubernetes and package managers lay them out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use warren_tests::artefacts::{self, Versions};
use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// Puts a version of the fixture where `..data` leads to once it is turned there, in one step.
fn publish(home: &Home, version: u32) {
    let plugins = home.plugins();
    let name = format!("..version-{version}");
    let directory = plugins.join(&name);
    fs::create_dir(&directory).expect("a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("mode");
    let file = directory.join("scenario.so");
    let versions = Versions::of(&artefacts::plugin("fixture-scenario"));
    fs::write(&file, versions.version(version)).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
    let new = plugins.join("..data_tmp");
    symlink(&name, &new).expect("a link");
    fs::rename(new, plugins.join("..data")).expect("turned");
}

#[test]
fn a_volume_that_is_turned_to_another_version_is_taken_at_the_next_reload() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_links");
    publish(&home, 1);
    symlink("..data/scenario.so", home.plugins().join("scenario.so")).expect("a link");
    home.configure(Keys { rest: &home.scenario("scenario", "scenario", ""), ..Keys::default() });
    let broker = Broker::connect(&node.uri());
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "one", "Scenario ok");
    assert_eq!(home.wait_run("end", "one", 1)[0].version, 1);
    publish(&home, 2);
    fs::remove_dir_all(home.plugins().join("..version-1")).expect("removed");
    broker.publish(home.queue(), "still-one", "Scenario ok");
    assert_eq!(home.wait_run("end", "still-one", 1)[0].version, 1);
    let reload = daemon.reload();
    assert_eq!(
        (&reload["ok"], &reload["handlers"][0]["change"]),
        (&true.into(), &"replaced".into()),
        "{reload}"
    );
    broker.publish(home.queue(), "two", "Scenario ok");
    assert_eq!(home.wait_run("end", "two", 1)[0].version, 2);
}
