// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "facts.h"

static const char *const state_names[NR_STATES] = { "ok", "less", "missing" };
bool facts_json, facts_quiet, facts_missing;

bool kernel_is_known(const char *release)
{
	static const char *const known[] = { "6.1", "6.12" };
	size_t i, length;

	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		length = strlen(known[i]);
		if (!strncmp(release, known[i], length) && strchr(".-", release[length]))
			return true;
	}
	return false;
}

/* The next character of UTF-8, U+FFFD for a byte that is of none. */
static uint32_t next_character(const char **text)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	const unsigned char *at = (const unsigned char *)*text;
	uint32_t value = *at;
	int more, i;

	++*text;
	if (value < 0x80)
		return value;
	more = value >= 0xf8 ? -1 : value >= 0xf0 ? 3 : value >= 0xe0 ? 2 : value >= 0xc0 ? 1 : -1;
	if (more < 0)
		return 0xfffd;
	value &= 0x3f >> more;
	for (i = 1; i <= more; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0xfffd;
		value = value << 6 | (at[i] & 0x3f);
	}
	if (value < least[more] || value > 0x10ffff || (value & ~0x7ffu) == 0xd800)
		return 0xfffd;
	*text += more;
	return value;
}

void put_json(const char *text)
{
	uint32_t c;

	putchar('"');
	while (*text) {
		c = next_character(&text);
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c >= ' ' && c <= '~')
			putchar(c);
		else if (c < 0x10000)
			printf("\\u%04x", c);
		else
			printf("\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
	}
	putchar('"');
}

int put_text(FILE *to, const char *text)
{
	int columns = 0;

	for (; *text; text++) {
		if (*text >= ' ' && *text <= '~')
			columns += fprintf(to, "%c", *text);
		else
			columns += fprintf(to, "\\x%02x", (unsigned char)*text);
	}
	return columns;
}

void say(enum state state, const char *fact, const char *advice, const char *format, ...)
{
	static bool others;
	char value[512];
	va_list args;

	va_start(args, format);
	vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	facts_missing |= state == MISSING;
	if (facts_quiet) {
		if (state == MISSING) {
			fprintf(stderr, "%s: ", fact);
			put_text(stderr, value);
			fprintf(stderr, "%s%s\n", advice ? " -> " : "", advice ? advice : "");
		}
		return;
	}
	if (!facts_json) {
		printf("%-8s %-14s ", state_names[state], fact);
		put_text(stdout, value);
		if (advice) {
			printf("\n%23s -> ", "");
			put_text(stdout, advice);
		}
		putchar('\n');
		return;
	}
	printf("%s\n  {\"fact\": ", others ? "," : "");
	put_json(fact);
	printf(", \"state\": \"%s\", \"value\": ", state_names[state]);
	put_json(value);
	if (advice) {
		printf(", \"advice\": ");
		put_json(advice);
	}
	putchar('}');
	others = true;
}

FILE *open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (fd >= 0 && !file)
		close(fd);
	return file;
}

bool line_of(const char *path, char *line, size_t size)
{
	FILE *file = open_file(path);
	bool ok = file && fgets(line, size, file);

	if (file)
		fclose(file);
	if (ok)
		line[strcspn(line, "\n")] = 0;
	return ok;
}

bool value_of(const char *path, const char *name, char *value, size_t size)
{
	FILE *file = open_file(path);
	size_t length = strlen(name);
	char line[MAX_LINE];
	bool ok = false, start = true;
	char *at;

	while (file && !ok && fgets(line, sizeof(line), file)) {
		at = line + strcspn(line, "\n");
		if (start && !strncmp(line, name, length) && line[length + strspn(line + length, " \t")] == ':') {
			if (!*at && !feof(file))
				for (; at > line && *at != ' '; at--)
					;
			*at = 0;
			at = strchr(line + length, ':');
			ok = at;
		} else {
			start = *at == '\n';
		}
	}
	if (file)
		fclose(file);
	if (ok)
		snprintf(value, size, "%s", at + 1 + strspn(at + 1, " \t"));
	return ok;
}

bool has_word(const char *words, const char *word)
{
	size_t length = strlen(word), n;

	for (words += strspn(words, " \t"); *words; words += n + strspn(words + n, " \t")) {
		n = strcspn(words, " \t");
		if (n == length && !memcmp(words, word, n))
			return true;
	}
	return false;
}
