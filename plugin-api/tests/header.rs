//! The C header: it compiles cleanly wherever it claims to, and says the same as the Rust side.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use warren_plugin::abi;

const STRICT: [&str; 6] = ["-Wall", "-Wextra", "-Wshadow", "-pedantic", "-Werror", "-fsyntax-only"];

#[test]
fn header_alone_compiles_as_c99_and_cpp11_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("header.c");
    fs::write(
        &source,
        "#include \"warren_plugin.h\"\n#include \"warren_plugin.h\"\nWARREN_MANIFEST(\"{}\");\n",
    )
    .unwrap();
    compile(&["cc", "-std=c99"], &source);
    compile(&["c++", "-std=c++11", "-x", "c++"], &source);
}

#[test]
fn example_in_c_compiles_as_c99_and_cpp11_without_a_warning() {
    let source = root().join("examples/hello.c");
    compile(&["cc", "-std=c99"], &source);
    compile(&["c++", "-std=c++11", "-x", "c++"], &source);
}

#[test]
fn layout_in_c_is_the_layout_stated_apart_from_it() {
    compile(&["cc", "-std=c11"], &root().join("tests/layout.c"));
}

#[test]
fn header_and_rust_agree_on_every_number() {
    let mut text = "#include \"warren_plugin.h\"\n".to_owned();
    for (name, value) in numbers() {
        writeln!(text, "_Static_assert(WARREN_{name} == {value}, \"{name}\");").unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("numbers.c");
    fs::write(&source, text).unwrap();
    compile(&["cc", "-std=c11"], &source);
}

#[test]
fn every_number_of_the_header_is_compared_with_rust() {
    let header = fs::read_to_string(root().join("include/warren_plugin.h")).unwrap();
    let known: Vec<String> = numbers().iter().map(|(name, _)| format!("WARREN_{name}")).collect();
    let missing: Vec<&str> = header
        .lines()
        .filter_map(|line| line.trim_start().split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("WARREN_") && !known.iter().any(|known| known == name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

fn numbers() -> Vec<(&'static str, i64)> {
    let size = |bytes: usize| i64::try_from(bytes).unwrap();
    vec![
        ("MAGIC", abi::MAGIC.into()),
        ("ABI_MAJOR", abi::ABI_MAJOR.into()),
        ("ABI_MINOR", abi::ABI_MINOR.into()),
        ("DONE", abi::DONE.into()),
        ("RETRY", abi::RETRY.into()),
        ("REJECT", abi::REJECT.into()),
        ("CANCELLED", abi::CANCELLED.into()),
        ("FAULT", abi::FAULT.into()),
        ("TASK_REDELIVERED", abi::TASK_REDELIVERED.into()),
        ("TASK_ID_GENERATED", abi::TASK_ID_GENERATED.into()),
        ("LOG_ERROR", abi::LOG_ERROR.into()),
        ("LOG_WARN", abi::LOG_WARN.into()),
        ("LOG_INFO", abi::LOG_INFO.into()),
        ("LOG_DEBUG", abi::LOG_DEBUG.into()),
        ("LOG_TRACE", abi::LOG_TRACE.into()),
        ("PUBLISH_OK", abi::PUBLISH_OK.into()),
        ("PUBLISH_NOT_ALLOWED", abi::PUBLISH_NOT_ALLOWED.into()),
        ("PUBLISH_INVALID", abi::PUBLISH_INVALID.into()),
        ("PUBLISH_TOO_MANY", abi::PUBLISH_TOO_MANY.into()),
        ("PUBLISH_TOO_LARGE", abi::PUBLISH_TOO_LARGE.into()),
        ("MAX_RESULT_BYTES", size(abi::MAX_RESULT_BYTES)),
        ("MAX_WORD_BYTES", size(abi::MAX_WORD_BYTES)),
        ("MAX_ERROR_BYTES", size(abi::MAX_ERROR_BYTES)),
        ("MAX_FOLLOW_UPS", size(abi::MAX_FOLLOW_UPS)),
        ("MAX_FOLLOW_UP_BYTES", size(abi::MAX_FOLLOW_UP_BYTES)),
        ("MAX_FOLLOW_UP_PROPERTIES", size(abi::MAX_FOLLOW_UP_PROPERTIES)),
        ("MAX_FOLLOW_UPS_BYTES", size(abi::MAX_FOLLOW_UPS_BYTES)),
        ("MAX_LOG_BYTES", size(abi::MAX_LOG_BYTES)),
        ("MAX_LOG_FIELDS", size(abi::MAX_LOG_FIELDS)),
        ("MAX_LOG_FIELDS_BYTES", size(abi::MAX_LOG_FIELDS_BYTES)),
    ]
}

/// Compiles without output; panics with what the compiler says.
fn compile(compiler: &[&str], source: &Path) {
    let output = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(STRICT)
        .arg("-I")
        .arg(root().join("include"))
        .arg(source)
        .output()
        .unwrap_or_else(|error| panic!("{} does not start: {error}; install gcc and g++", compiler[0]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{compiler:?} on {}: {said}", source.display());
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
