//! Functions of the kernel that programs call by their numbers in its types (BTF), which differ from
//! kernel to kernel. In the object they have numbers of ours, which no helper has; the loader puts
//! those of the running kernel in their place. `Documentation/bpf/kfuncs.rst` tells of the kind.

/// `bpf_cast_to_kern_ctx`: the kernel's `struct sk_buff` behind a program's context. From 6.2 on.
pub const CAST_TO_KERNEL_SKB: u32 = 0x6e65_0001;
/// `bpf_iter_num_new`: starts to count. From 6.4 on, as the two that follow.
pub const NUMBERS_START: u32 = 0x6e65_0002;
/// `bpf_iter_num_next`: the next number, or null.
pub const NUMBERS_NEXT: u32 = 0x6e65_0003;
/// `bpf_iter_num_destroy`: ends it.
pub const NUMBERS_END: u32 = 0x6e65_0004;

/// All of them: the number in the object, and the name in the kernel.
pub const KFUNCS: [(u32, &str); 4] = [
    (CAST_TO_KERNEL_SKB, "bpf_cast_to_kern_ctx"),
    (NUMBERS_START, "bpf_iter_num_new"),
    (NUMBERS_NEXT, "bpf_iter_num_next"),
    (NUMBERS_END, "bpf_iter_num_destroy"),
];
