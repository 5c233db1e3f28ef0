//! `docs/ARCHITECTURE.md` names paths and functions. They exist: a document that names others misleads.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The paths among the words in backticks, each with the function that is named behind it.
fn named(text: &str) -> Vec<(&str, Option<&str>)> {
    let words = text.split('`').skip(1).step_by(2);
    let paths = words.filter_map(|word| {
        let (path, function) = word.split_once("::").map_or((word, None), |(path, name)| (path, Some(name)));
        let is_path = path.contains('/') && !path.contains([' ', '<', '~']) && !path.starts_with('/');
        let is_source = Path::new(path).extension().is_some_and(|extension| extension == "rs");
        (is_path || is_source).then_some((path, function))
    });
    paths.collect()
}

fn place(path: &str) -> Option<PathBuf> {
    [root().join("daemon/src").join(path), root().join(path)].into_iter().find(|place| place.exists())
}

#[test]
fn what_the_architecture_document_names_is_there() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the document");
    let named = named(&text);
    assert!(named.len() > 80, "the document names paths: {}", named.len());
    let is_there = |(path, function): &(&str, Option<&str>)| {
        let Some(place) = place(path) else { return false };
        let Some(function) = function else { return true };
        let code = fs::read_to_string(place).expect("a source file");
        code.contains(&format!("fn {function}(")) || code.contains(&format!("fn {function}<"))
    };
    let missing: Vec<_> = named.into_iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "not there: {missing:?}");
}
