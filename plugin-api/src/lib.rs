//! Write Warren handlers.
//!
//! A plugin is a shared library with one [`Handler`]: Warren hands it the tasks whose text begins with its
//! prefixes, one at a time, in a process of its own. A whole one:
//!
//! ```
//! use std::{fs, path::PathBuf};
//! use warren_plugin::{Call, Done, Failure, Handler, Host, Outcome, Task, export_plugin, reject};
//!
//! struct WordCount { directory: PathBuf }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings { directory: PathBuf }
//!
//! impl Handler for WordCount {
//!     type Settings = Settings;
//!
//!     fn new(settings: Settings, _host: &Host) -> Result<Self, Failure> {
//!         fs::read_dir(&settings.directory)?;                   // `?`: an error the operator is shown
//!         Ok(Self { directory: settings.directory })
//!     }
//!
//!     fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
//!         if task.argument().contains('/') {
//!             return Err(reject("bad-name", "name a file, not a path"));  // never again: a dead letter
//!         }
//!         let text = fs::read_to_string(self.directory.join(task.argument()))?;  // `?`: again later
//!         call.check()?;                                        // asked to stop, or out of time?
//!         Ok(Done::text(format!("{} words", text.split_whitespace().count())))
//!     }
//! }
//!
//! export_plugin!(WordCount, name = "word-count", prefixes = ["Count words of"], timeout = "30s", settings = ["directory"]);
//!
//! // And its test, without broker or daemon:
//! use warren_plugin::testing::TestKit;
//! let directory = std::env::temp_dir().join(format!("word-count-{}", std::process::id()));
//! fs::create_dir_all(&directory).unwrap();
//! fs::write(directory.join("poem.txt"), "so much depends upon").unwrap();
//! let mut kit = TestKit::<WordCount>::new(serde_json::json!({ "directory": directory })).unwrap();
//! assert_eq!(kit.run("Task 1: Count words of poem.txt").done().as_text(), "4 words");
//! assert!(kit.run("Count words of ../secret").failure().is_reject());
//! fs::remove_dir_all(&directory).unwrap();
//! ```
//!
//! Its `Cargo.toml` says `crate-type = ["cdylib"]` (and `"rlib"` for integration tests). `cargo build
//! --release`, then copy the `.so` into the plugins directory and reload.
//!
//! # What becomes of a task
//!
//! | the handler returns | the task is |
//! | --- | --- |
//! | `Ok(Done…)` | acknowledged, once the broker has confirmed its follow-ups ([`Call::publish`]) |
//! | `Err(retry(…))`, or any error through `?` | tried again after a delay, up to the configured attempts |
//! | `Err(reject(…))` | a dead letter with that code and message |
//! | the error of [`Call::check`] | given back when the daemon stops; otherwise tried again, as a timeout |
//! | nothing: it panics, crashes, exits, hangs | tried again, up to the configured attempts; nothing else is touched |
//!
//! A task can run more than once: Warren loses none, so after a crash it cannot know. Key effects by
//! [`Task::id`].
//!
//! # Modules
//!
//! Handlers need what is at the top and, for their tests, [`testing`]. [`abi`] and [`hosting`] are for hosts. For C and other
//! languages there is `include/warren_plugin.h`, the same boundary; `examples/hello.c` is a handler written
//! with it alone.

#![warn(missing_docs)] // The only crate that others write code against.

pub mod abi;
mod answer;
mod call;
mod constant;
pub mod duration;
mod export;
mod failure;
mod handler;
pub mod hosting;
mod log;
mod message;
#[doc(hidden)]
pub mod note;
mod panics;
mod raw;
mod settings;
#[doc(hidden)]
pub mod shim;
mod task;
pub mod testing;
mod time;

pub use call::Call;
pub use failure::{Failure, reject, retry};
pub use handler::{Done, Handler, NoSettings, Outcome};
pub use log::{Host, Level, Logger};
pub use message::Message;
pub use task::Task;
