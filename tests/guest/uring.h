/* SPDX-License-Identifier: MIT */
/*
 * The least of io_uring: one request at a time, by the bare system calls.
 */
#ifndef URING_H
#define URING_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/io_uring.h>

struct uring {
	int fd;
	struct io_uring_params params;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
};

static inline int uring_open(struct uring *ring, unsigned int flags)
{
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	p->flags = flags;
	p->sq_thread_idle = 10;
	ring->fd = syscall(SYS_io_uring_setup, 4, p);
	if (ring->fd < 0)
		return -errno;
	ring->sq = mmap(NULL, p->sq_off.array + p->sq_entries * 4, PROT_READ | PROT_WRITE,
			MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, p->sq_entries * sizeof(*ring->sqes), PROT_READ | PROT_WRITE,
			  MAP_SHARED, ring->fd, IORING_OFF_SQES);
	return ring->sq == MAP_FAILED || ring->cq == MAP_FAILED || ring->sqes == MAP_FAILED ?
		       -ENOMEM : 0;
}

/* Write @len bytes from @buf to @fd; returns what the request returned. */
static inline int uring_write(struct uring *ring, int fd, const void *buf, unsigned int len,
			      unsigned int sqe_flags)
{
	struct io_uring_params *p = &ring->params;
	uint32_t *tail = (uint32_t *)(ring->sq + p->sq_off.tail);
	uint32_t *array = (uint32_t *)(ring->sq + p->sq_off.array);
	uint32_t *cq_head = (uint32_t *)(ring->cq + p->cq_off.head);
	uint32_t *cq_tail = (uint32_t *)(ring->cq + p->cq_off.tail);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring->cq + p->cq_off.cqes);
	uint32_t slot = *tail & (p->sq_entries - 1);
	struct io_uring_sqe *sqe = &ring->sqes[slot];
	unsigned int enter = IORING_ENTER_GETEVENTS;
	int ret;

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_WRITE;
	sqe->flags = sqe_flags;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)buf;
	sqe->len = len;
	array[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (p->flags & IORING_SETUP_SQPOLL)
		enter |= IORING_ENTER_SQ_WAKEUP;
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, enter, NULL, 0) < 0)
		return -errno;
	while (__atomic_load_n(cq_tail, __ATOMIC_ACQUIRE) == *cq_head)
		;
	ret = cqes[*cq_head & (p->cq_entries - 1)].res;
	__atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
	return ret;
}

static inline void uring_close(struct uring *ring)
{
	struct io_uring_params *p = &ring->params;

	munmap(ring->sq, p->sq_off.array + p->sq_entries * 4);
	munmap(ring->cq, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe));
	munmap(ring->sqes, p->sq_entries * sizeof(*ring->sqes));
	close(ring->fd);
}

#endif /* URING_H */
