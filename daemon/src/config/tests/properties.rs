//! Whatever the text: no panic, and no password in an error.

use proptest::prelude::*;

use super::Files;

const GOOD: &str = r#"
[broker]
uri = "amqp://user:hunter2canary@127.0.0.1:5672/%2f"
heartbeat = "10s"
[queues.task_queue]
prefetch = 1
[handlers.backup-database]
prefixes = ["Backup database"]
retry = { attempts = 5, delay = "5s" }
[handlers.backup-database.settings]
directory = "/var/backups"
"#;

/// Characters that change what TOML or a URI means.
const MEANINGFUL: &str = "[]{}\"'=.,#\n\\ :/@?%\u{0}é0-";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text: String, variable: String) {
        let files = Files::new(&[("warren.toml", &text)]);
        let _ = files.load(&[("WARREN_BROKER__URI", &variable), ("WARREN_QUEUES__Q__WORKERS", &variable)]);
    }

    #[test]
    fn no_error_holds_the_password(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8), 1..4)
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let meaningful: Vec<char> = MEANINGFUL.chars().collect();
        for (place, character, edit) in edits {
            let place = place.index(text.len());
            let character = meaningful[character.index(meaningful.len())];
            match edit {
                0 => text[place] = character,
                1 => text.insert(place, character),
                _ => { text.remove(place); }
            }
        }
        let text: String = text.into_iter().collect();
        // An edit inside the password leaves it in two parts; neither may be told.
        let files = Files::new(&[("warren.toml", &text)]);
        match files.load(&[]) {
            Ok(loaded) => {
                let told = format!("{}{loaded:?}", loaded.config.render_toml());
                prop_assert!(!told.contains("hunter2canary"), "{}\n{}", text, told);
            }
            Err(errors) => {
                let told = format!("{errors}{errors:?}");
                prop_assert!(!told.contains("hunter2") && !told.contains("canary"), "{}\n{}", text, told);
            }
        }
    }
}
