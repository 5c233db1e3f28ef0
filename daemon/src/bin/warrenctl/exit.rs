//! How `warrenctl` ends: why a verb failed, and the exit code (sysexits.h) of that.

use std::fmt;
use std::process::ExitCode;

use warren::broker::{DialError, QueueError};
use warren::control::client::ClientError;

/// Exit codes, as in sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The command line is wrong.
    Usage = 64,
    /// The task or the file is wrong.
    Data = 65,
    /// No broker, no daemon.
    Unavailable = 69,
    /// The handler or this program failed.
    Software = 70,
    /// Output could not be written.
    Io = 74,
    /// Try again later.
    TryAgain = 75,
    /// This user may not.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
    /// Ctrl-C, as a shell reports it.
    Interrupted = 130,
}

/// Why a verb did not do its work.
#[derive(Debug)]
pub(crate) struct VerbError {
    code: Code,
    error: anyhow::Error,
}

impl VerbError {
    /// A failure with its message; the error's chain is printed with it.
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// A failure whose whole message is `text`.
    pub(crate) fn text(code: Code, text: impl Into<String>) -> Self {
        Self { code, error: anyhow::Error::msg(text.into()) }
    }
}

impl fmt::Display for VerbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<ClientError> for VerbError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NoDaemon { .. } | ClientError::Permission { .. } => Code::Unavailable,
            ClientError::Busy { .. } => Code::TryAgain,
            ClientError::NoSuch { .. } => Code::Data,
            ClientError::Forbidden { .. } => Code::NoPermission,
            ClientError::Refused { .. } | ClientError::Garbled { .. } => Code::Software,
        };
        Self::new(code, error)
    }
}

impl From<DialError> for VerbError {
    fn from(error: DialError) -> Self {
        let code = match &error {
            DialError::NoAddress | DialError::BadUri | DialError::Certificate { .. } => Code::Config,
            _ => Code::Unavailable,
        };
        Self::new(code, anyhow::Error::new(error).context("no broker"))
    }
}

impl From<QueueError> for VerbError {
    fn from(error: QueueError) -> Self {
        let code = match &error {
            QueueError::Stream(_) | QueueError::Different { .. } | QueueError::NameTooLong(_) => Code::Config,
            QueueError::Refused { .. }
            | QueueError::Broker { .. }
            | QueueError::Silent { .. }
            | QueueError::Link(_) => Code::Unavailable,
        };
        Self::new(code, error)
    }
}

/// Ends the program for what the command line parser said: help and version are no errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A reader that left (a pager) is no reason to fail.
    let _ = error.print();
    if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(Code::Usage as u8) }
}
