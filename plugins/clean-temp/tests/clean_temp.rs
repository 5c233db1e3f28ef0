//! The handler as a task meets it: real directories, run through the SDK's test kit.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use warren_clean_temp::CleanTemp;
use warren_plugin::testing::TestKit;

const DAY: Duration = Duration::from_secs(86_400);

/// A directory whose path has no symbolic link.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().canonicalize().expect("it is there");
    (place, path)
}

/// A file of `size` bytes that was last modified `age` ago.
fn file(path: &Path, size: usize, age: Duration) {
    fs::create_dir_all(path.parent().expect("inside")).expect("new");
    fs::write(path, vec![b'x'; size]).expect("writable");
    let file = File::options().write(true).open(path).expect("it is there");
    file.set_modified(SystemTime::now() - age).expect("ours");
}

/// A handler that goes by mtime, the one time that a test can set.
fn kit(mut settings: Value) -> TestKit<CleanTemp> {
    settings.as_object_mut().expect("a table").entry("age_by").or_insert_with(|| json!("modified"));
    TestKit::new(settings).expect("good settings")
}

fn run(kit: &mut TestKit<CleanTemp>) -> Value {
    let ran = kit.run("Task 3: Clean up temp files");
    serde_json::from_slice(ran.outcome.expect("done").bytes()).expect("JSON")
}

fn refused(settings: Value) -> String {
    TestKit::<CleanTemp>::new(settings).err().expect("refused").to_string()
}

#[test]
fn old_files_go_young_ones_stay_and_the_result_counts_both() {
    let (_place, top) = place();
    file(&top.join("old"), 100, 2 * DAY);
    file(&top.join("a/b/old too"), 23, 8 * DAY);
    file(&top.join("a/young"), 7, DAY / 2);
    let result = run(&mut kit(json!({ "directories": [top], "older_than": "24h" })));
    assert_eq!(
        (&result["files"], &result["bytes"], &result["kept"], &result["errors"], &result["dry_run"]),
        (&json!(2), &json!(123), &json!(1), &json!(0), &json!(false)),
        "{result}"
    );
    assert!(!top.join("old").exists() && !top.join("a/b/old too").exists());
    assert!(top.join("a/young").exists() && top.join("a/b").exists());
}

#[test]
fn what_was_just_put_here_with_an_old_time_of_modification_stays() {
    let (_place, root) = place();
    let (top, source) = (root.join("top"), root.join("source"));
    // What tar, cp -p and mv leave: an old mtime.
    file(&source.join("moved"), 1, 9 * DAY);
    file(&top.join("unpacked"), 1, 9 * DAY);
    fs::rename(source.join("moved"), top.join("moved")).expect("one file system");
    let settings = |age_by: &str| json!({ "directories": [top], "older_than": "1h", "age_by": age_by });
    for age_by in ["changed", "used"] {
        assert_eq!(run(&mut kit(settings(age_by)))["kept"], json!(2), "{age_by}");
    }
    let mut without = TestKit::<CleanTemp>::new(json!({ "directories": [top], "older_than": "1h" }))
        .expect("good settings");
    assert_eq!(run(&mut without)["kept"], json!(2), "it is the default");
    assert_eq!(run(&mut kit(settings("modified")))["files"], json!(2));
}

#[test]
fn a_dry_run_deletes_nothing_and_reports_the_same() {
    let (_place, top) = place();
    file(&top.join("old"), 100, 2 * DAY);
    let settings = |dry_run: bool| json!({ "directories": [top], "older_than": "24h", "dry_run": dry_run });
    let dry = run(&mut kit(settings(true)));
    assert!(top.join("old").exists());
    assert_eq!(dry["examples"], json!([top.join("old")]));
    let mut real = run(&mut kit(settings(false)));
    assert!(!top.join("old").exists());
    real["dry_run"] = json!(true);
    assert_eq!(dry, real);
}

#[test]
fn only_names_that_match_a_pattern_go() {
    let (_place, top) = place();
    for name in ["a.tmp", "upload-12", "a.txt", "upload-123"] {
        file(&top.join(name), 1, 2 * DAY);
    }
    let settings = json!({ "directories": [top], "older_than": "1h", "patterns": ["*.tmp", "upload-??"] });
    let result = run(&mut kit(settings));
    assert_eq!((&result["files"], &result["kept"]), (&json!(2), &json!(2)), "{result}");
    assert!(top.join("a.txt").exists() && top.join("upload-123").exists());
}

#[test]
fn a_run_ends_at_max_files_and_the_next_goes_on() {
    let (_place, top) = place();
    for number in 0..5 {
        file(&top.join(number.to_string()), 1, 2 * DAY);
    }
    let mut kit = kit(json!({ "directories": [top], "older_than": "1h", "max_files": 3 }));
    let (first, second) = (run(&mut kit), run(&mut kit));
    assert_eq!((&first["files"], &first["stopped_at_max_files"]), (&json!(3), &json!(true)));
    assert_eq!((&second["files"], &second["stopped_at_max_files"]), (&json!(2), &json!(false)));
}

#[test]
fn links_out_of_the_directory_are_not_followed() {
    let (_place, root) = place();
    let (top, outside) = (root.join("top"), root.join("outside"));
    file(&outside.join("old"), 1, 2 * DAY);
    fs::create_dir(&top).expect("new");
    std::os::unix::fs::symlink(&outside, top.join("directory")).expect("new");
    std::os::unix::fs::symlink(outside.join("old"), top.join("file")).expect("new");
    let result = run(&mut kit(json!({ "directories": [top], "older_than": "1h" })));
    assert_eq!((&result["files"], &result["skipped"]), (&json!(0), &json!(2)), "{result}");
    assert!(outside.join("old").exists());
}

#[test]
fn a_directory_that_is_not_there_is_counted_and_the_others_are_cleaned() {
    let (_place, root) = place();
    file(&root.join("here/old"), 1, 2 * DAY);
    let settings = json!({ "directories": [root.join("gone"), root.join("here")], "older_than": "1h" });
    let mut kit = kit(settings);
    assert!(kit.logs().iter().any(|line| line.message.contains("gone is not there")));
    let result = run(&mut kit);
    assert_eq!((&result["files"], &result["missing"]), (&json!(1), &json!(1)), "{result}");
}

#[test]
fn a_directory_replaced_by_a_link_is_not_cleaned_and_the_task_retried() {
    let (_place, root) = place();
    let (top, outside) = (root.join("top"), root.join("outside"));
    file(&outside.join("old"), 1, 2 * DAY);
    fs::create_dir(&top).expect("new");
    let mut kit = kit(json!({ "directories": [top], "older_than": "1h" }));
    fs::remove_dir(&top).expect("empty");
    std::os::unix::fs::symlink(&outside, &top).expect("the name is free");
    let failure = kit.run("Clean up temp files").outcome.expect_err("not cleaned");
    assert!(failure.is_retry() && failure.code() == "unreadable", "{failure}");
    assert!(failure.message().contains("symbolic link"), "{failure}");
    assert!(outside.join("old").exists());
}

#[test]
fn a_cancelled_run_stops_between_two_entries() {
    let (_place, top) = place();
    for number in 0..10 {
        file(&top.join(number.to_string()), 1, 2 * DAY);
    }
    let mut kit = kit(json!({ "directories": [top], "older_than": "1h" }));
    kit.cancel_after(4);
    let failure = kit.run("Clean up temp files").outcome.expect_err("stopped");
    assert!(failure.is_cancelled(), "{failure}");
    let left = fs::read_dir(&top).expect("readable").count();
    assert!((1..10).contains(&left), "{left} left");
}

#[test]
fn what_follows_the_prefix_is_not_used() {
    let (_place, top) = place();
    file(&top.join("old"), 1, 2 * DAY);
    let mut kit = kit(json!({ "directories": [top], "older_than": "1h", "dry_run": true }));
    let ran = kit.run("Clean up temp files in /etc");
    assert!(ran.logs.iter().any(|line| line.message.contains("not used")));
    assert!(ran.outcome.expect("done").as_text().contains("\"files\":1"));
}

#[test]
fn wrong_settings_are_refused_with_key_and_remedy() {
    let (_place, top) = place();
    fs::write(top.join("file"), "").expect("new");
    for (settings, part) in [
        (json!({}), "directories"),
        (json!({ "directories": [top] }), "older_than"),
        (json!({ "directories": [], "older_than": "1h" }), "directories: it is empty"),
        (json!({ "directories": ["/"], "older_than": "1h" }), "directories[0]: / belongs to the system"),
        (
            json!({ "directories": [top, "tmp"], "older_than": "1h" }),
            "directories[1]: tmp is not an absolute path",
        ),
        (
            json!({ "directories": [top, top.join("x")], "older_than": "1h" }),
            "overlap: name the outer one only",
        ),
        (json!({ "directories": [top.join("file")], "older_than": "1h" }), "is not a directory"),
        (json!({ "directories": [top], "older_than": "0s" }), "older_than: 0 would delete"),
        (json!({ "directories": [top], "older_than": 24 }), "older_than"),
        (json!({ "directories": [top], "older_than": "soon" }), "older_than"),
        (json!({ "directories": [top], "older_than": "1h", "age_by": "birth" }), "age_by"),
        (
            json!({ "directories": [top], "older_than": "1h", "max_files": 0 }),
            "max_files: 0 would delete nothing",
        ),
        (json!({ "directories": [top], "older_than": "1h", "patterns": [] }), "patterns: it is empty"),
        (
            json!({ "directories": [top], "older_than": "1h", "patterns": ["a/b"] }),
            "patterns[0]: \"a/b\" has a /",
        ),
        (json!({ "directories": [top], "older_than": "1h", "dryrun": true }), "dryrun"),
    ] {
        let error = refused(settings.clone());
        assert!(error.contains(part), "{settings}: {error}");
    }
}
