//! The page of a command and those of its verbs: clap's sections, and what `--help` says at its end in sections of
//! their own.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::File;

/// What stands in the lower left corner of every page.
pub(super) const SOURCE: &str = concat!("Warren ", env!("CARGO_PKG_VERSION"));

/// Adds the pages of a built command and of all its verbs.
pub(super) fn pages(command: &Command, section: &str, files: &mut Vec<File>) {
    let path = format!("man/man{section}/{}.{section}", name(command));
    files.push(File { path, contents: page(command, section).into_bytes() });
    for verb in command.get_subcommands() {
        pages(verb, section, files);
    }
}

/// Adds lines of text as they are written; those that are indented keep their form.
pub(super) fn paragraph<'a>(roff: &mut Roff, lines: impl IntoIterator<Item = &'a str>) {
    let mut verbatim = false;
    for line in lines {
        if verbatim != line.starts_with(' ') {
            verbatim = !verbatim;
            roff.control(if verbatim { "nf" } else { "fi" }, []);
        }
        if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
    if verbatim {
        roff.control("fi", []);
    }
}

/// The end of every page.
pub(super) fn see_also(roff: &mut Roff, pages: &[(&str, &str)]) {
    roff.control("SH", ["SEE ALSO"]);
    for (at, (name, section)) in pages.iter().enumerate() {
        let comma = if at + 1 < pages.len() { "," } else { "" };
        roff.text([bold(*name), roman(format!("({section}){comma}"))]);
    }
}

/// Parts of one page as one: each part comes with the preamble that a page needs once.
pub(super) fn joined(parts: &str) -> String {
    let preamble = Roff::new().render();
    format!("{preamble}{}", parts.replace(&preamble, ""))
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, section: &str) -> String {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let notes = VerbNotes::of(&after);
    let mut text = clap_sections(command, section, &notes).expect("a Vec takes everything");
    let mut rest = Roff::new();
    if !notes.exit_status.is_empty() {
        rest.control("SH", ["EXIT STATUS"]);
        paragraph(&mut rest, notes.exit_status);
    }
    if !notes.examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        paragraph(&mut rest, notes.examples);
    }
    let others = [("warrend", "8"), ("warrenctl", "1"), ("warren.toml", "5")];
    let others: Vec<_> = others.into_iter().filter(|(other, _)| *other != name(command)).collect();
    see_also(&mut rest, &others);
    text.extend(rest.render().bytes());
    joined(&String::from_utf8(text).expect("all of it was text"))
}

fn clap_sections(command: &Command, section: &str, notes: &VerbNotes<'_>) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).section(section).source(SOURCE).manual("Warren");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if !notes.prose.is_empty() {
        let mut prose = Roff::new();
        prose.control("PP", []);
        paragraph(&mut prose, notes.prose.iter().copied());
        prose.to_writer(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    Ok(text)
}

/// What `--help` says after the options, by lines.
#[derive(Debug, Default)]
struct VerbNotes<'a> {
    prose: Vec<&'a str>,
    exit_status: Vec<&'a str>,
    examples: Vec<&'a str>,
}

impl<'a> VerbNotes<'a> {
    /// Prose, then perhaps `Exit status: …`, then perhaps `Examples:`; every verb has them in this order.
    fn of(text: &'a str) -> Self {
        let mut notes = Self::default();
        let mut part = &mut notes.prose;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("Exit status: ") {
                part = &mut notes.exit_status;
                part.push(rest);
            } else if matches!(line, "Example:" | "Examples:") {
                part = &mut notes.examples;
            } else {
                part.push(line);
            }
        }
        // The blank lines between the parts.
        for part in [&mut notes.prose, &mut notes.exit_status] {
            while part.last().is_some_and(|line| line.is_empty()) {
                part.pop();
            }
        }
        notes
    }
}
