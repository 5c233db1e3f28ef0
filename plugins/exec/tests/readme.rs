//! README's example of a command: safe against what a producer may write.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use warren_exec::Exec;
use warren_plugin::testing::TestKit;

const README: &str = include_str!("../../../README.md");

/// The block in this language that has this text.
fn block(language: &str, part: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = README.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("an end"));
    blocks.find(|block| block.contains(part)).unwrap_or_else(|| panic!("no block with {part}"))
}

#[test]
fn the_example_takes_the_name_of_a_file_and_nothing_else() {
    let config: Value = toml::from_str(block("toml", "[handlers.thumbnails]")).expect("TOML");
    let mut settings = config["handlers"]["thumbnails"]["settings"].clone();
    assert_eq!(settings["command"].as_array().expect("a list")[1..], ["--", "{argument}"]);

    let place = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        fs::write(place.path().join(name), text).expect("written");
        fs::set_permissions(place.path().join(name), PermissionsExt::from_mode(0o755)).expect("a program");
    };
    write("make-thumbnail", block("sh", "exec convert"));
    write("convert", "#!/bin/sh\nprintf '<%s>' \"$@\"\n");
    settings["command"][0] = json!(place.path().join("make-thumbnail"));
    settings["directory"] = json!(place.path());
    let path = format!("{}:/usr/bin:/bin", place.path().display());
    settings["env"] = json!({"PATH": path});
    let mut kit =
        TestKit::<Exec>::new(settings).expect("good settings").prefixes(["Make thumbnail of"]).real_clock();
    for name in ["sea.jpg", "-write", "IMG_1"] {
        let ran = kit.run(format!("Make thumbnail of {name}").as_str());
        let expected = format!("<jpeg:./{name}><-resize><200x200><png:./{name}.thumb.png>");
        assert_eq!(ran.done().as_text(), expected);
    }
    for name in ["", "../x", "/etc/passwd", "msl:x", "@x", ".hidden", "a b", "https:x", "x[0]", "ä", "a\nb"]
    {
        let ran = kit.run(format!("Make thumbnail of {name}").as_str());
        assert!(ran.failure().is_reject(), "{name:?}: {}", ran.failure());
    }
}
