//! Every queue and those that belong to it: what they are, what the user may do with them, and what waits in them.

use warren::broker::dead::HOLD;
use warren::broker::survey::{
    ExistingQueue, Form, May, QueueSurvey, Rights, Survey, SurveyedDelayQueue, SurveyedQueue,
};
use warren::broker::topology::permission_pattern;
use warren::broker::{Description, Server};
use warren::config::{Config, QueueType};

use super::super::finding::{Area, Finding, Severity};
use crate::exit::Code;

pub(super) fn check(survey: &Survey, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for queue in &survey.queues {
        let before = findings.len();
        findings.extend(work(&queue.work, &survey.server, config));
        findings.extend(dead(&queue.dead, &survey.server));
        findings.extend(delays(queue));
        findings.extend(rights(queue));
        if findings.len() == before {
            findings.push(Finding::ok(Area::Queues, &*queue.queue, shown(queue)));
        }
    }
    if survey.passed_over > 0 {
        let what = format!("{} further queues were not looked at", survey.passed_over);
        findings.push(Finding::new(Severity::Note, Area::Queues, "the rest", what, ""));
    }
    findings
}

/// What is to be said of a queue that nothing is wrong with.
fn shown(queue: &QueueSurvey) -> String {
    let Some(there) = &queue.work.there else {
        return "it does not exist yet: warrend declares it".to_owned();
    };
    let kind = there.described.as_ref().and_then(|described| described.kind.as_deref());
    let delayed: u32 = queue.delays.iter().map(|delay| delay.ready).sum();
    format!(
        "{}, {} ready, {} consumers, {delayed} delayed, no dead letters",
        kind.unwrap_or("type not known"),
        there.ready,
        there.consumers
    )
}

fn work(sight: &SurveyedQueue, server: &Server, config: &Config) -> Vec<Finding> {
    let Some(there) = &sight.there else { return Vec::new() };
    let find = |severity, what: String, remedy: String| {
        Finding::new(severity, Area::Queues, &sight.name, what, remedy)
    };
    let Some(described) = &there.described else {
        let what = "its type and arguments are not known: the user may not configure it".to_owned();
        return vec![find(Severity::Note, what, String::new())];
    };
    let mut findings = Vec::new();
    let kind = described.kind.as_deref();
    if kind == Some("stream") {
        let what = "it is a stream, which keeps its messages when they are acknowledged: warrend refuses it";
        let remedy = "configure a classic or quorum queue of another name";
        return vec![find(Severity::Error, what.into(), remedy.into())];
    }
    if !described.durable {
        let what = "it is not durable: a restart of the broker loses it with all tasks";
        let remedy = "delete it when it is empty and declare it durable";
        findings.push(find(Severity::Warning, what.into(), remedy.into()));
    }
    if kind == Some("classic") && config.broker.uris.len() > 1 {
        let what = if server.takes_unlimited_deliveries() {
            "it is classic, so that it lives on one node of the cluster and is away when that is"
        } else {
            "it is classic: it lives on one node of the cluster, or is mirrored by a policy, which can lose \
             confirmed tasks and is gone in RabbitMQ 4"
        };
        let remedy = "use a queue with `type = \"quorum\"`";
        findings.push(find(Severity::Warning, what.into(), remedy.into()));
    }
    findings.extend(delivery_limit(&sight.name, described, server));
    for (argument, why) in [
        (
            "x-max-length",
            "holds no more tasks than that, and drops the oldest or refuses new ones, retries too",
        ),
        (
            "x-max-length-bytes",
            "holds no more than that, and drops the oldest tasks or refuses new ones, retries too",
        ),
        ("x-message-ttl", "drops tasks that wait longer"),
        ("x-expires", "is deleted with its tasks when nobody consumes it for that long"),
    ] {
        if let Some(value) = described.arguments.get(argument) {
            findings.push(find(
                Severity::Note,
                format!("it has {argument}={value}: it {why}"),
                String::new(),
            ));
        }
    }
    if let Some(limit) = milliseconds(described, "x-consumer-timeout")
        && limit < config.broker.consumer_timeout
    {
        let what = format!(
            "its own x-consumer-timeout is {} s, broker.consumer_timeout says {} s",
            limit.as_secs(),
            config.broker.consumer_timeout.as_secs()
        );
        findings.push(find(Severity::Warning, what, "state the shorter one in the configuration".into()));
    }
    if there.ready > 0 && there.consumers == 0 {
        let what = format!("{} tasks wait and nobody consumes them", there.ready);
        findings.push(find(Severity::Warning, what, "start warrend (systemctl start warrend)".into()));
    }
    findings
}

/// What the broker does to a task that it has handed out often.
fn delivery_limit(name: &str, described: &Description, server: &Server) -> Option<Finding> {
    if described.kind.as_deref() != Some("quorum") {
        return None;
    }
    let find =
        |severity, what: String, remedy: &str| Some(Finding::new(severity, Area::Queues, name, what, remedy));
    let limit = described.arguments.get("x-delivery-limit").map(String::as_str);
    let keeps = described.arguments.contains_key("x-dead-letter-exchange");
    match (limit, server.takes_unlimited_deliveries()) {
        (Some("-1"), false) => find(
            Severity::Error,
            "x-delivery-limit=-1 loses tasks on this broker, at the first one that goes back".into(),
            "delete it when it is empty and declare it without, or upgrade RabbitMQ to 4.0",
        ),
        (Some("-1"), true) | (None, false) => None,
        _ if keeps => None,
        (limit, _) => find(
            Severity::Warning,
            format!(
                "RabbitMQ drops a task that came back more than {} times, unless a policy says otherwise",
                limit.unwrap_or("20")
            ),
            "rabbitmqctl set_policy NAME '^QUEUE$' '{\"delivery-limit\":-1}' --apply-to quorum_queues (RabbitMQ 4)",
        ),
    }
}

fn dead(sight: &SurveyedQueue, server: &Server) -> Vec<Finding> {
    let Some(there) = &sight.there else { return Vec::new() };
    let find = |severity, what: String, remedy: &str| {
        Finding::new(severity, Area::Queues, &sight.name, what, remedy)
    };
    let mut findings = Vec::new();
    findings.extend(letters(&sight.name, there));
    let Some(described) = &there.described else { return findings };
    if described.kind.as_deref() == Some("stream") {
        let what = "it is a stream: dead letters can be kept in it, but not replayed";
        findings.push(find(Severity::Warning, what.into(), "delete it; warrend declares it anew"));
    }
    if !described.durable {
        let what = "it is not durable: a restart of the broker loses the dead letters";
        let remedy = "delete it when it is empty; warrend declares it anew";
        findings.push(find(Severity::Warning, what.into(), remedy));
    }
    for argument in ["x-message-ttl", "x-expires"] {
        if let Some(value) = described.arguments.get(argument) {
            let what = format!("it has {argument}={value}: dead letters vanish after that many milliseconds");
            findings.push(find(
                Severity::Warning,
                what,
                "delete it when it is empty; warrend declares it anew",
            ));
        }
    }
    findings.extend(delivery_limit(&sight.name, described, server));
    findings
}

/// How many letters there are, and whether there is room for more.
fn letters(name: &str, there: &ExistingQueue) -> Option<Finding> {
    let find =
        |severity, what: String, remedy: &str| Some(Finding::new(severity, Area::Queues, name, what, remedy));
    let argument = |key: &str| there.described.as_ref().and_then(|described| described.arguments.get(key));
    let most = argument("x-max-length").and_then(|text| text.parse::<u32>().ok());
    let remedy = "warrenctl dead list, then replay or drop them";
    match (there.ready, most) {
        (ready, Some(most)) if ready >= most => {
            if argument("x-overflow").is_some_and(|how| how.starts_with("reject-publish")) {
                let what = format!(
                    "it is full ({ready} of {most}): it takes no more dead letters, whose tasks stay unacknowledged"
                );
                find(Severity::Error, what, remedy)
            } else {
                let what = format!("it is full ({ready} of {most}): each new dead letter drops the oldest");
                find(Severity::Error, what, remedy)
            }
        }
        (ready, _) if ready >= HOLD => {
            let what = format!("{ready} dead letters: more than one look can hold ({HOLD})");
            find(Severity::Warning, what, remedy)
        }
        (0, _) => None,
        (ready, _) => find(Severity::Note, format!("{ready} dead letters"), remedy),
    }
}

fn delays(queue: &QueueSurvey) -> Vec<Finding> {
    let one = |delay: &SurveyedDelayQueue| {
        let find = |severity, what: &str, remedy: &str| {
            Some(Finding::new(severity, Area::Queues, &delay.name, what, remedy))
        };
        match delay.form {
            Form::Wanted => None,
            Form::OtherType(QueueType::Quorum) => {
                find(Severity::Note, "it is a quorum queue; used as it is", "")
            }
            Form::OtherType(QueueType::Classic) => find(
                Severity::Warning,
                "it is classic: a task on its way back from it is lost when its work queue is not there",
                "delete it when it is empty; warrend declares it anew",
            ),
            Form::Unusable => find(
                Severity::Error,
                "it was declared with another delay or way back: warrend cannot use it, and retries that need it wait",
                "delete it when it is empty; warrend declares it anew",
            ),
            Form::Unknown => find(
                Severity::Note,
                "whether warrend can use it is not known: the user may not configure it",
                "",
            ),
        }
    };
    queue.delays.iter().filter_map(one).collect()
}

/// What the daemon has to be allowed: to read the queue, to declare what is missing, and the delay queues always.
fn rights(queue: &QueueSurvey) -> Vec<Finding> {
    let Rights { configure, read } = &queue.delay;
    let (work, dead) = (&queue.work, &queue.dead);
    let pattern = permission_pattern(&queue.queue);
    let delayed = format!("{}.retry.*", queue.queue);
    [
        need(&work.name, "read", "tasks cannot be consumed", &work.rights.read, &pattern),
        (work.there.is_none())
            .then(|| need(&work.name, "configure", "it cannot be declared", &work.rights.configure, &pattern))
            .flatten(),
        (dead.there.is_none())
            .then(|| {
                let what = "it does not exist and cannot be declared: dead letters are not taken, and their tasks \
                            stay unacknowledged";
                need(&dead.name, "configure", what, &dead.rights.configure, &pattern)
            })
            .flatten(),
        need(&delayed, "configure", "delay queues cannot be declared: retries wait", configure, &pattern),
        need(&delayed, "read", "delay queues cannot be declared: retries wait", read, &pattern),
        want(&dead.name, &dead.rights.read),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn need(place: &str, right: &str, what: &str, may: &May, pattern: &str) -> Option<Finding> {
    match may {
        May::Yes | May::Blocked => None,
        May::No(why) => {
            let remedy = format!("rabbitmqctl set_permissions: {right} has to match {pattern}");
            let what = format!("{what}: {why}");
            let finding = Finding::new(Severity::Error, Area::Queues, place, what, remedy);
            Some(finding.with_code(Code::NoPermission))
        }
        May::Unknown(why) => {
            let what = format!("whether the user has {right} permission is not known: {why}");
            Some(Finding::new(Severity::Note, Area::Queues, place, what, ""))
        }
    }
}

/// The daemon writes dead letters; who reads them is `warrenctl dead`.
fn want(place: &str, may: &May) -> Option<Finding> {
    let May::No(_) = may else { return None };
    let what = "this user may not read it: warrenctl dead cannot look at dead letters";
    Some(Finding::new(
        Severity::Note,
        Area::Queues,
        place,
        what,
        "grant read on it, or give warrenctl another user",
    ))
}

fn milliseconds(described: &Description, argument: &str) -> Option<std::time::Duration> {
    described.arguments.get(argument)?.parse().ok().map(std::time::Duration::from_millis)
}

#[cfg(test)]
mod tests;
