/* SPDX-License-Identifier: MIT */
/*
 * epk.hpp: libepk for C++11 and later.  Nothing but names for what epk.h has: objects that free, end and
 * throw.  What is said there of threads, signals and errors is true of these, too.
 */
#ifndef EPK_HPP
#define EPK_HPP

#include <epk.h>

#include <cerrno>
#include <cstddef>
#include <exception>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace epk {

/* A call failed: what() is epk_strerror()'s words, of the cause it had. */
class error : public std::runtime_error {
public:
	/* @number: as the library returns it, negative */
	explicit error(int number) : std::runtime_error(epk_strerror(number)), number_(-number) {}

	/* As in errno, positive. */
	int number() const noexcept { return number_; }

private:
	int number_;
};

inline void check(int err)
{
	if (err < 0)
		throw error(err);
}

enum class access { read = PROT_READ, write = PROT_READ | PROT_WRITE };

/*
 * A domain, which is freed with its object, and all of its memory with it.  It is moved, not copied; one that
 * was moved from, or released, is no domain.
 */
class domain {
public:
	domain() { check(alloc_domains(1, &id_)); }

	/* One that exists becomes this object's to free. */
	explicit domain(int id) noexcept : id_(id) {}

	/* Cheap to hold together. */
	static std::vector<domain> several(int num)
	{
		std::vector<int> ids(num > 0 ? num : 0);
		std::vector<domain> all;

		all.reserve(ids.size());
		check(alloc_domains(num, ids.data()));
		for (int id : ids)
			all.emplace_back(id);
		return all;
	}

	/* Another one that is cheap to hold together with this. */
	domain beside() const
	{
		int id;

		check(epk_alloc_beside(1, &id, id_));
		return domain(id);
	}

	/* One that is cheap to hold together with any other; there can be few. */
	static domain everywhere()
	{
		int id;

		check(epk_alloc_everywhere(1, &id));
		return domain(id);
	}

	domain(domain &&other) noexcept : id_(other.release()) {}

	domain &operator=(domain &&other) noexcept
	{
		domain old(std::move(other));

		std::swap(id_, old.id_);
		return *this;
	}

	domain(const domain &) = delete;
	domain &operator=(const domain &) = delete;

	/* One that is still held cannot be freed, and stays, closed to all others. */
	~domain()
	{
		if (id_ > 0)
			free_domains(1, &id_);
	}

	/* Now, and with a word if that cannot be. */
	void free()
	{
		check(free_domains(1, &id_));
		id_ = 0;
	}

	/* Who asks has to free it from now on. */
	int release() noexcept
	{
		int id = id_;

		id_ = 0;
		return id;
	}

	int id() const noexcept { return id_; }

	/* Zeroed; until the domain is freed, or domain_munmap(). */
	void *map(std::size_t len, access most = access::write) const
	{
		void *got = domain_mmap(id_, nullptr, len, static_cast<int>(most), 0);

		if (got == MAP_FAILED)
			throw error(-errno);
		return got;
	}

private:
	int id_ = 0;
};

/*
 * The thread holds a domain for as long as the object lives, whatever leaves its block; then what it held before.
 * One may stand in another for the same domain.  It belongs to the thread that made it.
 */
class hold {
public:
	explicit hold(int id, access what = access::write)
	{
		scope_.dom_id = id;
		scope_.error = -1;
		scope_.done = 0;
		scope_.before = -1;
		epk_scope_enter(&scope_, static_cast<int>(what));
		check(scope_.error);
	}

	explicit hold(const domain &dom, access what = access::write) : hold(dom.id(), what) {}

	/* One that ends at once could not be freed. */
	hold(domain &&dom, access what = access::write) = delete;

	hold(const hold &) = delete;
	hold &operator=(const hold &) = delete;

	~hold() { epk_scope_leave(&scope_); }

private:
	struct epk_scope scope_;
};

/*
 * For the containers of the standard library: what they allocate lies in the domain's heap.  Who makes, reads or
 * changes the elements holds the domain.  The domain outlives the container, and is held where that ends, if
 * its elements have something to do then.
 *
 * What a container keeps in its own object lies where that is: a std::basic_string of a few characters has them
 * there, in ordinary memory.  A secret is a std::vector, or the string lies in the domain itself.
 */
template <typename T> class allocator {
public:
	using value_type = T;
	using propagate_on_container_move_assignment = std::true_type;
	using propagate_on_container_swap = std::true_type;

	explicit allocator(int id) noexcept : id_(id) {}
	explicit allocator(const domain &dom) noexcept : id_(dom.id()) {}
	explicit allocator(domain &&dom) = delete;
	template <typename U> allocator(const allocator<U> &other) noexcept : id_(other.id()) {}

	T *allocate(std::size_t nr)
	{
		void *got;

		if (nr > static_cast<std::size_t>(-1) / sizeof(T))
			throw std::bad_alloc();
		got = epk_memalign(id_, alignof(T) > 16 ? alignof(T) : 16, nr * sizeof(T));
		if (!got && errno == ENOMEM)
			throw std::bad_alloc();
		if (!got)
			throw error(-errno);
		return static_cast<T *>(got);
	}

	/*
	 * Held to be read, it is written to all the same.  What cannot be given back is not lost without a word, but
	 * where it went with its domain, or was never this forked child's.
	 */
	void deallocate(T *ptr, std::size_t) noexcept
	{
		int err = epk_free(id_, ptr);

		if (err == -EACCES) {
			hold writing(id_);

			err = epk_free(id_, ptr);
		}
		if (err && err != -ENOENT && err != -EPERM)
			std::terminate();
	}

	int id() const noexcept { return id_; }

private:
	int id_;
};

template <typename T, typename U> bool operator==(const allocator<T> &left, const allocator<U> &right) noexcept
{
	return left.id() == right.id();
}

template <typename T, typename U> bool operator!=(const allocator<T> &left, const allocator<U> &right) noexcept
{
	return !(left == right);
}

/*
 * epk_call(): runs @fn, which takes nothing and returns what fits into a long, with this domain alone.  What @fn
 * throws is thrown here, and lies in ordinary memory.
 */
template <typename F> long call(int id, F &&fn)
{
	static_assert(!std::is_void<decltype(fn())>::value,
		      "epk::call: the function returns what fits into a long; one that has nothing to say, 0");
	struct frame {
		typename std::remove_reference<F>::type *fn;
		static long run(void *arg) { return static_cast<long>((*static_cast<frame *>(arg)->fn)()); }
	} frame = { &fn };
	long result = 0;

	check(epk_call(id, frame::run, &frame, &result));
	return result;
}

template <typename F> long call(const domain &dom, F &&fn)
{
	return call(dom.id(), std::forward<F>(fn));
}

} // namespace epk

#endif /* EPK_HPP */
