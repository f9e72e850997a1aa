//! Memory for a process that lives for some milliseconds: handed out in a row, given back by the exit.
//!
//! musl's allocator maps and unmaps small groups again and again: 170 system calls and as many page faults in one `run`,
//! about a tenth of its time (docs/performance.md). Only the last piece handed out can be freed or can grow in place;
//! so a loop that frees what it allocates, such as that of a container in the foreground, does not grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Untouched pages of it cost nothing. What does not fit any more goes to the system's allocator.
const SIZE: usize = 8 << 20;

/// Of the arena itself, so nothing in it can be aligned further.
const ALIGNMENT: usize = 4096;

/// malloc(3) aligns every piece so, and nix counts on it: its buffers of control messages are vectors of bytes.
const LEAST_ALIGNMENT: usize = 16;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: pieces of it are handed out by a compare-and-swap, each to one owner.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

pub struct Arenas;

impl Arenas {
    fn base() -> usize {
        ARENA.0.get() as usize
    }

    /// The offset of a piece, if it is one of the arena's.
    fn offset(piece: *mut u8) -> Option<usize> {
        (piece as usize).checked_sub(Self::base()).filter(|offset| *offset < SIZE)
    }
}

// SAFETY: pieces do not overlap: `USED` only moves by compare-and-swap, forward over what is handed out, and back over
// the last piece when its owner gives it up.
unsafe impl GlobalAlloc for Arenas {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = USED.load(Relaxed);
        loop {
            let start = used.next_multiple_of(layout.align().max(LEAST_ALIGNMENT));
            let Some(end) = start.checked_add(layout.size()).filter(|end| *end <= SIZE && layout.align() <= ALIGNMENT)
            else {
                // SAFETY: the caller's promises are the same.
                return unsafe { System.alloc(layout) };
            };
            match USED.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                Ok(_) => return (Self::base() + start) as *mut u8,
                Err(now) => used = now,
            }
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match Self::offset(piece) {
            Some(offset) => {
                // the last one: its place is free again
                let _ = USED.compare_exchange(offset + layout.size(), offset, Relaxed, Relaxed);
            }
            // SAFETY: not ours, so the system's.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(offset) = Self::offset(piece)
            && offset + size <= SIZE
            && USED.compare_exchange(offset + layout.size(), offset + size, Relaxed, Relaxed).is_ok()
        {
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

    #[test]
    fn pieces_do_not_overlap_and_the_last_one_comes_back() {
        let arenas = Arenas;
        let layout = Layout::from_size_align(100, 64).unwrap();
        // SAFETY: each piece is freed once, with its layout.
        unsafe {
            let a = arenas.alloc(layout);
            let b = arenas.alloc(layout);
            assert!((a as usize).is_multiple_of(64) && b as usize >= a as usize + 100);
            arenas.dealloc(b, layout);
            let c = arenas.alloc(layout);
            assert_eq!(b, c, "the last piece was not used again");
            let d = arenas.realloc(c, layout, 5000);
            assert_eq!(c, d, "the last piece did not grow in place");
            a.write(7);
            let e = arenas.realloc(a, layout, 200);
            assert!(e != a && e.read() == 7);
            let byte = Layout::from_size_align(1, 1).unwrap();
            for piece in [arenas.alloc(byte), arenas.alloc(byte)] {
                assert!((piece as usize).is_multiple_of(LEAST_ALIGNMENT), "{piece:?} is not aligned as by malloc");
            }
            let wide = Layout::from_size_align(1, ALIGNMENT << 10).unwrap();
            let g = arenas.alloc(wide);
            assert!((g as usize).is_multiple_of(ALIGNMENT << 10), "{g:?} is not aligned");
            arenas.dealloc(g, wide);
            let huge = Layout::from_size_align(SIZE + 1, 8).unwrap();
            let f = arenas.alloc(huge);
            assert!(!f.is_null() && Arenas::offset(f).is_none());
            arenas.dealloc(f, huge);
        }
    }
}
