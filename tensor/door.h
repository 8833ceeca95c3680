/* SPDX-License-Identifier: MIT
 *
 * door.h - how a public function begins. A context belongs to one thread of one process, and whoever calls
 * from elsewhere is refused before anything of the context's is read or written but who owns it: by
 * mb__enter, where operands are checked, or by mb__enter_context; by MB_DOOR, in functions that do something
 * before; and by mb__right_thread, in those without a call site.
 */
#ifndef MB_DOOR_H
#define MB_DOOR_H

#include "tensor/tensor.h"

/* MB_SITE, and return `refused` to a caller from elsewhere. context may be NULL, which refuses nobody. */
#define MB_DOOR(context, site, refused)                                                                      \
    MB_SITE(context, site);                                                                                  \
    if ((context) && !mb_site_here_.ctx)                                                                     \
    return refused

/* Whether the context belongs to this thread and process. If not, the call is noted for the owner, by its
 * site or name if that is not NULL: text that lives as long as the context. */
bool mb__right_thread(mb_context *ctx, const char *site);

#endif
