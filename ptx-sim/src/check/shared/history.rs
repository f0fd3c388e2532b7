//! The last accesses of each piece of shared memory.

use std::ops::Range;

use super::event::{Event, Present};

/// Bytes of a line, as a power of two: those of the widest access.
const LINE: u32 = 4;

/// How shared memory is divided: into lines of 16 bytes, and those into cells. An access of a whole line is remembered
/// once; cells are for those that are narrower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    lines: usize,
    /// Bytes of a cell, as a power of two.
    granule: u32,
}

/// The part of a line that an access touches: its first and its last byte.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    first: u32,
    last: u32,
}

impl Piece {
    #[inline(always)]
    pub fn line(self) -> usize {
        (self.first >> LINE) as usize
    }

    #[inline(always)]
    fn is_whole(self) -> bool {
        self.last - self.first == (1 << LINE) - 1
    }
}

impl Layout {
    pub fn new(bytes: u32, granule: u32) -> Self {
        assert!(matches!(granule, 1 | 2 | 4));
        Self { lines: bytes.div_ceil(1 << LINE) as usize, granule: granule.ilog2() }
    }

    /// What an access touches. Aligned to its width of 16 bytes at most, it lies in one line.
    #[inline(always)]
    pub fn piece(self, offset: u32, len: u32) -> Piece {
        Piece { first: offset, last: (offset + len - 1).min(offset | ((1 << LINE) - 1)) }
    }

    pub fn lines(self) -> usize {
        self.lines
    }

    /// Nothing, for the cells of all lines.
    #[cold]
    fn no_cells(self) -> Vec<Event> {
        vec![Event::default(); self.lines << (LINE - self.granule)]
    }

    #[inline(always)]
    fn cells_of(self, piece: Piece) -> Range<usize> {
        (piece.first >> self.granule) as usize..(piece.last >> self.granule) as usize + 1
    }

    fn cells_of_line(self, line: usize) -> Range<usize> {
        line << (LINE - self.granule)..(line + 1) << (LINE - self.granule)
    }
}

/// The last access of every agent to every line and cell.
#[derive(Debug)]
pub(super) struct Accesses {
    layout: Layout,
    /// Of all warps, and of mbarriers up to the last with an access.
    rows: Vec<Row>,
    /// For each line, no access to any of it is later than this clock.
    newest: Vec<u32>,
}

/// The last accesses of an agent; 0 where there was none.
#[derive(Debug)]
struct Row {
    /// Accesses of whole lines.
    lines: Vec<Event>,
    /// Narrower accesses; empty before the first of them.
    cells: Vec<Event>,
}

impl Row {
    fn new(layout: Layout) -> Self {
        Self { lines: vec![Event::default(); layout.lines], cells: Vec::new() }
    }
}

impl Accesses {
    pub fn new(layout: Layout, warps: usize) -> Self {
        Self { layout, rows: (0..warps).map(|_| Row::new(layout)).collect(), newest: vec![0; layout.lines] }
    }

    /// A read of a whole line by a bulk copy, an access of the mbarrier that it completes on.
    pub fn record_async(&mut self, event: Event, piece: Piece) {
        // The clocks of mbarriers have nothing to do with those of warps.
        self.newest[piece.line()] = u32::MAX;
        let rows = self.rows.len().max(event.agent() + 1);
        self.rows.resize_with(rows, || Row::new(self.layout));
        self.rows[event.agent()].lines[piece.line()] = event;
    }

    /// Shows the accesses of these bytes, in whole lines.
    pub fn visit(&self, bytes: Range<u32>, look: &mut impl FnMut(Event)) {
        let lines = (bytes.start >> LINE) as usize..(bytes.end >> LINE) as usize;
        let cells = self.layout.cells_of_line(lines.start).start..self.layout.cells_of_line(lines.end).start;
        for row in &self.rows {
            let cells = row.cells.get(cells.clone()).unwrap_or_default();
            row.lines[lines.clone()].iter().chain(cells).for_each(|event| look(*event));
        }
    }

    #[inline(always)]
    pub fn record(&mut self, present: &Present, piece: Piece) {
        self.record_event(present.event, present.since, piece);
    }

    /// As [`record`](Self::record), by another lane of the warp.
    #[inline(always)]
    pub fn record_lane(&mut self, present: &Present, lane: usize, piece: Piece) {
        self.record_event(present.event.by_lane(lane), present.since, piece);
    }

    #[inline(always)]
    fn record_event(&mut self, event: Event, since: Event, piece: Piece) {
        let newest = &mut self.newest[piece.line()];
        *newest = event.clock().max(*newest);
        let row = &mut self.rows[event.agent()];
        if piece.is_whole() {
            merge(&mut row.lines[piece.line()], event, since);
        } else {
            if row.cells.is_empty() {
                row.cells = self.layout.no_cells();
            }
            row.cells[self.layout.cells_of(piece)].iter_mut().for_each(|last| merge(last, event, since));
        }
    }

    /// Accesses of whole lines by neighbouring lanes, from that of the present one on.
    #[inline(always)]
    pub fn record_lines(&mut self, present: &Present, offsets: &[u32]) {
        let event = present.event;
        let row = &mut self.rows[event.agent()].lines;
        for (lane, &offset) in offsets.iter().enumerate() {
            let line = (offset >> LINE) as usize;
            self.newest[line] = event.clock().max(self.newest[line]);
            merge(&mut row[line], event.by_lane(lane), present.since);
        }
    }

    /// For each line, no access to any of it is later than this clock.
    #[inline(always)]
    pub fn newest(&self) -> &[u32] {
        &self.newest
    }

    /// Whether all accesses to the line are ordered before the present one.
    #[inline(always)]
    pub fn are_free(&self, present: &Present, piece: Piece) -> bool {
        self.newest[piece.line()] <= present.floor.clock()
    }

    /// An access that is not ordered before the present one.
    #[inline(always)]
    pub fn conflict(&self, present: &Present, piece: Piece) -> Option<Event> {
        self.conflict_by(present, piece, |event| present.follows(event))
    }

    /// The same, by another rule for what the present one follows.
    #[inline(always)]
    pub fn conflict_by(&self, present: &Present, piece: Piece, follows: impl Fn(Event) -> bool) -> Option<Event> {
        if self.are_free(present, piece) { None } else { self.search(piece, follows) }
    }

    #[inline(never)]
    fn search(&self, piece: Piece, follows: impl Fn(Event) -> bool) -> Option<Event> {
        self.rows.iter().find_map(|row| {
            let cells = row.cells.get(self.layout.cells_of(piece)).unwrap_or_default();
            let mut events = std::iter::once(&row.lines[piece.line()]).chain(cells);
            events.find(|&&event| !follows(event)).copied()
        })
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.layout, self.rows.len());
    }
}

/// Puts an event where the last one of the same warp was, beside it if that is not `since` the warp's last tick.
#[inline(always)]
fn merge(last: &mut Event, event: Event, since: Event) {
    let recent = *last >= since;
    let event = if recent { event.after(*last) } else { event };
    *last = if recent && !last.is_same_lane(event) { event.of_several() } else { event };
}

/// Lines or cells, and where an access at an offset begins among them.
pub(super) struct Units<'a> {
    pub events: &'a mut [Event],
    /// Bytes of one, as a power of two.
    pub shift: u32,
    /// How many an access touches.
    pub count: usize,
}

/// The last write of every line and cell.
#[derive(Debug)]
pub(super) struct Writes {
    layout: Layout,
    /// The write of a whole line; [`Event::NONE`] where its cells differ.
    lines: Vec<Event>,
    /// The writes of cells, for such lines; empty before the first of them.
    cells: Vec<Event>,
}

impl Writes {
    pub fn new(layout: Layout) -> Self {
        Self { layout, lines: vec![Event::default(); layout.lines], cells: Vec::new() }
    }

    /// Whether all that is touched was written, and the present access is sure to come after.
    #[inline(always)]
    pub fn are_settled(&self, present: &Present, piece: Piece) -> bool {
        match self.lines[piece.line()] {
            Event::NONE => self.of(piece).iter().all(|&write| present.surely_follows(write)),
            line => present.surely_follows(line),
        }
    }

    /// Whether a whole line was written at once, and the present access is sure to come after.
    #[inline(always)]
    pub fn is_line_settled(&self, present: &Present, offset: u32) -> bool {
        present.surely_follows(self.lines[(offset >> LINE) as usize])
    }

    /// The writes of lines.
    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Event] {
        &mut self.lines
    }

    /// The lines, or the cells of the lines at `offsets`, for accesses of this width. A line that has cells is
    /// [`Event::NONE`].
    #[inline(always)]
    pub fn units(&mut self, offsets: impl Iterator<Item = u32>, len: u32) -> Units<'_> {
        if len == 1 << LINE {
            return Units { events: &mut self.lines, shift: LINE, count: 1 };
        }
        for offset in offsets {
            self.of_mut(Piece { first: offset, last: offset });
        }
        let granule = self.layout.granule;
        Units { events: &mut self.cells, shift: granule, count: (len >> granule) as usize }
    }

    /// What was written last.
    #[inline(always)]
    pub fn of(&self, piece: Piece) -> &[Event] {
        match &self.lines[piece.line()] {
            &Event::NONE => &self.cells[self.layout.cells_of(piece)],
            line => std::slice::from_ref(line),
        }
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn of_mut(&mut self, piece: Piece) -> &mut [Event] {
        let line = &mut self.lines[piece.line()];
        if piece.is_whole() && *line != Event::NONE {
            return std::slice::from_mut(line);
        }
        if *line != Event::NONE {
            if self.cells.is_empty() {
                self.cells = self.layout.no_cells();
            }
            self.cells[self.layout.cells_of_line(piece.line())].fill(*line);
            *line = Event::NONE;
        }
        &mut self.cells[self.layout.cells_of(piece)]
    }

    /// Shows the writes of these bytes, in whole lines.
    pub fn visit(&self, bytes: Range<u32>, look: &mut impl FnMut(Event)) {
        for line in (bytes.start >> LINE) as usize..(bytes.end >> LINE) as usize {
            match self.lines[line] {
                Event::NONE => self.cells[self.layout.cells_of_line(line)].iter().for_each(|event| look(*event)),
                event => look(event),
            }
        }
    }

    /// Has what nobody wrote written by nobody in particular.
    pub fn initialize(&mut self, present: &Present, piece: Piece) {
        let writes = self.of_mut(piece).iter_mut();
        writes.filter(|write| present.is_stale(**write)).for_each(|write| *write = present.first);
    }

    #[inline(always)]
    pub fn record(&mut self, event: Event, piece: Piece) {
        if piece.is_whole() {
            self.lines[piece.line()] = event;
        } else {
            self.of_mut(piece).fill(event);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.layout);
    }
}
