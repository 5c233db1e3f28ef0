//! `warrenctl pages`: the manual pages and the shells' completions, made of the command lines' own definitions and of
//! the commented configuration, so that they say what `--help` says. Hidden: it is for `make install` and packages.

mod manual;
mod reference;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::{Shell, generate};
use warren::daemon::Arguments;

use crate::exit::{Code, VerbError};

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl pages /usr/share";

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct PagesArgs {
    /// Below it they are where man and the shells look: man/, bash-completion/, zsh/, fish/
    #[arg(value_name = "DIRECTORY")]
    share: PathBuf,
}

/// Writes everything there is for `warrenctl`, whose definition is given, and for `warrend`.
pub(crate) fn run(args: &PagesArgs, warrenctl: &Command) -> Result<(), VerbError> {
    for file in files(warrenctl) {
        let path = args.share.join(&file.path);
        write(&path, &file.contents).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
            VerbError::new(Code::Io, error)
        })?;
    }
    Ok(())
}

/// A file to be installed.
#[derive(Debug)]
struct File {
    /// Below `share`.
    path: String,
    contents: Vec<u8>,
}

fn files(warrenctl: &Command) -> Vec<File> {
    let mut files =
        vec![File { path: "man/man5/warren.toml.5".to_owned(), contents: reference::page().into_bytes() }];
    for (command, section) in [(without_hidden(warrenctl), "1"), (Arguments::command(), "8")] {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        manual::pages(&command, section, &mut files);
        let name = command.get_name().to_owned();
        for (shell, path) in [
            (Shell::Bash, format!("bash-completion/completions/{name}")),
            (Shell::Zsh, format!("zsh/site-functions/_{name}")),
            (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            let mut contents = Vec::new();
            generate(shell, &mut command, &name, &mut contents);
            files.push(File { path, contents });
        }
    }
    files
}

/// The same command line without its hidden verbs: `clap_complete` would offer them.
fn without_hidden(full: &Command) -> Command {
    let verbs = full.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new("warrenctl")
        .version(env!("CARGO_PKG_VERSION"))
        .about(full.get_about().cloned().unwrap_or_default())
        .after_help(full.get_after_help().cloned().unwrap_or_default())
        .args(full.get_arguments().cloned())
        .subcommand_required(true)
        .subcommands(verbs)
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a file is in a directory"))?;
    fs::write(path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> String {
        let files = files(&crate::Cli::command());
        let file = files.iter().find(|file| file.path == path).unwrap_or_else(|| {
            panic!("no {path} among {:?}", files.iter().map(|file| &file.path).collect::<Vec<_>>())
        });
        String::from_utf8(file.contents.clone()).expect("UTF-8")
    }

    /// What a reader sees of it, near enough.
    fn plain(page: &str) -> String {
        page.replace(r"\-", "-")
            .replace(r"\*(Aq", "'")
            .replace(r"\fB", "")
            .replace(r"\fR", "")
            .replace(r"\&", "")
            .replace(r"\\", r"\")
    }

    #[test]
    fn every_verb_has_a_page_and_is_completed_and_hidden_ones_are_not() {
        let completions = [
            "bash-completion/completions/warrenctl",
            "zsh/site-functions/_warrenctl",
            "fish/vendor_completions.d/warrenctl.fish",
        ]
        .map(text);
        let verbs = crate::Cli::command();
        for verb in verbs.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            assert!(completions.iter().all(|shell| shell.contains(name)), "{name}");
            for further in verb.get_subcommands() {
                let further = format!("man/man1/warrenctl-{name}-{}.1", further.get_name());
                assert!(plain(&text(&further)).contains("SEE ALSO"), "{further}");
            }
            let page = plain(&text(&format!("man/man1/warrenctl-{name}.1")));
            assert!(page.contains(&format!("warrenctl-{name} - ")), "{page}");
        }
        assert!(!completions.iter().any(|shell| shell.contains("pages")));
        assert!(!files(&verbs).iter().any(|file| file.path.contains("pages")));
    }

    #[test]
    fn a_page_says_what_help_says() {
        let page = plain(&text("man/man1/warrenctl-dead-replay.1"));
        let mut full = crate::Cli::command();
        full.build();
        let replay =
            full.find_subcommand("dead").and_then(|dead| dead.find_subcommand("replay")).expect("it");
        let after = replay.get_after_help().expect("examples").to_string();
        for line in after.lines().filter(|line| !line.is_empty() && *line != "Examples:") {
            assert!(page.contains(line.trim_start_matches("Exit status: ")), "{line}\n{page}");
        }
        for option in replay.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&format!("--{option}")), "--{option}");
        }
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
            let times = headings.filter(|there| there.trim_matches('"') == heading).count();
            assert_eq!(times, 1, "{heading}\n{page}");
        }
    }

    #[test]
    fn the_daemons_page_tells_of_its_signals() {
        let page = text("man/man8/warrend.8");
        assert!(page.contains("SIGHUP reloads"), "{page}");
    }

    #[test]
    fn the_manual_of_the_configuration_has_every_line_of_the_reference() {
        let page = plain(&text("man/man5/warren.toml.5"));
        for line in reference::REFERENCE.lines().filter(|line| !matches!(*line, "" | "#")) {
            let line = line.strip_prefix("# ").unwrap_or(line);
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
    }
}
