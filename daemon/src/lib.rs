//! Warren: a daemon that takes tasks from durable `RabbitMQ` queues and gives each one to a handler in a
//! shared library, in a process of its own.
//!
//! # Layout
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`config`] | TOML files and environment → one validated [`config::Config`], every error at once |
//! | [`model`] | the words that every part uses, defined once; depends on nothing |
//! | [`task`] [`router`] [`settlement`] | pure decisions, tested as tables |
//! | [`broker`] | all that knows AMQP: connections, topology, consumers, settling, confirmed copies |
//! | [`plugin`] | what is on disk: ELF note, sealed snapshot |
//! | [`dedup`] | which tasks are done already, for queues that ask for it |
//! | [`host`] | both ends of the plugin host protocol; the child side is the only place that loads plugin code |
//! | [`registry`] | what is loaded: the generations and their routing table |
//! | [`engine`] | the data path: one event loop that dispatches, settles and watches time limits |
//! | [`reload`] | config + plugins → a new registry, probed before it is swapped in |
//! | [`daemon`] | owns everything: start, signals, drain |
//! | [`control`] | HTTP over a Unix socket: what `warrenctl` speaks |
//! | [`systemd`] [`telemetry`] [`stderr`] | readiness and watchdog; logs; what is said before there is a log |
//! | [`text`] | hexadecimal digits, one line, bounded reads |
//! | [`failpoint`] | places where a test kills or holds the daemon; not in what is installed |
//! | `sim` | the engine's core against models of all around it; not in what is installed |
//!
//! # Invariants
//!
//! 1. The daemon process never runs plugin code. It never calls `dlopen`; only a plugin host does.
//! 2. A delivery is settled exactly once, and never before its outcome is known. Unsettled means redelivered.
//! 3. A copy of a task (retry, dead letter, replay, follow-up) is confirmed by the broker before the original
//!    is acknowledged. At no instant does a task exist nowhere. (On a copy's way back from its delay queue this
//!    holds for quorum delay queues with at-least-once dead-lettering; classic ones are opt-in and start-up
//!    warns.)
//! 4. A task finishes on the generation it started on.
//! 5. A reload that fails, wholly or for one handler, leaves what it would have replaced running, and says so.
//! 6. One task can cost at most itself: a panic, segfault, `exit()`, leak or hang in a handler never touches
//!    another task, the daemon, or the broker connection. By accident, that is: a hostile plugin is outside
//!    the model.
//! 7. Every queue, wait, retry and buffer has a named bound with its reason.
//! 8. At-least-once: nothing is lost, duplicates are possible and are made visible to the handler
//!    (`task.id`, `attempt`, `redelivered`).
//! 9. Whoever may publish to a queue can cost at most their own messages. lapin ends a connection over bytes that a
//!    broker forwards, so the stream under it (`broker/wire`) makes every message readable first.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))] // see `stderr`

mod blocking;
pub mod broker;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dedup;
pub mod engine;
pub mod failpoint;
pub mod host;
pub mod model;
pub mod plugin;
pub mod registry;
pub mod reload;
pub mod router;
pub mod settlement;
#[cfg(any(test, feature = "simulate"))]
pub mod sim;
pub mod stderr;
pub mod systemd;
pub mod task;
pub mod telemetry;
pub mod text;
