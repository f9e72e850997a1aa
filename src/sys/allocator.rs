//! Memory for a process that lives for some milliseconds: taken from one arena, given back by the exit.
//!
//! musl's allocator maps and unmaps small groups again and again: 170 system calls and as many page faults in one `run`,
//! about a tenth of its time (docs/performance.md). Here a piece that is freed waits in the list of its size to be handed
//! out again, since what costs time is each page that is touched for the first time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Untouched pages of it cost nothing. What does not fit any more goes to the system's allocator.
const SIZE: usize = 8 << 20;
/// What is larger goes to the system's allocator, which can move it without a copy: mremap(2).
const LARGEST: usize = 32 << 10;
/// malloc(3) aligns every piece so, and nix counts on it: its buffers of control messages are vectors of bytes. What has
/// to be aligned further goes to the system's allocator.
const ALIGNMENT: usize = 16;
/// Up to this size there is a list for each multiple of the alignment, above it one for each power of two.
const FINE: usize = 512;
const FINE_LISTS: usize = FINE / ALIGNMENT;
const LISTS: usize = FINE_LISTS + (LARGEST / FINE).ilog2() as usize;

/// The list that pieces of this size belong to.
const fn list_of(size: usize) -> usize {
    match size {
        0..=FINE => size.div_ceil(ALIGNMENT).saturating_sub(1),
        _ => FINE_LISTS - 1 + size.div_ceil(FINE).next_power_of_two().ilog2() as usize,
    }
}

/// How large the pieces of a list are.
const fn size_in(list: usize) -> usize {
    if list < FINE_LISTS { (list + 1) * ALIGNMENT } else { FINE << (list + 1 - FINE_LISTS) }
}

/// Touched at once when the first piece is asked for, since pages one by one cost a fault each: what a `state` needs.
/// Before 5.14 the kernel does not know how.
const AHEAD: usize = 48 << 10;
const PAGE: usize = 4096;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; SIZE]>);

struct Pieces {
    /// How much of the arena has been handed out at least once.
    used: usize,
    /// The first free piece of each list; it holds the address of the next.
    free: [*mut u8; LISTS],
}

/// In this order, so that what is always touched lies beside other data (start.ld puts the whole behind all of it).
#[repr(C)]
pub struct Allocator {
    locked: AtomicBool,
    pieces: UnsafeCell<Pieces>,
    arena: Arena,
}

// SAFETY: `pieces` is touched only by who has set `locked`, and each part of the arena belongs to one owner.
unsafe impl Sync for Allocator {}

impl Allocator {
    pub const fn new() -> Self {
        Self {
            locked: AtomicBool::new(false),
            pieces: UnsafeCell::new(Pieces { used: 0, free: [ptr::null_mut(); LISTS] }),
            arena: Arena(UnsafeCell::new([0; SIZE])),
        }
    }

    /// Where in the arena a piece lies; `None` if it is the system's.
    fn offset(&self, piece: *mut u8) -> Option<usize> {
        (piece as usize).checked_sub(self.arena.0.get() as usize).filter(|offset| *offset < SIZE)
    }

    /// rrun has one thread, so the lock is free; only tests have more.
    fn with_pieces<T>(&self, act: impl FnOnce(&mut Pieces) -> T) -> T {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        // SAFETY: the lock is ours, and `act` does not allocate.
        let result = act(unsafe { &mut *self.pieces.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// A piece of a list; `None` where the arena is exhausted.
    fn take(&self, list: usize) -> Option<*mut u8> {
        self.with_pieces(|pieces| {
            let first = pieces.free[list];
            if !first.is_null() {
                // SAFETY: a free piece, aligned and large enough for an address, which `give_back` has put there.
                pieces.free[list] = unsafe { first.cast::<*mut u8>().read() };
                return Some(first);
            }
            let start = pieces.used;
            if start == 0 {
                self.touch_ahead();
            }
            let end = start + size_in(list);
            if end > SIZE {
                return None;
            }
            pieces.used = end;
            // SAFETY: `start` is inside of the arena.
            Some(unsafe { self.arena.0.get().cast::<u8>().add(start) })
        })
    }

    fn touch_ahead(&self) {
        let address = self.arena.0.get() as usize;
        let page = address / PAGE * PAGE;
        // SAFETY: changes no byte of the arena, nor of what lies before it on its first page.
        unsafe { libc::madvise(page as *mut libc::c_void, address - page + AHEAD, libc::MADV_POPULATE_WRITE) };
    }

    fn give_back(&self, piece: *mut u8, list: usize) {
        self.with_pieces(|pieces| {
            // SAFETY: the piece has no owner any more, is aligned to 16 bytes and has at least as many.
            unsafe { piece.cast::<*mut u8>().write(pieces.free[list]) };
            pieces.free[list] = piece;
        });
    }

    /// The piece that was cut from the arena last can become larger where it is.
    fn grow_last(&self, offset: usize, from: usize, to: usize) -> bool {
        to <= LARGEST
            && self.with_pieces(|pieces| {
                let is_last = offset + size_in(list_of(from)) == pieces.used;
                let end = offset + size_in(list_of(to));
                if is_last && end <= SIZE {
                    pieces.used = end;
                }
                is_last && end <= SIZE
            })
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

fn is_ours(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= ALIGNMENT
}

// SAFETY: a piece is either the system's or of the arena, told apart by its address. Those of the arena do not overlap:
// `used` moves forward over what is cut off, and a list holds what was given back by its owner.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let own = if is_ours(layout) { self.take(list_of(layout.size())) } else { None };
        // SAFETY: the caller's promises are the same.
        own.unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.offset(piece) {
            Some(_) => self.give_back(piece, list_of(layout.size())),
            // SAFETY: not ours, so the system's.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(piece) else {
            // SAFETY: not ours, so the system's, whatever size it gets.
            return unsafe { System.realloc(piece, layout, size) };
        };
        let stays = size <= LARGEST && list_of(size) == list_of(layout.size());
        if stays || size > layout.size() && self.grow_last(offset, layout.size(), size) {
            return piece;
        }
        // SAFETY: the caller's promises cover the old layout, and that the new size fits the alignment.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(piece, new, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_hold_every_size() {
        assert_eq!((list_of(1), list_of(16), list_of(17), list_of(512)), (0, 0, 1, FINE_LISTS - 1));
        assert_eq!((list_of(513), list_of(1024), list_of(LARGEST)), (FINE_LISTS, FINE_LISTS, LISTS - 1));
        for size in 1..=LARGEST {
            let list = list_of(size);
            assert!(size_in(list) >= size && (list == 0 || size_in(list - 1) < size), "{size} in list {list}");
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn what_is_freed_is_used_again_and_the_last_grows_in_place() {
        static ALLOCATOR: Allocator = Allocator::new();
        // SAFETY: each piece is freed once, with its layout.
        unsafe {
            let a = ALLOCATOR.alloc(layout(100));
            let b = ALLOCATOR.alloc(layout(100));
            ALLOCATOR.dealloc(a, layout(100));
            assert_eq!(ALLOCATOR.alloc(layout(97)), a, "it was not used again");
            assert_eq!(ALLOCATOR.realloc(b, layout(100), 5000), b, "the last piece did not grow in place");
            a.write(7);
            let c = ALLOCATOR.realloc(a, layout(97), 200);
            assert!(c != a && c.read() == 7, "it was not copied");
            let moved = ALLOCATOR.realloc(b, layout(5000), LARGEST + 1);
            assert!(ALLOCATOR.offset(moved).is_none(), "what is large is the system's");
            let wide = Layout::from_size_align(1, 4096).unwrap();
            let aligned = ALLOCATOR.alloc(wide);
            assert!((aligned as usize).is_multiple_of(4096));
            ALLOCATOR.dealloc(aligned, wide);
            ALLOCATOR.dealloc(moved, layout(LARGEST + 1));
        }
    }

    #[test]
    fn a_full_arena_is_no_end() {
        static ALLOCATOR: Allocator = Allocator::new();
        // SAFETY: written only inside.
        unsafe {
            let pieces: Vec<*mut u8> = (0..=SIZE / LARGEST).map(|_| ALLOCATOR.alloc(layout(LARGEST))).collect();
            let (last, others) = pieces.split_last().unwrap();
            assert!(others.iter().all(|piece| ALLOCATOR.offset(*piece).is_some()));
            assert!(!last.is_null() && ALLOCATOR.offset(*last).is_none());
            ALLOCATOR.dealloc(*last, layout(LARGEST));
        }
    }

    proptest! {
        /// Whatever the order, each piece keeps what its owner has written.
        #[test]
        fn pieces_do_not_overlap(steps in prop::collection::vec((0..8usize, 1..2000usize), 1..200)) {
            static ALLOCATOR: Allocator = Allocator::new();
            let mut owned: [Option<(*mut u8, usize, u8)>; 8] = [None; 8];
            for (n, (slot, size)) in steps.into_iter().enumerate() {
                let mark = n as u8;
                // SAFETY: a slot owns its piece until it is freed or moved, with the size that it was asked for.
                unsafe {
                    let piece = match owned[slot].take() {
                        Some((piece, old, mark)) => {
                            prop_assert!((0..old).all(|at| piece.add(at).read() == mark), "step {n}: overwritten");
                            if size % 3 == 0 {
                                ALLOCATOR.dealloc(piece, layout(old));
                                continue;
                            }
                            let moved = ALLOCATOR.realloc(piece, layout(old), size);
                            prop_assert!((0..old.min(size)).all(|at| moved.add(at).read() == mark), "step {n}: lost");
                            moved
                        }
                        None => ALLOCATOR.alloc(layout(size)),
                    };
                    prop_assert!((piece as usize).is_multiple_of(ALIGNMENT));
                    piece.write_bytes(mark, size);
                    owned[slot] = Some((piece, size, mark));
                }
            }
        }
    }
}
