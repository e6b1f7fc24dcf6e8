/* unit - unit tests of sse.c, which is included whole so that its static functions can be called.
 *
 *     make build/unit && build/unit
 *
 * Prints a line for each test, what failed with its place, and counts at the end. */

#define _DEFAULT_SOURCE /* mmap with MAP_ANONYMOUS, for pages that must not be touched */
#define SSE_NO_MAIN
#define SSE_ROOM_MS 1 /* the users that are in use here stay so */
#include "../sse.c"
#include <locale.h>
#include <sys/mman.h>

static int unit_failures;

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            unit_failures++;                                                                       \
            fprintf(stderr, "not ok: %s:%d %s\n", __FILE__, __LINE__, #condition);                 \
        }                                                                                          \
    } while (0)

#include "parse.h"
#include "unit-http.h"
#include "unit-store.h"
#include "unit-token.h"

struct test {
    const char *name;
    void (*run)(void);
};

#define ENTRY(function) {#function, function},

static const struct test TESTS[] = {HTTP_TESTS(ENTRY) STORE_TESTS(ENTRY) TOKEN_TESTS(ENTRY)};

int main(void)
{
    int passed = 0, failed = 0;
    for (size_t i = 0; i < sizeof TESTS / sizeof *TESTS; i++) {
        int before = unit_failures;
        TESTS[i].run();
        bool good = unit_failures == before;
        printf("%s %s\n", good ? "ok" : "FAILED", TESTS[i].name);
        fflush(stdout);
        passed += good;
        failed += !good;
    }
    printf("unit: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
