//! The page of a history: its words, its tables, its filters.

use super::figures::RunFigures;
use super::files::{Change, Tables};
use super::filters::{CLOCK, Filter, period_labels, period_style};
use super::judged::{Against, Verdict};
use super::lines::{LeftOut, Line, Run, Source};
use super::picture::{Span, svg, thinned};
use super::words::{
    DEFINITIONS, caption, change_words, class, group_title, headline, interval_words, link, p_words, ratio,
    relation, value_words,
};
use crate::language::{Language, Text, text};
use crate::record::{Clock, unix_seconds};
use crate::report::ReportError;
use crate::report::followed::Kind;
use crate::report::format::significant;
use crate::report::page::fill;
use crate::stats::{STEP_ALPHA, STEP_LEAST};
use minijinja::{Value, context};

/// Most charts, rows of a table and points of a page. The CSV files have all.
const MOST_CHARTS: usize = 240;
const MOST_ROWS: usize = 400;
const MOST_POINTS: usize = 60_000;
/// Rows of the table of lines that are not folded. Worse lines come first.
const FIRST_ROWS: usize = 24;
/// Fewest points that a line is thinned to.
const LEAST_POINTS: usize = 60;
/// Most change points that a chart names.
const NAMED: usize = 4;

/// All that the page shows.
pub(super) struct Page<'a> {
    tables: Tables<'a>,
    language: Language,
    span: Span,
    model: Filter,
    form: Filter,
    device: Filter,
    source: Filter,
}

/// A page and what the terminal says.
pub(super) struct Filled {
    pub(super) html: String,
    pub(super) headline: Vec<String>,
}

impl<'a> Page<'a> {
    pub(super) fn of(tables: Tables<'a>, language: Language) -> Self {
        let all =
            || tables.runs.iter().map(|run| run.of).chain(tables.left_out.iter().filter_map(|left| left.of));
        let times = tables.runs.iter().map(|run| run.at);
        let sources = tables.lines.iter().map(|line| line.key.source.word().to_owned());
        Self {
            span: Span::of(times).unwrap_or(Span { first: 0, last: 0 }),
            model: Filter::of('m', text!("Model"), all().map(|of| of.model.clone())),
            form: Filter::of('f', text!("Form"), all().map(|of| of.form.to_string())),
            device: Filter::of('d', text!("Device"), all().map(|of| of.device.to_string())),
            source: Filter::of(CLOCK, text!("Clock"), sources.chain(all().map(|of| of.clock.to_string()))),
            tables,
            language,
        }
    }

    /// Puts a text into the language of the page.
    fn say(&self, text: &Text) -> String {
        text.in_language(self.language)
    }

    /// Fills the page's template. `title` is the folder's name, `beside` that of the folder with the tables.
    ///
    /// # Errors
    /// The template cannot be filled.
    pub(super) fn fill(&self, title: &str, beside: &str) -> Result<Filled, ReportError> {
        let headline: Vec<String> = headline(self.tables).iter().map(|text| self.say(text)).collect();
        let shown = self.shown_lines();
        let most = (MOST_POINTS / shown.len().max(1)).max(LEAST_POINTS);
        let thin = shown.iter().filter(|place| self.tables.lines[**place].points.len() > most).count();
        let charts = |kind: Kind| -> Vec<Value> {
            let of_kind = shown.iter().filter(|place| self.tables.lines[**place].key.kind == kind);
            of_kind.map(|place| self.chart(*place, most)).collect()
        };
        let groups: Vec<Value> = Kind::ALL
            .into_iter()
            .map(|kind| context! { title => self.say(&group_title(kind)), charts => charts(kind) })
            .filter(|group| group.get_attr("charts").is_ok_and(|charts| charts.len() > Some(0)))
            .collect();
        let style = format!(
            "{}\n{}\n{}",
            include_str!("../templates/style.css"),
            include_str!("../templates/history.css"),
            self.style()
        );
        let mut lines = self.line_rows(&shown);
        let more_lines = lines.split_off(lines.len().min(FIRST_ROWS));
        let html = fill(
            "history.html",
            self.language,
            context! {
                style => Value::from_safe_string(style),
                title,
                beside,
                headline => headline.clone(),
                filters => [&self.model, &self.form, &self.device, &self.source].map(|filter| filter.value(self.language)),
                periods => self.span.periods().iter().map(|period| context! { days => period.days, name => self.say(&period.name()) }).collect::<Vec<_>>(),
                labels => Value::from_safe_string(period_labels(self.span)),
                groups,
                lines => lines,
                more_lines => more_lines,
                changes => self.change_rows(),
                runs => self.run_rows(),
                left_out => self.left_out_rows(),
                notes => self.notes(thin, most, shown.len()).iter().map(|text| self.say(text)).collect::<Vec<_>>(),
                definitions => DEFINITIONS.map(|(name, text)| context! { name => self.say(&name), text => self.say(&text) }),
            },
        )?;
        Ok(Filled { html, headline })
    }

    /// The lines of the page: all, or those of the latest runs.
    fn shown_lines(&self) -> Vec<usize> {
        let lines = self.tables.lines;
        let mut shown: Vec<usize> = (0..lines.len()).collect();
        if shown.len() > MOST_CHARTS {
            shown.sort_by_key(|place| {
                std::cmp::Reverse((lines[*place].last().at, lines[*place].points.len()))
            });
            shown.truncate(MOST_CHARTS);
            shown.sort_unstable();
        }
        shown
    }

    /// The rules of the filters.
    fn style(&self) -> String {
        let values: String =
            [&self.model, &self.form, &self.device, &self.source].map(Filter::style).concat();
        values + &period_style(self.span)
    }

    /// The number of the shortest period that holds a time.
    fn period(&self, at: u64) -> usize {
        let periods = self.span.periods();
        periods.iter().position(|period| self.span.holds(*period, at)).unwrap_or(periods.len() - 1)
    }

    fn attributes(&self, of: &RunFigures, sources: &[&str], at: u64) -> Value {
        let sources: Vec<String> = sources.iter().map(|word| self.source.place(word).to_string()).collect();
        Value::from_safe_string(format!(
            "data-m=\"{}\" data-f=\"{}\" data-d=\"{}\" data-s=\"{}\" data-p=\"{}\"",
            self.model.place(&of.model),
            self.form.place(&of.form),
            self.device.place(&of.device),
            sources.join(" "),
            self.period(at)
        ))
    }

    fn line_attributes(&self, line: &Line<'_>) -> Value {
        let last = &self.tables.runs[line.last().run];
        self.attributes(last.of, &[line.key.source.word()], last.at)
    }

    fn chart(&self, place: usize, most: usize) -> Value {
        let (line, id) = (&self.tables.lines[place], &self.tables.ids[place]);
        let points = thinned(line, most);
        let drawing = svg(line, &points, self.span, id);
        let caption = self.say(&caption(self.tables, place));
        let note = self.say(&self.chart_note(place, points.len() < line.points.len()));
        context! {
            id => id.as_str(),
            attributes => self.line_attributes(line),
            alt => format!("{caption}. {note}"),
            caption,
            note,
            svg => Value::from_safe_string(drawing),
        }
    }

    fn chart_note(&self, place: usize, is_thin: bool) -> Text {
        let line = &self.tables.lines[place];
        let mut words = vec![line.place()];
        if !line.key.by.is_empty() {
            words.push(Text::data(line.key.by.to_owned()));
        }
        words.push(text!("{runs} run{runs:s}", runs = line.points.len()));
        let changes = self.tables.changes.iter().filter(|change| change.line == place);
        for change in changes.take(NAMED) {
            let started = &self.tables.runs[line.points[change.at].run].of.started;
            let change =
                relation(line.key.kind, ratio(line.key.kind, change.levels), &text!("the level before"));
            words.push(text!("changed on {date}: {change}", date = &started[..10], change));
        }
        if is_thin {
            words.push(text!("older runs in groups: median, intervals joined"));
        }
        Text::list(words, "; ")
    }

    fn line_rows(&self, shown: &[usize]) -> Vec<Value> {
        let row = |place: &usize| {
            let (line, judged) = (&self.tables.lines[*place], &self.tables.judged[*place]);
            let kind = line.key.kind;
            let last = line.last();
            let against = |of: &Option<Against>| {
                of.as_ref().map(|of| {
                    let other = &line.points[of.other];
                    context! {
                        value => self.say(&value_words(kind, other.figure.value)),
                        change => self.say(&change_words(kind, of.change)),
                        word => self.say(&of.verdict.text(kind)),
                        class => class(of.verdict),
                        why => self.say(&of.why),
                        run => self.tables.runs[other.run].folder,
                    }
                })
            };
            context! {
                id => self.tables.ids[*place].as_str(),
                attributes => self.line_attributes(line),
                name => self.say(&line.name()),
                place => self.say(&line.place()),
                runs => line.points.len(),
                changes => line.steps.len(),
                last => self.say(&value_words(kind, last.figure.value)),
                interval => interval_words(kind, last.figure.interval().map(|ends| (ends.low, ends.high))),
                run => self.tables.runs[last.run].folder,
                previous => against(&judged.previous),
                best => against(&judged.best),
            }
        };
        // What is worse comes first, then what is better.
        let rank = |place: &usize| {
            let judged = &self.tables.judged[*place];
            let verdicts = [&judged.previous, &judged.best].map(|of| of.as_ref().map(|of| of.verdict));
            match () {
                () if verdicts.contains(&Some(Verdict::Worse)) => 0,
                () if verdicts.contains(&Some(Verdict::Better)) => 1,
                () => 2,
            }
        };
        let mut order = shown.to_vec();
        order.sort_by_key(|place| (rank(place), *place));
        order.iter().take(MOST_ROWS).map(row).collect()
    }

    fn change_rows(&self) -> Vec<Value> {
        let row = |change: &Change| {
            let line = &self.tables.lines[change.line];
            let run = &self.tables.runs[line.points[change.at].run];
            let kind = line.key.kind;
            context! {
                attributes => self.attributes(run.of, &[line.key.source.word()], run.at),
                id => self.tables.ids[change.line].as_str(),
                date => run.of.started[..10].to_owned(),
                run => run.folder,
                link => link(run.folder),
                name => self.say(&line.name()),
                place => self.say(&line.place()),
                before => self.say(&value_words(kind, change.levels.0)),
                after => self.say(&value_words(kind, change.levels.1)),
                change => self.say(&change_words(kind, ratio(kind, change.levels))),
                runs => format!("{}, {}", change.runs.0, change.runs.1),
                p => p_words(change.p),
                differs => if change.differs.is_empty() { self.say(&text!("nothing recorded")) } else { change.differs.clone() },
            }
        };
        self.tables.changes.iter().take(MOST_ROWS).map(row).collect()
    }

    fn run_rows(&self) -> Vec<Value> {
        let row = |run: &Run<'_>| {
            context! {
                attributes => self.attributes(run.of, &Self::sources(run.of), run.at),
                run => run.folder,
                link => link(run.folder),
                date => run.of.started.as_str(),
                model => run.of.model.as_str(),
                form => &*run.of.form,
                device => &*run.of.device,
                clock => self.say(&Text::term(run.of.clock.to_string())),
                suite => run.of.suite.as_str(),
                program => run.of.facts.get("program").cloned().unwrap_or_default(),
                figures => run.of.figures.len(),
                verdict => run.of.verdict.as_str(),
            }
        };
        self.tables.runs.iter().rev().take(MOST_ROWS).map(row).collect()
    }

    fn sources(of: &RunFigures) -> Vec<&'static str> {
        let clock = match of.clock {
            Clock::Measured => Source::Measured,
            Clock::Modelled => Source::Modelled,
        };
        std::iter::once(clock).chain(of.emulated.then_some(Source::Emulated)).map(Source::word).collect()
    }

    fn left_out_rows(&self) -> Vec<Value> {
        let row = |left: &LeftOut<'_>| {
            let attributes = left.of.map(|of| {
                let at = unix_seconds(&of.started).unwrap_or(0);
                self.attributes(of, &Self::sources(of), at)
            });
            context! {
                attributes => attributes.unwrap_or_else(|| Value::from_safe_string(String::new())),
                run => left.folder,
                link => link(left.folder),
                has_report => left.of.is_some(),
                standing => self.say(&Text::term(left.standing)),
                why => left.why.as_str(),
            }
        };
        self.tables.left_out.iter().rev().take(MOST_ROWS).map(row).collect()
    }

    /// What the page leaves out, and how many false change points to expect.
    fn notes(&self, thin: usize, most: usize, charts: usize) -> Vec<Text> {
        let Tables { runs, left_out, lines, changes, .. } = self.tables;
        let mut notes = Vec::new();
        let mut cut = |all: usize, shown: usize, what: Text, file: &'static str| {
            if all > shown {
                notes.push(text!(
                    "The page has {shown} of {all} {what}; {file} has all.",
                    shown,
                    all,
                    what,
                    file
                ));
            }
        };
        cut(lines.len(), charts, text!("lines, those of the latest runs"), "lines.csv");
        cut(changes.len(), MOST_ROWS, text!("change points, the newest"), "changes.csv");
        cut(runs.len(), MOST_ROWS, text!("valid runs, the newest"), "runs.csv");
        cut(left_out.len(), MOST_ROWS, text!("folders without lines"), "runs.csv");
        if thin > 0 {
            notes.push(text!(
                "Drawn with at most {most} points each: {thin} line{thin:s}; the newer half as they are, older runs in groups. points.csv has every value.",
                most,
                thin
            ));
        }
        let searched = lines.iter().filter(|line| line.points.len() >= 2 * STEP_LEAST).count();
        if searched > 0 {
            notes.push(text!(
                "{searched} line{searched:s} had enough runs to be searched for change points. If none had changed, up to {false_ones} would still show one.",
                searched,
                false_ones = significant((searched as f64 * STEP_ALPHA).max(0.01), 2)
            ));
        }
        notes
    }
}
