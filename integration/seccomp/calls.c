/* Makes system calls and prints what each gave, without any other call but write and exit_group; with no library, so
 * that a filter judges nothing else. Static.
 *
 *   calls WAY NUMBER ARGUMENT... [, WAY NUMBER ARGUMENT...]...      WAY: 64, 32 (int 0x80) or quiet (exits with the
 *                                                                  result's low byte, prints nothing)
 */
typedef long word;

static word call64(word number, const word *a)
{
	word result;
	register word r10 __asm__("r10") = a[3];
	register word r8 __asm__("r8") = a[4];
	register word r9 __asm__("r9") = a[5];
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* The sixth argument is not needed. */
static word call32(word number, const word *a)
{
	word result;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
			 : "r8", "r9", "r10", "r11", "memory");
	return (int)result;
}

/* The value of a decimal or 0x number. */
static word value(const char *text)
{
	unsigned long total = 0, base = 10;
	int minus = *text == '-';
	text += minus;
	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	for (; *text; text++)
		total = total * base + (*text <= '9' ? *text - '0' : (*text | 32) - 'a' + 10);
	return minus ? -total : total;
}

static void print(word number)
{
	char text[24], *at = text + sizeof(text);
	unsigned long left = number < 0 ? -(unsigned long)number : (unsigned long)number;
	*--at = '\n';
	do {
		*--at = '0' + left % 10;
		left /= 10;
	} while (left);
	if (number < 0)
		*--at = '-';
	call64(1, (word[6]){ 1, (word)at, text + sizeof(text) - at });
}

__attribute__((used)) void begin(word *stack)
{
	word count = stack[0], status = 0;
	char **words = (char **)(stack + 1);
	for (word at = 1; at + 1 < count;) {
		char way = words[at][0];
		word number = value(words[at + 1]), arguments[6] = { 0 };
		at += 2;
		for (int n = 0; at < count && words[at][0] != ','; at++)
			if (n < 6)
				arguments[n++] = value(words[at]);
		at++;
		word result = way == '3' ? call32(number, arguments) : call64(number, arguments);
		if (way == 'q')
			status = result & 255;
		else
			print(result);
	}
	call64(231, (word[6]){ status });
	__builtin_unreachable();
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
