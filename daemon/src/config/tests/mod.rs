//! The loader as an operator meets it: files in, a configuration or every error out.

mod faults;
mod properties;
mod reference;
mod values;

use std::path::PathBuf;

use super::{Config, ConfigErrors, Environment, Loaded};

/// A directory with a `warren.toml` and its neighbours.
pub(super) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside the directory")).expect("directory");
            std::fs::write(path, text).expect("file");
        }
        Self { directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        let environment: Environment = environment.iter().copied().collect();
        Config::load(&self.path("warren.toml"), &environment)
    }

    /// The errors, with the directory's name taken off.
    pub(super) fn errors(&self, environment: &[(&str, &str)]) -> Vec<String> {
        let errors = self.load(environment).expect_err("a configuration with faults");
        let prefix = format!("{}/", self.directory.path().display());
        errors.0.iter().map(|e| e.to_string().replace(&prefix, "")).collect()
    }
}

/// Loads `text` as the only file; a queue is added.
pub(super) fn load(text: &str) -> Config {
    loaded(text, &[]).config
}

/// As [`load`], with variables and warnings.
pub(super) fn loaded(text: &str, environment: &[(&str, &str)]) -> Loaded {
    let text = format!("{text}\n[queues.task_queue]\n");
    match Files::new(&[("warren.toml", &text)]).load(environment) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

/// The errors of `text` as the only file; a queue is added.
pub(super) fn errors(text: &str) -> Vec<String> {
    let text = format!("{text}\n[queues.task_queue]\n");
    Files::new(&[("warren.toml", &text)]).errors(&[])
}
