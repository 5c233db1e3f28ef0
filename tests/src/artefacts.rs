//! What the workspace builds: programs, plugins, and fixture plugins compiled from C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Stands before the eight digits that [`Versions`] changes in a fixture.
const STAMP: &[u8] = b"WARREN-FIXTURE-VERSION:";

/// A program of the workspace: `warrend`, `warrenctl`.
pub fn program(name: &str) -> PathBuf {
    existing(target().join(name))
}

/// A plugin of the workspace by its plugin name: `backup-database`, or a fixture: `fixture-scenario`.
pub fn plugin(name: &str) -> PathBuf {
    existing(target().join(format!("libwarren_{}.so", name.replace('-', "_"))))
}

/// The Debian package of what the workspace has built, or the one that `WARREN_TEST_DEB` names.
///
/// # Panics
/// When it cannot be made; `scripts/setup deb` installs what that takes.
pub fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        if let Some(named) = std::env::var_os("WARREN_TEST_DEB").filter(|named| !named.is_empty()) {
            return named.into();
        }
        let mut command = Command::new(root().join("scripts/deb"));
        // Made in seconds; it goes no further than a box on this machine.
        path_said(command.arg(target()).env("COMPRESSION", "-Zgzip -z1"))
    })
}

/// A minimal tree of this machine's Debian release, with systemd and RabbitMQ: made once, and only read here.
///
/// # Panics
/// When it cannot be made.
pub fn clean_tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let about = fs::read_to_string("/etc/os-release").expect("os-release");
        let release = about.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let mut command = Command::new(root().join("scripts/brokers"));
        path_said(command.arg(release.expect("a release of Debian")).arg("machine"))
    })
}

/// Runs a script that prints where something is.
fn path_said(command: &mut Command) -> PathBuf {
    let output = command.stderr(Stdio::inherit()).output().expect("a script of this workspace");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("a path that is text").trim_end().into()
}

/// Compiles `tests/fixtures/c/SOURCE` against the header alone into the file `out`.
///
/// # Panics
/// On any warning, and when there is no C compiler.
pub fn compile_c(source: &str, arguments: &[&str], out: &Path) {
    let root = root();
    // Renamed into place: a daemon that reads the directory meanwhile must not see half a file.
    let partial = out.with_extension("partial");
    let output = Command::new("cc")
        .args(["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"])
        .arg("-I")
        .arg(root.join("plugin-api/include"))
        .arg(root.join("tests/fixtures/c").join(source))
        .args(arguments)
        .arg("-o")
        .arg(&partial)
        .output()
        .expect("cc is there; `make setup` installs it");
    assert!(output.status.success(), "cc {source}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&partial, out).expect("rename");
}

/// A fixture plugin as builds of other versions of it would be.
#[derive(Debug)]
pub struct Versions {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Versions {
    /// # Panics
    /// When the file carries no version stamp.
    pub fn of(plugin: &Path) -> Self {
        let bytes = fs::read(plugin).expect("read");
        let places: Vec<usize> = bytes
            .windows(STAMP.len())
            .enumerate()
            .filter(|(_, window)| *window == STAMP)
            .map(|(at, _)| at + STAMP.len())
            .collect();
        assert!(!places.is_empty(), "{} carries no version stamp", plugin.display());
        Self { bytes, places }
    }

    /// The bytes of one version.
    pub fn version(&self, version: u32) -> Vec<u8> {
        let digits = format!("{version:08}");
        let mut bytes = self.bytes.clone();
        for &place in &self.places {
            bytes[place..place + digits.len()].copy_from_slice(digits.as_bytes());
        }
        bytes
    }
}

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// Where cargo puts what it builds; everything is built when this returns. Once per process: `cargo test` builds the
/// tests, but not the programs they start.
fn target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace"]).current_dir(root());
        // What `cargo test` tells a test of its package: build scripts that look at it would run again for each.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
                build.env_remove(name);
            }
        }
        let status = build.status().expect("cargo is there");
        assert!(status.success(), "cargo build --workspace: {status}");
        // target/debug/deps/SUITE-0123 or target/debug/demo
        let own = std::env::current_exe().expect("own path");
        let directory = own.parent().expect("a directory");
        if directory.ends_with("deps") { directory.parent().expect("target") } else { directory }.to_owned()
    })
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there after `cargo build --workspace`", path.display());
    path
}
