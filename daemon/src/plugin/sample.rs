//! Real libraries for the tests of this module, compiled with `cc`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

pub(super) const MANIFEST: &str = r#"{"name":"demo","version":"1.2.3","abi":{"major":1,"minor":0},
    "prefixes":["Demo task"],"timeout":"15m","settings":["directory"]}"#;
pub(super) const ENTRY: &str = "const void *warren_plugin_v1(void) { return 0; }";

/// C source of a library with one manifest note per text.
fn source(manifests: &[&str], code: &str) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{code}\n");
    for (at, json) in manifests.iter().enumerate() {
        let desc: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
        let size = json.len();
        writeln!(
            text,
            "__attribute__((section(\".note.warren\"), used, aligned(4)))
             static const struct {{ unsigned n, d, t; char owner[8]; unsigned char desc[{padded}]; }} note{at} =
                 {{ 7, {size}, 1, \"warren\", {{ {} }} }};",
            desc.join(","),
            padded = size.next_multiple_of(4),
        )
        .unwrap();
    }
    text
}

pub(super) fn compile(source: &str, flags: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("plugin.c"), dir.path().join("plugin.so"));
    std::fs::write(&input, source).unwrap();
    cc(&input, &output, flags);
    std::fs::read(&output).unwrap()
}

fn cc(input: &Path, output: &Path, flags: &[&str]) {
    let out =
        Command::new("cc").args(["-w", "-Os"]).args(flags).arg("-o").arg(output).arg(input).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

const SHARED: [&str; 3] = ["-shared", "-fPIC", "-Wl,--no-as-needed"];

pub(super) fn shared(manifests: &[&str], code: &str, more: &[&str]) -> Vec<u8> {
    compile(&source(manifests, code), &[&SHARED, more].concat())
}

pub(super) fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| shared(&[MANIFEST], ENTRY, &[]))
}
