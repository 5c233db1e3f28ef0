//! The simulator: the real [core](crate::engine::core) against models of everything around it, in virtual time and from one
//! seed. Part of no program that is installed: `make simulate`, and a short run in the unit tests.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `choice` `fault` | random choices that are found by what they are for; the kinds of faults |
//! | `setup` `plan` | what a seed makes: queues, handlers, rates of faults; what happens and when |
//! | `world` `agenda` | the clock and what is to happen |
//! | `daemon` `store` | the core's driver; the records of finished tasks |
//! | `broker` `link` `publishing` | the broker, the link to it, confirmed copies |
//! | `hosts` `handler` | plugin hosts and what runs in them |
//! | `operators` | producers, operators, the machine |
//! | `ledger` `telling` `reports` `settling` `giving` | the second account: what the daemon was told, what it may do for it |
//! | `invariants` `fairness` `sharing` `violation` | what has to hold after every turn and at the end |
//! | `run` `shrink` `trace` | runs; a failing plan made smaller; what happened, in words |
//! | `command` | `make simulate` |

mod agenda;
mod broker;
mod choice;
mod command;
mod daemon;
mod fairness;
mod fault;
mod giving;
mod handler;
mod hosts;
mod invariants;
mod ledger;
mod link;
mod operators;
mod plan;
mod publishing;
mod reports;
mod run;
mod settling;
mod setup;
mod sharing;
mod shrink;
mod store;
mod telling;
#[cfg(test)]
mod tests;
mod trace;
mod violation;
mod world;

pub use self::command::main;
