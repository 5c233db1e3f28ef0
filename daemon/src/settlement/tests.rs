//! Settlement as a table, and its two bounds as properties.

use proptest::prelude::*;

use super::*;

fn policy() -> Retry {
    Retry {
        attempts: 3,
        delay: Duration::from_secs(4),
        factor: 2.0,
        max_delay: Duration::from_secs(10),
        jitter: 0.5,
    }
}

fn retry_in(seconds: u64, next_attempt: u32) -> Settlement {
    Settlement::Retry { delay: Duration::from_secs(seconds), next_attempt }
}

fn dead(reason: DeadReason) -> Settlement {
    Settlement::Dead { reason }
}

#[test]
fn outcome_attempt_and_cancel_decide_the_settlement() {
    use CancelCause::{Drain, Operator, Timeout};
    use FaultCause::{Contract, CpuTime, HostDied, Returned};
    use Outcome::{Cancelled, Done, Fault, Reject, Retry, TimedOut};
    let day = 24 * 60 * 60;
    let table = [
        ("done", Done, None, 1, None, Settlement::Ack),
        ("done on the last attempt", Done, None, 3, None, Settlement::Ack),
        ("done although cancelled", Done, None, 1, Some(Drain), Settlement::Ack),
        ("done although late", Done, None, 1, Some(Timeout), Settlement::Ack),
        ("rejected", Reject, None, 1, None, dead(DeadReason::Rejected)),
        ("rejected while draining", Reject, None, 1, Some(Drain), dead(DeadReason::Rejected)),
        ("rejected after its time", Reject, None, 1, Some(Timeout), dead(DeadReason::Rejected)),
        ("first retry", Retry, None, 1, None, retry_in(4, 2)),
        ("second retry", Retry, None, 2, None, retry_in(8, 3)),
        ("no attempt left", Retry, None, 3, None, dead(DeadReason::Attempts)),
        ("attempts lowered meanwhile", Retry, None, 9, None, dead(DeadReason::Attempts)),
        ("the handler's own delay", Retry, Some(77), 1, None, retry_in(77, 2)),
        ("its delay is bounded", Retry, Some(u64::MAX), 1, None, retry_in(day, 2)),
        ("its delay does not add attempts", Retry, Some(7), 3, None, dead(DeadReason::Attempts)),
        ("its own delay while draining", Retry, Some(7), 1, Some(Drain), retry_in(7, 2)),
        ("retry while draining", Retry, None, 3, Some(Drain), Settlement::Requeue),
        ("cancelled by drain", Cancelled, None, 3, Some(Drain), Settlement::Requeue),
        ("killed by drain", Fault(HostDied), None, 3, Some(Drain), Settlement::Requeue),
        ("cancelled by its time limit", Cancelled, None, 1, Some(Timeout), retry_in(4, 2)),
        ("out of time for the last time", Cancelled, None, 3, Some(Timeout), dead(DeadReason::Timeout)),
        ("killed for its time limit", Fault(HostDied), None, 3, Some(Timeout), dead(DeadReason::Timeout)),
        ("retry after its time", Retry, None, 3, Some(Timeout), dead(DeadReason::Timeout)),
        ("cancelled by nobody", Cancelled, None, 1, None, retry_in(4, 2)),
        ("cancelled by an operator", Cancelled, None, 1, Some(Operator), dead(DeadReason::Cancelled)),
        ("killed for an operator", Fault(HostDied), None, 1, Some(Operator), dead(DeadReason::Cancelled)),
        ("retry after a cancel", Retry, Some(7), 1, Some(Operator), dead(DeadReason::Cancelled)),
        ("done although an operator cancelled it", Done, None, 1, Some(Operator), Settlement::Ack),
        ("cancelled by nobody, last attempt", Cancelled, None, 3, None, dead(DeadReason::Attempts)),
        ("stopped at its deadline", TimedOut, None, 1, None, retry_in(4, 2)),
        ("stopped at its last deadline", TimedOut, None, 3, None, dead(DeadReason::Timeout)),
        ("timed out while draining", TimedOut, None, 3, Some(Drain), Settlement::Requeue),
        ("panic", Fault(Returned), None, 1, None, retry_in(4, 2)),
        ("panic on the last attempt", Fault(Returned), None, 3, None, dead(DeadReason::Attempts)),
        ("a fault has no say in its delay", Fault(Returned), Some(99), 1, None, retry_in(4, 2)),
        ("a broken contract", Fault(Contract), None, 3, None, dead(DeadReason::Attempts)),
        ("out of CPU time", Fault(CpuTime), None, 3, None, dead(DeadReason::Timeout)),
        ("crash", Fault(HostDied), None, 2, None, retry_in(8, 3)),
        ("crash on the last attempt", Fault(HostDied), None, 3, None, dead(DeadReason::Poison)),
    ];
    for (what, outcome, wish, attempt, cancelled_by, expected) in table {
        let wish = wish.map(Duration::from_secs);
        let settlement = settle(outcome, wish, attempt, &policy(), cancelled_by, 1.0);
        assert_eq!(settlement, expected, "{what}");
    }
}

#[test]
fn a_long_max_delay_also_bounds_what_a_handler_asks_for() {
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let retry = Retry { max_delay: week, ..policy() };
    let wish = Some(Duration::from_secs(u64::MAX));
    let settlement = settle(Outcome::Retry, wish, 1, &retry, None, 0.0);
    assert_eq!(settlement, Settlement::Retry { delay: week, next_attempt: 2 });
}

#[test]
fn jitter_shortens_the_delay_by_at_most_its_share() {
    let seconds = |attempt, random| backoff(&policy(), attempt, random).as_secs_f64();
    for (attempt, full) in [(1, 4.0), (2, 8.0), (3, 10.0), (u32::MAX, 10.0)] {
        assert!((seconds(attempt, 1.0) - full).abs() < 1e-6);
        assert!((seconds(attempt, 0.0) - full / 2.0).abs() < 1e-6);
    }
}

#[test]
fn every_reason_is_in_the_list_under_a_word_of_its_own() {
    for reason in DeadReason::ALL {
        // A new reason does not compile until it is added here, and then has to be in the list.
        let place = match reason {
            DeadReason::Rejected => 0,
            DeadReason::Attempts => 1,
            DeadReason::Timeout => 2,
            DeadReason::Poison => 3,
            DeadReason::Unroutable => 4,
            DeadReason::Malformed => 5,
            DeadReason::TooLarge => 6,
            DeadReason::Cancelled => 7,
            DeadReason::Expired => 8,
            DeadReason::Refused => 9,
        };
        assert_eq!(DeadReason::ALL[place], reason);
        let same = DeadReason::ALL.iter().filter(|other| other.as_str() == reason.as_str());
        assert_eq!(same.count(), 1, "{reason}");
    }
}

proptest! {
    #[test]
    fn delay_never_exceeds_its_bound(
        attempt in any::<u32>(), random in any::<f64>(), jitter in any::<f64>(), factor in any::<f64>(),
        delay in any::<u64>(), max_delay in any::<u64>(),
    ) {
        let (delay, max_delay) = (Duration::from_millis(delay), Duration::from_millis(max_delay));
        let retry = Retry { attempts: 9, delay, factor, max_delay, jitter };
        prop_assert!(backoff(&retry, attempt, random) <= max_delay);
    }

    #[test]
    fn attempts_always_end(attempts in 0..200u32, random in 0.0..1.0f64, timeout: bool) {
        let retry = Retry { attempts, ..policy() };
        let cause = timeout.then_some(CancelCause::Timeout);
        let mut attempt = 1;
        while let Settlement::Retry { next_attempt, .. } =
            settle(Outcome::Fault(FaultCause::HostDied), None, attempt, &retry, cause, random)
        {
            prop_assert_eq!(next_attempt, attempt + 1);
            attempt = next_attempt;
        }
        prop_assert_eq!(attempt, attempts.max(1));
    }
}
