//! Write Warren handlers.

pub mod abi;
mod call;
pub mod duration;
mod export;
mod failure;
mod handler;
mod log;
mod message;
mod panics;
mod raw;
mod settings;
#[doc(hidden)]
pub mod shim;
mod task;
pub mod testing;
mod time;

pub use call::Call;
#[doc(hidden)]
pub use export::note;
pub use failure::{Failure, reject, retry};
pub use handler::{Done, Handler, NoSettings, Outcome};
pub use log::{Host, Level, Logger};
pub use message::Message;
pub use task::Task;
