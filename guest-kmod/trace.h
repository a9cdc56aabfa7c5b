/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: /sys/kernel/tracing/events/epk.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM epk

#if !defined(EPK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define EPK_TRACE_H

#include <linux/tracepoint.h>

/* A domain gets a place, or with pkey 0 none: by allocation, or by a move. */
TRACE_EVENT(epk_place,
	TP_PROTO(int id, unsigned int ept, unsigned int pkey),
	TP_ARGS(id, ept, pkey),
	TP_STRUCT__entry(
		__field(int, id)
		__field(u16, ept)
		__field(u8, pkey)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->ept = ept;
		__entry->pkey = pkey;
	),
	TP_printk("id=%d ept=%u pkey=%u", __entry->id, __entry->ept, __entry->pkey)
);

/* A domain is freed. */
TRACE_EVENT(epk_free,
	TP_PROTO(int id),
	TP_ARGS(id),
	TP_STRUCT__entry(
		__field(int, id)
	),
	TP_fast_assign(
		__entry->id = id;
	),
	TP_printk("id=%d", __entry->id)
);

/* A touch maps a page of domain memory. */
TRACE_EVENT(epk_fault,
	TP_PROTO(unsigned long addr, unsigned int ept, unsigned long pfn),
	TP_ARGS(addr, ept, pfn),
	TP_STRUCT__entry(
		__field(unsigned long, addr)
		__field(unsigned long, pfn)
		__field(u16, ept)
	),
	TP_fast_assign(
		__entry->addr = addr;
		__entry->pfn = pfn;
		__entry->ept = ept;
	),
	TP_printk("addr=%#lx ept=%u pfn=%#lx", __entry->addr, __entry->ept, __entry->pfn)
);

/* An access to a domain's memory is refused: by a signal, an error of a system call, or of a call. */
TRACE_EVENT(epk_refused,
	TP_PROTO(int id, unsigned long addr, unsigned long ip, bool write),
	TP_ARGS(id, addr, ip, write),
	TP_STRUCT__entry(
		__field(unsigned long, addr)
		__field(unsigned long, ip)
		__field(int, id)
		__field(u8, write)
	),
	TP_fast_assign(
		__entry->addr = addr;
		__entry->ip = ip;
		__entry->id = id;
		__entry->write = write;
	),
	TP_printk("id=%d addr=%#lx ip=%#lx write=%u", __entry->id, __entry->addr, __entry->ip,
		  __entry->write)
);

/* Keys are closed in the current thread; one bit of @deny for each. */
TRACE_EVENT(epk_revoke,
	TP_PROTO(unsigned int ept, u32 deny),
	TP_ARGS(ept, deny),
	TP_STRUCT__entry(
		__field(u32, deny)
		__field(u16, ept)
	),
	TP_fast_assign(
		__entry->deny = deny;
		__entry->ept = ept;
	),
	TP_printk("ept=%u pkru=%#x", __entry->ept, __entry->deny)
);

#endif /* EPK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
