/* unpack_internal: how large tables of Unicode lie in the wasm (tools/pack-tables.c writes them).
 *
 * A table of `size` bytes with rows of `width` is stored column after column, each byte of a row
 * being one, as what it is: repeats. A byte below 128 stands before that many bytes, and one more,
 * to take as they are; others before the byte to repeat, 3 times and once more for each step above
 * 128; after 255 come two bytes, the lower first, of further repeats. */
#ifndef WEB_UNPACK_INTERNAL_H
#define WEB_UNPACK_INTERNAL_H

#include <stddef.h>

enum { UNPACK_REPEAT = 128, UNPACK_LONG = 255, UNPACK_LEAST = 3 };

/* Writes to[0..size) from the bytes at `from`; returns what follows them. */
static inline const unsigned char *unpack_table(const unsigned char *from, unsigned char *to,
                                                size_t size, size_t width) {
    size_t plain = 0, repeats = 0;
    unsigned char repeated = 0;
    for (size_t column = 0; column < width; column++) {
        for (size_t at = column; at < size; at += width) {
            if (plain == 0 && repeats == 0) {
                const unsigned char first = *from++;
                if (first < UNPACK_REPEAT) {
                    plain = (size_t)first + 1;
                } else {
                    repeats = (size_t)first - UNPACK_REPEAT + UNPACK_LEAST;
                    if (first == UNPACK_LONG) {
                        repeats += (size_t)from[0] | (size_t)from[1] << 8;
                        from += 2;
                    }
                    repeated = *from++;
                }
            }
            if (plain > 0) {
                to[at] = *from++;
                plain--;
            } else {
                to[at] = repeated;
                repeats--;
            }
        }
    }
    return from;
}

#endif
