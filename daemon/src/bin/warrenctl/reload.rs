//! `warrenctl reload`.

use warren::model::status::ReloadReply;

use crate::exit::{Code, VerbError};
use crate::output::{TextTable, print, print_json};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
It returns when the reload has ended: 0, everything asked for is in force; 75, some handlers kept what they had or
were refused (the rows say why); 78, the configuration is bad and nothing changed; 69, no daemon.

Examples:
  warrenctl reload
  warrenctl reload --json | jq '.handlers[] | select(.error)'
  install -m 755 target/release/libmine.so /usr/lib/warren/plugins/mine.so && warrenctl reload";

pub(crate) fn run(global: &Global) -> Result<(), VerbError> {
    let reply = place::client(global).reload()?;
    if global.json {
        print_json(&reply)?;
    } else {
        print(&text(&reply))?;
    }
    verdict(&reply)
}

fn text(reply: &ReloadReply) -> String {
    if reply.handlers.is_empty() {
        return String::new();
    }
    let mut table = TextTable::new(&["HANDLER", "CHANGE", "GEN", "ERROR"]);
    for row in &reply.handlers {
        let generation = if row.generation == 0 { "-".to_owned() } else { row.generation.to_string() };
        let error = row.error.clone().unwrap_or_default();
        table.row([row.handler.clone(), row.change.to_string(), generation, error]);
    }
    table.text()
}

fn verdict(reply: &ReloadReply) -> Result<(), VerbError> {
    if reply.ok {
        return Ok(());
    }
    if let Some(error) = &reply.error {
        return Err(VerbError::text(Code::Config, format!("nothing was reloaded: {error}")));
    }
    let failed = reply.handlers.iter().filter(|row| row.error.is_some()).count();
    let message = format!(
        "the reload is not complete: {failed} of {} handlers could not take what was asked for; what ran before \
         still runs",
        reply.handlers.len()
    );
    Err(VerbError::text(Code::TryAgain, message))
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use warren::model::status::{HandlerChange, ReloadRow};

    use super::*;
    use crate::output;

    #[test]
    fn the_exit_code_tells_ok_partial_and_bad_config_apart() {
        let row = |change: HandlerChange, error: Option<&str>| ReloadRow {
            handler: "h".into(),
            change,
            generation: 3,
            error: error.map(str::to_owned),
        };
        let reply = |ok, error: Option<&str>, rows: &[ReloadRow]| ReloadReply {
            ok,
            at_ms: 0,
            error: error.map(str::to_owned),
            handlers: rows.to_vec(),
        };
        let partial = reply(
            false,
            None,
            &[row(HandlerChange::Replaced, None), row(HandlerChange::Kept, Some("create failed"))],
        );
        assert!(text(&partial).contains("kept        3  create failed"), "{}", text(&partial));
        for (reply, code) in [
            (reply(true, None, &[row(HandlerChange::Unchanged, None)]), 0),
            (partial, 75),
            (reply(false, Some("warren.toml:3: unknown key"), &[]), 78),
        ] {
            let ended = output::exit_code(verdict(&reply));
            assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(code)));
        }
    }
}
