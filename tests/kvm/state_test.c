// SPDX-License-Identifier: MIT
/* A VM is saved while its vCPUs are in several EPTs, and goes on as another VM. */
#include <linux/userfaultfd.h>

#include "moved.h"

#define MAX_RUNS	16

struct full_state {
	struct kvm_epk_state head;
	struct kvm_epk_run runs[MAX_RUNS];
};

static void guest_first(void)
{
	epk_set_up(0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 511, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 511, 1, KVM_EPK_RUN(0, 1, 1)), 0);
	/* Filled and emptied: not part of the state. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 6, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	vmfunc(5);
	write64(alias(5, DATA), 55);
	guest_sync(1);
	GUEST_EQ(current_ept(), 5);
	GUEST_EQ(read64(alias(5, DATA)), 55);
	GUEST_EQ(try_read(alias(511, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(try_read(alias(6, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 4);
	GUEST_EQ(try_vmfunc(0, 7), UD);
	GUEST_EQ(epk_enable_at(layout), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 1, KVM_EPK_RUN(0, 1, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 6, 1, 0), 0);
}

/* Its VMM gives it so many EPTs; 0 if it does not know of any. */
static struct vm *machine_of(uint32_t epts)
{
	struct vm *vm = vm_create();

	REQUIRE(!epts || !vm_enable_cap(vm, KVM_CAP_EPK, epts));
	give_memory(vm);
	vcpu_add(vm, guest_first);
	vcpu_add(vm, guest_second);
	return vm;
}

static struct vm *machine(void)
{
	return machine_of(0);
}

static struct vm *running(void)
{
	struct vm *vm = machine();

	vcpu_run_sync(&vm->vcpus[0], 1);
	vcpu_run_sync(&vm->vcpus[1], 1);
	return vm;
}

static int get(struct vm *vm, struct full_state *state, uint32_t room)
{
	memset(state, 0, sizeof(*state));
	state->head.nr_runs = room;
	return ioctl(vm->fd, KVM_GET_EPK_STATE, state) ? -errno : 0;
}

static int set(struct vm *vm, const struct full_state *state)
{
	return ioctl(vm->fd, KVM_SET_EPK_STATE, state) ? -errno : 0;
}

static int set_ept(struct vcpu *vcpu, uint32_t ept)
{
	struct kvm_epk_vcpu state = { .ept = ept };

	return ioctl(vcpu->fd, KVM_SET_EPK_VCPU, &state) ? -errno : 0;
}

static int get_ept(struct vcpu *vcpu)
{
	struct kvm_epk_vcpu state;

	memset(&state, 0xff, sizeof(state));
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_EPK_VCPU, &state));
	CHECK_EQ(state.reserved[0] | state.reserved[1] | state.reserved[2], 0);
	return state.ept;
}

static void save_restore(void)
{
	struct vm *first = running(), *second = machine();
	struct full_state state, again;
	int i;

	CHECK_EQ(get(first, &state, 0), -E2BIG);
	CHECK_EQ(state.head.nr_runs, 3);
	CHECK_EQ(state.head.version, 0);
	CHECK_EQ(get(first, &state, 2), -E2BIG);
	CHECK_EQ(get(first, &state, MAX_RUNS), 0);
	CHECK_EQ(state.head.version, KVM_EPK_VERSION);
	CHECK_EQ(state.head.window_base, 1ull << 39);
	CHECK_EQ(state.head.window_slots, 1);
	CHECK_EQ(state.head.identity, (1ull << 39) - PAGE);
	CHECK_EQ(state.head.reserved, 0);
	CHECK_EQ(state.head.nr_epts, 512);
	CHECK_EQ(state.head.nr_runs, 3);
	CHECK_EQ(state.head.epts[0], 1 | 1 << 5 | 1 << 6);
	CHECK_EQ(state.head.epts[7], 1ull << 63);
	CHECK_EQ(state.runs[1].first, 5);
	CHECK_EQ(state.runs[1].run, KVM_EPK_RUN(0, 0, 1));
	CHECK_EQ(state.runs[2].first, 511);
	CHECK_EQ(state.runs[2].run, KVM_EPK_RUN(0, 1, 1));

	CHECK_EQ(set(second, &state), 0);
	CHECK_EQ(get(second, &again, MAX_RUNS), 0);
	CHECK_EQ(memcmp(&state, &again, sizeof(state)), 0);
	for (i = 0; i < 2; i++) {
		CHECK_EQ(get_ept(&first->vcpus[i]), where[i]);
		CHECK_EQ(get_ept(&second->vcpus[i]), 0);
		CHECK_EQ(set_ept(&second->vcpus[i], where[i]), 0);
		CHECK_EQ(get_ept(&second->vcpus[i]), where[i]);
		/* The image, with stacks and tables, is memory of both. */
		vcpu_take_over(&second->vcpus[i], &first->vcpus[i]);
	}
	vm_destroy(first);
	vcpu_run_done(&second->vcpus[1]);
	vcpu_run_done(&second->vcpus[0]);
	vm_destroy(second);
}

static void guest_enables(void)
{
	epk_set_up(1);
}

/* Whatever is wrong with it, it changes nothing. */
static void malformed(void)
{
	struct vm *first = running(), *second = machine();
	struct full_state state, bad, after;

	REQUIRE(!get(first, &state, MAX_RUNS));
#define BAD(change, expected) do {					\
	bad = state;							\
	change;								\
	CHECK_EQ(set(second, &bad), expected);				\
	CHECK_EQ(get(second, &after, MAX_RUNS), 0);			\
	CHECK_EQ(after.head.version, 0);				\
} while (0)
	BAD(bad.head.version = 0, -EINVAL);
	BAD(bad.head.version = KVM_EPK_VERSION + 1, -EINVAL);
	BAD(bad.head.version = KVM_EPK_VERSION - 1, -EINVAL);
	BAD(bad.head.window_base = 0, -EINVAL);
	BAD(bad.head.window_base = 3 * GiB, -EINVAL);
	BAD(bad.head.window_base += PAGE, -EINVAL);
	/* Beyond the vCPUs' reach, KVM's, and 64 bits. */
	BAD(bad.head.window_base += GiB, -EINVAL);
	BAD(bad.head.window_base *= 2, -EINVAL);
	BAD(bad.head.window_base = (1ull << 48) - GiB, -EINVAL);
	BAD(bad.head.window_base = 1ull << 63, -EINVAL);
	BAD(bad.head.window_base = -GiB, -EINVAL);
	BAD(bad.head.window_slots = 0, -EINVAL);
	BAD(bad.head.window_slots = 2, -EINVAL);
	BAD((bad.head.window_slots = 3, bad.head.nr_epts = 2), -EINVAL);
	BAD((bad.head.window_slots = 1024, bad.head.nr_epts = 1), -EINVAL);
	BAD(bad.head.window_slots = ~0u, -EINVAL);
	BAD(bad.head.window_slots = 1u << 31, -EINVAL);
	BAD(bad.head.nr_epts = 0, -EINVAL);
	BAD(bad.head.nr_epts = 513, -EINVAL);
	BAD(bad.head.nr_epts = ~0u, -EINVAL);
	BAD(bad.head.identity = 0, -EINVAL);
	BAD(bad.head.identity += 8, -EINVAL);
	BAD(bad.head.identity += PAGE, -EINVAL);
	BAD(bad.head.identity = 1ull << 40, -EINVAL);
	BAD(bad.head.identity = -PAGE, -EINVAL);
	BAD(bad.head.reserved = 1, -EINVAL);
	/* Fewer than those that exist. */
	BAD(bad.head.nr_epts = 511, -EINVAL);
	BAD(bad.head.epts[0] &= ~1ull, -EINVAL);
	/* A run of an EPT that there is not. */
	BAD(bad.head.epts[7] = 0, -ENOENT);
	BAD(bad.runs[0].first = 7, -ENOENT);
	BAD(bad.runs[0].first = 512, -EINVAL);
	BAD(bad.runs[0].first = ~0u, -EINVAL);
	BAD(bad.runs[0].count = 0, -EINVAL);
	BAD(bad.runs[0].count = ~0u, -EINVAL);
	BAD(bad.runs[0].count = 513, -EINVAL);
	BAD(bad.runs[0].count = 2, -ENOENT);
	BAD(bad.runs[0].run = KVM_EPK_RUN(1, 0, 1), -EINVAL);
	BAD(bad.runs[0].run = KVM_EPK_RUN(0, 511, 1), -EINVAL);
	BAD(bad.runs[0].run = ~0ull, -EINVAL);
	/* A slot twice. */
	BAD(bad.runs[1] = bad.runs[0], -EEXIST);
	/* More runs than there are. */
	BAD((bad.head.nr_runs = MAX_RUNS), -EINVAL);
	CHECK_EQ(ioctl(second->fd, KVM_SET_EPK_STATE, NULL) ? errno : 0, EFAULT);
	CHECK_EQ(ioctl(second->fd, KVM_GET_EPK_STATE, NULL) ? errno : 0, EFAULT);

	/* The windows' place is taken. */
	REQUIRE(!vm_memslot(second, 2, 0, 1ull << 39, PAGE, memory[0]));
	BAD(, -EBUSY);
	REQUIRE(!vm_memslot(second, 2, 0, 1ull << 39, 0, NULL));
	CHECK_EQ(set_ept(&second->vcpus[0], 0), 0);
	CHECK_EQ(set_ept(&second->vcpus[0], 1), -ENOENT);
	CHECK_EQ(set(second, &state), 0);
	CHECK_EQ(set(second, &state), -EEXIST);
	vm_destroy(first);
	vm_destroy(second);
}

/* Where the VMM gives fewer EPTs it cannot go on, however few of them it has made. */
static void fewer(void)
{
	static const uint32_t numbers[] = { 1, 2, 256, 511, 512 };
	struct vm *first = running(), *second;
	struct full_state state, after;
	unsigned int i;

	REQUIRE(!get(first, &state, MAX_RUNS));
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		int all = numbers[i] == state.head.nr_epts;

		second = machine_of(numbers[i]);
		CHECK_EQ(set(second, &state), all ? 0 : -EINVAL);
		CHECK_EQ(get(second, &after, MAX_RUNS), 0);
		CHECK_EQ(after.head.version, all ? KVM_EPK_VERSION : 0);
		vm_destroy(second);
	}
	vm_destroy(first);
}

static void vcpu_arguments(void)
{
	struct vm *vm = running();
	struct kvm_epk_vcpu state = { .ept = 5 };
	int i;

	CHECK_EQ(set_ept(&vm->vcpus[0], 512), -EINVAL);
	CHECK_EQ(set_ept(&vm->vcpus[0], ~0u), -EINVAL);
	CHECK_EQ(set_ept(&vm->vcpus[0], 7), -ENOENT);
	for (i = 0; i < 3; i++) {
		memset(state.reserved, 0, sizeof(state.reserved));
		state.reserved[i] = 1;
		CHECK_EQ(ioctl(vm->vcpus[0].fd, KVM_SET_EPK_VCPU, &state) ? errno : 0, EINVAL);
	}
	CHECK_EQ(get_ept(&vm->vcpus[0]), 5);
	/* A VMM may move a vCPU that has run. */
	CHECK_EQ(set_ept(&vm->vcpus[1], 5), 0);
	CHECK_EQ(set_ept(&vm->vcpus[1], 511), 0);
	vcpu_run_done(&vm->vcpus[1]);
	CHECK_EQ(get_ept(&vm->vcpus[1]), 0);
	vcpu_run_done(&vm->vcpus[0]);
	vm_destroy(vm);
}

/* A guest that has not enabled EPK has a state, too. */
static void not_enabled(void)
{
	struct vm *vm = machine();
	struct full_state state;
	struct vcpu *vcpu = &vm->vcpus[0];

	CHECK_EQ(get(vm, &state, MAX_RUNS), 0);
	CHECK_EQ(state.head.version, 0);
	CHECK_EQ(state.head.nr_runs, 0);
	CHECK_EQ(set(vm, &state), 0);
	CHECK_EQ(get_ept(vcpu), 0);
	vcpu_start_at(vcpu, guest_enables);
	vcpu_run_done(vcpu);
	CHECK_EQ(set(vm, &state), -EEXIST);
	vm_destroy(vm);
}

struct call {
	struct vm *vm;
	void *state;
	volatile int result;
};

static void *call_set(void *arg)
{
	struct call *call = arg;

	call->result = set(call->vm, call->state);
	return NULL;
}

static void *call_disable(void *arg)
{
	struct call *call = arg;

	call->result = vm_enable_cap(call->vm, KVM_CAP_EPK, 0);
	return NULL;
}

static void guest_has_all(void)
{
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), 512);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 4);
}

/* The VMM takes EPK away just while it restores: one of the two is too late. */
static void taken_away_meanwhile(void)
{
	struct vm *first = running(), *vm;
	struct full_state state;
	struct call setter = { .result = 1 }, taker = { .result = 1 };
	pthread_t threads[2];
	struct uffd_msg msg;
	struct uffdio_copy copy;
	char *pages, *head;
	int fd;

	REQUIRE(!get(first, &state, MAX_RUNS));
	vm_destroy(first);
	vm = vm_create();
	pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(pages != MAP_FAILED);
	/* The runs are in the page that is held. */
	head = pages + PAGE - sizeof(state.head);
	memcpy(head, &state.head, sizeof(state.head));
	fd = hold_page(pages + PAGE);
	setter.vm = taker.vm = vm;
	setter.state = head;
	REQUIRE(!pthread_create(&threads[0], NULL, call_set, &setter));
	REQUIRE(read(fd, &msg, sizeof(msg)) == sizeof(msg));
	REQUIRE(msg.event == UFFD_EVENT_PAGEFAULT);
	/* Now it is half done.  Time for the other to go as far as it can. */
	REQUIRE(!pthread_create(&threads[1], NULL, call_disable, &taker));
	usleep(20000);
	copy = (struct uffdio_copy) {
		.dst = (uint64_t)pages + PAGE, .src = (uint64_t)malloc(PAGE), .len = PAGE,
	};
	memcpy((void *)copy.src, state.runs, sizeof(state.runs));
	REQUIRE(!ioctl(fd, UFFDIO_COPY, &copy));
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);

	CHECK_EQ(setter.result, 0);
	CHECK_EQ(taker.result, -EBUSY);
	REQUIRE(!vm_memslot(vm, 0, 0, 0, 4 * MiB, memory[0]));
	vcpu_run_done(vcpu_add(vm, guest_has_all));
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "save-restore", save_restore },
		{ "malformed", malformed },
		{ "fewer", fewer },
		{ "vcpu-arguments", vcpu_arguments },
		{ "not-enabled", not_enabled },
		{ "taken-away-meanwhile", taken_away_meanwhile },
	};

	return RUN_CASES(cases, argc, argv);
}
