/* SPDX-License-Identifier: MIT
 * clock.h - a clock that only goes forward, in seconds. */
#ifndef MB_CLOCK_H
#define MB_CLOCK_H

double mb__now(void);

#endif
