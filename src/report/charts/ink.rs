//! Colours, markers, dashes and fonts, the same in every chart.

use crate::text::one_line;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, register_font};
use std::sync::OnceLock;

/// Family name of the bundled fonts. For an SVG, the viewer chooses its own font by this name.
const FAMILY: &str = "sans-serif";
/// Family name of the bundled font of Chinese characters. Bitmaps alone use it: an SVG's viewer falls back by itself.
const WIDE_FAMILY: &str = "sans-serif wide";

/// Titles and values.
pub(super) const TEXT: RGBColor = RGBColor(0x22, 0x28, 0x31);
/// Axis labels.
pub(super) const MUTED: RGBColor = RGBColor(0x5f, 0x68, 0x74);
/// Axes.
pub(super) const AXIS: RGBColor = RGBColor(0x9a, 0xa3, 0xad);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xe6, 0xe9, 0xed);

/// Distinct for the colour-blind, and falling from dark to light in greyscale.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x3a, 0x5f),
    RGBColor(0xb8, 0x4a, 0x1f),
    RGBColor(0x2f, 0x8f, 0x83),
    RGBColor(0x7a, 0x5c, 0x9e),
    RGBColor(0xd1, 0x97, 0x1b),
    RGBColor(0x6f, 0xa8, 0xdc),
];

/// Lengths of dash and gap; 0 for a solid line. From the fifth series on, dashes are shifted against markers.
const DASHES: [(i32, i32); 4] = [(0, 0), (7, 4), (3, 3), (12, 4)];

/// The colour of a series.
pub(super) fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

/// Horizontal alignment of text to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// The point is at its left end.
    Left,
    /// The point is at its middle.
    Centre,
    /// The point is at its right end.
    Right,
}

/// Look of text.
#[derive(Clone, Copy)]
pub(super) struct Lettering {
    /// Size of the letters, in units.
    pub(super) size: i32,
    /// Colour of the letters.
    pub(super) colour: RGBColor,
    /// Whether the letters are bold.
    pub(super) bold: bool,
}

impl Lettering {
    /// Letters of normal weight.
    pub(super) fn plain(size: i32, colour: RGBColor) -> Self {
        Self { size, colour, bold: false }
    }

    /// Bold letters.
    pub(super) fn bold(size: i32, colour: RGBColor) -> Self {
        Self { size, colour, bold: true }
    }

    /// The style of their font.
    fn face(self) -> FontStyle {
        if self.bold { FontStyle::Bold } else { FontStyle::Normal }
    }
}

/// Drawing tools for one picture. Lengths are in SVG units and scaled to the picture's pixels.
pub(super) struct Ink {
    scale: i32,
    /// Whether every character can be shown. A bitmap has only those of the bundled font.
    every_letter: bool,
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl Ink {
    /// Tools for an SVG.
    pub(super) fn vector() -> Result<Self, String> {
        register_fonts().map(|()| Self { scale: 1, every_letter: true })
    }

    /// Tools for a bitmap with `scale` pixels per unit.
    pub(super) fn bitmap(scale: u32) -> Result<Self, String> {
        register_fonts().map(|()| Self { scale: scale as i32, every_letter: false })
    }

    /// A length in pixels.
    pub(super) fn dots(&self, length: i32) -> i32 {
        length * self.scale
    }

    /// Vertical offset that centres text in a bitmap: the library measures the whole line.
    pub(super) fn sag(&self, size: i32) -> i32 {
        if self.every_letter { 0 } else { self.dots(size) / 5 }
    }

    /// A pen of one colour.
    pub(super) fn pen(&self, colour: RGBColor, width: u32) -> ShapeStyle {
        colour.stroke_width(width * self.scale as u32)
    }

    /// Text style for the drawing library's own labels.
    pub(super) fn lettering(&self, size: i32, colour: RGBColor) -> TextStyle<'static> {
        self.font(size, FontStyle::Normal).color(&colour)
    }

    fn font(&self, size: i32, style: FontStyle) -> FontDesc<'static> {
        // The library's sizes are of the whole line, 1.24 times the letters' size.
        FontDesc::new(FontFamily::Name(FAMILY), f64::from(size * self.scale) * 1.24, style)
    }

    /// Writes text, vertically centred on `at` (in pixels).
    pub(super) fn write<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        text: &str,
        at: (i32, i32),
        lettering: Lettering,
        anchor: Anchor,
    ) -> Drawn<DB> {
        let horizontal = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Centre => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let letters = self.letters(text);
        if !self.every_letter && letters.chars().any(is_wide) {
            return self.write_runs(area, &letters, at, lettering, anchor);
        }
        let Lettering { size, colour, .. } = lettering;
        let at = (at.0, at.1 + self.sag(size));
        let style = self.font(size, lettering.face()).color(&colour).pos(Pos::new(horizontal, VPos::Center));
        area.draw_text(&letters, &style, at)
    }

    /// Writes text with Chinese characters into a bitmap: each run of letters in the font that has them.
    fn write_runs<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        letters: &str,
        (x, y): (i32, i32),
        lettering: Lettering,
        anchor: Anchor,
    ) -> Drawn<DB> {
        let Lettering { size, colour, bold } = lettering;
        let place = Pos::new(HPos::Left, VPos::Center);
        let narrow = self.font(size, lettering.face()).color(&colour).pos(place);
        let wide_size = f64::from(size * self.scale) * WIDE_LINE;
        let wide = FontDesc::new(FontFamily::Name(WIDE_FAMILY), wide_size, FontStyle::Normal);
        let wide = wide.color(&colour).pos(place);
        let mut runs = Vec::new();
        for run in runs_of(letters) {
            let is_wide = run.chars().any(is_wide);
            // The library measures the ink of letters, not the spaces around them.
            let width = if is_wide {
                run.chars().count() as i32 * self.dots(size)
            } else {
                let (with, mark) = (format!("|{run}|"), "||");
                let measured =
                    |text: &str| area.estimate_text_size(text, &narrow).map(|(width, _)| width as i32);
                measured(&with)? - measured(mark)?
            };
            runs.push((run, is_wide, width));
        }
        let all: i32 = runs.iter().map(|(.., width)| width).sum();
        let mut left = match anchor {
            Anchor::Left => x,
            Anchor::Centre => x - all / 2,
            Anchor::Right => x - all,
        };
        for (run, is_wide, width) in runs {
            if is_wide {
                // The library draws ink from the left end of its place, and these have theirs in the right half.
                let inset = if run.chars().any(opens) { self.dots(size) / 2 } else { 0 };
                let at = (left + inset, y + self.dots(size) / WIDE_SAG);
                area.draw_text(run, &wide, at)?;
                // The bundled font has one weight. Twice, a pixel apart, it is bold.
                if bold {
                    area.draw_text(run, &wide, (at.0 + 1, at.1))?;
                }
            } else {
                area.draw_text(run, &narrow, (left, y + self.sag(size)))?;
            }
            left += width;
        }
        Ok(())
    }

    /// Whether a text has characters that the drawing library's own labels lack.
    pub(super) fn needs_runs(&self, text: &str) -> bool {
        !self.every_letter && text.chars().any(is_wide)
    }

    fn letters(&self, text: &str) -> String {
        let known = |c: char| {
            c < '\u{100}' || "–—‘’“”…→−≈≤≥".contains(c) || (is_wide(c) && crate::language::is_in_catalogue(c))
        };
        // An SVG with a control character is not valid XML.
        one_line(text).chars().map(|c| if self.every_letter || known(c) { c } else { '?' }).collect()
    }

    /// Draws the line of a series through points in pixels: dashed by its number, dotted if modelled.
    pub(super) fn line<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        points: Vec<(i32, i32)>,
        series: usize,
        modelled: bool,
    ) -> Drawn<DB> {
        let pen = self.pen(colour(series), 2);
        let (dash, gap) =
            if modelled { (2, 3) } else { DASHES[(series + series / DASHES.len()) % DASHES.len()] };
        if dash == 0 {
            return area.draw(&PathElement::new(points, pen));
        }
        area.draw(&DashedPathElement::new(points, self.dots(dash), self.dots(gap), pen))
    }

    /// Draws the marker of a series: circle, square, triangle, diamond. Hollow if modelled.
    pub(super) fn marker<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        (x, y): (i32, i32),
        series: usize,
        modelled: bool,
    ) -> Drawn<DB> {
        let r = self.dots(4);
        let outline: &[(i32, i32)] = match series % 4 {
            0 => return self.disc(area, (x, y), 4, colour(series), modelled),
            1 => &[(-r, -r), (r, -r), (r, r), (-r, r)],
            2 => &[(0, -r - r / 4), (r + r / 4, r), (-r - r / 4, r)],
            _ => &[(0, -r - r / 3), (r + r / 3, 0), (0, r + r / 3), (-r - r / 3, 0)],
        };
        let mut corners: Vec<_> = outline.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        let fill = if modelled { WHITE } else { colour(series) };
        area.draw(&Polygon::new(corners.clone(), fill.filled()))?;
        corners.push(corners[0]);
        area.draw(&PathElement::new(corners, self.pen(colour(series), 1)))
    }

    /// Draws a series for a legend: 36 units of its line with its marker in the middle, long enough to distinguish
    /// every dash.
    pub(super) fn key<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        (x, y): (i32, i32),
        series: usize,
        modelled: bool,
    ) -> Drawn<DB> {
        self.line(area, vec![(x, y), (x + self.dots(36), y)], series, modelled)?;
        self.marker(area, (x + self.dots(18), y), series, modelled)
    }

    /// Draws a disc, filled or hollow.
    pub(super) fn disc<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        at: (i32, i32),
        radius: i32,
        colour: RGBColor,
        hollow: bool,
    ) -> Drawn<DB> {
        area.draw(&Circle::new(at, self.dots(radius), colour.filled()))?;
        if hollow {
            area.draw(&Circle::new(at, self.dots(radius - 1), WHITE.filled()))?;
        }
        Ok(())
    }
}

/// Height of a line of the font of Chinese characters, in sizes of its letters.
const WIDE_LINE: f64 = 1.448;
/// The part of their size by which these letters are lowered, so that they stand level with the others.
const WIDE_SAG: i32 = 5;

/// Whether a character is in the font of Chinese characters.
fn is_wide(c: char) -> bool {
    c >= '\u{2e80}'
}

/// Whether a wide character opens a bracket.
fn opens(c: char) -> bool {
    "（《".contains(c)
}

/// Cuts text into runs of wide and of other characters. Opening brackets are runs of their own.
fn runs_of(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut begin = 0;
    for (at, c) in text.char_indices() {
        let before = text[begin..at].chars().next();
        if before.is_some_and(|before| (is_wide(before), opens(before)) != (is_wide(c), opens(c))) {
            runs.push(&text[begin..at]);
            begin = at;
        }
    }
    runs.push(&text[begin..]);
    runs
}

/// Registers the bundled fonts with the drawing library, once.
fn register_fonts() -> Result<(), String> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let regular = include_bytes!("../font/DejaVuSans.subset.ttf");
        let bold = include_bytes!("../font/DejaVuSans-Bold.subset.ttf");
        let wide = include_bytes!("../font/NotoSansCJKsc-Regular.subset.otf");
        register_font(FAMILY, FontStyle::Normal, regular).is_ok()
            && register_font(WIDE_FAMILY, FontStyle::Normal, wide).is_ok()
            && register_font(FAMILY, FontStyle::Bold, bold).is_ok()
    });
    done.then_some(()).ok_or_else(|| "the bundled font was refused".to_owned())
}
