//! Warren as a unit of a [`Machine`]: configured, started, asked, watched.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Output;

use serde_json::Value;

use crate::{Machine, wait};

/// `warrend.service`, or an instance of `warrend@.service`.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    machine: &'a Machine,
    instance: Option<&'a str>,
}

impl<'a> Service<'a> {
    /// The one that every machine has.
    pub fn of(machine: &'a Machine) -> Self {
        Self { machine, instance: None }
    }

    /// A further one.
    pub fn instance(machine: &'a Machine, name: &'a str) -> Self {
        Self { machine, instance: Some(name) }
    }

    /// Its unit's name.
    pub fn unit(&self) -> String {
        self.instance.map_or_else(|| "warrend.service".to_owned(), |name| format!("warrend@{name}.service"))
    }

    /// Where its state is.
    pub fn state(&self) -> String {
        self.own("/var/lib/warren")
    }

    /// Writes the configuration: consumes `queue` of the broker at `uri` (none: as a credential says), and whatever
    /// else is given, as TOML that begins with a table.
    pub fn configure(&self, uri: &str, queue: &str, rest: &str) {
        let broker = if uri.is_empty() { String::new() } else { format!("[broker]\nuri = \"{uri}\"\n") };
        let text = format!("{broker}[log]\nlevel = \"info,task=debug\"\n[queues.{queue}]\n{rest}");
        self.write_config(&text);
    }

    /// Writes the configuration file as it is given, sense or not.
    pub fn write_config(&self, text: &str) {
        let directory =
            self.instance.map_or_else(|| "/etc/warren".to_owned(), |name| format!("/etc/warren/{name}"));
        self.machine.write(&format!("{directory}/warren.toml"), text);
        // As the README tells the administrator of a new file.
        self.machine.ok(&["chgrp", "-R", "warren", &directory]);
    }

    /// Adds a drop-in to the unit, in force from its next start on.
    pub fn drop_in(&self, name: &str, text: &str) {
        self.machine.write(&format!("/etc/systemd/system/{}.d/{name}.conf", self.unit()), text);
        self.machine.ok(&["systemctl", "daemon-reload"]);
    }

    /// Adds a drop-in that is shipped as an example, after `edit`.
    pub fn example(&self, name: &str, edit: impl FnOnce(String) -> String) {
        let text = self.machine.read(&format!("/usr/share/doc/warren/examples/{name}.conf"));
        self.drop_in(name, &edit(text.expect("an example that is installed")));
    }

    /// `systemctl VERB`; whether it succeeded.
    pub fn systemctl(&self, verb: &str) -> bool {
        self.machine.run(&["systemctl", verb, &self.unit()]).status.success()
    }

    /// `systemctl start`, which has to succeed.
    pub fn start(&self) {
        assert!(self.systemctl("start"), "{} does not start: {}", self.unit(), self.said());
    }

    /// A property of the unit, as `systemctl show` prints it.
    pub fn show(&self, property: &str) -> String {
        let shown = self.machine.ok(&["systemctl", "show", "--value", "--property", property, &self.unit()]);
        shown.trim_end().to_owned()
    }

    /// Waits until a property is as wanted, and gives it.
    pub fn wait_show(&self, property: &str, wanted: impl Fn(&str) -> bool) -> String {
        wait::until(&format!("{property} of {}", self.unit()), || {
            Some(self.show(property)).filter(|value| wanted(value))
        })
    }

    /// The daemon's process id in the machine.
    pub fn pid(&self) -> u32 {
        self.show("MainPID").parse().expect("a number")
    }

    /// Sends the daemon a signal, by its name.
    pub fn kill(&self, signal: &str) {
        self.machine.ok(&["systemctl", "kill", "--kill-who=main", "--signal", signal, &self.unit()]);
    }

    /// `warrenctl` for this service, as root.
    pub fn warrenctl(&self, arguments: &[&str]) -> Output {
        let mut command = vec!["warrenctl"];
        if let Some(name) = self.instance {
            command.extend(["--instance", name]);
        }
        command.extend(arguments);
        self.machine.run(&command)
    }

    /// `warrenctl status --json`; `None` while the daemon does not answer.
    pub fn status(&self) -> Option<Value> {
        let output = self.warrenctl(&["--json", "status"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Publishes a task.
    pub fn publish(&self, id: &str, text: &str) {
        let output = self.warrenctl(&["publish", "--id", id, text]);
        assert!(output.status.success(), "publish: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until a task is over; gives its last entry in the journal, that with its outcome.
    pub fn wait_task(&self, id: &str) -> Value {
        self.wait_entry(id, |entry| entry.get("OUTCOME").is_some())
    }

    /// Waits for an entry of the journal about a task; gives the last one that is wanted.
    pub fn wait_entry(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let unit = format!("_SYSTEMD_UNIT={}", self.unit());
        let task = format!("TASK_ID={id}");
        wait::until(&format!("an entry about task {id}"), || {
            self.machine.journal(&[&unit, &task]).into_iter().rfind(&wanted)
        })
    }

    /// Publishes a task and waits until it is done.
    pub fn do_task(&self, id: &str, text: &str) -> Value {
        self.publish(id, text);
        let end = self.wait_task(id);
        assert_eq!(end["OUTCOME"], "done", "{id}: {end}");
        end
    }

    /// The status code of `GET /readyz` on the control socket.
    pub fn readyz(&self) -> u16 {
        self.get("/readyz").0
    }

    /// `GET` on the control socket: status code and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let socket = self.machine.path(&format!("{}/control.sock", self.own("/run/warren")));
        let mut stream = UnixStream::connect(socket).expect("the control socket");
        stream.set_read_timeout(Some(wait::BOUND)).expect("a bound");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (code, body.to_owned())
    }

    /// Messages of the unit in the journal, systemd's about it and its own.
    pub fn said(&self) -> String {
        self.machine.ok(&["journalctl", "--sync"]);
        self.machine.ok(&["journalctl", "--quiet", "--output=cat", "--unit", &self.unit()])
    }

    fn own(&self, path: &str) -> String {
        self.instance.map_or_else(|| path.to_owned(), |name| format!("{path}-{name}"))
    }
}
