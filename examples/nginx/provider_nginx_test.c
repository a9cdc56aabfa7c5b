// SPDX-License-Identifier: MIT
/*
 * No part of nginx's private keys is in the memory of any of its processes: when it has
 * started, when clients have connected, after a reload, and after a worker was killed.  The
 * keys are in ordinary files, named as ever.
 *
 * Domains are closed by mprotect() here, so that the attacker, who reads all that nginx could,
 * has to be told nothing.  Stock nginx is looked through in the same way, and has them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "provider_key_scan.h"

OSSL_LIB_CTX *with_epk, *plain;

static const char *nginx_bin;

static struct {
	char dir[64];
	int port;
	pid_t pid;
	bool ours, combined;
	bool ever[NEEDLES_MAX];
} at;

/* ---- files */

static FILE *open_file(const char *name, const char *mode)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", at.dir, name);
	file = fopen(path, mode);
	REQUIRE(file);
	REQUIRE_EQ(fchmod(fileno(file), 0600), 0);
	return file;
}

static FILE *create(const char *name)
{
	return open_file(name, "w");
}

/* Behind its certificate, and in a file of its own. */
static void write_key(const char *crt, const char *key, EVP_PKEY *pkey, bool traditional)
{
	FILE *file = open_file(crt, "a");

	if (at.combined)
		add_file(pkey, fileno(file), traditional);
	fclose(file);
	file = create(key);
	if (!at.combined)
		add_file(pkey, fileno(file), traditional);
	fclose(file);
}

static void write_certificate(const char *name, EVP_PKEY *pkey)
{
	X509 *cert = X509_new_ex(plain, NULL);
	X509_NAME *subject = X509_get_subject_name(cert);
	FILE *file = open_file(name, "w");

	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)"localhost", -1,
				   -1, 0);
	X509_set_issuer_name(cert, subject);
	require_ossl(X509_set_pubkey(cert, pkey));
	require_ossl(X509_sign(cert, pkey, EVP_sha256()));
	require_ossl(PEM_write_X509(file, cert));
	fclose(file);
	X509_free(cert);
}

static void write_keys(void)
{
	EVP_PKEY *rsa = EVP_PKEY_Q_keygen(plain, NULL, "RSA", (size_t)2048);
	EVP_PKEY *ec = EVP_PKEY_Q_keygen(plain, NULL, "EC", "P-256");
	BIGNUM *scalar;

	nr_needles = 0;
	write_certificate("rsa.crt", rsa);
	write_key("rsa.crt", "rsa.key", rsa, false);
	add_rsa(rsa);
	write_certificate("ec.crt", ec);
	write_key("ec.crt", "ec.key", ec, true);
	scalar = get_number(ec, OSSL_PKEY_PARAM_PRIV_KEY);
	add_number("scalar", scalar);
	BN_free(scalar);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(ec);
}

static void write_config(void)
{
	FILE *file = create("nginx.conf");
	const char *key = at.combined ? "crt" : "key";

	fprintf(file,
		"daemon off;\nuser root;\nworker_processes 1;\npid nginx.pid;\n"
		"error_log log notice;\nenv OPENSSL_CONF;\nenv LD_LIBRARY_PATH;\n"
		"events { worker_connections 64; }\n"
		"http {\n\taccess_log off;\n\tclient_body_temp_path body;\n\tproxy_temp_path p;\n"
		"\tfastcgi_temp_path f;\n\tuwsgi_temp_path u;\n\tscgi_temp_path s;\n"
		"\tserver {\n\t\tlisten 127.0.0.1:%d ssl;\n"
		"\t\tssl_certificate rsa.crt;\n\t\tssl_certificate_key rsa.%s;\n"
		"\t\tssl_certificate ec.crt;\n\t\tssl_certificate_key ec.%s;\n"
		"\t\tssl_protocols TLSv1.2 TLSv1.3;\n\t\treturn 200 done;\n\t}\n}\n", at.port, key,
		key);
	fclose(file);
}

/* openssl.cnf as it is, but for the backend and where the provider is. */
static void write_openssl_cnf(void)
{
	char path[4096], line[512], *dir = realpath(BUILD_DIR, NULL), *value;
	FILE *from, *to = create("openssl.cnf");

	REQUIRE(dir);
	snprintf(path, sizeof(path), "%s/openssl.cnf", dir);
	from = fopen(path, "r");
	REQUIRE(from);
	while (fgets(line, sizeof(line), from)) {
		value = strstr(line, "/usr/lib");
		if (value)
			fprintf(to, "%.*s%s/epk.so\n", (int)(value - line), line, dir);
		else if (!strncmp(line, "backend = ", 10))
			fprintf(to, "backend = mprotect\n");
		else
			fputs(line, to);
	}
	fclose(from);
	fclose(to);
	free(dir);
}

static int free_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, len), 0);
	REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	close(fd);
	return ntohs(address.sin_port);
}

/* ---- a client */

static int connect_to(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(at.port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd, tries;

	for (tries = 0; tries < 400; tries++) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
			return fd;
		close(fd);
		usleep(25000);
	}
	return -1;
}

static bool request(int version, const char *sigalgs, const char *suite)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(plain, NULL, TLS_client_method());
	int fd = connect_to();
	char answer[512];
	bool ok;
	SSL *ssl;

	REQUIRE(fd >= 0);
	require_ossl(SSL_CTX_set_max_proto_version(ctx, version));
	require_ossl(SSL_CTX_set1_sigalgs_list(ctx, sigalgs));
	if (suite)
		require_ossl(SSL_CTX_set_cipher_list(ctx, suite));
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, fd);
	ok = SSL_connect(ssl) == 1 && SSL_write(ssl, "GET / HTTP/1.0\r\n\r\n", 18) == 18 &&
	     SSL_read(ssl, answer, sizeof(answer)) > 0 && !memcmp(answer, "HTTP/1.1 200", 12);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	ERR_clear_error();
	return ok;
}

/* While a worker starts or ends, a connection may be lost; never for long. */
static void use(int version, const char *sigalgs, const char *suite)
{
	int tries;

	for (tries = 0; tries < 100 && !request(version, sigalgs, suite); tries++)
		usleep(50000);
	REQUIRE(tries < 100);
}

static void use_all(void)
{
	int i;

	for (i = 0; i < 3; i++) {
		use(TLS1_3_VERSION, "RSA-PSS+SHA256", NULL);
		use(TLS1_3_VERSION, "ECDSA+SHA256", NULL);
		use(TLS1_2_VERSION, "RSA+SHA256", NULL);
		use(TLS1_2_VERSION, "RSA+SHA256", "AES256-GCM-SHA384");
	}
}

/* ---- its processes */

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512], *end;
	int parent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file)) {
		end = strrchr(line, ')');
		if (!end || sscanf(end + 1, " %*c %d", &parent) != 1)
			parent = 0;
	}
	fclose(file);
	return parent;
}

static bool is_below(pid_t pid, pid_t above)
{
	while (pid > 1 && pid != above)
		pid = parent_of(pid);
	return pid == above;
}

/* nginx and all that it has started. */
static size_t list_processes(pid_t *pids, size_t max)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	size_t nr = 0;
	pid_t pid;

	REQUIRE(dir);
	while ((entry = readdir(dir))) {
		pid = atoi(entry->d_name);
		if (pid > 1 && nr < max && is_below(pid, at.pid))
			pids[nr++] = pid;
	}
	closedir(dir);
	return nr;
}

static pid_t worker(void)
{
	pid_t pids[32];
	size_t i, nr = list_processes(pids, 32);

	for (i = 0; i < nr; i++)
		if (pids[i] != at.pid)
			return pids[i];
	return 0;
}

static void look(const char *stage, size_t at_least)
{
	static struct image image;
	size_t i, n, nr, found = 0;
	pid_t pids[32];

	nr = list_processes(pids, 32);
	REQUIRE(nr >= at_least);
	for (n = 0; n < nr; n++) {
		REQUIRE(take_image(&image, pids[n], NULL, 0));
		scan_image(&image);
		drop_image(&image);
		for (i = 0; i < nr_needles; i++) {
			if (!needles[i].found)
				continue;
			found++;
			at.ever[i] = true;
			if (at.ours)
				printf("%s of %d\n", needles[i].name, (int)pids[n]);
		}
	}
	printf("%s, %s: %zu of %zu in %zu processes\n", at.ours ? "epk" : "stock", stage, found,
	       nr_needles * nr, nr);
	fflush(stdout);
	if (at.ours)
		REQUIRE_EQ(found, 0);
}

static void start_nginx(void)
{
	char conf[128];

	at.pid = fork();
	REQUIRE(at.pid >= 0);
	if (!at.pid) {
		/* Whatever happens here, nobody waits for its output. */
		dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		dup2(STDOUT_FILENO, STDERR_FILENO);
		snprintf(conf, sizeof(conf), "%s/openssl.cnf", at.dir);
		if (at.ours)
			setenv("OPENSSL_CONF", conf, 1);
		else
			unsetenv("OPENSSL_CONF");
		snprintf(conf, sizeof(conf), "%s/nginx.conf", at.dir);
		execl(nginx_bin, nginx_bin, "-p", at.dir, "-c", conf, "-e", "log", NULL);
		_exit(127);
	}
}

static void await_other_worker(pid_t old)
{
	int tries;
	pid_t now;

	for (tries = 0; tries < 400; tries++) {
		now = worker();
		if (now && now != old && kill(old, 0))
			return;
		usleep(25000);
	}
	FAIL("here nothing comes by");
}

static void stop_nginx(void)
{
	int status;

	kill(at.pid, SIGQUIT);
	REQUIRE_EQ(waitpid(at.pid, &status, 0), at.pid);
	at.pid = 0;
	REQUIRE_EQ(status, 0);
}

static void live_through(bool ours)
{
	pid_t old;

	memset(at.ever, 0, sizeof(at.ever));
	at.ours = ours;
	start_nginx();
	close(connect_to());
	look("started", 2);
	use_all();
	look("used", 2);
	old = worker();
	kill(at.pid, SIGHUP);
	await_other_worker(old);
	look("reloaded", 2);
	use_all();
	look("used", 2);
	old = worker();
	kill(old, SIGKILL);
	await_other_worker(old);
	use_all();
	look("a worker killed", 2);
	stop_nginx();
}

static void no_process_has_a_key(void **state)
{
	(void)state;
	live_through(true);
}

static void stock_processes_have_it(void **state)
{
	size_t i;

	(void)state;
	live_through(false);
	for (i = 0; i < nr_needles; i++)
		if (!is_transient(&needles[i]) && strcmp(needles[i].name, TEXT))
			REQUIRE(at.ever[i]);
}

/* ---- bad key files */

static void spoil_key_file(void)
{
	char command[512];

	snprintf(command, sizeof(command), "cd %s && { sed '/PRIVATE/,$d' rsa.%s; openssl genpkey "
		 "-quiet -algorithm RSA -aes128 -pass pass:secret; } >bad && mv bad rsa.%s", at.dir,
		 at.combined ? "crt" : "key", at.combined ? "crt" : "key");
	REQUIRE_EQ(system(command), 0);
}

static bool log_says(const char *what)
{
	char path[128], line[1024];
	bool says = false;
	FILE *log;

	snprintf(path, sizeof(path), "%s/log", at.dir);
	log = fopen(path, "r");
	while (log && fgets(line, sizeof(line), log))
		says |= strstr(line, "emerg") && strstr(line, what);
	if (log)
		fclose(log);
	return says;
}

/* The workers that there are go on, with the keys that they have. */
static void a_reload_with_a_bad_key_changes_nothing(void **state)
{
	pid_t before;
	int tries;

	(void)state;
	at.ours = true;
	start_nginx();
	use_all();
	before = worker();
	spoil_key_file();
	kill(at.pid, SIGHUP);
	for (tries = 0; tries < 400 && !log_says("it is encrypted"); tries++)
		usleep(25000);
	REQUIRE(tries < 400);
	use_all();
	REQUIRE_EQ(worker(), before);
	look("reloaded with a bad key", 2);
	stop_nginx();
}

/* A key that cannot be in a domain is known when nginx reads it. */
static void bad_key_files_are_named(void **state)
{
	char command[512], line[512];
	bool named = false;
	FILE *out;

	(void)state;
	spoil_key_file();
	snprintf(command, sizeof(command),
		 "OPENSSL_CONF=%s/openssl.cnf %s -t -p %s -c nginx.conf -e stderr 2>&1", at.dir,
		 nginx_bin, at.dir);
	out = popen(command, "r");
	REQUIRE(out);
	while (fgets(line, sizeof(line), out))
		named |= strstr(line, "emerg") && strstr(line, "it is encrypted");
	REQUIRE_NE(pclose(out), 0);
	REQUIRE(named);
}

static bool with_combined_files;

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	at.combined = with_combined_files;
	strcpy(at.dir, "/tmp/epk-nginx-test-XXXXXX");
	REQUIRE(mkdtemp(at.dir));
	at.port = free_port();
	write_keys();
	write_config();
	write_openssl_cnf();
	return 0;
}

static int teardown(void **state)
{
	char command[128];
	pid_t pids[32];
	size_t nr = at.pid > 0 ? list_processes(pids, 32) : 0;

	(void)state;
	while (nr)
		kill(pids[--nr], SIGKILL);
	snprintf(command, sizeof(command), "rm -rf %s", at.dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_processes_have_it),
		cmocka_unit_test(no_process_has_a_key),
		cmocka_unit_test(a_reload_with_a_bad_key_changes_nothing),
		cmocka_unit_test(bad_key_files_are_named),
	};

	nginx_bin = getenv("NGINX_BIN") ? getenv("NGINX_BIN") : "/usr/sbin/nginx";
	if (access(nginx_bin, X_OK)) {
		printf("SKIP provider_nginx: no nginx at %s\n", nginx_bin);
		return 0;
	}
	if (cmocka_run_group_tests_name("provider_nginx", tests, setup, teardown))
		return 1;
	with_combined_files = true;
	return cmocka_run_group_tests_name("provider_nginx, certificates and keys in one file", tests,
					   setup, teardown);
}
