/* What libseccomp makes of a profile, as runc uses it; see oracle.rs. Requests on stdin, one word list a line:
 *
 *   profile TREE TIMES     TREE 1: runc's layout for more than 32 rules (SCMP_FLTATR_CTL_OPTIMIZE 2)
 *   own ARCH               the architecture of the kernel
 *   default ACTION DATA
 *   arch ARCH
 *   rule ACTION DATA NAME [ARGUMENT OPERATOR VALUE VALUE_TWO]...
 *   end                    answer: "program LENGTH NANOSECONDS" (median of TIMES) and a line for each instruction,
 *                          or "refused ERRNO RULE"; before that a line "newest ARCH NUMBER" for each architecture with
 *                          the largest number that the profile names, as runc's answer to newer calls needs it
 *   number ARCH NUMBER     answer: the name, or "-"
 *   arg words are those of config.json
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST_RULES 20000

struct rule {
	uint32_t action;
	char name[64];
	unsigned count;
	struct scmp_arg_cmp args[12];
};

static struct rule rules[MOST_RULES];
static unsigned rule_count, arch_count;
static uint32_t archs[32], own, default_action;
static char arch_words[32][32], own_word[32];
static int tree, times;

static void die(const char *what, const char *word)
{
	fprintf(stderr, "oracle: %s %s\n", what, word);
	exit(1);
}

static uint32_t arch_of(const char *word)
{
	static const struct { const char *word, *name; } names[] = {
		{ "SCMP_ARCH_X86_64", "x86_64" }, { "SCMP_ARCH_X86", "x86" }, { "SCMP_ARCH_X32", "x32" },
		{ "SCMP_ARCH_AARCH64", "aarch64" }, { "SCMP_ARCH_ARM", "arm" },
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(word, names[i].word))
			return seccomp_arch_resolve_name(names[i].name);
	die("no architecture:", word);
	return 0;
}

static uint32_t action_of(const char *word, unsigned data)
{
	if (!strcmp(word, "SCMP_ACT_KILL") || !strcmp(word, "SCMP_ACT_KILL_THREAD"))
		return SCMP_ACT_KILL_THREAD;
	if (!strcmp(word, "SCMP_ACT_KILL_PROCESS"))
		return SCMP_ACT_KILL_PROCESS;
	if (!strcmp(word, "SCMP_ACT_TRAP"))
		return SCMP_ACT_TRAP;
	if (!strcmp(word, "SCMP_ACT_ERRNO"))
		return SCMP_ACT_ERRNO(data);
	if (!strcmp(word, "SCMP_ACT_TRACE"))
		return SCMP_ACT_TRACE(data);
	if (!strcmp(word, "SCMP_ACT_ALLOW"))
		return SCMP_ACT_ALLOW;
	if (!strcmp(word, "SCMP_ACT_LOG"))
		return SCMP_ACT_LOG;
	if (!strcmp(word, "SCMP_ACT_NOTIFY"))
		return SCMP_ACT_NOTIFY;
	die("no action:", word);
	return 0;
}

static enum scmp_compare operator_of(const char *word)
{
	static const char *words[] = { "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ" };
	for (int i = 0; i < 7; i++)
		if (!strncmp(word, "SCMP_CMP_", 9) && !strcmp(word + 9, words[i]))
			return SCMP_CMP_NE + i;
	die("no operator:", word);
	return 0;
}

static void read_rule(void)
{
	struct rule *rule = &rules[rule_count];
	char *action = strtok(NULL, " "), *data = strtok(NULL, " "), *name = strtok(NULL, " "), *word;
	if (!name || rule_count == MOST_RULES || strlen(name) >= sizeof(rule->name))
		die("bad rule", name ? name : "");
	rule->action = action_of(action, atoi(data));
	strcpy(rule->name, name);
	for (rule->count = 0; (word = strtok(NULL, " ")); rule->count++) {
		if (rule->count == 12)
			die("too many arguments:", name);
		char *op = strtok(NULL, " "), *a = strtok(NULL, " "), *b = strtok(NULL, " ");
		struct scmp_arg_cmp *arg = &rule->args[rule->count];
		arg->arg = atoi(word);
		arg->op = operator_of(op);
		arg->datum_a = strtoull(a, NULL, 0);
		arg->datum_b = strtoull(b, NULL, 0);
	}
	rule_count++;
}

/* As runc: a rule that says what the default says and a name that is unknown are left out; two comparisons of one
 * argument make rules of their own of all of them. */
static int add(scmp_filter_ctx filter, const struct rule *rule)
{
	int number = seccomp_syscall_resolve_name(rule->name), twice = 0, rc = 0;
	if (rule->action == default_action || number == __NR_SCMP_ERROR)
		return 0;
	for (unsigned i = 0; i < rule->count; i++)
		for (unsigned j = 0; j < i; j++)
			twice |= rule->args[i].arg == rule->args[j].arg;
	if (!twice)
		return seccomp_rule_add_array(filter, rule->action, number, rule->count, rule->args);
	for (unsigned i = 0; i < rule->count && !rc; i++)
		rc = seccomp_rule_add_array(filter, rule->action, number, 1, &rule->args[i]);
	return rc;
}

/* The length of the program, or a negative errno with the rule. */
static int compile(struct sock_filter *program, size_t most, unsigned *at)
{
	scmp_filter_ctx filter = seccomp_init(default_action);
	int rc = 0, file;
	if (!filter)
		return -ENOMEM;
	if (own != seccomp_arch_native()) {
		rc = seccomp_arch_add(filter, own);
		if (!rc)
			rc = seccomp_arch_remove(filter, seccomp_arch_native());
	}
	for (unsigned i = 0; i < arch_count && !rc; i++) {
		rc = seccomp_arch_add(filter, archs[i]);
		if (rc == -EEXIST)
			rc = 0;
	}
	if (tree && !rc)
		rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!rc)
		rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	for (*at = 0; *at < rule_count && !rc; (*at)++)
		rc = add(filter, &rules[*at]);
	file = memfd_create("program", MFD_CLOEXEC);
	if (!rc)
		rc = seccomp_export_bpf(filter, file);
	if (!rc)
		rc = pread(file, program, most * sizeof(*program), 0) / sizeof(*program);
	close(file);
	seccomp_release(filter);
	return rc;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* As runc, which does not count pseudo numbers. */
static void newest(const char *word, uint32_t arch)
{
	int largest = 0;
	for (unsigned i = 0; i < rule_count; i++) {
		int number = seccomp_syscall_resolve_name_arch(arch, rules[i].name);
		if (number > largest)
			largest = number;
	}
	printf("newest %s %d\n", word, largest);
}

static void answer(void)
{
	static struct sock_filter program[65536];
	uint64_t took[1001];
	unsigned at = 0;
	int length = 0;
	if (times < 1 || times > 1001)
		die("bad number of times", "");
	for (int i = 0; i < times; i++) {
		struct timespec since, now;
		clock_gettime(CLOCK_MONOTONIC, &since);
		length = compile(program, 65536, &at);
		clock_gettime(CLOCK_MONOTONIC, &now);
		took[i] = (now.tv_sec - since.tv_sec) * 1000000000ull + now.tv_nsec - since.tv_nsec;
	}
	newest(own_word, own);
	for (unsigned i = 0; i < arch_count; i++)
		newest(arch_words[i], archs[i]);
	if (length < 0) {
		printf("refused %d %u\n", -length, at ? at - 1 : 0);
		return;
	}
	qsort(took, times, sizeof(*took), ascending);
	printf("program %d %" PRIu64 "\n", length, took[times / 2]);
	for (int i = 0; i < length; i++)
		printf("%u %u %u %u\n", program[i].code, program[i].jt, program[i].jf, program[i].k);
}

int main(void)
{
	static char line[4096];
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		char *word = strtok(line, " ");
		if (!word)
			continue;
		if (!strcmp(word, "profile")) {
			rule_count = arch_count = 0;
			tree = atoi(strtok(NULL, " "));
			times = atoi(strtok(NULL, " "));
		} else if (!strcmp(word, "own")) {
			snprintf(own_word, sizeof(own_word), "%s", strtok(NULL, " "));
			own = arch_of(own_word);
		} else if (!strcmp(word, "default")) {
			char *action = strtok(NULL, " ");
			default_action = action_of(action, atoi(strtok(NULL, " ")));
		} else if (!strcmp(word, "arch")) {
			if (arch_count == 32)
				die("too many architectures", "");
			snprintf(arch_words[arch_count], sizeof(arch_words[0]), "%s", strtok(NULL, " "));
			archs[arch_count] = arch_of(arch_words[arch_count]);
			arch_count++;
		} else if (!strcmp(word, "rule")) {
			read_rule();
		} else if (!strcmp(word, "end")) {
			answer();
		} else if (!strcmp(word, "number")) {
			uint32_t arch = arch_of(strtok(NULL, " "));
			char *name = seccomp_syscall_resolve_num_arch(arch, strtol(strtok(NULL, " "), NULL, 0));
			printf("%s\n", name ? name : "-");
			free(name);
		} else {
			die("no request:", word);
		}
		if (!strcmp(word, "end") || !strcmp(word, "number"))
			fflush(stdout);
	}
	return 0;
}
