//! `warrenctl handlers`.

use std::fmt::Write;
use std::time::Duration;

use warren::model::status::HandlerStatus;

use crate::exit::VerbError;
use crate::output::{TextTable, clean, print, print_json, short_digest, span};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Examples:
  warrenctl handlers
  warrenctl handlers --json | jq -r '.[] | \"\\(.name) \\(.sha256)\"'";

pub(crate) fn run(global: &Global) -> Result<(), VerbError> {
    let handlers = place::client(global).handlers()?;
    if global.json { print_json(&handlers) } else { print(&text(&handlers)) }
}

fn text(handlers: &[HandlerStatus]) -> String {
    if handlers.is_empty() {
        return "no handler is loaded\n".to_owned();
    }
    let mut table = TextTable::new(&[
        "HANDLER",
        "STATE",
        "PREFIXES",
        "QUEUES",
        "WORKERS",
        "WEIGHT",
        "RATE",
        "FAIR BY",
        "EXCLUSIVE BY",
        "TIMEOUT",
        "GEN",
        "SHA256",
        "HOSTS",
        "FILE",
    ]);
    for handler in handlers {
        let quoted: Vec<_> = handler.prefixes.iter().map(|prefix| format!("{prefix:?}")).collect();
        let hosts: Vec<_> = handler.hosts.iter().map(u32::to_string).collect();
        table.row([
            handler.name.clone(),
            handler.state.to_string(),
            quoted.join(", "),
            if handler.queues.is_empty() { "all".to_owned() } else { handler.queues.join(", ") },
            if handler.workers == 0 { "-".to_owned() } else { handler.workers.to_string() },
            handler.weight.max(1).to_string(),
            match &handler.rate {
                Some((rate, burst)) if *burst > 1 => format!("{rate}, burst {burst}"),
                Some((rate, _)) => rate.clone(),
                None => "-".to_owned(),
            },
            handler.fair_by.clone().unwrap_or_else(|| "-".to_owned()),
            handler.exclusive_by.clone().unwrap_or_else(|| "-".to_owned()),
            span(Duration::from_millis(handler.timeout_ms)),
            handler.generation.to_string(),
            short_digest(&handler.sha256),
            if hosts.is_empty() { "-".to_owned() } else { hosts.join(",") },
            handler.path.clone(),
        ]);
    }
    let mut text = table.text();
    for handler in handlers {
        if let Some(why) = &handler.held {
            let until = handler.held_for_ms.map_or_else(
                || "until `warrenctl handler resume`".to_owned(),
                |left| format!("for another {}", span(Duration::from_millis(left))),
            );
            let (name, state) = (clean(&handler.name), handler.state);
            let _ = writeln!(text, "{name} is {state} {until}: {}", clean(why));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use warren::model::status::HandlerState;

    use super::*;

    #[test]
    fn a_handler_shows_its_prefixes_and_hosts() {
        let text = text(&[HandlerStatus {
            name: "orders".into(),
            prefixes: vec!["Process order".into(), "Process payment".into()],
            hosts: vec![10, 11],
            timeout_ms: 900_000,
            fair_by: Some("header:tenant".into()),
            ..HandlerStatus::default()
        }]);
        assert!(text.contains(r#""Process order", "Process payment"  all"#), "{text}");
        assert!(text.contains("15m") && text.contains("10,11"), "{text}");
        assert!(text.contains("  header:tenant  "), "{text}");
    }

    #[test]
    fn a_held_handler_says_why_and_for_how_long() {
        let held = |left| HandlerStatus {
            name: "mail".into(),
            state: HandlerState::Suspended,
            held: Some("its plugin hosts died repeatedly".into()),
            held_for_ms: left,
            ..HandlerStatus::default()
        };
        let lines = text(&[held(Some(8_000)), held(None)]);
        assert!(
            lines.contains("mail is suspended for another 8s: its plugin hosts died repeatedly"),
            "{lines}"
        );
        assert!(lines.contains("mail is suspended until `warrenctl handler resume`: "), "{lines}");
    }
}
