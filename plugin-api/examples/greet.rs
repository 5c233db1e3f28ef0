//! A whole plugin in Rust, the same as `hello.c`: greets whom the task names.
//!
//! ```sh
//! cargo build -p warren-plugin --example greet
//! warrenctl plugin run target/debug/examples/libgreet.so "Greet Ada"
//! ```

use warren_plugin::{Call, Done, Failure, Handler, Host, Level, Logger, Outcome, Task, reject};

struct Greet {
    greeting: String,
    log: Logger,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What stands before the name.
    #[serde(default = "hello")]
    greeting: String,
}

impl Handler for Greet {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        Ok(Self { greeting: settings.greeting, log: host.logger() })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        let name = task.argument();
        if name.is_empty() {
            return Err(reject("no-name", "say whom to greet: Greet NAME"));
        }
        call.check()?;
        self.log.log(Level::Info, "greeted", &[("name", name)]);
        Ok(Done::text(format!("{}, {name}!", self.greeting)))
    }
}

fn hello() -> String {
    "Hello".to_owned()
}

warren_plugin::export_plugin!(
    Greet,
    name = "greet",
    prefixes = ["Greet"],
    timeout = "10s",
    settings = ["greeting"]
);
