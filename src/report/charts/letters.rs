//! Places for letters beside points, where they cover nothing else.

/// What letters must not cover, in pixels.
pub(super) struct Obstacles {
    scale: i32,
    frame: Box4,
    boxes: Vec<Box4>,
    segments: Vec<[(i32, i32); 2]>,
}

/// Left, top, right, bottom.
type Box4 = (i32, i32, i32, i32);

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
    /// Starts with a frame in units of `scale` pixels that letters must not leave.
    pub(super) fn within((left, top, right, bottom): Box4, scale: i32) -> Self {
        let frame = (left * scale, top * scale, right * scale, bottom * scale);
        Self { scale, frame, boxes: Vec::new(), segments: Vec::new() }
    }

    /// Adds a marker.
    pub(super) fn add_marker(&mut self, (x, y): (i32, i32)) {
        let half = MARKER * self.scale;
        self.boxes.push((x - half, y - half, x + half, y + half));
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
        let boxed = |(x, y): (i32, i32)| (x, y - height / 2, x + width, y + height / 2);
        let (x, y) = places.into_iter().find(|place| self.is_free(boxed(*place)))?;
        self.boxes.push(boxed((x, y)));
        Some(Spot { x, y })
    }

    fn is_free(&self, wanted: Box4) -> bool {
        let (left, top, right, bottom) = wanted;
        let frame = self.frame;
        let inside = left >= frame.0 && top >= frame.1 && right <= frame.2 && bottom <= frame.3;
        let apart = |other: &Box4| left >= other.2 || right <= other.0 || top >= other.3 || bottom <= other.1;
        inside && self.boxes.iter().all(apart) && !self.segments.iter().any(|[a, b]| crosses(*a, *b, wanted))
    }
}

/// Whether a segment passes through a box: Liang and Barsky's clipping.
fn crosses((x0, y0): (i32, i32), (x1, y1): (i32, i32), (left, top, right, bottom): Box4) -> bool {
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
        let mut taken = Obstacles::within((0, 0, 200, 200), 1);
        let points = [(20, 100), (60, 100), (100, 100), (140, 100)];
        points.iter().for_each(|at| taken.add_marker(*at));
        points.windows(2).for_each(|pair| taken.add_segment(pair[0], pair[1]));
        let spots: Vec<Spot> = points.iter().filter_map(|at| taken.place(*at, (18, 10))).collect();
        assert_eq!(spots.len(), 4);
        for spot in spots {
            let own = (spot.x, spot.y - 5, spot.x + 18, spot.y + 5);
            assert!(!crosses((20, 100), (140, 100), own), "{spot:?}");
        }
        // A crowded point has no place.
        let mut full = Obstacles::within((0, 0, 20, 20), 1);
        full.add_marker((10, 10));
        assert_eq!(full.place((10, 10), (18, 10)), None);
    }

    #[test]
    fn segments_cross_the_boxes_that_they_pass_through() {
        let own = (10, 10, 20, 20);
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
