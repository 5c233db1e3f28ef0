//! Which tags of one channel are settled, and with how few frames. Pure: it says what to send, the link sends it.
//!
//! The broker closes the channel on a tag it does not know: tag 0, a tag settled twice, a `multiple` that names a
//! settled tag. All three are impossible here, whatever the caller notes.

use std::collections::VecDeque;

/// One frame to send, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// `basic.ack` of this tag alone.
    Ack(u64),
    /// `basic.ack` of this tag and of every unsettled one below it.
    AckUpTo(u64),
    /// `basic.nack` with requeue of this tag alone.
    Requeue(u64),
}

/// The unsettled deliveries of one channel. The channel carries one consumer and nothing else, so its tags count up
/// from 1.
#[derive(Debug, Default)]
pub(super) struct Settler {
    /// What is known of tag `base + i` at index `i`. The first one is always unsettled.
    tags: VecDeque<TagState>,
    /// The tag of the first entry; tags below it are settled.
    base: u64,
    /// Tags noted since the last flush, in the order they were noted.
    noted: Vec<u64>,
    /// How many delivered tags are neither sent nor noted as settled.
    open: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagState {
    /// With the engine.
    Open,
    /// Noted, not sent.
    Ack,
    /// Noted, not sent.
    Requeue,
    /// Sent, above an unsettled one.
    Settled,
}

impl Settler {
    /// A delivery arrived. Tags that the broker skipped (it does not) count as settled: they are not ours.
    pub(super) fn delivered(&mut self, tag: u64) {
        if self.tags.is_empty() {
            self.base = tag;
        }
        let Some(index) = tag.checked_sub(self.base).and_then(|index| usize::try_from(index).ok()) else {
            return;
        };
        if tag == 0 || index < self.tags.len() {
            return;
        }
        self.tags.resize(index, TagState::Settled);
        self.tags.push_back(TagState::Open);
        self.open += 1;
    }

    /// The delivery is done with: acknowledge it at the next flush. False when the tag is not an open one; nothing
    /// is noted then.
    pub(super) fn ack(&mut self, tag: u64) -> bool {
        self.note(tag, TagState::Ack)
    }

    /// The delivery goes back: requeue it at the next flush. False when the tag is not an open one.
    pub(super) fn requeue(&mut self, tag: u64) -> bool {
        self.note(tag, TagState::Requeue)
    }

    /// Hands every noted tag to `send`, once. Requeued ones come first, because the `multiple` acknowledgement that
    /// follows covers all that is unsettled below its tag. Costs time for what was noted, not for what is open.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Frame)) {
        for &tag in &self.noted {
            let entry = &mut self.tags[(tag - self.base) as usize];
            if *entry == TagState::Requeue {
                *entry = TagState::Settled;
                send(Frame::Requeue(tag));
            }
        }
        let (mut run, mut last) = (0_u64, 0_u64);
        while let Some(&tag) = self.tags.front()
            && matches!(tag, TagState::Ack | TagState::Settled)
        {
            if tag == TagState::Ack {
                (run, last) = (run + 1, self.base);
            }
            self.tags.pop_front();
            self.base += 1;
        }
        match run {
            0 => {}
            1 => send(Frame::Ack(last)),
            _ => send(Frame::AckUpTo(last)),
        }
        for &tag in self.noted.iter().filter(|&&tag| tag >= self.base) {
            let entry = &mut self.tags[(tag - self.base) as usize];
            if *entry == TagState::Ack {
                *entry = TagState::Settled;
                send(Frame::Ack(tag));
            }
        }
        self.noted.clear();
    }

    /// Nothing was noted since the last flush.
    pub(super) fn is_flushed(&self) -> bool {
        self.noted.is_empty()
    }

    /// Every delivery is settled and sent: the channel may go.
    pub(super) fn is_done(&self) -> bool {
        self.open == 0 && self.noted.is_empty()
    }

    /// How many deliveries the engine still holds.
    #[cfg(test)]
    fn open(&self) -> usize {
        self.open
    }

    fn note(&mut self, tag: u64, how: TagState) -> bool {
        let entry = tag
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.tags.get_mut(index));
        match entry {
            Some(entry @ TagState::Open) => {
                *entry = how;
                self.noted.push(tag);
                self.open -= 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn flushed(settler: &mut Settler) -> Vec<Frame> {
        let mut frames = Vec::new();
        settler.flush(|frame| frames.push(frame));
        frames
    }

    fn delivered(count: u64) -> Settler {
        let mut settler = Settler::default();
        (1..=count).for_each(|tag| settler.delivered(tag));
        settler
    }

    #[test]
    fn a_run_from_the_lowest_tag_is_one_multiple_ack() {
        let mut settler = delivered(5);
        assert!(settler.ack(3) && settler.ack(1) && settler.ack(2));
        assert_eq!(flushed(&mut settler), [Frame::AckUpTo(3)]);
        assert_eq!(settler.open(), 2);
    }

    #[test]
    fn a_single_tag_is_no_multiple() {
        let mut settler = delivered(2);
        settler.ack(1);
        assert_eq!(flushed(&mut settler), [Frame::Ack(1)]);
    }

    #[test]
    fn tags_above_a_gap_are_acked_singly_and_never_named_again() {
        let mut settler = delivered(4);
        settler.ack(3);
        settler.ack(4);
        assert_eq!(flushed(&mut settler), [Frame::Ack(3), Frame::Ack(4)]);
        settler.ack(1);
        settler.ack(2);
        // Not up to 4: tag 4 is settled, naming it closes the channel.
        assert_eq!(flushed(&mut settler), [Frame::AckUpTo(2)]);
        assert!(settler.is_done());
    }

    #[test]
    fn a_requeue_inside_a_run_goes_out_before_the_ack_that_covers_it() {
        let mut settler = delivered(3);
        settler.ack(1);
        settler.requeue(2);
        settler.ack(3);
        assert_eq!(flushed(&mut settler), [Frame::Requeue(2), Frame::AckUpTo(3)]);
        assert!(settler.is_done());
    }

    #[test]
    fn unknown_and_repeated_tags_are_refused() {
        let mut settler = delivered(2);
        assert!(!settler.ack(0) && !settler.ack(3));
        assert!(settler.ack(1) && !settler.ack(1) && !settler.requeue(1));
        flushed(&mut settler);
        assert!(!settler.ack(1));
        assert_eq!(flushed(&mut settler), []);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Deliver,
        Ack(prop::sample::Index),
        Requeue(prop::sample::Index),
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Deliver),
            3 => any::<prop::sample::Index>().prop_map(Step::Ack),
            1 => any::<prop::sample::Index>().prop_map(Step::Requeue),
            1 => Just(Step::Flush),
        ]
    }

    /// The broker's side: what is unsettled, and the errors it closes a channel with.
    fn settle(unsettled: &mut BTreeSet<u64>, requeued: &mut Vec<u64>, frame: Frame) {
        match frame {
            Frame::Ack(tag) => assert!(unsettled.remove(&tag), "unknown tag {tag}"),
            Frame::Requeue(tag) => {
                assert!(unsettled.remove(&tag), "unknown tag {tag}");
                requeued.push(tag);
            }
            Frame::AckUpTo(tag) => {
                assert!(unsettled.contains(&tag), "unknown tag {tag}");
                *unsettled = unsettled.split_off(&(tag + 1));
            }
        }
    }

    proptest! {
        #[test]
        fn the_broker_settles_exactly_what_was_noted(steps in prop::collection::vec(step(), 0..200)) {
            let mut settler = Settler::default();
            let (mut at_broker, mut with_engine) = (BTreeSet::new(), BTreeSet::new());
            let (mut asked, mut requeued, mut next) = (Vec::new(), Vec::new(), 1_u64);
            for step in steps.into_iter().chain([Step::Flush]) {
                match step {
                    Step::Deliver => {
                        settler.delivered(next);
                        at_broker.insert(next);
                        with_engine.insert(next);
                        next += 1;
                    }
                    Step::Ack(index) | Step::Requeue(index) if next == 1 => { let _ = index; }
                    Step::Ack(index) => {
                        let tag = index.index(next as usize) as u64;
                        prop_assert_eq!(settler.ack(tag), with_engine.remove(&tag));
                    }
                    Step::Requeue(index) => {
                        let tag = index.index(next as usize) as u64;
                        let open = with_engine.remove(&tag);
                        prop_assert_eq!(settler.requeue(tag), open);
                        if open { asked.push(tag); }
                    }
                    Step::Flush => {
                        settler.flush(|frame| settle(&mut at_broker, &mut requeued, frame));
                        prop_assert_eq!(&at_broker, &with_engine);
                    }
                }
            }
            asked.sort_unstable();
            requeued.sort_unstable();
            prop_assert_eq!(asked, requeued);
            prop_assert_eq!(settler.open(), with_engine.len());
        }
    }
}
