/* SPDX-License-Identifier: MIT
 *
 * moebius-test-backend - whether a backend computes what the reference backend does.
 *
 *   moebius-test-backend [--only PATTERN] [--programs N] BACKEND
 *
 * BACKEND is a name as for mb_open: one of the library's, or one whose moebius-NAME.so lies in a folder of
 * MB_BACKEND_PATH. Each op of the op table, and each op with a shape of its own, runs in float32 and float64,
 * on odd, broadcast, strided and empty operands, with derivatives up to the third order, twice, and with new
 * data (tests/kit/check.h says what is compared); then N random programs of each kind (default 30),
 * training steps of which each allocation fails in turn, random numbers, and what is no number. Prints a line
 * for each case that fails, and as its last line "N passed, N failed"; exits 1 if any failed, 2 if the
 * backend does not open. PATTERN, such as 'op?*', chooses cases by name.
 */
#include "support.h"

static const char usage[] = "usage: moebius-test-backend [--only PATTERN] [--programs N] BACKEND\n";

static bool read_arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--only") && i + 1 < argc)
            run.only = argv[++i];
        else if (!strcmp(argv[i], "--programs") && i + 1 < argc)
            run.programs = atoi(argv[++i]);
        else if (argv[i][0] == '-' || run.backend)
            return false;
        else
            run.backend = argv[i];
    return run.backend != NULL;
}

/* Whether the device that this name opens has float64; one that is not listed is taken to have it. */
static bool has_float64(void)
{
    enum { MOST = 32 };
    mb_device devices[MOST];
    int count = mb_devices(devices, MOST, NULL);
    size_t n = strcspn(run.backend, ":");
    for (int i = 0; i < count && i < MOST; i++)
        if (!strncmp(devices[i].backend, run.backend, n) && strcspn(devices[i].backend, ":") == n)
            return devices[i].float64;
    return true;
}

int main(int argc, char **argv)
{
    if (!read_arguments(argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    mb_close(open_as(run.backend, NULL, 0));
    run.float64 = has_float64();
    elementwise_cases();
    dtype_cases();
    op_cases();
    custom_cases();
    program_cases();
    training_cases();
    if (run.only && !run.passed && !run.failed) {
        fprintf(stderr, "no case matches %s\n", run.only);
        return 2;
    }
    printf("%d passed, %d failed\n", run.passed, run.failed);
    return run.failed > 0 || run.passed == 0;
}
