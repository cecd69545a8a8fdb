//! Loops of which the verifier walks the body a few times, however often it runs: the kernel's own
//! counter (`bpf_iter_num_new` and so on, open-coded iterators, from Linux 6.4 on). Of an ordinary
//! loop it walks each round, and copies to 256 places were a third of all that it did.

use core::mem::{MaybeUninit, transmute};
use packet::{NUMBERS_END, NUMBERS_NEXT, NUMBERS_START};

/// `struct bpf_iter_num`. On the stack, and touched by these functions alone.
#[repr(C, align(8))]
struct Counter(MaybeUninit<u64>);

/// Visits the numbers from 0 to `count`, without that one, as long as `visit` says so.
#[inline(always)]
pub(crate) fn each(count: u32, mut visit: impl FnMut(u32) -> bool) {
    let mut counter = Counter(MaybeUninit::uninit());
    // SAFETY: the loader replaces the numbers by those of the functions, which have these types.
    let (start, next, end) = unsafe {
        (
            transmute::<usize, unsafe extern "C" fn(*mut Counter, u32, u32) -> i32>(
                NUMBERS_START as usize,
            ),
            transmute::<usize, unsafe extern "C" fn(*mut Counter) -> *const u32>(
                NUMBERS_NEXT as usize,
            ),
            transmute::<usize, unsafe extern "C" fn(*mut Counter)>(NUMBERS_END as usize),
        )
    };
    // SAFETY: a counter that lives until `end`. One that could not be started gives no number.
    unsafe { start(&raw mut counter, 0, count) };
    loop {
        // SAFETY: it was started, and was not ended.
        let number = unsafe { next(&raw mut counter) };
        // SAFETY: a number in the counter, unless it is null.
        if number.is_null() || !visit(unsafe { number.read() }) {
            break;
        }
    }
    // SAFETY: it was started. From here on nobody uses it.
    unsafe { end(&raw mut counter) };
}
