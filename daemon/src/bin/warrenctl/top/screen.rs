//! The terminal: taken over, drawn on, asked for keys, and given back however the program ends.

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::draw::{self, View};
use super::model::Model;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end.
    Quit,
    /// To show no new samples, or to show them again.
    Freeze,
    /// To ask the daemon more often.
    Faster,
    /// To ask it less often.
    Slower,
    /// To go up or down in the running tasks by so many.
    Scroll(isize),
}

/// The alternate screen in raw mode, until dropped. A panic gives it back too.
#[derive(Debug)]
pub(super) struct Screen {
    /// `None` only while it is dropped.
    terminal: Option<DefaultTerminal>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { terminal: Some(ratatui::try_init().inspect_err(|_| ratatui::restore())?) })
    }

    /// Draws what has changed; the whole when the terminal has another size.
    pub(super) fn draw(&mut self, model: &Model, view: &mut View) -> io::Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        terminal.draw(|frame| draw::draw(model, view, frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if ratatui::try_restore().is_err() {
            // It is gone, and stderr with it, where the end of ratatui's terminal would panic to say so.
            std::mem::forget(self.terminal.take());
        }
    }
}

/// The next key that means something, if there is one within `wait`. A terminal that is gone asks to quit: crossterm
/// would read from it without end (<https://github.com/crossterm-rs/crossterm/issues/793>).
pub(super) fn asked(wait: Duration) -> io::Result<Option<Asked>> {
    let stdin = io::stdin();
    let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as _ };
    match poll(&mut ready, Some(&wait)) {
        // A signal: of a new size, or one that the caller sees to.
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Ok(Some(Asked::Quit));
    }
    // Also without input: crossterm notices a new size here, and may miss a key that comes with one.
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()?
            && let Some(asked) = meant(key)
        {
            return Ok(Some(asked));
        }
    }
    Ok(None)
}

fn meant(key: KeyEvent) -> Option<Asked> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Asked::Quit);
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Asked::Quit),
        KeyCode::Char('p' | ' ') => Some(Asked::Freeze),
        KeyCode::Char('+') => Some(Asked::Faster),
        KeyCode::Char('-') => Some(Asked::Slower),
        KeyCode::Up | KeyCode::Char('k') => Some(Asked::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Asked::Scroll(1)),
        KeyCode::PageUp => Some(Asked::Scroll(-10)),
        KeyCode::PageDown => Some(Asked::Scroll(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let key = |code| meant(KeyEvent::new(code, KeyModifiers::NONE));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(key(code), Some(Asked::Quit));
        }
        assert_eq!(key(KeyCode::Char('p')), Some(Asked::Freeze));
        assert_eq!(
            [key(KeyCode::Char('+')), key(KeyCode::Char('-'))],
            [Some(Asked::Faster), Some(Asked::Slower)]
        );
        assert_eq!([key(KeyCode::Up), key(KeyCode::Down)], [Some(Asked::Scroll(-1)), Some(Asked::Scroll(1))]);
        assert_eq!(key(KeyCode::Char('x')), None);
        assert_eq!(meant(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Asked::Quit));
        assert_eq!(meant(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::CONTROL)), None);
    }
}
