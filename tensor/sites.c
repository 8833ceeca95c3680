/* SPDX-License-Identifier: MIT
 * sites.c - the site of the call that is being recorded, and copies of sites that were made at run time. */
#include <xxhash.h>

#include "tensor/internal.h"

mb_site mb_site_begin(mb_context *ctx, const char *site)
{
    if (!ctx || !mb__right_thread(ctx, site))
        return (mb_site){NULL, NULL};
    mb_site s = {ctx, ctx->site};
    if (!ctx->site)
        ctx->site = site ? site : "(no site)";
    return s;
}

void mb_site_end(const mb_site *site)
{
    if (site && site->ctx)
        site->ctx->site = site->outer;
}

/* ---- interned sites: open addressing, at most half full ---- */

static bool grow_sites(mb_context *ctx)
{
    uint32_t capacity = ctx->site_capacity ? 2 * ctx->site_capacity : 64;
    char **sites = mb__alloc(ctx, capacity * sizeof *sites);
    if (!sites)
        return false;
    for (uint32_t i = 0; i < ctx->site_capacity; i++) {
        if (!ctx->sites[i])
            continue;
        uint64_t h = XXH3_64bits(ctx->sites[i], strlen(ctx->sites[i]));
        while (sites[h % capacity])
            h++;
        sites[h % capacity] = ctx->sites[i];
    }
    mb__free(ctx, ctx->sites, ctx->site_capacity * sizeof *sites);
    ctx->sites = sites;
    ctx->site_capacity = capacity;
    return true;
}

const char *mb_intern_site(mb_context *ctx, const char *site)
{
    if (!ctx || !site || !mb__right_thread(ctx, "mb_intern_site") ||
        (2 * ctx->site_count >= ctx->site_capacity && !grow_sites(ctx)))
        return NULL;
    size_t length = strlen(site);
    uint64_t h = XXH3_64bits(site, length);
    for (; ctx->sites[h % ctx->site_capacity]; h++)
        if (!strcmp(ctx->sites[h % ctx->site_capacity], site))
            return ctx->sites[h % ctx->site_capacity];
    char *copy = mb__alloc(ctx, length + 1);
    if (!copy)
        return NULL;
    ctx->sites[h % ctx->site_capacity] = memcpy(copy, site, length + 1);
    ctx->site_count++;
    return copy;
}
