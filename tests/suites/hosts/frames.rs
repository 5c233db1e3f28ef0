//! A host that says what was not agreed is ended, its task has failed, and the daemon goes on as before.

use warren_tests::{Broker, Daemon, Home, Keys, Node};

/// What a task of the evil fixture does, and what is said of its host.
const FRAMES: [(&str, &str); 6] = [
    ("ready", "a second time that it is ready"),
    ("report 99", "a report of a task that it was not given"),
    ("withdraw 2", "back a task that it was not asked for"),
    ("word 99", "word of a task that it was not given"),
    ("lines 3000", "more log lines than were agreed"),
    ("stray", "bytes after the last field"),
];

#[test]
fn each_frame_that_was_not_agreed_ends_its_host_and_costs_its_task_alone() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_frames");
    home.install_c("evil", "evil.c", &[]);
    let rest = "[handlers.evil]\nretry = { attempts = 1 }\n";
    home.configure(Keys { queue: "workers = 1", rest, ..Keys::default() });
    let broker = Broker::connect(&node.uri());
    let mut daemon = Daemon::start(&home);
    let pid = daemon.pid();
    for (round, (frame, said)) in (1..).zip(FRAMES) {
        broker.publish(home.queue(), "bad", &format!("Evil {frame}"));
        broker.publish(home.queue(), "good", "Evil ok");
        let letter = broker.take(&home.dead());
        let header = |name: &str| letter.header(name).unwrap_or_default();
        assert_eq!((header("x-warren-reason"), letter.id()), ("poison".to_owned(), "bad"), "{frame}");
        assert!(header("x-warren-error").contains(said), "{frame}: {}", header("x-warren-error"));
        daemon.wait_count("done", round);
    }
    assert_eq!(daemon.counts()["faults"], FRAMES.len());
    assert_eq!(daemon.pid(), pid);
    assert!(daemon.terminate().success());
}
