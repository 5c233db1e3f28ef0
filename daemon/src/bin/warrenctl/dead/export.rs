//! `warrenctl dead export`: a letter a line, written as it is fetched.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Which;
use super::letter::Whole;
use super::look::{LookEnd, Tally, look};
use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::{note, print_json};

pub(super) const EXAMPLES: &str = "\
One JSON object a line, as `show --json` prints it: id, queue, reason, handler, error_code, error, attempts,
first_failure_ms, last_failure_ms, properties, headers, and body, or body_base64 where the body is not UTF-8. The letters
stay in the queue. With --file and --json it ends with one line of JSON about the export.

Exit status: 0 every letter that matches is written; 69 no broker; 74 the file cannot be written; 75 the link was lost, or
not every letter could be looked at: what is written is not all.

Examples:
  warrenctl dead export > letters.jsonl
  warrenctl dead export --handler backup-database --file letters.jsonl
  warrenctl dead export --reason rejected | jq -r .body
  warrenctl dead export | jq -r 'select(.error_code == \"io\") | .id'";

/// What to export, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Write to this file, in place of what is in it, and not to standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The export as JSON, where the letters went elsewhere.
#[derive(Debug, Serialize)]
struct Export {
    #[serde(flatten)]
    tally: Tally,
    file: PathBuf,
}

pub(super) fn run(global: &Global, args: &ExportArgs) -> Result<(), VerbError> {
    let which = &args.which;
    let tally = look(global, which, "export", which.filter(None), async |mut look| {
        let mut target = Target::open(args.file.as_deref())?;
        while let Some(found) = look.next().await? {
            if !target.write(&Whole::of(&found.letter))? {
                look.end(LookEnd::Reader);
                break;
            }
        }
        target.finish()?;
        Ok(look.close().await.0)
    })?;
    match &args.file {
        Some(file) if global.json => print_json(&Export { tally: tally.clone(), file: file.clone() })?,
        Some(file) if io::stderr().is_terminal() => {
            note(&format!("{} letters written to {}", tally.matched, file.display()));
        }
        _ => {}
    }
    if let Some(remark) = tally.verdict(true)? {
        note(&remark);
    }
    Ok(())
}

/// Where the lines go.
enum Target {
    Stdout,
    File(BufWriter<File>, PathBuf),
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, VerbError> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let file = File::create(path).map_err(|error| unwritable(path, error))?;
        Ok(Self::File(BufWriter::new(file), path.to_owned()))
    }

    /// Writes a line. `false`: the reader left (`| head`), which is no error.
    fn write(&mut self, letter: &Whole) -> Result<bool, VerbError> {
        let mut line = serde_json::to_vec(letter).map_err(|e| VerbError::new(Code::Software, e))?;
        line.push(b'\n');
        match self {
            Self::Stdout => match io::stdout().lock().write_all(&line) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
                written => {
                    written.map(|()| true).map_err(|error| unwritable(Path::new("standard output"), error))
                }
            },
            Self::File(file, path) => {
                file.write_all(&line).map(|()| true).map_err(|error| unwritable(path, error))
            }
        }
    }

    /// What is written is on the disk when this returns: letters may be dropped because of it.
    fn finish(self) -> Result<(), VerbError> {
        match self {
            Self::Stdout => match io::stdout().lock().flush() {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    Err(unwritable(Path::new("standard output"), error))
                }
                _ => Ok(()),
            },
            Self::File(file, path) => {
                let file = file.into_inner().map_err(|error| unwritable(&path, error.into_error()))?;
                match file.sync_all() {
                    // A pipe or a device has nothing to sync.
                    Err(error) if error.kind() != ErrorKind::InvalidInput => Err(unwritable(&path, error)),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn unwritable(path: &Path, error: io::Error) -> VerbError {
    VerbError::new(Code::Io, anyhow::Error::new(error).context(format!("cannot write to {}", path.display())))
}
