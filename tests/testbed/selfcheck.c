// SPDX-License-Identifier: MIT
/*
 * Is the emulated machine fit to run tests?  Known answers of instructions that
 * the tests or OpenSSL rely on, and the features that each level must show.
 * Argument: "host" or "guest".
 */
#include <fcntl.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int failures;

static void check(bool ok, const char *what)
{
	printf("%s %s\n", ok ? "ok" : "WRONG", what);
	failures += !ok;
}

static bool cpu_flag(const char *flag)
{
	static char line[8192];
	char word[64];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "r");

	snprintf(word, sizeof(word), " %s ", flag);
	while (f && !found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = ' ';
		found = strstr(line, word);
	}
	if (f)
		fclose(f);
	return found;
}

#define MSR_IA32_VMX_VMFUNC 0x491

static uint64_t read_msr(uint32_t msr)
{
	uint64_t value = 0;
	int fd = open("/dev/cpu/0/msr", O_RDONLY);

	if (fd < 0 || pread(fd, &value, sizeof(value), msr) != sizeof(value))
		perror("/dev/cpu/0/msr");
	if (fd >= 0)
		close(fd);
	return value;
}

/* Hide a value from the compiler, so that the CPU computes. */
static uint64_t opaque(uint64_t x)
{
	__asm__ volatile("" : "+r" (x));
	return x;
}

/*
 * The expected values were computed with arbitrary precision, or by a real CPU
 * where the instruction is a cipher's.
 */
__attribute__((target("bmi2,popcnt")))
static void check_integers(void)
{
	uint64_t a = opaque(0x0123456789abcdef), b = opaque(0xfedcba9876543211);
	unsigned long long low, high;

	low = _mulx_u64(a, b, &high);
	check(low == 0x235a1df76f0d5adf && high == 0x121fa00ad77d742, "MULX");
	check(a * b == 0x235a1df76f0d5adf, "MUL");
	check(b / opaque(1000003) == 0x10b3dda0250e, "DIV, quotient");
	check(b % opaque(1000003) == 713575, "DIV, remainder");
	check((b >> opaque(13) ^ a << opaque(7)) == 0x91a5452101254521, "SHR, SHL");
	check(_mm_popcnt_u64(b) == 33, "POPCNT");
}

__attribute__((target("avx2,pclmul,aes")))
static void check_vectors(void)
{
	uint64_t a = opaque(0x0123456789abcdef), b = opaque(0xfedcba9876543211);
	uint64_t out[4];
	__m128i x = _mm_set_epi64x(a, b), y = _mm_set_epi64x(b, a);
	__m256i v = _mm256_set_epi64x(a, b, b, a);

	_mm_storeu_si128((__m128i *)out, _mm_clmulepi64_si128(x, y, 0x00));
	check(out[0] == 0x41833dffa163dd1f && out[1] == 0xe038d8688850b0, "PCLMULQDQ");
	_mm_storeu_si128((__m128i *)out, _mm_aesenc_si128(x, y));
	check(out[0] == 0x20dc30297a9d66e9 && out[1] == 0x9a9f4fcd2f73ea9d, "AESENC");
	_mm256_storeu_si256((__m256i *)out, _mm256_mul_epu32(v, _mm256_srli_epi64(v, 32)));
	check(out[0] == 0x9ca39dc94e4629 && out[3] == 0x9ca39dc94e4629 && out[1] == 0x75cd904752fa1418 && out[2] == 0x75cd904752fa1418, "AVX2 VPMULUDQ");
}

int main(int argc, char **argv)
{
	bool guest = argc > 1 && !strcmp(argv[1], "guest");

	setvbuf(stdout, NULL, _IOLBF, 0);
	check_integers();
	check_vectors();
	check(cpu_flag("pku"), "protection keys in CPUID");
	check(cpu_flag("ospke"), "protection keys switched on");
	if (guest) {
		check(!cpu_flag("adx"), "ADX is hidden: the emulator computes ADOX wrongly");
		check(cpu_flag("hypervisor"), "a hypervisor is announced");
	} else {
		check(cpu_flag("vmx"), "VMX");
		check(cpu_flag("ept"), "EPT");
		check(read_msr(MSR_IA32_VMX_VMFUNC) & 1, "EPTP switching");
	}
	return failures != 0;
}
