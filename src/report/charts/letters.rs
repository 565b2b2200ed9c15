//! Places for letters beside points, where they cover nothing else.

/// What letters must not cover, in pixels.
pub(super) struct Obstacles {
    scale: i32,
    frame: Frame,
    boxes: Vec<Frame>,
    segments: Vec<[(i32, i32); 2]>,
}

/// The sides of a rectangle.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Frame {
    /// Returns the frame in pixels, from one in units of `scale` pixels.
    pub(super) fn scaled(self, scale: i32) -> Self {
        Self {
            left: self.left * scale,
            top: self.top * scale,
            right: self.right * scale,
            bottom: self.bottom * scale,
        }
    }
}

/// Left end and middle height of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) x: i32,
    pub(super) y: i32,
}

/// Half the size of a marker, and the space between it and its letters.
const MARKER: i32 = 5;
const SPACE: i32 = 3;

impl Obstacles {
    /// Starts with a frame that letters must not leave, for units of `scale` pixels.
    pub(super) fn within(frame: Frame, scale: i32) -> Self {
        Self { scale, frame, boxes: Vec::new(), segments: Vec::new() }
    }

    /// Adds a marker.
    pub(super) fn add_marker(&mut self, (x, y): (i32, i32)) {
        let half = MARKER * self.scale;
        self.boxes.push(Frame { left: x - half, top: y - half, right: x + half, bottom: y + half });
    }

    /// Adds a piece of a line.
    pub(super) fn add_segment(&mut self, from: (i32, i32), to: (i32, i32)) {
        self.segments.push([from, to]);
    }

    /// Returns the place of letters of a size (in units) beside a point, and reserves it. `None` if every place covers
    /// something.
    pub(super) fn place(&mut self, (x, y): (i32, i32), (width, height): (i32, i32)) -> Option<Spot> {
        let (width, height) = (width * self.scale, height * self.scale);
        let (aside, above) = ((MARKER + SPACE) * self.scale, (MARKER + SPACE) * self.scale + height / 2);
        let (left, middle, right) = (x - aside - width, x - width / 2, x + aside);
        let near = height / 2;
        let places = [
            (right, y - near),
            (right, y + near),
            (left, y - near),
            (left, y + near),
            (middle, y - above),
            (middle, y + above),
            (right, y),
            (left, y),
            (right, y - above),
            (left, y - above),
            (right, y + above),
            (left, y + above),
        ];
        let boxed = |(x, y): (i32, i32)| {
            let half = height / 2;
            Frame { left: x, top: y - half, right: x + width, bottom: y + half }
        };
        let (x, y) = places.into_iter().find(|place| self.is_free(boxed(*place)))?;
        self.boxes.push(boxed((x, y)));
        Some(Spot { x, y })
    }

    fn is_free(&self, wanted: Frame) -> bool {
        let Frame { left, top, right, bottom } = wanted;
        let frame = self.frame;
        let inside = left >= frame.left && top >= frame.top && right <= frame.right && bottom <= frame.bottom;
        let apart = |other: &Frame| {
            left >= other.right || right <= other.left || top >= other.bottom || bottom <= other.top
        };
        inside && self.boxes.iter().all(apart) && !self.segments.iter().any(|[a, b]| crosses(*a, *b, wanted))
    }
}

/// Whether a segment passes through a box: Liang and Barsky's clipping.
fn crosses((x0, y0): (i32, i32), (x1, y1): (i32, i32), frame: Frame) -> bool {
    let Frame { left, top, right, bottom } = frame;
    let (dx, dy) = (f64::from(x1 - x0), f64::from(y1 - y0));
    let (mut from, mut to) = (0.0_f64, 1.0_f64);
    for (step, room) in [
        (-dx, f64::from(x0 - left)),
        (dx, f64::from(right - x0)),
        (-dy, f64::from(y0 - top)),
        (dy, f64::from(bottom - y0)),
    ] {
        if step == 0.0 {
            if room < 0.0 {
                return false;
            }
        } else if step < 0.0 {
            from = from.max(room / step);
        } else {
            to = to.min(room / step);
        }
    }
    from <= to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_cover_no_marker_no_line_and_no_other_letters() {
        let mut taken = Obstacles::within(Frame { left: 0, top: 0, right: 200, bottom: 200 }, 1);
        let points = [(20, 100), (60, 100), (100, 100), (140, 100)];
        points.iter().for_each(|at| taken.add_marker(*at));
        points.windows(2).for_each(|pair| taken.add_segment(pair[0], pair[1]));
        let spots: Vec<Spot> = points.iter().filter_map(|at| taken.place(*at, (18, 10))).collect();
        assert_eq!(spots.len(), 4);
        for spot in spots {
            let own = Frame { left: spot.x, top: spot.y - 5, right: spot.x + 18, bottom: spot.y + 5 };
            assert!(!crosses((20, 100), (140, 100), own), "{spot:?}");
        }
        // A crowded point has no place.
        let mut full = Obstacles::within(Frame { left: 0, top: 0, right: 20, bottom: 20 }, 1);
        full.add_marker((10, 10));
        assert_eq!(full.place((10, 10), (18, 10)), None);
    }

    #[test]
    fn segments_cross_the_boxes_that_they_pass_through() {
        let own = Frame { left: 10, top: 10, right: 20, bottom: 20 };
        for (a, b, through) in [
            ((0, 15), (30, 15), true),
            ((0, 0), (30, 30), true),
            ((12, 12), (13, 13), true),
            ((0, 25), (30, 25), false),
            ((0, 15), (5, 15), false),
            ((0, 30), (5, 0), false),
        ] {
            assert_eq!(crosses(a, b, own), through, "{a:?} {b:?}");
        }
    }
}
