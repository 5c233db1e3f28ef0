//! What is refused, and in which words.

use super::{Files, errors, loaded};

/// One error, at this place, with these words in it.
fn assert_refused(text: &str, place: &str, words: &[&str]) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
    assert!(errors[0].starts_with(&format!("warren.toml:{place}: ")), "{text}: {errors:?}");
    for word in words {
        assert!(errors[0].contains(word), "{text}: no {word:?} in {errors:?}");
    }
}

#[test]
fn unknown_keys_are_named_with_a_suggestion() {
    let table = [
        ("[brokr]", "1:2", &["brokr: unknown key", "\"broker\"", "queues"][..]),
        ("[broker]\nheart_beat = '5s'", "2:1", &["broker.heart_beat", "did you mean \"heartbeat\"?"]),
        ("[queues.a]\nprefech = 1", "2:1", &["queues.a.prefech", "\"prefetch\"", "workers"]),
        ("[handlers.a]\nmax-tasks = 1", "2:1", &["handlers.a.max-tasks", "\"max_tasks\""]),
        ("[handlers.a.retry]\nattempt = 1", "2:1", &["handlers.a.retry.attempt", "\"attempts\""]),
        ("prefetch = 1", "1:1", &["prefetch: unknown key", "it belongs in [queues.NAME]"]),
        ("[log]\ncolour = true", "2:1", &["log.colour: unknown key;", "known here: level, target"]),
        ("[daemon]\n'a\\nb' = 1", "2:1", &["daemon.a\\nb"]),
        ("[queues.tasks.mail]\nworkers = 1", "1:15", &["unknown key", "quoted: [queues.\"tasks.mail\"]"]),
        ("[handlers.tasks.mail]\nworkers = 1", "1:17", &["unknown key", "quoted: [handlers.\"tasks.mail\"]"]),
        ("[queues.a.b.c]\nworkers = 1", "1:11", &["queues.a.b: ", "quoted: [queues.\"a.b.c\"]"]),
        ("[handlers.a.setings]\nx = 1", "1:13", &["unknown key", "[handlers.\"a.setings\"]", "\"settings\""]),
    ];
    for (text, place, words) in table {
        assert_refused(text, place, words);
    }
}

#[test]
fn a_delay_queue_is_no_work_queue_and_a_dead_queue_is_one_with_a_warning() {
    let says = &["is the name of a delay queue of \"orders\"", "configure \"orders\""];
    assert_refused("[queues.\"orders.retry.250\"]\n[queues.orders]", "1:9", says);
    assert_refused("[queues.\"orders.retry.777\"]", "1:9", says);
    for (text, count) in [
        ("[queues.orders]\n[queues.\"orders.dead\"]", 1),
        ("[queues.\"orders.dead\"]", 0),
        ("[queues.\"orders.retry\"]\n[queues.\"orders.retry.mail\"]", 0),
    ] {
        let warnings = loaded(text, &[]).warnings;
        assert_eq!(warnings.len(), count, "{text}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.to_string().contains("dead letters")), "{warnings:?}");
    }
}

#[test]
fn wrong_types_say_what_was_found_and_what_is_wanted() {
    let table = [
        ("broker = 3", "1:1", &["broker: is an integer", "make it a table: [broker]"][..]),
        ("[broker]\nuri = 5672", "2:1", &["broker.uri: is an integer", "AMQP URI"]),
        ("[broker]\nuris = 'amqp://h'", "2:1", &["broker.uris: is text", "a list"]),
        ("[broker]\nuris = ['amqp://h', 1]", "2:21", &["broker.uris: is an integer", "a list"]),
        ("[broker]\nheartbeat = 10", "2:1", &["is an integer", "\"5s\""]),
        ("[queues.a]\nprefetch = '1'", "2:1", &["is text", "from 1 to 65535"]),
        ("[queues.a]\nprefetch = 1.5", "2:1", &["is a decimal number", "whole number"]),
        ("[queues]\na = 1", "2:1", &["queues.a: is an integer", "[queues.a]"]),
        ("[handlers]\na = true", "2:1", &["handlers.a: is a boolean", "[handlers.a]"]),
        ("[handlers.a]\nprefixes = 'x'", "2:1", &["is text", "a list of text"]),
        ("[handlers.a]\nretry = 5", "2:1", &["is an integer", "[handlers.a.retry]"]),
        ("[handlers.a]\nsettings = 5", "2:1", &["is an integer", "[handlers.a.settings]"]),
        ("[handlers.a.retry]\nfactor = 'two'", "2:1", &["is text", "from 1 to 100"]),
        ("[daemon]\nrequire_broker = 'yes'", "2:1", &["is text", "true or false"]),
        ("[daemon]\nmax_task_bytes = 5", "2:1", &["is an integer", "MiB"]),
        ("[log]\nlevel = 1979-05-27", "2:1", &["is a date or time", "a level"]),
    ];
    for (text, place, words) in table {
        assert_refused(text, place, words);
    }
}

#[test]
fn values_out_of_range_say_the_range() {
    let table = [
        ("[queues.a]\nprefetch = 0", "2:1", &["queues.a.prefetch: is 0", "from 1 to 65535"][..]),
        ("[queues.a]\nworkers = 0", "2:1", &["queues.a.workers: is 0", "from 1 to 65535"]),
        ("[queues.a]\nworkers = -1", "2:1", &["is -1"]),
        ("[queues.a]\nworkers = 99999999999999999999", "2:1", &["not such a number"]),
        ("[queues.a]\nprefetch = 256\nworkers = 256", "1:9", &["is 65536", "65535", "lower prefetch"]),
        ("[queues.a]\ntype = 'stream'", "2:1", &["\"stream\" is not known", "\"classic\" or \"quorum\""]),
        ("[queues.a]\ntype = 'quorom'", "2:1", &["did you mean \"quorum\""]),
        ("[broker]\nheartbeat = '1500ms'", "2:1", &["whole seconds"]),
        ("[broker]\nheartbeat = '10 parsecs'", "2:1", &["\"10 parsecs\" is not a duration", "\"250ms\""]),
        ("[broker]\nconnect_timeout = '0s'", "2:1", &["out of range", "\"100ms\" to \"1h\""]),
        ("[broker]\npublish_channels = 0", "2:1", &["is 0", "from 1 to 1000"]),
        ("[handlers.a]\nworkers = 0", "2:1", &["is 0"]),
        ("[plugins]\nmax_idle_hosts = 0", "2:1", &["is 0", "from 1 to 65535"]),
        ("[handlers.a]\nrate = 10", "2:1", &["a rate as text", "10/s"]),
        ("[handlers.a]\nrate = '10'", "2:1", &["\"10\" is not a rate", "300/m"]),
        ("[handlers.a]\nrate = '0/s'", "2:1", &["is not a rate"]),
        ("[handlers.a]\nrate = '+5/s'", "2:1", &["is not a rate"]),
        ("[handlers.a]\nrate = '5/d'", "2:1", &["is not a rate"]),
        ("[handlers.a]\nrate = '100001/s'", "2:1", &["out of range", "100000/s"]),
        ("[handlers.a]\nfair_by = 'tenant'", "2:1", &["names no part of a task", "header:tenant"]),
        ("[handlers.a]\nfair_by = 'header:'", "2:1", &["names no part of a task"]),
        ("[handlers.a]\nexclusive_by = 5", "2:1", &["text", "argument"]),
        ("[handlers.a]\nburst = 2", "2:1", &["means nothing without a rate"]),
        ("[handlers.a]\nweight = 0", "2:1", &["is 0", "from 1 to 1000"]),
        ("[handlers.a]\nweight = 1.5", "2:1", &["a whole number from 1 to 1000"]),
        ("[handlers.a]\ntimeout = '0s'", "2:1", &["out of range"]),
        ("[handlers.a]\nmax_output = '1GiB'", "2:1", &["out of range", "\"16MiB\""]),
        ("[handlers.a]\nmemory = '1MiB'", "2:1", &["handlers.a.memory: is too low", "\"16MiB\"", "\"0B\""]),
        ("[handlers.a]\nmax_files = 100", "2:1", &["is 100", "from 128 to"]),
        ("[handlers.a]\nmax_processes = 2", "2:1", &["too low", "at least 3, or 0"]),
        ("[handlers.a]\ncpus = 0.001", "2:1", &["too low", "at least 0.01, or 0"]),
        ("[handlers.a]\ncpus = -1", "2:1", &["is -1", "from 0 to"]),
        ("[daemon]\nmonitor = '0.0.0.0:9464'", "2:1", &["not a loopback address", "127.0.0.1:9464"]),
        ("[daemon]\nmonitor = 'localhost'", "2:1", &["not a loopback address"]),
        ("[daemon]\nsocket_mode = '0777'", "2:1", &["not known", "\"0660\""]),
        ("[handlers.a.retry]\nattempts = 0", "2:1", &["is 0", "from 1 to 10000"]),
        ("[handlers.a.retry]\nfactor = 0.5", "2:1", &["is 0.5", "from 1 to 100"]),
        ("[handlers.a.retry]\nfactor = nan", "2:1", &["is NaN"]),
        ("[handlers.a.retry]\njitter = 1.1", "2:1", &["is 1.1", "from 0 to 1"]),
        ("[handlers.a.retry]\ndelay = '1h'\nmax_delay = '1m'", "1:13", &["longer than max_delay"]),
        ("[handlers.a.settings]\nx = { y = inf }", "2:7", &["handlers.a.settings.x.y", "JSON"]),
        ("[daemon]\nmax_task_bytes = '1GiB'", "2:1", &["out of range", "\"128MiB\""]),
        ("[log]\ntarget = 'syslog'", "2:1", &["\"auto\" or \"journald\" or \"stderr\""]),
        ("[log]\nlevel = 'inof'", "2:1", &["\"inof\" is not a level"]),
    ];
    for (text, place, words) in table {
        assert_refused(text, place, words);
    }
}

#[test]
fn names_and_prefixes_that_cannot_work_are_refused() {
    let table = [
        ("[handlers.'a/b']", "1:11", &["path separator"][..]),
        ("[handlers.'..']", "1:11", &["begins with a dot"]),
        ("[handlers.'']", "1:11", &["is empty"]),
        ("[handlers.'a b']", "1:11", &["not allowed", "letters"]),
        ("[handlers.a]\nplugin = '../evil'", "2:1", &["path separator", "not its file"]),
        ("[handlers.a]\nprefixes = []", "2:1", &["empty list"]),
        ("[handlers.a]\nprefixes = ['']", "2:13", &["a prefix is empty"]),
        ("[handlers.a]\nprefixes = [\"a\\u0000b\"]", "2:13", &["control character", "a\\0b"]),
        ("[handlers.a]\nprefixes = ['a ']", "2:13", &["space"]),
        ("[handlers.a]\nprefixes = ['Task 1: a']", "2:13", &["label"]),
        ("[handlers.a]\nprefixes = ['Task  12 : a']", "2:13", &["label"]),
        ("[handlers.a]\nprefixes = ['a', 'a']", "2:18", &["named twice"]),
        ("[handlers.a]\nqueues = []", "2:1", &["empty list"]),
        ("[handlers.a]\nqueues = ['task_queu']", "2:11", &["no queue", "did you mean \"task_queue\"?"]),
        ("[queues.'']", "1:9", &["is empty"]),
        ("[queues.'amq.x']", "1:9", &["belong to the broker"]),
        ("[queues.\"a\\nb\"]", "1:9", &["control character"]),
    ];
    for (text, place, words) in table {
        assert_refused(text, place, words);
    }
    assert_refused(&format!("[queues.{}]", "q".repeat(231)), "1:9", &["230 bytes"]);
}

#[test]
fn a_prefix_has_one_handler_per_queue() {
    let two = |a: &str, b: &str| {
        format!("[queues.q]\n[handlers.a]\nplugin = 'p'\n{a}\n[handlers.b]\nplugin = 'p'\n{b}\n")
    };
    let same = two("prefixes = ['x', 'y']", "prefixes = ['z', 'y']");
    assert_refused(
        &same,
        "7:18",
        &["handlers.b.prefixes", "\"y\" is taken by [handlers.a]", "warren.toml:2"],
    );
    let narrowed = two("prefixes = ['x']\nqueues = ['q']", "prefixes = ['x']");
    assert_refused(&narrowed, "8:13", &["taken by [handlers.a]"]);
    assert_refused(&two("", ""), "5:11", &["own prefixes of plugin \"p\""]);
    let apart = two("prefixes = ['x']\nqueues = ['q']", "prefixes = ['x']\nqueues = ['task_queue']");
    assert_eq!(super::load(&apart).handlers.len(), 2);
}

#[test]
fn no_queue_is_an_error_of_the_whole_file() {
    for text in ["", "[queues]", "queues = {}"] {
        let errors = Files::new(&[("warren.toml", text)]).errors(&[]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("queues: no queue is configured; add a table such as [queues.task_queue]")
        );
    }
}

#[test]
fn every_error_of_every_file_comes_at_once_in_order() {
    let files = Files::new(&[
        ("warren.toml", "[broker]\nheartbeat = 1\nprefetch = 1\n[queues.q]\nworkers = 0\n"),
        ("conf.d/10-broken.toml", "[handlers.x]\ntimeout = \n\n[log\n"),
        ("conf.d/20-more.toml", "[log]\nlevel = 'loud'\n"),
        ("conf.d/.30-hidden.toml", "nonsense"),
        ("conf.d/README", "nonsense"),
    ]);
    let errors = files.errors(&[("WARREN_QUEUES__Q__PREFETCH", "many"), ("WARREN_BROKRE__URI", "x")]);
    let places: Vec<&str> = errors.iter().map(|e| e.split(": ").next().unwrap_or_default()).collect();
    let expected = [
        "warren.toml:2:1",
        "warren.toml:3:1",
        "warren.toml:5:1",
        "conf.d/10-broken.toml:2:11",
        "conf.d/10-broken.toml:4:5",
        "conf.d/20-more.toml:2:1",
        "environment variable WARREN_BROKRE__URI",
        "environment variable WARREN_QUEUES__Q__PREFETCH",
    ];
    assert_eq!(places, expected, "{errors:#?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let files = Files::new(&[("conf.d/a.toml/inner", ""), ("conf.d/b.toml", "[queues.q]\nworkers = 0")]);
    let errors = files.errors(&[]);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(errors[0].starts_with("warren.toml: cannot read: No such file"), "{errors:?}");
    assert!(errors[1].starts_with("conf.d/a.toml: cannot read: Is a directory"), "{errors:?}");
    assert!(errors[2].starts_with("conf.d/b.toml:2:1: queues.q.workers"), "{errors:?}");
}

#[test]
fn bytes_that_are_not_text_and_huge_files_are_refused() {
    let files = Files::new(&[("conf.d/huge.toml", &"#".repeat(4 * 1024 * 1024 + 1))]);
    std::fs::write(files.path("warren.toml"), b"[log]\nlevel = '\xff'").expect("file");
    let errors = files.errors(&[]);
    assert!(errors.iter().any(|e| e.starts_with("warren.toml:2: is not UTF-8")), "{errors:?}");
    assert!(errors.iter().any(|e| e.starts_with("conf.d/huge.toml: is over 4 MiB")), "{errors:?}");
}

#[test]
fn broker_addresses_are_stated_once_and_well() {
    let table = [
        ("uri = 'amqp://a'\nuris = ['amqp://b']", "3:1", &["uri is stated as well"][..]),
        ("uri = 'http://u:s3cret@h'", "2:1", &["does not begin with amqp://"]),
        ("uri = 'amqp://u:s3cret@h:x/'", "2:1", &["port is not a number"]),
        ("uris = []", "2:1", &["names 0 AMQP URIs"]),
        ("uris = ['amqp://a', 'amqp://']", "2:21", &["names no host"]),
        ("uri_file = '/nonexistent/uri'", "2:1", &["cannot read /nonexistent/uri", "user may read"]),
        ("ca_file = '/dev/null'", "2:1", &["holds no certificate in PEM form"]),
        ("cert_file = '/dev/null'", "2:1", &["broker.key_file: is missing"]),
    ];
    for (text, place, words) in table {
        let errors = errors(&format!("[broker]\n{text}"));
        let found = errors.iter().find(|e| words.iter().all(|w| e.contains(w)));
        let found = found.unwrap_or_else(|| panic!("{text}: {errors:#?}"));
        assert!(found.starts_with(&format!("warren.toml:{place}: ")), "{text}: {found}");
        assert!(errors.iter().all(|e| !e.contains("s3cret")), "{errors:?}");
    }
}

#[test]
fn certificates_are_looked_into_when_the_config_is_read() {
    let armour = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let files = Files::new(&[
        (
            "warren.toml",
            "[broker]\nuri='amqps://h'\nca_file='ca.pem'\ncert_file='cert.pem'\nkey_file='key.pem'\n[queues.q]",
        ),
        ("ca.pem", &armour("CERTIFICATE", "bm90IERFUg==")),
        ("cert.pem", &armour("CERTIFICATE", "!!")),
        ("key.pem", &armour("CERTIFICATE", "MAA=")),
    ]);
    let errors = files.errors(&[]);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    std::fs::write(files.path("ca.pem"), armour("CERTIFICATE", "MAA=")).expect("file");
    std::fs::write(files.path("cert.pem"), armour("CERTIFICATE", "MAA=")).expect("file");
    std::fs::write(files.path("key.pem"), armour("PRIVATE KEY", "MAA=")).expect("file");
    let loaded = files.load(&[]).expect("good enough to be tried");
    assert_eq!(loaded.config.broker.ca_file, Some(files.path("ca.pem")));
    assert_eq!(loaded.warnings, []);
}
