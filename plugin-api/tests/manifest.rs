//! What the linker makes of a plugin: the manifest lies in a PT_NOTE segment, and one symbol is exported.

use object::elf::{FileHeader64, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn rust_plugin_carries_its_manifest_and_exports_one_symbol() {
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("libgreet.so");
    fs::copy(build_rust_example(), &file).unwrap();
    let expected = json!({
        "name": "greet", "version": env!("CARGO_PKG_VERSION"), "abi": {"major": 1, "minor": 0},
        "prefixes": ["Greet"], "timeout": "10s", "settings": ["greeting"],
    });
    assert_eq!(manifest(&file), expected);
    assert_eq!(exports(&file), ["warren_plugin_v1"]);

    strip(&file);
    assert_eq!(manifest(&file), expected);
}

#[test]
fn c_plugin_keeps_its_manifest_through_gc_sections_and_strip() {
    let expected = json!({
        "name": "hello", "version": "1.0.0", "abi": {"major": 1, "minor": 0},
        "prefixes": ["Say hello to"], "timeout": "10s", "settings": [],
    });
    let directory = tempfile::tempdir().unwrap();
    for optimise in ["-O0", "-O2"] {
        let file = directory.path().join("hello.so");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        run(Command::new("cc")
            .args([optimise, "-std=c99", "-fPIC", "-shared", "-fvisibility=hidden"])
            .args(["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-I"])
            .arg(root.join("include"))
            .arg(root.join("examples/hello.c"))
            .arg("-o")
            .arg(&file));
        strip(&file);
        assert_eq!(manifest(&file), expected, "{optimise}");
        assert_eq!(exports(&file), ["warren_plugin_v1"], "{optimise}");
    }
}

/// Builds `examples/greet.rs` beside this test's own executable, where a full `cargo test` has it already.
fn build_rust_example() -> PathBuf {
    let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    run(Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "--package",
            "warren-plugin",
            "--example",
            "greet",
            "--target-dir",
        ])
        .arg(profile.parent().unwrap()));
    profile.join("examples/libgreet.so")
}

fn strip(file: &Path) {
    run(Command::new("strip").arg("--strip-all").arg(file));
}

/// The JSON of the note, found as the daemon finds it: through the program headers alone.
fn manifest(file: &Path) -> Value {
    let data = fs::read(file).unwrap();
    let header = FileHeader64::<Endianness>::parse(&*data).unwrap();
    let endian = header.endian().unwrap();
    let segments = header.program_headers(endian, &*data).unwrap();
    let mut found = Vec::new();
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_NOTE) {
        assert!(segment.p_align(endian) <= 8);
        let mut notes = segment.notes(endian, &*data).unwrap().unwrap();
        while let Some(note) = notes.next().unwrap() {
            if note.name() == b"warren" && note.n_type(endian).0 == 1 {
                found.push(serde_json::from_slice(without_padding(note.desc())).unwrap());
            }
        }
    }
    assert_eq!(found.len(), 1, "one manifest, not {found:?}");
    found.remove(0)
}

/// Without the NUL that the C macro leaves at the end.
fn without_padding(desc: &[u8]) -> &[u8] {
    let end = desc.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &desc[..end]
}

/// Names of the symbols that others can see.
fn exports(file: &Path) -> Vec<String> {
    let data = fs::read(file).unwrap();
    let object = object::File::parse(&*data).unwrap();
    object
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.is_global())
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
