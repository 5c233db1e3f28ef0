//! The settings, and all that can be checked of them before a task comes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use warren_plugin::abi::MAX_RESULT_BYTES;

use crate::environment;
use crate::template::Template;

/// `[handlers.NAME.settings]`; what each key means stands in the crate's documentation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    command: Vec<String>,
    #[serde(default = "yes")]
    stdin: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default = "root")]
    directory: PathBuf,
    #[serde(default = "success")]
    done: BTreeSet<u8>,
    #[serde(default = "data_error")]
    reject: BTreeSet<u8>,
    #[serde(default = "output_bytes")]
    max_output: usize,
    #[serde(default = "plain_text")]
    output_type: String,
    #[serde(default = "seconds_5", with = "warren_plugin::duration")]
    kill_after: Duration,
}

fn yes() -> bool {
    true
}

fn root() -> PathBuf {
    "/".into()
}

fn success() -> BTreeSet<u8> {
    BTreeSet::from([0])
}

/// 65 is `EX_DATAERR` of sysexits.h.
fn data_error() -> BTreeSet<u8> {
    BTreeSet::from([65])
}

fn output_bytes() -> usize {
    16 * 1024
}

fn plain_text() -> String {
    "text/plain".to_owned()
}

fn seconds_5() -> Duration {
    Duration::from_secs(5)
}

/// Room for the note that output was cut, in bytes.
pub(crate) const NOTE_ROOM: usize = 128;

/// Checked settings.
#[derive(Debug)]
pub(crate) struct Plan {
    /// As the operator wrote it; the command's `argv[0]`.
    pub(crate) name: String,
    /// The file to run.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<Template>,
    pub(crate) stdin: bool,
    /// The environment but for the task's fields.
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) done: BTreeSet<u8>,
    pub(crate) reject: BTreeSet<u8>,
    pub(crate) max_output: usize,
    pub(crate) output_type: String,
    pub(crate) kill_after: Duration,
}

impl Settings {
    /// Checks everything; the errors are all there are, each with its key.
    pub(crate) fn check(
        self,
        host_environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Plan, Vec<String>> {
        let mut errors = Vec::new();
        let environment = environment::base(host_environment, &self.env).unwrap_or_else(|error| {
            errors.push(error);
            BTreeMap::new()
        });
        let mut templates = Vec::new();
        for (index, element) in self.command.iter().enumerate() {
            match Template::parse(element) {
                Ok(template) => templates.push(template),
                Err(error) => errors.push(format!("command[{index}]: {error}")),
            }
        }
        errors.extend(self.limits().err());
        if !self.directory.is_absolute() || !self.directory.is_dir() {
            let directory = self.directory.display();
            errors.push(format!(
                "directory: {directory} is not an existing directory: write an absolute path to one"
            ));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let (name, program) =
            program(&templates, environment.get(OsStr::new("PATH"))).map_err(|error| vec![error])?;
        templates.remove(0);
        Ok(Plan {
            name,
            program,
            arguments: templates,
            stdin: self.stdin,
            environment,
            directory: self.directory,
            done: self.done,
            reject: self.reject,
            max_output: self.max_output,
            output_type: self.output_type,
            kill_after: self.kill_after,
        })
    }

    fn limits(&self) -> Result<(), String> {
        if self.done.is_empty() {
            return Err("done: no exit status would mean success: write [0]".to_owned());
        }
        if let Some(both) = self.done.intersection(&self.reject).next() {
            return Err(format!("reject: exit status {both} stands in done too: remove it from one of them"));
        }
        if self.max_output > MAX_RESULT_BYTES - NOTE_ROOM {
            let most = MAX_RESULT_BYTES - NOTE_ROOM;
            return Err(format!("max_output: {} is too much: write at most {most} bytes", self.max_output));
        }
        if self.output_type.is_empty() {
            return Err("output_type: it is empty: write a MIME type such as \"text/plain\"".to_owned());
        }
        Ok(())
    }
}

/// The first element's text, and the file it means.
fn program(command: &[Template], path: Option<&OsString>) -> Result<(String, PathBuf), String> {
    let first =
        command.first().ok_or("command: it is empty: write [\"/path/to/program\", \"argument\", …]")?;
    let name = first.literal().ok_or(
        "command[0]: the program cannot depend on the task, or a producer could choose what runs: \
         write its path, and placeholders only after it",
    )?;
    if name.contains('/') {
        let program = PathBuf::from(name);
        if !program.is_absolute() {
            return Err(format!("command[0]: {name:?} is a relative path: write the absolute one"));
        }
        if !is_executable(&program) {
            return Err(format!(
                "command[0]: {name} is not an executable file: install it or correct the path"
            ));
        }
        return Ok((name.to_owned(), program));
    }
    let path = path.map_or(OsStr::new(""), OsString::as_os_str);
    let found =
        std::env::split_paths(path).map(|directory| directory.join(name)).find(|file| is_executable(file));
    match found {
        Some(program) if !name.is_empty() => Ok((name.to_owned(), program)),
        _ => Err(format!(
            "command[0]: no program {name:?} in PATH ({}): install it or write its absolute path",
            path.display()
        )),
    }
}

/// Whether the file may be run by somebody. Whether by us is seen when it is started.
fn is_executable(path: &Path) -> bool {
    path.is_absolute()
        && path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
