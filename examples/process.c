/* SPDX-License-Identifier: MIT
 *
 * process.c - a program's name, clock, standard streams, and the wish to stop it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

static const char *name = "example";

const char *program_name(void)
{
    return name;
}

_Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- standard streams ---- */

/* A descriptor that is closed at the start would be given to the next file that is opened, and what is meant
 * for the stream would land in it. Opened the wrong way round, so that its use is an error as it was. */
static void occupy(int stream)
{
    if (fcntl(stream, F_GETFD) != -1 || errno != EBADF)
        return;
    int fd = open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (fd != stream)
        exit(1); /* there is nowhere to say so */
}

void process_begin(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    name = slash ? slash + 1 : argc > 0 ? argv[0] : name;
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        occupy(stream);
}

int process_end(int status)
{
    errno = 0;
    bool failed = ferror(stdout) != 0; /* of an earlier write, whose errno is gone */
    if (fflush(stdout) == 0 && !failed)
        return status;
    fprintf(stderr, "%s: the standard output could not be written%s%s\n", name, errno ? ": " : "",
            errno ? strerror(errno) : "");
    return 1;
}

/* ---- stopping ---- */

static volatile sig_atomic_t stops;

static void on_stop(int signal_number)
{
    (void)signal_number;
    if (stops++)
        _exit(130);
}

void stop_install(void)
{
    struct sigaction a = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an error of write, and so told */
    signal(SIGXFSZ, SIG_IGN); /* so is a file above the limit */
}

bool stop_wanted(void)
{
    return stops != 0;
}
