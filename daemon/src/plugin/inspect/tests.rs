//! Inspection of real libraries, compiled here with `cc`, and of everything that is wrong with them.

use proptest::prelude::*;

use super::*;
use crate::plugin::sample::{ENTRY, MANIFEST, compile, good, shared};

fn with_manifest(json: &str) -> Result<Manifest, InspectError> {
    inspect(&shared(&[json], ENTRY, &["-nostdlib"]))
}

#[test]
fn manifest_of_a_real_library_is_read() {
    let expected = Manifest {
        name: "demo".into(),
        version: "1.2.3".into(),
        abi_major: 1,
        abi_minor: 0,
        prefixes: vec!["Demo task".into()],
        timeout: Some(Duration::from_secs(15 * 60)),
        settings: vec!["directory".into()],
        targets: Targets::default(),
    };
    assert_eq!(inspect(good()), Ok(expected.clone()));
    let findings = examine(good());
    assert_eq!(findings.problems, []);
    assert_eq!(findings.machine, Some(std::env::consts::ARCH));
    assert!(findings.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", findings.needed);

    for flags in
        [&["-Wl,--hash-style=sysv"][..], &["-Wl,--hash-style=both"], &["-s"], &["-Wl,-z,noseparate-code"]]
    {
        assert_eq!(inspect(&shared(&[MANIFEST], ENTRY, flags)), Ok(expected.clone()), "{flags:?}");
    }
}

#[test]
fn library_without_section_headers_is_read_by_its_segments() {
    let mut bytes = good().to_vec();
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    assert_eq!(inspect(&bytes).unwrap().name, "demo");
}

#[test]
fn file_truncated_at_any_offset_is_refused() {
    for end in 0..good().len() {
        let error = inspect(&good()[..end]).expect_err("truncated");
        match (end, &error) {
            (0, InspectError::Empty)
            | (1.., InspectError::Truncated { .. } | InspectError::Damaged { .. }) => {}
            _ => panic!("cut to {end} bytes: {error}"),
        }
    }
}

#[test]
fn what_is_no_shared_library_is_named_as_what_it_is() {
    let main = "int main(void) { return 0; }";
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "the file is empty"),
        ("script", b"#!/bin/sh\nexit 0\n".to_vec(), "this is a text file (it begins with `#!/bin/sh`)"),
        ("linker script", b"/* GNU ld script */\nGROUP ( a.so )\n".to_vec(), "this is a text file"),
        ("zip", b"PK\x03\x04\0\0\0\0".to_vec(), "this is not an ELF file"),
        ("start of an ELF file", b"\x7fELF\x02\x01".to_vec(), "the file is truncated: the ELF header"),
        ("object file", compile(main, &["-c"]), "it is an object file (`.o`)"),
        ("position-independent program", compile(main, &["-pie", "-fPIE"]), "it is an executable program"),
        (
            "fixed program",
            compile(main, &["-no-pie", "-nostdlib", "-static", "-Wl,-e,main"]),
            "it is an executable program",
        ),
    ];
    for (what, bytes, expected) in table {
        let message = inspect(&bytes).expect_err(what).to_string();
        assert!(message.starts_with(expected), "{what}: {message}");
    }
}

#[test]
fn other_architecture_is_named() {
    let patched = |offset: usize, bytes: &[u8]| {
        let mut file = good().to_vec();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        inspect(&file).expect_err("another machine").to_string()
    };
    let host = std::env::consts::ARCH;
    assert!(patched(18, &[243, 0]).starts_with(&format!("it is built for riscv64, this machine is {host};")));
    assert!(patched(18, &[0x39, 0x30]).starts_with("it is built for machine 12345,"));
    assert!(patched(4, &[1]).starts_with("it is built for 32-bit "));
    assert!(patched(5, &[2]).starts_with("it is built for machine "), "big-endian");
}

#[test]
fn origin_is_refused_by_name() {
    for (flags, tag, value) in [
        (&["-Wl,-rpath,$ORIGIN/lib,--enable-new-dtags"][..], "RUNPATH", "$ORIGIN/lib"),
        (&["-Wl,-rpath,/opt/lib:${ORIGIN},--disable-new-dtags"], "RPATH", "/opt/lib:${ORIGIN}"),
    ] {
        let error = inspect(&shared(&[MANIFEST], ENTRY, flags)).expect_err(tag);
        assert_eq!(error, InspectError::Origin { tag, value: value.into() });
        assert!(error.to_string().contains("link private libraries statically"));
    }
    assert!(inspect(&shared(&[MANIFEST], ENTRY, &["-Wl,-rpath,/opt/lib"])).is_ok());
}

#[test]
fn missing_manifest_or_entry_point_is_named_with_the_remedy() {
    let error = |manifests: &[&str], code: &str| inspect(&shared(manifests, code, &[])).expect_err("refused");
    assert_eq!(error(&[], ENTRY), InspectError::NoNote);
    assert!(InspectError::NoNote.to_string().contains("is it built with `export_plugin!`"));
    assert_eq!(error(&[MANIFEST, MANIFEST], ENTRY), InspectError::ManyNotes(2));
    assert_eq!(error(&[MANIFEST], "int other;"), InspectError::NoSymbol);
    assert_eq!(error(&[MANIFEST], &format!("static {ENTRY}")), InspectError::NoSymbol);
    assert_eq!(
        error(&[MANIFEST], &format!("__attribute__((visibility(\"hidden\"))) {ENTRY}")),
        InspectError::NoSymbol
    );
    assert_eq!(
        error(&[MANIFEST], "int warren_plugin_v1 = 1;"),
        InspectError::NoSymbol,
        "data is no function"
    );
    let imported = "extern int warren_plugin_v1(void); int other(void) { return warren_plugin_v1(); }";
    assert_eq!(error(&[MANIFEST], imported), InspectError::NoSymbol, "undefined here");
}

#[test]
fn examine_goes_on_after_a_problem() {
    let findings = examine(&shared(&[MANIFEST, MANIFEST], "int other;", &["-Wl,-rpath,$ORIGIN"]));
    assert!(matches!(
        findings.problems[..],
        [InspectError::ManyNotes(2), InspectError::NoSymbol, InspectError::Origin { .. }]
    ));
    assert!(findings.machine.is_some() && !findings.needed.is_empty());
}

#[test]
fn abi_window_is_major_equal_and_minor_not_above() {
    let abi = |major: u16, minor: u16| {
        // Another major may look different in all else: only `abi` is needed to say so.
        with_manifest(&format!(r#"{{"abi":{{"major":{major},"minor":{minor}}},"new":1}}"#))
            .expect_err("refused")
    };
    let host = Abi::HOST;
    assert_eq!(abi(host.0 + 1, 0), InspectError::AbiMajor { plugin: Abi(host.0 + 1, 0), host });
    assert!(abi(host.0 + 1, 0).to_string().contains("newer than this daemon: upgrade Warren"));
    assert!(abi(host.0 - 1, 9).to_string().contains("older than this daemon: rebuild it"));
    assert_eq!(abi(host.0, host.1 + 1), InspectError::AbiMinor { plugin: Abi(host.0, host.1 + 1), host });
    assert!(
        matches!(abi(host.0, host.1), InspectError::Manifest(_)),
        "in the window, but the name is missing"
    );
}

#[test]
fn invalid_manifest_says_which_field() {
    let manifest = |name: &str, version: &str, rest: &str| {
        format!(r#"{{"name":{name},"version":{version},"abi":{{"major":1,"minor":0}}{rest}}}"#)
    };
    let long = format!(r#","prefixes":["{}"]"#, "x".repeat(300));
    let table = [
        (manifest(r#""Demo""#, r#""1""#, ""), "its name is \"Demo\""),
        (manifest(r#""""#, r#""1""#, ""), "its name is \"\""),
        (manifest(r#""../x""#, r#""1""#, ""), "its name is \"../x\""),
        (manifest(r#""-x""#, r#""1""#, ""), "the first no `-`"),
        (manifest(r#""a""#, r#""""#, ""), "version \"\" is empty"),
        (manifest(r#""a""#, r#""1\n""#, ""), "version \"1\\n\""),
        (manifest(r#""a""#, r#""1""#, r#","prefixes":[""]"#), "prefix \"\" is empty"),
        (manifest(r#""a""#, r#""1""#, r#","prefixes":["a\u0007b"]"#), "control characters"),
        (manifest(r#""a""#, r#""1""#, r#","prefixes":["a","a"]"#), "prefix \"a\" stands in it twice"),
        (manifest(r#""a""#, r#""1""#, &long), "a prefix has 300 bytes, the bound is 255"),
        (manifest(r#""a""#, r#""1""#, r#","timeout":"soon""#), "timeout: \"soon\" is not a duration"),
        (manifest(r#""a""#, r#""1""#, r#","timeout":"0s""#), "more than 0"),
        (manifest(r#""a""#, r#""1""#, r#","timeout":"31d""#), "at most 30 days"),
        (manifest(r#""a""#, "7", ""), "expected a string"),
        ("{".to_owned(), "EOF"),
        ("\u{1}".to_owned(), "expected value"),
    ];
    for (json, expected) in table {
        let message = parse_manifest(json.as_bytes()).expect_err(&json).to_string();
        assert!(
            message.starts_with("its manifest is invalid: ") && message.contains(expected),
            "{json}: {message}"
        );
    }
    let huge = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(parse_manifest(&huge).unwrap_err().to_string().contains("the bound is 65536"));
    assert!(parse_manifest(b"\xff").unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn padding_and_unknown_keys_of_a_manifest_are_ignored() {
    let json = r#"{"abi":{"major":1,"minor":0,"x":1},"name":"a-1","version":"0.1","colour":"red"}"#;
    let manifest = parse_manifest(&[json.as_bytes(), b"\0\0\0"].concat()).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.prefixes.len(), manifest.timeout), ("a-1", 0, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn mutated_library_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        head in any::<bool>(),
    ) {
        let mut bytes = good().to_vec();
        // The structure stands in the first kilobyte and where the dynamic tables are; the rest hardly matters.
        let reach = if head { 1024 } else { bytes.len() };
        for (at, value) in changes {
            let at = at.index(reach);
            bytes[at] = value;
        }
        let findings = examine(&bytes);
        prop_assert_eq!(inspect(&bytes).is_ok(), findings.problems.is_empty());
    }

    #[test]
    fn hostile_numbers_never_panic(
        at in any::<prop::sample::Index>(), value in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(0), any::<u64>()],
    ) {
        let mut bytes = good().to_vec();
        let at = at.index(bytes.len() / 8 - 1) * 8;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let findings = examine(&bytes);
        prop_assert_eq!(inspect(&bytes).is_ok(), findings.problems.is_empty());
    }
}
