// SPDX-License-Identifier: MIT
/* epk.hpp: objects that free, end and throw; containers whose elements lie in a domain. */
#include <epk.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <unistd.h>

#include "argument.h"

static int failures;

#define CHECK(cond)								\
	do {									\
		if (!(cond)) {							\
			std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);	\
			failures++;						\
		}								\
	} while (0)

template <typename F> static int thrown(F fn)
{
	try {
		fn();
	} catch (const epk::error &err) {
		CHECK(!std::strcmp(err.what(), epk_strerror(err.number())));
		return err.number();
	}
	return 0;
}

static uint64_t live()
{
	struct epk_counts counts = {};

	counts.size = sizeof(counts);
	CHECK(!epk_counts(&counts));
	return counts.domains;
}

static void domains_are_freed()
{
	int id;

	{
		epk::domain dom;
		std::vector<epk::domain> more = epk::domain::several(3);
		epk::domain beside = more[0].beside();

		id = dom.id();
		CHECK(live() == 5 && more.size() == 3 && beside.id() > 0);
		epk::domain moved(std::move(dom));
		CHECK(moved.id() == id && dom.id() == 0 && live() == 5);
		/* What it had before is freed. */
		more[1] = std::move(moved);
		CHECK(more[1].id() == id && live() == 4);
		more[1].free();
		CHECK(live() == 3 && more[1].id() == 0);
		CHECK(thrown([&] { more[1].free(); }) == EINVAL);
		/* Given away, and taken. */
		id = more[2].release();
		CHECK(more[2].id() == 0 && live() == 3);
		epk::domain taken(id);
		CHECK(live() == 3);
	}
	CHECK(live() == 0);
	CHECK(thrown([] { epk::domain::several(0); }) == EINVAL);
	CHECK(thrown([] { epk::domain::several(-1); }) == EINVAL);
	CHECK(live() == 0);
	/* To itself. */
	epk::domain self;
	epk::domain &same = self;
	self = std::move(same);
	CHECK(live() == 1 && self.id() > 0);
}

static void hold_and_throw(const epk::domain &dom)
{
	epk::hold held(dom);

	CHECK(epk_held_prot(dom.id()) == (PROT_READ | PROT_WRITE));
	throw std::string("on");
}

static void holds_end()
{
	epk::domain dom;
	char *mem = static_cast<char *>(dom.map(100));

	{
		epk::hold outer(dom, epk::access::read);
		CHECK(epk_held_prot(dom.id()) == PROT_READ && mem[5] == 0);
		{
			epk::hold inner(dom);
			mem[5] = 7;
		}
		CHECK(epk_held_prot(dom.id()) == PROT_READ && mem[5] == 7);
		CHECK(thrown([&] { dom.free(); }) == EBUSY && dom.id() > 0);
	}
	CHECK(epk_held_prot(dom.id()) == 0);
	try {
		hold_and_throw(dom);
		CHECK(false);
	} catch (const std::string &) {
		CHECK(epk_held_prot(dom.id()) == 0);
	}
	int id = dom.id();
	dom.free();
	CHECK(thrown([&] { epk::hold gone(id); }) == ENOENT);
	CHECK(thrown([&] { epk::hold none(dom); }) == EINVAL);
	CHECK(thrown([&] { dom.map(1); }) == EINVAL);
}

static_assert(!std::is_constructible<epk::hold, epk::domain>::value, "a domain that ends at once is not held");
static_assert(!std::is_constructible<epk::allocator<int>, epk::domain>::value, "nor allocated in");
static_assert(!std::is_copy_constructible<epk::domain>::value && !std::is_copy_constructible<epk::hold>::value,
	      "neither is copied");

struct alignas(64) wide {
	char bytes[64];
};

static void containers_lie_in_domains()
{
	epk::domain dom, other;
	using strings = std::vector<int, epk::allocator<int>>;
	using pairs = std::map<int, int, std::less<int>, epk::allocator<std::pair<const int, int>>>;

	{
		epk::hold held(dom);
		strings list{epk::allocator<int>(dom)};
		pairs tree{std::less<int>(), epk::allocator<std::pair<const int, int>>(dom)};

		for (int i = 0; i < 1000; i++) {
			list.push_back(i);
			tree[i] = -i;
		}
		CHECK(epk_domain_at(list.data()) == dom.id() && list[999] == 999);
		CHECK(epk_domain_at(&tree[500]) == dom.id() && tree[500] == -500);
		CHECK(epk::allocator<int>(dom) == epk::allocator<char>(dom));
		CHECK(epk::allocator<int>(dom) != epk::allocator<int>(other));
	}
	/* One that ends where it is only read is given back, too. */
	const int *first = nullptr;
	for (int i = 0; i < 3; i++) {
		strings *list;
		{
			epk::hold held(dom);
			list = new strings(20000, i, epk::allocator<int>(dom));
		}
		epk::hold held(dom, epk::access::read);

		CHECK(!first || first == list->data());
		first = list->data();
		delete list;
		CHECK(epk_held_prot(dom.id()) == PROT_READ);
	}
	epk::allocator<wide> aligned(dom);
	wide *got = aligned.allocate(3);
	CHECK(reinterpret_cast<uintptr_t>(got) % 64 == 0 && epk_domain_at(got) == dom.id());
	aligned.deallocate(got, 3);
	try {
		aligned.allocate(static_cast<std::size_t>(-1) / 32);
		CHECK(false);
	} catch (const std::bad_alloc &) {
	}
	int id = dom.id();
	dom.free();
	CHECK(thrown([&] { epk::allocator<int>(id).allocate(1); }) == ENOENT);
}

static void calls_hold_one()
{
	std::vector<epk::domain> doms = epk::domain::several(2);
	int *mem = static_cast<int *>(doms[0].map(sizeof(int)));
	epk::hold held(doms[1]);
	int add = 5;

	CHECK(epk::call(doms[0], [&] {
		CHECK(epk_held(nullptr, 0) == 1 && epk_held_prot(doms[0].id()) == (PROT_READ | PROT_WRITE));
		return *mem += add;
	}) == 5);
	CHECK(epk_held_prot(doms[1].id()) && !epk_held_prot(doms[0].id()));
	try {
		epk::call(doms[0], [&]() -> int { throw add; });
		CHECK(false);
	} catch (int what) {
		CHECK(what == 5 && !epk_held_prot(doms[0].id()) && epk_held_prot(doms[1].id()));
	}
	CHECK(thrown([&] { epk::call(-1, [] { return 0; }); }) == EINVAL);
}

int main()
{
	int err = epk_init(nullptr);

	if (err == -ENODEV) {
		std::printf("SKIP hpp_test: the backend does not work here\n");
		return 77;
	}
	CHECK(!err);
	domains_are_freed();
	CHECK(live() == 0);
	holds_end();
	containers_lie_in_domains();
	calls_hold_one();
	CHECK(live() == 0);
	std::printf("%d failed\n", failures);
	return failures != 0;
}
