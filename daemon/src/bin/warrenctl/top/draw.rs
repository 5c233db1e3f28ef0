//! The view's picture: from the model to cells, of a terminal or of a text. Pure.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, RenderDirection, Row, Sparkline, Table, Widget};
use warren::model::duration::format_duration;
use warren::model::status::ActiveTask;

use super::model::{self, Model};
use super::track::Track;
use crate::active::progress;
use crate::output::{clean, span};
use crate::status;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const HEAD: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const BARS: Style = Style::new().fg(Color::Cyan);

/// Columns of a queue or handler: name, state, busy, waiting, done, failed, mean and bound of its spans.
const ROW: [Constraint; 8] = [
    Constraint::Min(12),
    Constraint::Length(9),
    Constraint::Length(7),
    Constraint::Length(7),
    Constraint::Length(8),
    Constraint::Length(8),
    Constraint::Length(7),
    Constraint::Length(7),
];
/// What these take at least, with the gaps between them.
const ROW_WIDTH: u16 = 72;
/// Columns beside them from which on there are two sparklines, of the rate and of the spans, and not only the first.
const TWO_SPARKLINES: u16 = 20;
/// A running task's id is shown whole if it is a UUID, which `warrenctl cancel` wants.
const ID_WIDTH: usize = 36;
/// Lines above the tables, for a reload that went wrong at many handlers.
const HEAD_LINES: usize = 6;
/// Lines that the running tasks keep when queues and handlers want all.
const TASK_LINES: u16 = 4;

/// What the user has set.
#[derive(Debug)]
pub(super) struct View {
    /// How often the daemon is asked.
    pub(super) pace: Duration,
    /// New samples are not shown.
    pub(super) is_frozen: bool,
    /// Running tasks that are skipped; brought into bounds by drawing.
    pub(super) scroll: usize,
}

/// Draws everything into `area`: head, queues, handlers, running tasks, keys. What does not fit is counted.
pub(super) fn draw(model: &Model, view: &mut View, area: Rect, buffer: &mut Buffer) {
    let head = head(model);
    let head_height = head.len() as u16;
    let [top, body, keys] =
        Layout::vertical([Constraint::Length(head_height), Constraint::Fill(1), Constraint::Length(1)])
            .areas(area);
    Paragraph::new(head).render(top, buffer);
    tables(model, view, body, buffer);
    let frozen = if view.is_frozen { "  FROZEN" } else { "" };
    let pace = format_duration(view.pace);
    let line = format!("q quit   p freeze   +/- every {pace}   \u{2191}\u{2193} running tasks{frozen}");
    Paragraph::new(line).style(if view.is_frozen { BOLD } else { HEAD }).render(keys, buffer);
}

/// The same as text, as high as it has to be and without the keys.
pub(super) fn text(model: &Model, width: u16) -> String {
    let tables = model.queues().len() + model.handlers().len() + model.active.len() + 7;
    let height = head(model).len() + tables;
    let area = Rect::new(0, 0, width, u16::try_from(height).unwrap_or(u16::MAX));
    let mut buffer = Buffer::empty(area);
    let mut view = View { pace: Duration::ZERO, is_frozen: false, scroll: 0 };
    draw(model, &mut view, area, &mut buffer);
    let mut lines = lines(&buffer);
    lines.pop();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// The cells as lines; a wide character stands in the first of its cells.
fn lines(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.content().chunks(usize::from(buffer.area.width.max(1)));
    rows.map(|row| {
        let mut line = String::new();
        let mut column = 0;
        while let Some(cell) = row.get(column) {
            line.push_str(cell.symbol());
            column += Span::raw(cell.symbol()).width().max(1);
        }
        line.trim_end().to_owned()
    })
    .collect()
}

/// What `warrenctl status` begins with, and why the daemon does not answer, if so.
fn head(model: &Model) -> Vec<Line<'static>> {
    let text = status::head(&model.status);
    let mut lines: Vec<Line> = text.lines().take(HEAD_LINES).map(|line| Line::raw(line.to_owned())).collect();
    if let Some(first) = lines.first_mut() {
        first.style = if model.status.ready { BOLD } else { BAD };
    }
    if let Some(why) = &model.lost {
        lines.push(Line::styled(format!("what follows is old: {}", clean(why)), BAD));
    }
    lines.push(Line::default());
    lines
}

fn tables(model: &Model, view: &mut View, area: Rect, buffer: &mut Buffer) {
    let (queues, handlers) = (model.queues(), model.handlers());
    let lines = |rows: usize| u16::try_from(rows + 2).unwrap_or(u16::MAX);
    let for_tasks = lines(model.active.len()).min(TASK_LINES.max(area.height / 4));
    let rest = area.height.saturating_sub(for_tasks);
    let for_queues = lines(queues.len()).min(rest.saturating_sub(lines(handlers.len())).max(rest / 2));
    let for_handlers = lines(handlers.len()).min(rest - for_queues);
    let [queue_area, handler_area, task_area] = Layout::vertical([
        Constraint::Length(for_queues),
        Constraint::Length(for_handlers),
        Constraint::Fill(1),
    ])
    .areas(area);
    section(["QUEUE", "WAIT"], &queues, queue_area, buffer);
    section(["HANDLER", "TIME"], &handlers, handler_area, buffer);
    tasks(&model.active, view, task_area, buffer);
}

/// A table of queues or handlers; `names` are those of the first column and of the spans.
fn section(names: [&str; 2], rows: &[(model::Row, &Track)], area: Rect, buffer: &mut Buffer) {
    let [name, spans] = names;
    let (shown, more) = fitting(rows, area.height.saturating_sub(2));
    let beside = area.width.saturating_sub(ROW_WIDTH);
    let sparklines = if beside >= TWO_SPARKLINES { 2 } else { 1 };
    let [table, rates, times] = Layout::horizontal([
        Constraint::Min(ROW_WIDTH),
        Constraint::Fill(1),
        Constraint::Fill(sparklines - 1),
    ])
    .spacing(1)
    .areas(area);

    let head = [name, "STATE", "BUSY", "WAITING", "DONE/S", "FAILED/S", spans, "P95"];
    let head =
        Row::new(head.into_iter().enumerate().map(|(column, text)| aligned(text.to_owned(), column > 1)));
    let cells = shown.iter().map(|(row, _)| cells(row));
    Table::new(cells.chain(more.map(Row::new)), ROW).header(head.style(HEAD)).render(table, buffer);

    let beside =
        |area: Rect, title: String, bars: &dyn Fn(&Track) -> Vec<Option<u64>>, buffer: &mut Buffer| {
            Line::styled(title, HEAD).render(Rect { height: area.height.min(1), ..area }, buffer);
            for (row, (_, track)) in area.rows().skip(1).zip(shown) {
                let line = Sparkline::default().data(bars(track)).direction(RenderDirection::RightToLeft);
                line.absent_value_symbol(" ").style(BARS).render(row, buffer);
            }
        };
    beside(rates, "DONE/S".to_owned(), &|track| track.done().map(Some).collect(), buffer);
    beside(times, spans.to_owned(), &|track| track.means().collect(), buffer);
}

fn cells(row: &model::Row) -> Row<'static> {
    let busy = row.workers.map_or_else(|| row.running.to_string(), |most| format!("{}/{most}", row.running));
    let spans = |of: fn(&super::track::Spans) -> f64| {
        row.spans.as_ref().map_or_else(|| "-".to_owned(), |spans| seconds(of(spans)))
    };
    let texts = [
        clean(&row.name),
        clean(&row.state),
        busy,
        row.waiting.to_string(),
        rate(row.rates.done_per_s),
        rate(row.rates.failed_per_s),
        spans(|spans| spans.mean_s),
        spans(|spans| spans.p95_s),
    ];
    let is_well = matches!(row.state.as_str(), "consuming" | "active");
    let cells = texts.into_iter().enumerate().map(|(column, text)| aligned(text, column > 1));
    Row::new(cells).style(if is_well { Style::new() } else { BAD })
}

fn tasks(tasks: &[ActiveTask], view: &mut View, area: Rect, buffer: &mut Buffer) {
    let height = usize::from(area.height.saturating_sub(1));
    view.scroll = view.scroll.min(tasks.len().saturating_sub(height));
    let (shown, more) = fitting(&tasks[view.scroll..], height as u16);
    let head = ["RUNNING TASK", "HANDLER", "TRY", "FOR", "LIMIT", "PROGRESS", "TEXT"];
    let number = |column| (2..=4).contains(&column);
    let head =
        Row::new(head.into_iter().enumerate().map(|(column, text)| aligned(text.to_owned(), number(column))));
    let rows = shown.iter().map(|task| {
        let texts = [
            clean(&task.id),
            clean(&task.handler),
            task.attempt.to_string(),
            span(Duration::from_millis(task.running_ms)),
            span(Duration::from_millis(task.timeout_ms)),
            clean(&progress(task)),
            clean(&task.text),
        ];
        Row::new(texts.into_iter().enumerate().map(|(column, text)| aligned(text, number(column))))
    });
    let none = tasks.is_empty().then(|| Row::new(["none"]));
    let id = shown.iter().map(|task| Span::raw(&task.id).width()).max().unwrap_or(0).clamp(12, ID_WIDTH);
    let columns = [
        Constraint::Length(id as u16),
        Constraint::Max(14),
        Constraint::Length(3),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Max(16),
        Constraint::Min(10),
    ];
    let rows = rows.chain(none).chain(more.map(Row::new));
    Table::new(rows, columns).header(head.style(HEAD)).render(area, buffer);
}

/// As many rows as fit below the header, and a line that counts the others.
fn fitting<T>(rows: &[T], height: u16) -> (&[T], Option<[String; 1]>) {
    let height = usize::from(height);
    if rows.len() <= height {
        return (rows, None);
    }
    let shown = &rows[..height.saturating_sub(1)];
    (shown, Some([format!("{} more", rows.len() - shown.len())]))
}

fn aligned(text: String, is_right: bool) -> Cell<'static> {
    let text = Text::raw(text);
    Cell::new(if is_right { text.right_aligned() } else { text })
}

/// Tasks a second.
fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        "0".to_owned()
    } else if per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// A span from microseconds on, in at most seven characters.
fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0}us", seconds * 1e6)
    } else if seconds < 0.01 {
        format!("{:.1}ms", seconds * 1e3)
    } else {
        span(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::model::tests::sample;
    use super::*;

    fn model(handlers: usize, tasks: usize) -> Model {
        let start = Instant::now();
        let mut model = Model::default();
        for second in 0..30 {
            let mut sample = sample(start, second, second * second);
            let (handler, task) = (sample.status.handlers[0].clone(), sample.active[0].clone());
            for n in 1..handlers {
                let name = format!("more-{n}");
                sample.status.handlers.push(warren::model::status::HandlerStatus { name, ..handler.clone() });
            }
            for n in 1..tasks {
                sample.active.push(ActiveTask { id: format!("t-{}", n + 1), ..task.clone() });
            }
            model.take(sample);
        }
        model
    }

    fn screen(model: &Model, view: &mut View, width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        draw(model, view, area, &mut buffer);
        lines(&buffer).join("\n")
    }

    fn view() -> View {
        View { pace: Duration::from_secs(1), is_frozen: false, scroll: 0 }
    }

    #[test]
    fn it_shows_queues_handlers_and_tasks() {
        for width in [80, 120, 200] {
            let shown = screen(&model(1, 1), &mut view(), width, 24);
            for part in [
                "warrend 1.2.3  running, ready, pid 4711",
                "broker  connected",
                "QUEUE",
                "task_queue",
                "consuming",
                "1/4",
                "orders",
                "suspended",
                "20ms",
                "57",
                "t-1",
                "1m 1s",
                "42.5%",
                "every 1s",
            ] {
                assert!(shown.contains(part), "no {part:?} at {width} in\n{shown}");
            }
            assert!(
                shown.contains('\u{2588}') && shown.contains('\u{2586}'),
                "no bars at {width} in\n{shown}"
            );
            assert!(!shown.contains('\x1b'), "{shown}");
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_tasks_can_be_reached() {
        let model = model(40, 30);
        let mut view = view();
        let shown = screen(&model, &mut view, 80, 24);
        assert!(shown.contains("more-2") && shown.contains("RUNNING TASK"), "{shown}");
        assert_eq!(shown.matches(" more").count(), 2, "{shown}");
        assert!(!shown.contains("t-30"), "{shown}");
        view.scroll = 1000;
        let shown = screen(&model, &mut view, 80, 24);
        assert!(shown.contains("t-30"), "{shown}");
        assert!(view.scroll < 30, "{view:?}");
    }

    #[test]
    fn a_terminal_of_any_size_will_do() {
        let model = model(3, 3);
        for (width, height) in [(0, 0), (1, 1), (5, 3), (80, 2), (20, 100), (500, 200)] {
            screen(&model, &mut view(), width, height);
        }
    }

    #[test]
    fn a_lost_daemon_is_said_above_what_is_old() {
        let mut model = model(1, 1);
        let path = "/run/w.sock".into();
        let why = std::io::ErrorKind::NotFound.into();
        model.lose(&warren::control::client::ClientError::NoDaemon { path, why });
        let shown = screen(&model, &mut view(), 100, 24);
        assert!(shown.contains("what follows is old: no daemon answers on /run/w.sock"), "{shown}");
        assert!(shown.contains("task_queue"), "{shown}");
    }

    #[test]
    fn as_text_nothing_is_left_out() {
        let shown = text(&model(40, 30), 120);
        assert!(shown.contains("more-39") && shown.contains("t-30"), "{shown}");
        assert!(!shown.contains(" more\n") && !shown.contains("q quit") && shown.ends_with('\n'), "{shown}");
    }

    #[test]
    fn a_wide_character_takes_one_place_in_the_text() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 6, 1));
        buffer.set_string(0, 0, "\u{6f22}\u{5b57}x", Style::new());
        assert_eq!(lines(&buffer), ["\u{6f22}\u{5b57}x"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([rate(0.0), rate(0.25), rate(9.96), rate(12_345.6)], ["0", "0.2", "10.0", "12346"]);
        assert_eq!([seconds(0.000_137), seconds(0.0042), seconds(0.137)], ["137us", "4.2ms", "137ms"]);
        assert_eq!(seconds(61.0), "1m 1s");
    }
}
