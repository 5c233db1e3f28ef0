//! The programs from outside, without a broker, and the files that belong to them. One binary, as each is linked anew.

mod architecture;
mod cli;
mod control;
mod service_files;
mod start;
