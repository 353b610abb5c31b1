//! The memory of a skill. What is freed waits in a list for the next of its size; new room comes from behind the data, first from the
//! memory that the module begins with: growing it costs a fresh instance more than the whole of a small call.
//!
//! Sizes are rounded up to a power of two or to one of three steps between it and the next, so at most a fifth of a large block is idle.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

const PAGE_BYTES: usize = 65_536;
const BLOCK_BYTES_MIN: usize = 16;
/// The room of a wasm memory is below 2^32, so four for each power of two are enough.
const CLASSES: usize = 4 * 32;

struct State {
    /// The first freed block of each class; a freed block begins with the address of the next.
    freed: [usize; CLASSES],
    top: usize,
    end: usize,
}

pub struct Heap(UnsafeCell<State>);

// SAFETY: docs/abi.md: a module has no threads.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State { freed: [0; CLASSES], top: 0, end: 0 }));

extern "C" {
    // The linker puts this symbol behind the stack and the data.
    static __heap_base: u8;
}

/// The class of a size, and the bytes of its blocks; None for more than there can be.
fn class(size: usize) -> Option<(usize, usize)> {
    if size <= BLOCK_BYTES_MIN {
        return Some((0, BLOCK_BYTES_MIN));
    }
    let power = usize::BITS - 1 - (size - 1).leading_zeros();
    let quarter = 1usize << (power - 2);
    let step = quarter.max(BLOCK_BYTES_MIN);
    let bytes = size.checked_add(step - 1)? & !(step - 1);
    let index = (power as usize - 4) * 4 + (bytes - (1 << power)) / quarter;
    Some((index, bytes))
}

impl State {
    /// New room, or 0.
    fn take(&mut self, bytes: usize, align: usize) -> usize {
        if self.top == 0 {
            // SAFETY: only the address of the symbol is used.
            self.top = unsafe { std::ptr::addr_of!(__heap_base) as usize };
            self.end = core::arch::wasm32::memory_size(0) * PAGE_BYTES;
        }
        let from = match self.top.checked_add(align - 1) {
            Some(padded) => padded & !(align - 1),
            None => return 0,
        };
        let to = match from.checked_add(bytes) {
            Some(to) => to,
            None => return 0,
        };
        if to > self.end {
            let pages = (to - self.end + PAGE_BYTES - 1) / PAGE_BYTES;
            if core::arch::wasm32::memory_grow(0, pages) == usize::MAX {
                return 0;
            }
            self.end += pages * PAGE_BYTES;
        }
        self.top = to;
        from
    }
}

// SAFETY: a block is given out once until it is freed, has at least the size and the alignment that were asked for, and a size stays in
// its class as long as the block lives, because `dealloc` and `realloc` are told the layout that it was made with.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let state = &mut *self.0.get();
        let (index, bytes) = match class(layout.size().max(layout.align())) {
            Some(class) => class,
            None => return null_mut(),
        };
        let first = state.freed[index];
        // Blocks of one class may be aligned differently; those that wait are taken only where any of them will do.
        if first != 0 && layout.align() <= BLOCK_BYTES_MIN {
            state.freed[index] = *(first as *const usize);
            return first as *mut u8;
        }
        state.take(bytes, layout.align().max(BLOCK_BYTES_MIN)) as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let state = &mut *self.0.get();
        if let Some((index, _)) = class(layout.size().max(layout.align())) {
            *(block as *mut usize) = state.freed[index];
            state.freed[index] = block as usize;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (was, fits) = (class(layout.size().max(layout.align())), class(size.max(layout.align())));
        if was == fits {
            return block;
        }
        let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
        if !moved.is_null() {
            std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
            self.dealloc(block, layout);
        }
        moved
    }
}
