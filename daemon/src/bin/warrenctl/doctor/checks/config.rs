//! The configuration: whether it can be used, and what is doubtful about it.

use std::path::Path;
use std::time::Duration;

use warren::config::{ConfigErrors, Diagnostic, Loaded};

use super::super::finding::{Area, Finding, Severity};

pub(super) fn check(file: &Path, config: &Result<Loaded, ConfigErrors>) -> Vec<Finding> {
    let loaded = match config {
        Ok(loaded) => loaded,
        Err(errors) => {
            return errors.0.iter().map(|error| diagnostic(Severity::Error, error)).collect();
        }
    };
    let (queues, handlers) = (loaded.config.queues.len(), loaded.config.handlers.len());
    let what = format!("usable: {queues} queues, {handlers} configured handlers");
    let mut findings = vec![Finding::ok(Area::Config, file.display().to_string(), what)];
    findings.extend(loaded.warnings.iter().map(|warning| diagnostic(Severity::Warning, warning)));
    let broker = &loaded.config.broker;
    if broker.heartbeat.is_zero() {
        findings.push(Finding::new(
            Severity::Warning,
            Area::Config,
            "broker.heartbeat",
            "heartbeats are off: a broker or network that goes silent is not noticed",
            "remove the key (10s)",
        ));
    }
    let minutes = broker.consumer_timeout.as_secs() / 60;
    if broker.consumer_timeout == Duration::from_secs(30 * 60) {
        findings.push(Finding::new(
            Severity::Note,
            Area::Config,
            "broker.consumer_timeout",
            format!("{minutes} minutes are assumed, RabbitMQ's default: AMQP cannot tell the broker's own value"),
            "where it was changed (rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'), state it here",
        ));
    }
    findings
}

fn diagnostic(severity: Severity, said: &Diagnostic) -> Finding {
    let what =
        if said.key.is_empty() { said.message.clone() } else { format!("{}: {}", said.key, said.message) };
    Finding::new(severity, Area::Config, said.place.to_string(), what, said.remedy.clone())
}

#[cfg(test)]
mod tests {
    use warren::config::Place;

    use super::*;

    #[test]
    fn every_error_is_a_finding_with_its_place_and_remedy() {
        let error = |key: &str| Diagnostic {
            place: Place::Variable("WARREN_BROKER__URI".into()),
            key: key.into(),
            message: "is wrong".into(),
            remedy: "write it right".into(),
        };
        let errors = Err(ConfigErrors(vec![error("broker.uri"), error("")]));
        let findings = check(Path::new("/etc/warren/warren.toml"), &errors);
        let whats: Vec<&str> = findings.iter().map(|finding| &*finding.what).collect();
        assert_eq!(whats, ["broker.uri: is wrong", "is wrong"]);
        for finding in findings {
            assert_eq!(finding.severity, Severity::Error);
            assert_eq!(finding.place, "environment variable WARREN_BROKER__URI");
            assert_eq!(finding.remedy, "write it right");
        }
    }
}
