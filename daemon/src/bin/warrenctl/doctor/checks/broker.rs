//! The broker: every address answers, the login is good, publishing is allowed, and its version has no known trap.

use warren::broker::DialError;
use warren::broker::Server;
use warren::broker::survey::{Address, May};

use super::super::facts::BrokerFacts;
use super::super::finding::{Area, Finding, Severity};
use crate::exit::Code;

pub(super) fn check(broker: &BrokerFacts) -> Vec<Finding> {
    let somebody = broker.addresses.iter().any(|address| address.answer.is_ok());
    let mut findings: Vec<Finding> =
        broker.addresses.iter().flat_map(|address| one(address, somebody)).collect();
    match &broker.survey {
        None => {}
        Some(Err(why)) => {
            let what = format!("it could not be asked to the end: {why}");
            findings.push(Finding::new(Severity::Error, Area::Broker, "broker", what, "ask again"));
        }
        Some(Ok(survey)) => {
            findings.extend(version(&survey.server));
            findings.push(publishing(&survey.publish));
        }
    }
    findings
}

fn one(address: &Address, somebody: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &address.answer {
        Ok(server) => {
            let what = format!("{server}, login and vhost are good");
            findings.push(Finding::ok(Area::Broker, &address.address, what));
        }
        Err(error) => {
            let severity = if somebody { Severity::Warning } else { Severity::Error };
            let code = match error {
                DialError::NoAddress | DialError::BadUri | DialError::Certificate { .. } => Code::Config,
                _ => Code::Unavailable,
            };
            let finding =
                Finding::new(severity, Area::Broker, &address.address, error.to_string(), "").with_code(code);
            findings.push(finding);
        }
    }
    if !address.is_tls && !is_loopback(&address.address) {
        findings.push(Finding::new(
            Severity::Warning,
            Area::Broker,
            &address.address,
            "password and tasks cross the network in the clear",
            "use amqps:// (broker.ca_file for a private CA), unless the network is your own",
        ));
    }
    findings
}

fn is_loopback(address: &str) -> bool {
    address.starts_with("127.") || address.starts_with("localhost:") || address.starts_with("[::1]")
}

fn version(server: &Server) -> Option<Finding> {
    let find = |severity, what: &str, remedy: &str| {
        Some(Finding::new(severity, Area::Broker, server.to_string(), what, remedy))
    };
    match server.rabbitmq() {
        None => find(
            Severity::Warning,
            "Warren is tested with RabbitMQ only, and permissions cannot be asked for here",
            "",
        ),
        Some(_) if !server.has_lossless_delay() => find(
            Severity::Warning,
            "before 3.10 delay queues are classic: a retry on its way back is lost when its queue is not there",
            "upgrade RabbitMQ to 3.10 or later",
        ),
        Some(_) if !server.takes_unlimited_deliveries() => find(
            Severity::Note,
            "RabbitMQ 3 is no longer maintained by its makers; a quorum queue made here must not have \
             x-delivery-limit=-1, which loses tasks before 4.0",
            "",
        ),
        Some(_) => None,
    }
}

fn publishing(may: &May) -> Finding {
    let place = "default exchange";
    match may {
        May::Yes => Finding::ok(Area::Broker, place, "publishing is allowed"),
        May::No(why) => Finding::new(
            Severity::Error,
            Area::Broker,
            place,
            format!("retries, dead letters and follow-ups cannot be published: {why}"),
            "rabbitmqctl set_permissions: write has to match amq\\.default",
        )
        .with_code(Code::NoPermission),
        May::Blocked => Finding::new(
            Severity::Warning,
            Area::Broker,
            place,
            "the broker takes no messages: it is short of memory or disk",
            "rabbitmq-diagnostics alarms, then make room",
        ),
        May::Unknown(why) => Finding::new(
            Severity::Note,
            Area::Broker,
            place,
            format!("not known whether publishing is allowed: {why}"),
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(address: &str, is_tls: bool, answers: bool) -> Address {
        let answer = if answers {
            Ok(Server { product: "RabbitMQ".into(), version: "4.1.0".into() })
        } else {
            Err(DialError::Login { address: address.into(), user: "u".into() })
        };
        Address { address: address.into(), is_tls, answer }
    }

    #[test]
    fn an_address_that_does_not_answer_is_an_error_only_when_none_does() {
        let table = [
            (vec![true], vec![Severity::Ok]),
            (vec![false], vec![Severity::Error]),
            (vec![false, true], vec![Severity::Warning, Severity::Ok]),
            (vec![false, false], vec![Severity::Error, Severity::Error]),
        ];
        for (answers, expected) in table {
            let addresses = answers.iter().map(|&is| address("127.0.0.1:5672/%2f", false, is)).collect();
            let findings = check(&BrokerFacts { addresses, survey: None });
            let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
            assert_eq!(severities, expected);
        }
    }

    #[test]
    fn a_password_in_the_clear_is_warned_of() {
        let table =
            [("10.0.0.5:5672/%2f", false, 2), ("10.0.0.5:5671/%2f", true, 1), ("localhost:5672/x", false, 1)];
        for (name, is_tls, count) in table {
            assert_eq!(one(&address(name, is_tls, true), true).len(), count, "{name}");
        }
    }

    #[test]
    fn versions_with_traps_are_named() {
        let table = [
            ("RabbitMQ", "4.1.0", None),
            ("RabbitMQ", "3.13.1", Some(Severity::Note)),
            ("RabbitMQ", "3.9.2", Some(Severity::Warning)),
            ("LavinMQ", "2.0.0", Some(Severity::Warning)),
        ];
        for (product, number, expected) in table {
            let server = Server { product: product.into(), version: number.into() };
            assert_eq!(version(&server).map(|finding| finding.severity), expected, "{server}");
        }
    }

    #[test]
    fn without_permission_to_publish_the_exit_code_says_permission() {
        let finding = publishing(&May::No("ACCESS_REFUSED".into()));
        assert_eq!((finding.severity, finding.code), (Severity::Error, Code::NoPermission));
        assert_eq!(publishing(&May::Blocked).severity, Severity::Warning);
        assert_eq!(publishing(&May::Yes).severity, Severity::Ok);
    }
}
