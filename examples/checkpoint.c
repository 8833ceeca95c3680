/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c - a training and its measurements as one file, which is replaced as a whole: no measurement is
 * lost or there twice, whenever the process ends. */
#include <stdlib.h>

#include "checkpoint.h"

enum { KEY = 24 };

void stop_at_error(const mb_context *mb)
{
    if (mb_error(mb) != MB_OK)
        die("%s", mb_message(mb));
}

/* "step value step value ...", from which the same bits are read; the caller frees it. */
static char *text_of(const series *s)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    for (int i = 0; f && i < s->n; i++)
        fprintf(f, "%.17g %.17g ", s->step[i], s->value[i]);
    if (!f || fclose(f) != 0)
        die("out of memory");
    return text;
}

static void read_text(series *s, const char *text, const char *path, const char *key)
{
    series_free(s);
    for (char *end; text && *text; text = end + 1) {
        double step = strtod(text, &end), value;
        bool whole = end != text && *end == ' ';
        text = end;
        value = strtod(text, &end);
        if (!whole || end == text || *end != ' ')
            die("%s: '%s' in its metadata is no list of steps and values", path, key);
        series_add(s, step, value);
    }
    if (!text)
        die("%s: no '%s' in its metadata", path, key);
}

void checkpoint_save(mb_context *mb, const mb_optimizer *opt, const char *path, series *const *told, int n)
{
    char(*keys)[KEY] = calloc((size_t)n + 1, sizeof *keys);
    const char **metadata = calloc(2 * (size_t)n + 1, sizeof *metadata);
    if (!keys || !metadata)
        die("out of memory");
    for (int i = 0; i < n; i++) {
        snprintf(keys[i], KEY, "series.%d", i);
        metadata[2 * i] = keys[i];
        metadata[2 * i + 1] = text_of(told[i]);
    }
    mb_optimizer_save_with(opt, path, metadata);
    stop_at_error(mb);
    for (int i = 0; i < n; i++)
        free((char *)metadata[2 * i + 1]);
    free(metadata);
    free(keys);
}

void checkpoint_load(mb_context *mb, mb_optimizer *opt, const char *path, series *const *told, int n)
{
    mb_safetensors *file = mb_safetensors_open(mb, path);
    stop_at_error(mb);
    for (int i = 0; i < n; i++) {
        char key[KEY];
        snprintf(key, sizeof key, "series.%d", i);
        read_text(told[i], mb_safetensors_metadata(file, key), path, key);
    }
    mb_safetensors_close(file);
    mb_optimizer_load(opt, path);
    stop_at_error(mb);
}

static void save(const training *t)
{
    if (t->path)
        checkpoint_save(t->mb, t->optimizer, t->path, t->told, t->told_count);
}

bool training_run(const training *t, void (*step)(void *user, int64_t number), void *user)
{
    if (t->resumed && t->path && file_exists(t->path))
        checkpoint_load(t->mb, t->optimizer, t->path, t->told, t->told_count);
    int64_t done = mb_optimizer_steps(t->optimizer), first = done;
    if (done > t->steps)
        die("%s: %lld steps of %lld", t->path, (long long)done, (long long)t->steps);
    jobs_advance(done * t->units);
    for (; done < t->steps && !stop_wanted() && mb_error(t->mb) == MB_OK; done++) {
        step(user, done);
        if ((done + 1) % t->save_every == 0 && done + 1 < t->steps)
            save(t);
        jobs_advance(t->units);
    }
    stop_at_error(t->mb);
    if (done > first)
        save(t);
    return done == t->steps;
}
