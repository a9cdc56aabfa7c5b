/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Walking the page tables of domain memory, as far as there are any.
 *
 * Not by apply_to_existing_page_range(): before 6.1.135 and 6.12.25 it stays at the first
 * PTE of a page table that is none, and what lies behind that keeps its old place when a
 * domain moves.
 */
#ifndef EPK_WALK_H
#define EPK_WALK_H

#include <linux/mm.h>
#include <linux/rcupdate.h>

/**
 * walk_pmd() - find the PMD of an address
 * @mm: its address space; something keeps the upper page tables, as the mmap lock does
 * @addr: the address
 * @end: where the walk ends
 * @next: the first address, or @end, that a PMD behind this one can map
 *
 * Return: NULL if there is none up to @next.
 */
static inline pmd_t *walk_pmd(struct mm_struct *mm, unsigned long addr, unsigned long end,
			      unsigned long *next)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	*next = pgd_addr_end(addr, end);
	if (pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	*next = p4d_addr_end(addr, end);
	if (p4d_none(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	*next = pud_addr_end(addr, end);
	if (pud_none(*pud))
		return NULL;
	*next = pmd_addr_end(addr, end);
	return pmd_offset(pud, addr);
}

/**
 * walk_ptes() - call a function on each PTE below a PMD that is not none
 * @mm: the address space
 * @pmd: the PMD; it need not have a page table
 * @addr: the first address
 * @end: the address behind the last, below the same PMD
 * @fn: the function; it holds the lock of the page table
 * @data: its last argument
 */
static __always_inline void walk_ptes(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
				      unsigned long end,
				      void (*fn)(pte_t *pte, unsigned long addr, void *data),
				      void *data)
{
	spinlock_t *lock;
	pmd_t table;
	pte_t *pte;

	/* Where khugepaged can free a page table of a file meanwhile, RCU delays that. */
	rcu_read_lock();
again:
	table = READ_ONCE(*pmd);
	if (pmd_none(table) || WARN_ON_ONCE(pmd_bad(table)))
		goto out;
	lock = pte_lockptr(mm, &table);
	spin_lock(lock);
	if (unlikely(!pmd_same(table, READ_ONCE(*pmd)))) {
		spin_unlock(lock);
		goto again;
	}
	for (pte = pte_offset_kernel(&table, addr); addr != end; pte++, addr += PAGE_SIZE) {
		if (!pte_none(*pte))
			fn(pte, addr, data);
	}
	spin_unlock(lock);
out:
	rcu_read_unlock();
}

#endif /* EPK_WALK_H */
