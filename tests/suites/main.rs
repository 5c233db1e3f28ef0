//! The end-to-end tests: the daemon, its command line and its plugins on real RabbitMQ nodes. One binary for all suites:
//! it is linked once, its tests share a node, and a slow test has others beside it. Those of one suite alone:
//! `cargo test --locked --workspace --test e2e link::`. Tests start in alphabetical order: slow ones have names that come
//! early.

mod broker_faults;
mod cluster;
mod control;
mod copies;
mod dead;
mod dedup;
mod doctor;
mod drain;
mod hold;
mod hosts;
mod killed;
mod ledger;
mod limits;
mod link;
mod link_faults;
mod main_path;
mod node;
mod plugin;
mod producer;
mod publish;
mod quorum;
mod reload;
mod results;
mod retry;
mod scenarios;
mod sharing;
mod start;
mod tls;
mod top;
mod torture;
