//! What the host gives a handler for life: its log.

use crate::abi;
use crate::raw::RawHost;
use std::sync::{Arc, PoisonError, RwLock};

/// What the host offers while the handler is made.
pub struct Host {
    logger: Logger,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may fail.
    Warn,
    /// Something happened that an operator wants to know.
    Info,
    /// For the handler's author.
    Debug,
    /// For the handler's author, in detail.
    Trace,
}

/// Writes to the daemon's log, with the handler and the running task added; from any thread. Cloned into threads
/// that outlive the handler it falls silent, it never dangles.
#[derive(Clone)]
pub struct Logger {
    /// `None` once the handler is destroyed. The lock makes `close` wait for lines being written.
    host: Arc<RwLock<Option<RawHost>>>,
}

impl Host {
    pub(crate) fn new(logger: Logger) -> Self {
        Self { logger }
    }

    /// A logger to keep.
    pub fn logger(&self) -> Logger {
        self.logger.clone()
    }

    /// Writes a line with fields.
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.logger.log(level, message, fields);
    }

    /// Writes an error.
    pub fn error(&self, message: &str) {
        self.logger.error(message);
    }

    /// Writes a warning.
    pub fn warn(&self, message: &str) {
        self.logger.warn(message);
    }

    /// Writes a line of information.
    pub fn info(&self, message: &str) {
        self.logger.info(message);
    }

    /// Writes a line for the handler's author.
    pub fn debug(&self, message: &str) {
        self.logger.debug(message);
    }
}

impl Logger {
    pub(crate) fn new(host: RawHost) -> Self {
        Self { host: Arc::new(RwLock::new(Some(host))) }
    }

    /// Forgets the host; returns when no thread writes a line any more.
    pub(crate) fn close(&self) {
        self.host.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Writes a line with fields.
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        if let Some(host) = &*self.host.read().unwrap_or_else(PoisonError::into_inner) {
            host.log(level.number(), message, fields);
        }
    }

    /// Writes an error.
    pub fn error(&self, message: &str) {
        self.log(Level::Error, message, &[]);
    }

    /// Writes a warning.
    pub fn warn(&self, message: &str) {
        self.log(Level::Warn, message, &[]);
    }

    /// Writes a line of information.
    pub fn info(&self, message: &str) {
        self.log(Level::Info, message, &[]);
    }

    /// Writes a line for the handler's author.
    pub fn debug(&self, message: &str) {
        self.log(Level::Debug, message, &[]);
    }
}

impl Level {
    /// As the ABI numbers it.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Error => abi::LOG_ERROR,
            Self::Warn => abi::LOG_WARN,
            Self::Info => abi::LOG_INFO,
            Self::Debug => abi::LOG_DEBUG,
            Self::Trace => abi::LOG_TRACE,
        }
    }

    /// The level of an ABI number; what is out of range counts as the nearest.
    pub fn from_number(number: i32) -> Self {
        match number {
            ..=abi::LOG_ERROR => Self::Error,
            abi::LOG_WARN => Self::Warn,
            abi::LOG_INFO => Self::Info,
            abi::LOG_DEBUG => Self::Debug,
            abi::LOG_TRACE.. => Self::Trace,
        }
    }
}
