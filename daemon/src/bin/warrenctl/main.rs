//! `warrenctl`: publish tasks, ask and reload the daemon, check configuration and plugins.
#![deny(clippy::print_stdout, clippy::print_stderr)] // `output` is where it is written

mod active;
mod cancel;
mod config;
mod dead;
mod doctor;
mod exit;
mod handlers;
mod interrupt;
mod output;
mod pages;
mod pause;
mod place;
mod plugin;
mod publish;
mod reload;
mod route;
mod status;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use warren::engine::PauseTarget;

use crate::exit::VerbError;

fn main() -> ExitCode {
    // `plugin check` and `plugin run` start hosts of this very executable.
    warren::host::run_if_host();
    warren::failpoint::arm();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    output::exit_code(run(&cli))
}

fn run(cli: &Cli) -> Result<(), VerbError> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Publish(args) => publish::run(global, args),
        Verb::Status => status::run(global),
        Verb::Top(args) => top::run(global, args),
        Verb::Handlers => handlers::run(global),
        Verb::Active => active::run(global),
        Verb::Cancel(args) => cancel::run(global, args),
        Verb::Handler { verb } => pause::run(global, verb, PauseTarget::Handler),
        Verb::Queue { verb } => pause::run(global, verb, PauseTarget::Queue),
        Verb::Reload => reload::run(global),
        Verb::Doctor(args) => doctor::run(global, args),
        Verb::Route(args) => route::run(global, args),
        Verb::Dead { verb } => dead::run(global, verb),
        Verb::Config { verb } => config::run(global, verb),
        Verb::Plugin { verb } => plugin::run(global, verb),
        Verb::Pages(args) => pages::run(args, &Cli::command()),
    }
}

const AFTER: &str = "\
Exit status: 0 done; 64 usage; 65 bad data; 69 no daemon or no broker; 70 a handler or the program failed;
75 try again; 77 not allowed; 78 configuration; 130 interrupted.

Examples:
  warrenctl publish 'Process order #1001'
  warrenctl status
  warrenctl top                             the same, live
  warrenctl doctor                          what is wrong, and what to do about it
  warrenctl VERB --help                     every verb has examples";

/// Publish tasks for warrend, ask it, reload it; check its configuration and its plugins.
#[derive(Debug, Parser)]
#[command(name = "warrenctl", version, after_help = AFTER, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
struct Global {
    /// The daemon's configuration: names the broker, the queues, the plugins and the socket
    #[arg(long, global = true, value_name = "FILE", default_value = place::CONFIG)]
    config: PathBuf,
    /// The daemon that runs as warrend@NAME: /etc/warren/NAME/warren.toml and its socket
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "config")]
    instance: Option<String>,
    /// The daemon's control socket, instead of the configured one
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Publish tasks: from the command line, a file or a pipe
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::PublishArgs),
    /// Show the daemon's state: broker, queues, handlers, last errors
    #[command(after_help = status::EXAMPLES)]
    Status,
    /// Watch queues, handlers and running tasks live, with rates and latencies
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// List the handlers with their prefixes, limits and hosts
    #[command(after_help = handlers::EXAMPLES)]
    Handlers,
    /// List the tasks that are running now
    #[command(after_help = active::EXAMPLES)]
    Active,
    /// Stop a task that is running or waiting in the daemon
    #[command(after_help = cancel::EXAMPLES)]
    Cancel(cancel::CancelArgs),
    /// Pause or resume a handler
    #[command(after_help = pause::HANDLER_EXAMPLES)]
    Handler {
        #[command(subcommand)]
        verb: pause::PauseVerb,
    },
    /// Pause or resume a queue
    #[command(after_help = pause::QUEUE_EXAMPLES)]
    Queue {
        #[command(subcommand)]
        verb: pause::PauseVerb,
    },
    /// Reload configuration and plugins, wait for the result and show it
    #[command(after_help = reload::EXAMPLES)]
    Reload,
    /// Look for what is wrong, or will be: files, plugins, broker, queues, daemon, machine
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Say which handler takes a task, and why
    #[command(after_help = route::EXAMPLES)]
    Route(route::RouteArgs),
    /// List, show, replay, drop or export dead letters
    #[command(after_help = dead::EXAMPLES)]
    Dead {
        #[command(subcommand)]
        verb: dead::DeadVerb,
    },
    /// Check or show the configuration
    #[command(after_help = config::EXAMPLES)]
    Config {
        #[command(subcommand)]
        verb: config::ConfigVerb,
    },
    /// Inspect, check or run a plugin without a daemon
    #[command(after_help = plugin::EXAMPLES)]
    Plugin {
        #[command(subcommand)]
        verb: plugin::PluginVerb,
    },
    /// Write the manual pages and the shells' completions
    #[command(hide = true, after_help = pages::EXAMPLES)]
    Pages(pages::PagesArgs),
}
