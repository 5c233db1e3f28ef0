//! What good files come out as: defaults, merging, the environment, credentials, warnings, rendering.

use std::path::Path;
use std::time::Duration;

use super::super::{
    Bounds, Broker, Config, Daemon, Environment, Limits, Log, LogTarget, Plugins, Queue, QueueType, Rate,
    TaskKey,
};
use super::{Files, load, loaded};

#[test]
fn a_queue_alone_is_a_whole_configuration() {
    let config = load("");
    assert_eq!(config.broker, Broker::default());
    assert_eq!(config.queues, [Queue::new("task_queue")]);
    assert_eq!(config.plugins, Plugins::default());
    assert_eq!(config.handlers, []);
    assert_eq!(config.daemon, Daemon::new(&Environment::new()));
    assert_eq!(config.log, Log::default());
}

#[test]
fn a_duration_is_written_alike_in_every_table_in_settings_and_in_a_manifest() {
    for text in ["90s", "1h30m", "1d 2h3m4s5ms", " 5 s"] {
        let config = load(&format!(
            "[broker]\nheartbeat = '10s'\n[queues.q]\ndeduplicate = '{text}'\n\
             [handlers.a]\ntimeout = '{text}'\nretry = {{ delay = '1s', max_delay = '{text}' }}\n"
        ));
        let limits = &config.handlers[0].limits;
        let expected = warren_plugin::duration::parse(text).unwrap();
        assert_eq!((limits.timeout, limits.retry.max_delay), (Some(expected), expected), "{text}");
        assert_eq!(config.queues[0].deduplicate, expected, "{text}");
    }
}

#[test]
fn every_key_lands_in_its_place() {
    let config = load(
        "[broker]\nuris = ['amqp://a', 'amqp://b']\nheartbeat = '5s'\npublish_channels = 3\n\
         [queues.mail]\nprefetch = 2\nworkers = 3\ntype = 'quorum'\ndead_type = 'classic'\ndeduplicate = '1h'\n\
         [plugins]\ndirs = ['/a', 'b']\nprobe_timeout = '3s'\nmax_idle_hosts = 7\n\
         [handlers.x]\nplugin = 'p'\nprefixes = ['X y']\nqueues = ['mail']\nworkers = 1\nweight = 5\nfair_by = 'header:tenant'\nexclusive_by = 'argument'\nrate = '300/m'\nburst = 4\ntimeout = '1m'\n\
         grace = '1s'\nmax_tasks = 9\nmax_rss = '64MiB'\nidle_timeout = '9s'\nmax_output = '1KiB'\nmax_output_lines = 7\n\
         memory = '64MiB'\ncpus = 1.5\ncpu_time = '3s'\nmax_files = 256\nmax_processes = 32\n\
         retry = { attempts = 1, delay = '1s', factor = 1, max_delay = '2s', jitter = 0 }\n\
         breaker = { rate = 0.5, tasks = 3 }\n\
         settings = { when = 1979-05-27T07:32:00Z, n = 1, f = 1.5, list = [true, 'a'] }\n\
         [daemon]\nsocket = '/s'\nrequire_broker = true\nstate_dir = '/var/x'\n[log]\nlevel = 'info,lapin=debug'\ntarget = 'stderr'\n",
    );
    assert_eq!(config.broker.addresses(), ["a:5672/%2f", "b:5672/%2f"]);
    let mail = &config.queues[0];
    assert_eq!((mail.window(), mail.queue_type, mail.delay_type), (6, Some(QueueType::Quorum), None));
    assert_eq!(config.plugins.dirs[0].to_str(), Some("/a"));
    assert_eq!(config.plugins.max_idle_hosts, 7);
    assert!(config.plugins.dirs[1].is_absolute() && config.plugins.dirs[1].ends_with("b"));
    let x = &config.handlers[0];
    assert_eq!((&*x.name, &*x.plugin), ("x", "p"));
    assert_eq!(x.limits.timeout, Some(Duration::from_secs(60)));
    assert_eq!(x.limits.fair_by, Some(TaskKey::Header("tenant".into())));
    assert_eq!(x.limits.exclusive_by, Some(TaskKey::Argument));
    let rate = Rate { tasks: 300, unit: Duration::from_secs(60), burst: 4 };
    assert_eq!(x.limits.rate, Some(rate));
    assert_eq!((x.limits.max_rss, x.limits.weight), (64 << 20, 5));
    assert_eq!((x.limits.max_output, x.limits.max_output_lines), (1024, 7));
    let bounds = Bounds {
        memory: 64 << 20,
        millicpus: 1500,
        cpu_time: Duration::from_secs(3),
        max_files: 256,
        max_processes: 32,
    };
    assert_eq!(x.limits.bounds, bounds);
    assert_eq!((x.limits.retry.attempts, x.limits.retry.max_delay), (1, Duration::from_secs(2)));
    let breaker = x.limits.breaker.as_ref().expect("a breaker");
    assert_eq!((breaker.tasks, breaker.rest), (3, Duration::from_secs(300)));
    assert_eq!(x.settings_json, r#"{"f":1.5,"list":[true,"a"],"n":1,"when":"1979-05-27T07:32:00Z"}"#);
    assert!(x.origin.ends_with("warren.toml:15"), "{}", x.origin);
    assert_eq!(mail.deduplicate, Duration::from_secs(3600));
    assert_eq!(config.daemon.state_dir, Path::new("/var/x"));
    assert_eq!(config.log.target, LogTarget::Stderr);
}

#[test]
fn a_handler_without_keys_uses_the_plugin_of_its_name() {
    let config = load("[handlers.backup-database]");
    let handler = &config.handlers[0];
    assert_eq!(handler.plugin, "backup-database");
    assert_eq!((&handler.prefixes, &handler.queues), (&None, &None));
    assert_eq!(handler.limits, Limits::default());
    assert_eq!(handler.settings_json, "{}");
}

#[test]
fn a_delay_above_the_default_bound_raises_the_bound() {
    let config = load("[handlers.a.retry]\ndelay = '1h'");
    assert_eq!(config.handlers[0].limits.retry.max_delay, Duration::from_secs(3600));
}

#[test]
fn later_files_win_key_by_key() {
    let files = Files::new(&[
        (
            "warren.toml",
            "[broker]\nuri='amqp://a'\nheartbeat='5s'\n[queues.q]\nworkers=2\n[handlers.h.settings]\na=1\nb=1\n",
        ),
        ("conf.d/20.toml", "[queues.q]\nworkers=4\n[queues.r]\n"),
        (
            "conf.d/10.toml",
            "[broker]\nuris=['amqp://b']\n[queues.q]\nworkers=3\nprefetch=7\n[handlers.h.settings]\nb=2\n",
        ),
    ]);
    let config = files.load(&[]).expect("good files").config;
    assert_eq!(config.broker.addresses(), ["b:5672/%2f"]);
    assert_eq!(config.broker.heartbeat, Duration::from_secs(5));
    assert_eq!(config.queues.iter().map(|q| &*q.name).collect::<Vec<_>>(), ["q", "r"]);
    assert_eq!((config.queues[0].workers, config.queues[0].prefetch), (4, 7));
    assert_eq!(config.handlers[0].settings_json, r#"{"a":1,"b":2}"#);
    let names: Vec<_> = config.files.iter().filter_map(|f| f.file_name()?.to_str()).collect();
    assert_eq!(names, ["warren.toml", "10.toml", "20.toml"]);
}

#[test]
fn the_environment_has_the_last_word() {
    let text =
        "[broker]\nuris = ['amqp://a']\n[handlers.clean-temp]\nprefixes = ['a']\n[queues.task_queue]\n";
    let files = Files::new(&[("warren.toml", text)]);
    let environment = [
        ("WARREN_BROKER__URI", "amqp://u:p@env/v"),
        ("WARREN_BROKER__PUBLISH_CHANNELS", "5"),
        ("WARREN_QUEUES__TASK_QUEUE__WORKERS", "9"),
        ("WARREN_QUEUES__OTHER__PREFETCH", "2"),
        ("WARREN_HANDLERS__CLEAN_TEMP__PREFIXES", "['x', 'y']"),
        ("WARREN_HANDLERS__CLEAN_TEMP__RETRY__FACTOR", "3"),
        ("WARREN_HANDLERS__CLEAN_TEMP__SETTINGS__DRY_RUN", "true"),
        ("WARREN_HANDLERS__CLEAN_TEMP__SETTINGS__NAME", "plain text"),
        ("WARREN_HANDLERS__SEND_MAIL__PREFIXES", "Send mail"),
        ("WARREN_DAEMON__REQUIRE_BROKER", "true"),
        ("WARREN_LOG__LEVEL", ""),
        ("WARREN_CONFIG", "not ours"),
        ("RUNTIME_DIRECTORY", "/run/elsewhere:/run/second"),
    ];
    let config = files.load(&environment).expect("good variables").config;
    assert_eq!(config.broker.addresses(), ["env:5672/v"]);
    assert_eq!(config.broker.publish_channels, 5);
    assert_eq!(config.queues.iter().map(|q| &*q.name).collect::<Vec<_>>(), ["other", "task_queue"]);
    assert_eq!((config.queues[0].prefetch, config.queues[1].workers), (2, 9));
    assert_eq!(config.handlers[0].prefixes, Some(vec!["x".to_owned(), "y".to_owned()]));
    assert!((config.handlers[0].limits.retry.factor - 3.0).abs() < f64::EPSILON);
    assert_eq!(config.handlers[0].settings_json, r#"{"dry_run":true,"name":"plain text"}"#);
    assert_eq!(&*config.handlers[1].name, "send-mail");
    assert_eq!(config.handlers[1].prefixes, Some(vec!["Send mail".to_owned()]));
    assert!(config.daemon.require_broker);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.daemon.socket.to_str(), Some("/run/elsewhere/control.sock"));
}

#[test]
fn variables_that_name_no_key_are_refused() {
    let table = [
        ("WARREN_BROKER__URL", "broker.url: unknown key (did you mean \"uri\"?)"),
        ("WARREN_BROKER__A__B", "names no key"),
        ("WARREN_QUEUES__WORKERS", "names no key"),
        ("WARREN_QUEUES____X", "names no key"),
        ("WARREN_HANDLERS__A__RETRY", "names no key"),
        ("WARREN_QUEUE__A__WORKERS", "did you mean \"queues\"?"),
        ("WARREN_QUEUES__A_B__WORKERS", "could mean each of"),
    ];
    for (name, words) in table {
        let files = Files::new(&[("warren.toml", "[queues.a-b]\n[queues.a_b]\n")]);
        let errors = files.errors(&[(name, "1")]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("environment variable {name}: ")), "{errors:?}");
        assert!(errors[0].contains(words), "{errors:?}");
    }
}

#[test]
fn the_uri_can_come_from_a_file_or_a_systemd_credential() {
    let files = Files::new(&[
        ("warren.toml", "[broker]\nuri_file = 'uri'\n[queues.q]\n"),
        ("uri", "\u{feff}# two nodes\namqp://u:s3cret@one/v\n\n  amqp://u:s3cret@two/v\n"),
        ("credentials/broker-uri", "\u{feff}amqp://u:s3cret@three/v\n"),
        ("broken/broker-uri", "amqp//u:s3cret@three/v\n"),
    ]);
    let addresses = |environment: &[(&str, &str)]| {
        files.load(environment).map(|l| (l.config.broker.addresses().join(" "), l.warnings.len()))
    };
    let directory = files.path("credentials").display().to_string();
    let credential = ("CREDENTIALS_DIRECTORY", directory.as_str());
    assert_eq!(addresses(&[]), Ok(("one:5672/v two:5672/v".to_owned(), 0)));
    // The file beside the credential is for warrenctl; a URI in the configuration is what one forgot to take out.
    assert_eq!(addresses(&[credential]), Ok(("three:5672/v".to_owned(), 0)));
    let files_with_uri = Files::new(&[("warren.toml", "[broker]\nuri = 'amqp://one'\n[queues.q]\n")]);
    let loaded = files_with_uri.load(&[credential]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let variable = ("WARREN_BROKER__URI", "amqp://four");
    assert_eq!(addresses(&[credential, variable]), Ok(("four:5672/%2f".to_owned(), 0)));
    let errors = files.errors(&[("CREDENTIALS_DIRECTORY", &files.path("broken").display().to_string())]);
    assert!(errors[0].starts_with("broken/broker-uri:1: "), "{errors:?}");
    assert!(!errors[0].contains("s3cret"), "{errors:?}");
}

#[test]
fn a_wait_longer_than_the_consumer_timeout_is_warned_of() {
    let warn = |text: &str| loaded(text, &[]).warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    // Four tasks wait for one worker: 4 × (15 min + 10 s) is over 30 min.
    let warnings = warn("[handlers.backup]\nworkers = 1\ntimeout = '15m'");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("handlers.backup.timeout: queue \"task_queue\""), "{warnings:?}");
    assert!(warnings[0].contains("consumer_timeout is 30m"), "{warnings:?}");
    for quiet in [
        "[handlers.backup]\ntimeout = '15m'",
        "[handlers.backup]\nworkers = 1\ntimeout = '7m'",
        "[handlers.backup]\nworkers = 1",
        "[broker]\nconsumer_timeout = '0s'\n[handlers.backup]\nworkers = 1\ntimeout = '15m'",
        "[broker]\nconsumer_timeout = '2h'\n[handlers.backup]\nworkers = 1\ntimeout = '15m'",
        "[queues.small]\nworkers = 1\n[handlers.backup]\nqueues = ['small']\nworkers = 1\ntimeout = '15m'",
    ] {
        assert_eq!(warn(quiet), Vec::<String>::new(), "{quiet}");
    }
}

#[test]
fn what_is_loaded_is_checked_against_the_limit_in_force_and_reported_once() {
    let day = Duration::from_secs(24 * 3600);
    let config = load("[handlers.stated]\ntimeout = '24h'\n[handlers.plain]\n[queues.other]");
    let [plain, stated] = &config.handlers[..] else { panic!("two handlers") };
    let risks = |name: &str, queues: Option<&[String]>, limits, timeout| {
        config.consumer_timeout_risks(name, queues, limits, timeout)
    };
    let plugins_own = risks("plain", None, &plain.limits, day);
    assert_eq!(plugins_own.len(), 2, "both queues: {plugins_own:?}");
    assert!(plugins_own[0].starts_with("handler \"plain\": queue \"other\" may hold"), "{plugins_own:?}");
    let narrowed = risks("found", Some(&["other".to_owned()]), &plain.limits, day);
    assert_eq!(narrowed.len(), 1, "{narrowed:?}");
    let none: Vec<String> = Vec::new();
    assert_eq!(risks("plain", None, &plain.limits, Duration::from_secs(60)), none);
    assert_eq!(risks("stated", None, &stated.limits, day), none, "the files were checked with it");
    let kept = risks("stated", None, &stated.limits, 2 * day);
    assert_eq!(kept.len(), 2, "left running by a failed reload, with another limit: {kept:?}");
}

#[test]
fn the_socket_is_found_where_the_loader_would_have_it() {
    let files = Files::new(&[
        ("warren.toml", "[queues.q]\n[daemon]\nsocket = '/first'"),
        ("conf.d/10.toml", "[daemon]\nsocket = 'run/second'"),
        ("conf.d/20.toml", "[daemon"),
        ("conf.d/.30.toml", "[daemon]\nsocket = '/hidden'"),
        ("conf.d/40.txt", "[daemon]\nsocket = '/other'"),
        ("conf.d/50.toml", "[daemon]\nmax_task_bytes = 'much'"),
    ]);
    let socket = |environment: &[(&str, &str)]| {
        let environment = environment.iter().copied().collect();
        Config::socket(&files.path("warren.toml"), &environment)
    };
    assert_eq!(socket(&[]), files.path("conf.d/run/second"));
    assert_eq!(socket(&[("WARREN_DAEMON__SOCKET", "")]), files.path("conf.d/run/second"));
    assert_eq!(socket(&[("WARREN_DAEMON__SOCKET", "/env")]), Path::new("/env"));
    let nowhere = Environment::from_iter([("RUNTIME_DIRECTORY", "/run/w")]);
    assert_eq!(Config::socket(&files.path("none.toml"), &nowhere), files.path("conf.d/run/second"));
    assert_eq!(Config::socket(Path::new("/nowhere/w.toml"), &nowhere), Path::new("/run/w/control.sock"));
    assert_eq!(
        Config::socket(Path::new("/nowhere/w.toml"), &Environment::new()),
        Path::new("/run/warren/control.sock")
    );
}

#[test]
fn certificates_without_a_tls_address_are_warned_of() {
    let files = Files::new(&[
        ("warren.toml", "[broker]\nca_file = 'ca.pem'\n[queues.q]"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
    ]);
    let warnings = files.load(&[]).expect("usable").warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().contains("broker.ca_file: is not used"), "{}", warnings[0]);
}

#[test]
fn what_is_shown_reads_back_the_same_without_its_secrets() {
    let text = "[broker]\nuri = 'amqp://bob:s3cret@h:1/a%2fb?heartbeat=3'\n[queues.'odd name.x']\ntype = 'quorum'\n\
         [handlers.a]\nplugin = 'p'\nprefixes = ['A \"b\"']\ntimeout = '90s'\nqueues = ['task_queue']\n\
         [handlers.a.settings]\nsmtp_password = 's3cret'\nurl = 'https://bob:s3cret@h/'\ndeep = [{ api-key = 's3cret' }]\n\
         keep = 1.5\ntimes = [1, 2]\n";
    let config = load(text);
    let shown = config.render_toml();
    assert!(!shown.contains("s3cret") && !shown.contains("bob"), "{shown}");
    assert!(!format!("{config:?}").contains("s3cret"));
    let files = Files::new(&[("warren.toml", &shown)]);
    let again = files.load(&[]).expect("what is shown can be read").config;
    assert_eq!(again.to_json(), config.to_json());
    assert_eq!(again.broker.addresses(), config.broker.addresses());
    assert_eq!(again.queues, config.queues);
    assert_eq!(again.handlers[0].limits, config.handlers[0].limits);
    let settings = &config.to_json()["handlers"]["a"]["settings"];
    assert_eq!(settings["smtp_password"], "***");
    assert_eq!(settings["url"], "https://***@h/");
    assert_eq!(settings["deep"][0]["api-key"], "***");
    assert_eq!(settings["keep"], 1.5);
}

#[test]
fn diagnostics_have_a_machine_readable_form() {
    let errors = Files::new(&[("warren.toml", "[queues.q]\nworkers = 0")]).load(&[]).expect_err("a fault");
    let json = errors.0[0].to_json();
    assert_eq!(
        (&json["line"], &json["column"], &json["key"]),
        (&2.into(), &1.into(), &"queues.q.workers".into())
    );
    assert!(json["file"].as_str().is_some_and(|f| f.ends_with("warren.toml")));
}
