#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# check-kernel.sh VERSION PATCHLEVEL SRCTREE AUTO-CONF [y]: may the module be built for this
# kernel?  Kbuild asks.  It leans on much that the kernel promises nobody, so it is for the
# versions that it has been tested on, as they were then.  A last "y", EPK_UNTESTED_KERNEL=y
# to make, builds for others, too: for developers.
set -u
version=$1 patchlevel=$2 srctree=$3 config=$4 untested=${5-}

# The long-term kernels that the tests run on.
known="6.1 6.12"

# CONFIG option; what it is for, or how a kernel gets it.
options() {
	cat <<'EOF'
X86_64			there is no other architecture
ARCH_HAS_PKEYS		set X86_INTEL_MEMORY_PROTECTION_KEYS
PREEMPT_NOTIFIERS	set KVM, which selects it
MMU_NOTIFIER		set KVM, which selects it
TRACEPOINTS		set FTRACE and FUNCTION_TRACER
FUNCTION_TRACER		set it; functions of the kernel are guarded by it
DYNAMIC_FTRACE		set it, likewise
DYNAMIC_FTRACE_WITH_ARGS	set DYNAMIC_FTRACE
KPROBES			set it; those functions are found by it
EOF
}

# Header; what it has to hold once blanks are single, or with a ! must not; what is it and whose.
headers() {
	cat <<'EOF'
include/trace/events/sched.h@TRACE_EVENT\(sched_switch, TP_PROTO\(bool preempt, struct task_struct \*prev, struct task_struct \*next, unsigned int prev_state\)@the arguments of sched_switch (switch.c)
include/linux/preempt.h@struct preempt_ops \{ void \(\*sched_in\)\(struct preempt_notifier \*notifier, int cpu\)@the callbacks of a switch (thread.c)
include/linux/signal.h@void signal_setup_done\(int failed, struct ksignal \*ksig, int stepping\);@how a handler is about to start (signal.c)
arch/x86/include/asm/fpu/signal.h@bool copy_fpstate_to_sigframe\(void __user \*buf, void __user \*fp, int size(, u32 pkru)?\);@how PKRU gets into a frame (signal.c)
arch/x86/include/asm/fpu/signal.h@unsigned long fpu__alloc_mathframe\(unsigned long sp, int ia32_frame, unsigned long \*buf_fx, unsigned long \*size\);@how a frame gets its place (signal.c)
include/linux/mm.h@int fixup_user_fault\(struct mm_struct \*mm, unsigned long address, unsigned int fault_flags, bool \*unlocked\);@how futexes fault (guard_memory.c)
include/linux/mm.h@unsigned long mmap_region\(struct file \*file, unsigned long addr, unsigned long len, vm_flags_t vm_flags, unsigned long pgoff, struct list_head \*uf\);@how memory is mapped over other memory (guard_memory.c)
include/linux/mm.h@int (follow_pte\(struct mm_struct \*mm, unsigned long address, pte_t \*\*ptepp, spinlock_t \*\*ptlp\)|follow_pfnmap_start\(struct follow_pfnmap_args \*args\));@how page frames are taken out of page tables (guard_memory.c)
include/linux/mm.h@int \(\*may_split\)\(struct vm_area_struct \*area, unsigned long addr\); .*int \(\*mremap\)\(struct vm_area_struct \*area\)@what is asked before a mapping is cut or moved (memory.c, huge.c)
include/linux/mm.h@int \(\*access\)\(struct vm_area_struct \*vma, unsigned long addr, void \*buf, int len, int write\)@the debugger's way into a mapping (memory.c)
include/linux/mm_types.h@!_mm_id_mapcount@how a folio counts who maps it (map_count.h)
include/linux/gfp.h@vma_alloc_folio(_noprof)?\(gfp_t gfp, int order, struct vm_area_struct \*vma, unsigned long addr, bool hugepage\)@how memory is had from the node of a policy (memory.c)
include/linux/userfaultfd_k.h@vma_can_userfault\(struct vm_area_struct \*vma, unsigned long vm_flags(\) \{|, bool wp_async\) \{.* \(vma->vm_flags & VM_SPECIAL\)\) return false; vm_flags &= __VM_UFFD_FLAGS;)@that userfaultfd leaves special memory alone; of 6.12 older ones do not (memory.c)
include/linux/xarray.h@void xas_split_alloc\(struct xa_state \*, void \*entry, unsigned int order, gfp_t\)@how 2 MiB become pages (huge.c)
include/linux/mmu_notifier.h@bool \(\*invalidate\)\(struct mmu_interval_notifier \*interval_sub, const struct mmu_notifier_range \*range, unsigned long cur_seq\)@how a file takes its pages back (file_page.c)
arch/x86/include/asm/mmu.h@atomic64_t tlb_gen@how CPUs know which of their translations are old (remap.c)
arch/x86/include/asm/pkeys.h@extern int arch_set_user_pkey_access\(struct task_struct \*tsk, int pkey, unsigned long init_val\);@how a key's bits in PKRU are changed (guard_key.c)
include/linux/kthread.h@void kthread_use_mm\(struct mm_struct \*mm\);@how a thread of the kernel comes to the memory of a process (guard_key.c)
arch/x86/include/asm/pkru.h@static inline void write_pkru\(u32 pkru\)@who keeps PKRU (signal.c, thread.c)
arch/x86/include/asm/pgtable_types.h@#define _PAGE_BIT_PKEY_BIT0 59@where a PTE has its key (remap.c)
EOF
}

missing_options() {
	options | while read -r name how; do
		grep -qx "CONFIG_$name=y" "$config" ||
			echo "epk: the kernel's configuration lacks $name: $how"
	done
}

changed_headers() {
	headers | while IFS=@ read -r header pattern what; do
		text=
		[ ! -f "$srctree/$header" ] || text=$(tr -s '[:space:]' ' ' <"$srctree/$header")
		case $pattern in
		!*) [ -n "$text" ] && ! printf '%s' "$text" | grep -Eq "${pattern#!}" ;;
		*) printf '%s' "$text" | grep -Eq "$pattern" ;;
		esac || echo "epk: not as it was: $what, in $header"
	done
}

is_known() {
	case " $known " in
	*" $version.$patchlevel "*) ;;
	*) return 1 ;;
	esac
}

complaints() {
	is_known || echo "epk: Linux $version.$patchlevel is none of those that this module is" \
		"known to work with: $known"
	changed_headers
	missing_options
}

all=$(complaints)
[ -n "$all" ] || exit 0
{
	echo "$all"
	[ "$untested" = y ] || echo "epk: to build it all the same, for development and tests:" \
		"make EPK_UNTESTED_KERNEL=y"
} >&2
[ "$untested" = y ]
