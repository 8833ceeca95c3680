/* SPDX-License-Identifier: MIT
 *
 * flags.c - one table says what a program can be told: it parses the command line, prints --help, and is
 * written to and compared with config.json. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static _Noreturn void usage(const char *name, const char *problem, const char *detail)
{
    fprintf(stderr, "%s: --%s: %s%s%s\n", program_name(), name, problem, detail ? " " : "",
            detail ? detail : "");
    fprintf(stderr, "%s: --help lists all flags\n", program_name());
    exit(2);
}

static void print_default(const flag *f)
{
    switch (f->type) {
    case FLAG_INT:
        printf("%lld", (long long)*(int64_t *)f->value);
        break;
    case FLAG_REAL:
        printf("%g", *(double *)f->value);
        break;
    case FLAG_BOOL:
        printf("%s", *(bool *)f->value ? "yes" : "no");
        break;
    case FLAG_TEXT:
    case FLAG_CHOICE:
        printf("%s", **(const char **)f->value ? *(const char **)f->value : "none");
        break;
    }
}

static _Noreturn void help(const char *about, const flag *flags, int n)
{
    static const char *const kinds[] = {"N", "X", "TEXT", "", ""};
    printf("%s\n\nusage: %s [--flag value | --flag=value]...\n\n", about, program_name());
    for (int i = 0; i < n; i++) {
        char left[128];
        const char *kind = flags[i].choices ? flags[i].choices : kinds[flags[i].type];
        snprintf(left, sizeof left, "--%s %s", flags[i].name, kind);
        printf("  %-28s%s%s (", left, strlen(left) > 27 ? "\n                              " : "",
               flags[i].help);
        print_default(&flags[i]);
        printf(")\n");
    }
    printf("  %-28s%s\n\nIn brackets: the default.\n", "--help", "print this");
    exit(process_end(0));
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; p; p = strchr(p, '|')) {
        p += *p == '|';
        if (n && strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == 0))
            return true;
    }
    return false;
}

static void set(const flag *f, const char *value)
{
    char *end = NULL, range[96];
    double number = 0;
    errno = 0;
    switch (f->type) {
    case FLAG_INT:
        *(int64_t *)f->value = strtoll(value, &end, 10);
        number = (double)*(int64_t *)f->value;
        break;
    case FLAG_REAL:
        number = *(double *)f->value = strtod(value, &end);
        break;
    case FLAG_TEXT:
        *(const char **)f->value = value;
        return;
    case FLAG_CHOICE:
        if (!is_choice(f->choices, value))
            usage(f->name, "must be one of", f->choices);
        *(const char **)f->value = value;
        return;
    case FLAG_BOOL:
        if (!is_choice("yes|no|true|false|1|0", value))
            usage(f->name, "must be yes or no", NULL);
        *(bool *)f->value = strchr("yt1", *value) != NULL;
        return;
    }
    if (end == value || *end || errno || !isfinite(number))
        usage(f->name, f->type == FLAG_INT ? "not a whole number:" : "not a number:", value);
    snprintf(range, sizeof range, "from %.10g to %.10g", f->least, f->most);
    if (f->least < f->most && (number < f->least || number > f->most))
        usage(f->name, "must be", range);
}

void flags_parse(int argc, char **argv, const char *about, const flag *flags, int n)
{
    for (int a = 1; a < argc; a++) {
        const char *name = argv[a] + 2;
        if (strcmp(argv[a], "--help") == 0 || strcmp(argv[a], "-h") == 0)
            help(about, flags, n);
        if (strncmp(argv[a], "--", 2) != 0) {
            fprintf(stderr, "%s: unexpected argument '%s'\n%s: --help lists all flags\n", program_name(),
                    argv[a], program_name());
            exit(2);
        }
        size_t length = strcspn(name, "=");
        int i = 0;
        while (i < n && (strncmp(flags[i].name, name, length) != 0 || flags[i].name[length]))
            i++;
        if (i == n)
            usage(name, "unknown flag", NULL);
        if (name[length])
            set(&flags[i], name + length + 1);
        else if (flags[i].type == FLAG_BOOL)
            *(bool *)flags[i].value = true;
        else if (a + 1 == argc)
            usage(name, "wants a value", NULL);
        else
            set(&flags[i], argv[++a]);
    }
}

bool flags_given(int argc, char **argv, const char *name)
{
    for (int a = 1; a < argc; a++)
        if (strncmp(argv[a], "--", 2) == 0 && strcmp(argv[a] + 2, name) == 0)
            return true;
    return false;
}

static json_t *to_json(const flag *f)
{
    switch (f->type) {
    case FLAG_INT:
        return json_integer(*(int64_t *)f->value);
    case FLAG_REAL:
        return json_real(*(double *)f->value);
    case FLAG_BOOL:
        return json_boolean(*(bool *)f->value);
    default:
        return json_string(*(const char **)f->value);
    }
}

void flags_save(const char *path, const flag *flags, int n)
{
    json_t *root = json_object();
    for (int i = 0; i < n; i++)
        json_object_set_new(root, flags[i].name, to_json(&flags[i]));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!text)
        die("out of memory");
    write_file(path, text);
    free(text);
}

int flags_compare(const char *path, const flag *flags, int n)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        die("%s: %s", path, error.text);
    int differing = 0;
    for (int i = 0; i < n; i++) {
        if (flags[i].free)
            continue;
        json_t *here = to_json(&flags[i]), *there = json_object_get(root, flags[i].name);
        if (!there || !json_equal(here, there)) {
            char *a = there ? json_dumps(there, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10)) : NULL,
                 *b = json_dumps(here, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
            fprintf(stderr, "%s: --%s was %s, and is %s now\n", program_name(), flags[i].name,
                    a ? a : "not there", b ? b : "?");
            free(a);
            free(b);
            differing++;
        }
        json_decref(here);
    }
    json_decref(root);
    return differing;
}
