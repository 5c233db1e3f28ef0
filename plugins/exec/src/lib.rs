//! Warren handler `exec`: runs a command per task. With it a handler can be written in any language, as a program.
//!
//! ```toml
//! [handlers.convert-image]
//! plugin   = "exec"
//! prefixes = ["Convert image"]
//! timeout  = "2m"
//!
//! [handlers.convert-image.settings]
//! command   = ["/usr/local/bin/convert-image", "--attempt={attempt}", "--", "{argument}"]
//! directory = "/var/lib/images"
//! env       = { QUALITY = "85" }
//! ```
//!
//! # Settings
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `command` | required | the program and its arguments, see below |
//! | `stdin` | `true` | the command reads the task's whole body on its stdin; otherwise stdin is `/dev/null` |
//! | `env` | `{}` | variables for the command |
//! | `directory` | `"/"` | where it runs; an absolute path |
//! | `done` | `[0]` | exit statuses that mean done |
//! | `reject` | `[65]` | exit statuses that mean: never try this task again |
//! | `max_output` | `16384` | bytes of stdout that become the task's result; the rest is left out, with a note |
//! | `output_type` | `"text/plain"` | the result's MIME type |
//! | `kill_after` | `"5s"` | from SIGTERM to SIGKILL when the task should stop; keep it below the handler's `grace` |
//!
//! # The command line
//!
//! Each element of `command` is exactly one argument. There is no shell: `;`, `$HOME`, quotes and spaces in a task
//! are just characters. Placeholders: `{argument}` (the text after the prefix), `{id}`, `{queue}`, `{prefix}`,
//! `{attempt}`, `{body}`, `{header:NAME}`; `{{` and `}}` are the characters themselves. A task without the header
//! that the template names is rejected. The program itself cannot contain a placeholder. An argument text that
//! begins with `-` could be taken as an option by the program: put `"--"` before it where the program knows that.
//!
//! # The environment
//!
//! The command gets of the host's environment `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`, `LANGUAGE`,
//! `LC_*`, `TZ` and `TMPDIR`, then `env`, then the task: `WARREN_TASK_ID`, `WARREN_TASK_ATTEMPT`,
//! `WARREN_TASK_REDELIVERED` (1 or 0), `WARREN_TASK_QUEUE`, `WARREN_TASK_PREFIX`, `WARREN_TASK_ARGUMENT`,
//! `WARREN_TASK_CONTENT_TYPE`, and a header `x-trace-id` as `WARREN_TASK_HEADER_X_TRACE_ID`. A value over 32 KiB, or
//! with a NUL byte, is left out. The command runs as the daemon's user and cannot gain privileges: `sudo` and other
//! set-user-ID programs do not work.
//!
//! # What becomes of the task
//!
//! An exit status in `done`: done, with stdout as the result. One in `reject`: rejected. Any other (75 is the
//! customary one), and death by a signal: retried. Each line of stderr goes to the log as it comes, and the last
//! one into the error's text. When the task should stop, the command's process group gets SIGTERM, and SIGKILL
//! `kill_after` later; a command that then exits, with whatever status, counts as stopped and not as done. When the
//! command has exited, whatever is left of its process group is killed.

mod environment;
mod lines;
mod process;
mod settings;
mod template;

use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use warren_plugin::{Call, Done, Failure, Handler, Host, Level, Outcome, Task, reject, retry};

use crate::lines::Lines;
use crate::process::{Ended, Stop};
pub use crate::settings::Settings;
use crate::settings::{NOTE_ROOM, Plan};
use crate::template::{Fields, Unfit};

/// Runs a command per task.
pub struct Exec {
    plan: Plan,
}

impl Handler for Exec {
    type Settings = Settings;

    fn new(settings: Settings, _host: &Host) -> Result<Self, Failure> {
        let plan = settings.check(std::env::vars_os());
        Ok(Self { plan: plan.map_err(|errors| reject("bad-settings", errors.join("; ")))? })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        call.check()?;
        let mut command = self.command(task)?;
        let stop = Stop {
            cancel: call.cancel_fd(),
            deadline: call.remaining().map(|left| Instant::now() + left),
            kill_after: self.plan.kill_after,
        };
        let (mut output, mut total, mut lines) = (Vec::new(), 0, Lines::default());
        let log = |line: &str| call.logger().log(Level::Info, line, &[("stream", "stderr")]);
        let ended = process::run(
            &mut command,
            self.plan.stdin.then_some(task.body()),
            stop,
            &mut |bytes| {
                total += bytes.len();
                let room = self.plan.max_output - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            },
            &mut |bytes| lines.push(bytes, log),
        );
        let left_out = lines.finish(log);
        if left_out > 0 {
            call.logger().warn(&format!("{left_out} more lines of stderr are left out"));
        }
        let Ended { status, stopped } = ended.map_err(|error| self.not_started(&error))?;
        if stopped {
            call.check()?;
            return Err(retry(
                "stopped",
                format!("{} was stopped: {}", self.plan.name, describe_status(status)),
            ));
        }
        self.outcome(status, lines.last())?;
        Ok(result(output, total, &self.plan.output_type))
    }
}

warren_plugin::export_plugin!(
    Exec,
    name = "exec",
    prefixes = [],
    settings =
        ["command", "stdin", "env", "directory", "done", "reject", "max_output", "output_type", "kill_after"]
);

impl Exec {
    /// The command for one task.
    fn command(&self, task: &Task<'_>) -> Result<Command, Failure> {
        let headers: Vec<_> = task.headers().collect();
        let fields = Fields {
            id: task.id(),
            attempt: task.attempt(),
            redelivered: task.redelivered(),
            queue: task.queue(),
            prefix: task.prefix(),
            argument: task.argument(),
            content_type: task.content_type(),
            body: task.body(),
            headers: &headers,
        };
        let mut command = Command::new(&self.plan.program);
        command.arg0(&self.plan.name).current_dir(&self.plan.directory);
        command.env_clear().envs(&self.plan.environment).envs(environment::of_task(&fields));
        for template in &self.plan.arguments {
            command.arg(template.fill(&fields).map_err(|unfit| match unfit {
                Unfit::MissingHeader(name) => reject(
                    "missing-header",
                    format!("the command needs the header {name}, which the task does not have"),
                ),
                Unfit::Nul => reject("nul-byte", "a NUL byte in the task cannot be part of an argument"),
            })?);
        }
        Ok(command)
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        let (program, directory) = (self.plan.program.display(), self.plan.directory.display());
        match error.kind() {
            ErrorKind::ArgumentListTooLong => reject(
                "argument-too-long",
                format!(
                    "the task is too long for the command line of {program}: let it read its stdin instead"
                ),
            ),
            _ => retry("cannot-run", format!("cannot run {program} in {directory}: {error}")),
        }
    }

    /// What an exit status means.
    fn outcome(&self, status: ExitStatus, last_line: &str) -> Result<(), Failure> {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if code.is_some_and(|code| self.plan.done.contains(&code)) {
            return Ok(());
        }
        let mut message = format!("{} ended with {}", self.plan.name, describe_status(status));
        if !last_line.is_empty() {
            message.push_str(": ");
            message.push_str(last_line);
        }
        match code {
            Some(code) if self.plan.reject.contains(&code) => Err(reject(format!("exit-{code}"), message)),
            Some(code) => Err(retry(format!("exit-{code}"), message)),
            None => Err(retry(format!("signal-{}", status.signal().unwrap_or_default()), message)),
        }
    }
}

/// `exit status 3`, `signal 9`.
fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The command's output as the task's result; of its `total` bytes, `output` was kept.
fn result(mut output: Vec<u8>, total: usize, mime_type: &str) -> Done {
    let left_out = total - output.len();
    if left_out > 0 {
        // Not in the middle of a character.
        if let Err(error) = std::str::from_utf8(&output)
            && error.error_len().is_none()
        {
            output.truncate(error.valid_up_to());
        }
        let note = format!("\n[{} more bytes of output are left out]", total - output.len());
        debug_assert!(note.len() <= NOTE_ROOM, "the note has room");
        output.extend_from_slice(note.as_bytes());
    } else if output.ends_with(b"\n") {
        output.pop();
    }
    if output.is_empty() { Done::empty() } else { Done::body(mime_type, output) }
}
