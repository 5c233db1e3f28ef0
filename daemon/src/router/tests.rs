//! Routing as tables, and against a naive reference.

use proptest::prelude::*;

use super::*;

const QUEUE: &str = "task_queue";

fn entry(prefix: &str, handler: usize) -> RouteEntry {
    RouteEntry { prefix: prefix.into(), handler, queues: None, incumbent: false }
}

fn narrowed(prefix: &str, handler: usize, queues: &[&str]) -> RouteEntry {
    RouteEntry {
        queues: Some(queues.iter().map(|&queue| queue.to_owned()).collect()),
        ..entry(prefix, handler)
    }
}

fn incumbent(entry: RouteEntry) -> RouteEntry {
    RouteEntry { incumbent: true, ..entry }
}

fn router(prefixes: &[&str]) -> Router {
    let (router, conflicts) =
        Router::build(prefixes.iter().enumerate().map(|(at, prefix)| entry(prefix, at)));
    assert_eq!(conflicts, []);
    router
}

/// Prefix and argument of the route that `text` takes.
fn routed<'t>(router: &'t Router, text: &'t [u8]) -> Option<(&'t str, &'t str)> {
    let found = router.route(QUEUE, None, text)?;
    Some((found.prefix, std::str::from_utf8(&text[found.argument]).unwrap()))
}

#[test]
fn longest_prefix_on_a_word_boundary_wins() {
    let router = router(&[
        "Process order",
        "Process",
        "Process order #",
        "Backup database",
        "Überweise",
        "Task 1",
        "a/b",
    ]);
    let table: &[(&str, Option<(&str, &str)>)] = &[
        ("Process order 1001", Some(("Process order", "1001"))),
        ("Process order #1001", Some(("Process order #", "1001"))),
        ("Process order", Some(("Process order", ""))),
        ("Process ordering", Some(("Process", "ordering"))),
        ("Process orderé", Some(("Process", "orderé"))),
        ("Process order_2", Some(("Process", "order_2"))),
        ("Process order: x", Some(("Process order", ": x"))),
        ("Processing", None),
        ("process order 1", None),
        (" Process order 1", None),
        ("Proces", None),
        ("", None),
        ("\n", None),
        ("Task 7:", None),
        ("Task 7: Backup database now", Some(("Backup database", "now"))),
        ("Task 7 :Backup database\tnow \n", Some(("Backup database", "now"))),
        ("Task 7: Backup database\r\n", Some(("Backup database", ""))),
        ("Backup database\n\n", Some(("Backup database", ""))),
        ("Task 1", Some(("Task 1", ""))),
        ("Task 1:", Some(("Task 1", ":"))),
        ("Task 1: Nobody takes this", Some(("Task 1", ": Nobody takes this"))),
        ("Task 1: Backup database", Some(("Backup database", ""))),
        ("Task 10", None),
        ("Task 10: Nobody takes this", None),
        ("Task 3: Task 1 again", Some(("Task 1", "again"))),
        ("Überweise 5 €", Some(("Überweise", "5 €"))),
        ("a/b/c", Some(("a/b", "/c"))),
        ("a/bc", None),
    ];
    for (text, expected) in table {
        assert_eq!(routed(&router, text.as_bytes()), *expected, "{text:?}");
    }
    assert_eq!(router.route(QUEUE, None, b"Process order \xff\xfe").unwrap().handler, 0);
}

#[test]
fn type_routes_first_and_an_unknown_one_falls_back_to_the_text() {
    let (router, _) =
        Router::build([entry("Send email", 0), entry("Backup", 1), narrowed("Report", 2, &["other"])]);
    let handler =
        |name, text: &[u8]| router.route(QUEUE, Some(name), text).map(|found| (found.handler, found.by_type));
    assert_eq!(handler("Send email", b"{\"to\": 1}"), Some((0, true)));
    assert_eq!(handler("Send email", b"Backup"), Some((0, true)));
    assert_eq!(handler("Send", b"Backup now"), Some((1, false)));
    assert_eq!(handler("Send email now", b"Backup now"), Some((1, false)), "a type is compared whole");
    assert_eq!(handler("Report", b"Backup now"), Some((1, false)), "not in this queue");
    assert_eq!(handler("", b"{}"), None);
    assert_eq!(router.route(QUEUE, Some("Send email"), b"text").unwrap().argument, 0..0);
}

#[test]
fn handlers_narrowed_to_queues_take_from_those_only() {
    let (router, conflicts) = Router::build([
        entry("Job", 0),
        narrowed("Job night", 1, &["night"]),
        narrowed("X", 2, &["a"]),
        narrowed("X", 3, &["b"]),
    ]);
    assert_eq!(conflicts, []);
    let handler = |queue, text: &str| router.route(queue, None, text.as_bytes()).map(|found| found.handler);
    assert_eq!(handler("night", "Job night 1"), Some(1));
    assert_eq!(
        handler("day", "Job night 1"),
        Some(0),
        "the longer prefix is out of scope, the shorter takes it"
    );
    assert_eq!((handler("a", "X"), handler("b", "X"), handler("c", "X")), (Some(2), Some(3), None));
}

#[test]
fn incumbent_keeps_a_prefix_and_two_newcomers_are_both_refused() {
    use ConflictKind::{Empty, Incumbent, Newcomer};
    type Refused = Vec<(usize, ConflictKind)>;
    let table: Vec<(&str, Vec<RouteEntry>, Refused)> = vec![
        ("newcomer meets incumbent", vec![entry("P", 0), incumbent(entry("P", 1))], vec![(0, Incumbent(1))]),
        ("two newcomers", vec![entry("P", 0), entry("P ", 1)], vec![(0, Newcomer(1)), (1, Newcomer(0))]),
        ("the same handler twice", vec![entry("P", 0), entry("P", 0)], vec![]),
        ("queues apart", vec![narrowed("P", 0, &["a"]), narrowed("P", 1, &["b"])], vec![]),
        (
            "all queues and one",
            vec![entry("P", 0), narrowed("P", 1, &["b"])],
            vec![(0, Newcomer(1)), (1, Newcomer(0))],
        ),
        (
            "queues overlap",
            vec![narrowed("P", 0, &["a", "b"]), incumbent(narrowed("P", 1, &["b"]))],
            vec![(0, Incumbent(1))],
        ),
        ("two incumbents", vec![incumbent(entry("P", 0)), incumbent(entry("P", 1))], vec![(1, Incumbent(0))]),
        (
            "a newcomer beaten by the incumbent does not stand in another one's way",
            vec![incumbent(narrowed("P", 0, &["a"])), entry("P", 1), narrowed("P", 2, &["b"])],
            vec![(1, Incumbent(0))],
        ),
        ("empty", vec![entry(" ", 4)], vec![(4, Empty)]),
    ];
    for (what, entries, expected) in table {
        let (router, conflicts) = Router::build(entries.clone());
        let refused: Refused = conflicts.iter().map(|conflict| (conflict.handler, conflict.kind)).collect();
        assert_eq!(refused, expected, "{what}");
        let kept =
            |handler| entries.iter().any(|e| e.handler == handler) && !refused.iter().any(|r| r.0 == handler);
        let in_table: Vec<usize> = router.prefixes().flat_map(|(_, handlers)| handlers).collect();
        assert!((0..5).all(|handler| in_table.contains(&handler) == kept(handler)), "{what}: {in_table:?}");
    }
}

#[test]
fn conflict_message_names_both_handlers_and_the_remedy() {
    let (_, conflicts) = Router::build([entry("Backup", 0), incumbent(entry("Backup", 1))]);
    let message = conflicts[0].message(|at| ["new", "old"][at]);
    assert_eq!(
        message,
        "prefix `Backup` of handler `new` is taken by handler `old`, which keeps it; \
         give one of them other `prefixes` or narrow them with `queues`"
    );
}

#[test]
fn explain_says_why() {
    let (router, _) = Router::build([
        entry("Process order", 0),
        entry("Process", 1),
        narrowed("Backup database", 2, &["night", "weekend"]),
        entry("Task 9", 3),
    ]);
    let name = |at: usize| ["orders", "any", "backup", "nine"][at];
    let why = |kind, text: &str| router.explain(QUEUE, kind, text.as_bytes(), name).why;
    let table = [
        (None, "Process order 1", "It begins with the prefix `Process order` of handler `orders`."),
        (
            None,
            "Task 1: Process ordering",
            "The label `Task 1:` does not count; `Process order` does not count because its last word goes on: \
             `Process ordering`; it begins with the prefix `Process` of handler `any`.",
        ),
        (
            None,
            "Task 9: what",
            "Nothing takes what follows the label `Task 9:`, so the label counts too; \
             it begins with the prefix `Task 9` of handler `nine`.",
        ),
        (
            None,
            "Backup database now",
            "The prefix `Backup database` does not count in queue `task_queue`: \
             handler `backup` takes it from `night`, `weekend` only.",
        ),
        (
            None,
            "process order 5",
            "No registered prefix stands at the beginning of `process order 5`; the nearest one is `Process order`.",
        ),
        (None, "zzz", "No registered prefix stands at the beginning of `zzz`."),
        (None, "", "The task is empty."),
        (None, "Task 4:", "The label `Task 4:` does not count; no text follows."),
        (Some("Process"), "{}", "Its type is the prefix `Process` of handler `any`."),
        (
            Some("nope"),
            "Process it",
            "Its type `nope` is no prefix of queue `task_queue`, so its text decides; \
             it begins with the prefix `Process` of handler `any`.",
        ),
    ];
    for (kind, text, expected) in table {
        assert_eq!(why(kind, text), expected, "{text:?}");
    }
    assert_eq!(Router::default().explain(QUEUE, None, b"x", name).why, "No handler is loaded.");
}

/// Every prefix tried, the longest that fits taken.
fn naive(prefixes: &[String], text: &[u8]) -> Option<usize> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let fits = |prefix: &[u8]| {
        text.starts_with(prefix)
            && !(text.len() > prefix.len() && word(prefix[prefix.len() - 1]) && word(text[prefix.len()]))
    };
    (0..prefixes.len()).filter(|&at| fits(prefixes[at].as_bytes())).max_by_key(|&at| prefixes[at].len())
}

proptest! {
    #[test]
    fn route_agrees_with_trying_every_prefix(
        set in proptest::collection::btree_set("[ab #é]{0,5}[abé#]", 0..40),
        text in "[ab #é]{0,9}",
    ) {
        let prefixes: Vec<String> = set.iter().map(|p| p.trim_start().to_owned()).filter(|p| !p.is_empty()).collect();
        let (router, _) = Router::build(prefixes.iter().enumerate().map(|(at, prefix)| {
            // Trimming made some equal: the first of them is the one handler of that prefix.
            let first = prefixes.iter().position(|other| other == prefix).unwrap_or(at);
            entry(prefix, first)
        }));
        let expected = naive(&prefixes, text.as_bytes()).map(|at| prefixes[at].as_str());
        prop_assert_eq!(router.route(QUEUE, None, text.as_bytes()).map(|found| &**found.prefix), expected);
    }

    #[test]
    fn any_bytes_are_routed_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..80), kind in ".{0,9}") {
        let router = router(&["Task 1", "a", "é"]);
        let found = router.route(QUEUE, Some(&kind), &text);
        prop_assert!(found.is_none_or(|found| found.argument.end <= text.len()));
        prop_assert!(!router.explain(QUEUE, Some(&kind), &text, |_| "h").why.is_empty());
    }
}
