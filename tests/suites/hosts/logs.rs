//! What a task logs and prints is bounded, what is left out is told, and nobody else's lines are lost for it.

use warren_tests::{Broker, Daemon, Home, Keys, Node};

#[test]
fn a_flood_of_a_task_is_cut_and_told_and_costs_no_line_of_others() {
    const OTHERS: usize = 200;
    let node = Node::shared();
    let home = Home::new(&node.uri(), "hosts_logs");
    home.install_c("evil", "evil.c", &[]);
    home.install_c("quiet", "torture.c", &["-DNAME=quiet", "-DPREFIX=Quiet"]);
    home.configure(Keys { rest: "[handlers.evil]\nmax_output_lines = 10\n", ..Keys::default() });
    let broker = Broker::connect(&node.uri());
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "logs", "Evil log 200000");
    broker.publish(home.queue(), "prints", "Evil newlines 200000");
    broker.publish_all(home.queue(), "quiet", (0..OTHERS).map(|_| "Quiet please".to_owned()));
    for task in ["logs", "prints"] {
        daemon.wait_log(0, &["task done", &format!("task_id={task} ")]);
    }
    for other in 1..=OTHERS {
        daemon.wait_log(0, &["task done", &format!("task_id=quiet-{other} ")]);
    }
    daemon.wait_log(0, &["WARN", "… 199990 lines more were logged, 1999900 bytes", "task_id=logs "]);
    daemon.wait_log(0, &["ERROR", "the end of the flood", "task_id=logs "]);
    let lines = daemon.log().since(0);
    let of = |task: &str| {
        let task = format!("task_id={task} ");
        lines.iter().filter(|line| line.contains(&task) && !line.contains(" task ")).count()
    };
    // Ten lines, what was left out, and the error; the first newlines, and what was left out.
    assert_eq!((of("logs"), of("prints")), (12, 11));
    assert_eq!(daemon.status()["log_lines_lost"], 0);
}
