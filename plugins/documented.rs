//! For the tests of the shipped plugins: what a crate's documentation shows is what the plugin takes.

use serde_json::Value;

/// The settings in the first example of a crate's documentation.
pub(crate) fn documented_settings(source: &str) -> Value {
    let lines = source.lines().map(|line| line.trim_start_matches("//!").trim_start());
    let example: Vec<&str> =
        lines.skip_while(|line| *line != "```toml").skip(1).take_while(|line| *line != "```").collect();
    let config: Value = toml::from_str(&example.join("\n")).expect("the example is TOML");
    let handlers = config["handlers"].as_object().expect("it configures handlers");
    handlers.values().next().expect("one handler")["settings"].clone()
}
