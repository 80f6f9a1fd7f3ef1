/* pack-tables: writes the Unicode tables of utf8proc and PCRE2 as src/web/tables.c unpacks them.
 *
 *   pack-tables >tables_gen.h
 *
 * Compiled with the tables themselves. What it writes it has unpacked again and compared. */
#include "web/unpack_internal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pcre2_internal.h"
#include "utf8proc.h"

#include "pcre2_ucd.c"
#include "utf8proc_data.c"

enum { PLAIN_MOST = 128, RUN_MIN = 4, LINE = 24 };
enum { RUN_SHORT = UNPACK_LONG - 1 - UNPACK_REPEAT + UNPACK_LEAST, RUN_LONG = RUN_SHORT + 1 };

#define TABLE(name, table) \
    { name, table, sizeof(table), sizeof((table)[0]) }
static const struct {
    const char *name;
    const void *bytes;
    size_t size, width;
} tables[] = {
    TABLE("utf8proc_properties", utf8proc_properties),
    TABLE("utf8proc_stage1table", utf8proc_stage1table),
    TABLE("utf8proc_stage2table", utf8proc_stage2table),
    TABLE("utf8proc_sequences", utf8proc_sequences),
    TABLE("utf8proc_combinations", utf8proc_combinations),
    TABLE("_pcre2_ucd_records_8", PRIV(ucd_records)),
    TABLE("_pcre2_ucd_stage1_8", PRIV(ucd_stage1)),
    TABLE("_pcre2_ucd_stage2_8", PRIV(ucd_stage2)),
};
enum { N_TABLES = sizeof(tables) / sizeof(tables[0]) };

static void *take_memory(size_t n) {
    void *memory = malloc(n);
    if (memory == NULL) {
        fprintf(stderr, "pack-tables: no memory\n");
        exit(1);
    }
    return memory;
}

static unsigned char *add_plain(unsigned char *to, const unsigned char *from, size_t n) {
    while (n > 0) {
        const size_t some = n < PLAIN_MOST ? n : PLAIN_MOST;
        *to++ = (unsigned char)(some - 1);
        memcpy(to, from, some);
        to += some, from += some, n -= some;
    }
    return to;
}

static unsigned char *add_run(unsigned char *to, unsigned char byte, size_t n) {
    if (n < RUN_LONG) {
        *to++ = (unsigned char)(n - UNPACK_LEAST + UNPACK_REPEAT);
    } else {
        const size_t more = n - RUN_LONG;
        *to++ = UNPACK_LONG;
        *to++ = (unsigned char)more;
        *to++ = (unsigned char)(more >> 8);
    }
    *to++ = byte;
    return to;
}

/* Columns end to end, as unpack_internal.h says; at most twice the size. Returns the bytes. */
static size_t pack(const unsigned char *table, size_t size, size_t width, unsigned char *out) {
    unsigned char *columns = take_memory(size), *to = columns;
    for (size_t column = 0; column < width; column++) {
        for (size_t at = column; at < size; at += width)
            *to++ = table[at];
    }
    to = out;
    size_t plain = 0; /* where those begin that are not written yet */
    for (size_t i = 0; i < size;) {
        size_t n = 1;
        while (i + n < size && columns[i + n] == columns[i] && n < RUN_LONG + 0xffff)
            n++;
        if (n >= RUN_MIN) {
            to = add_run(add_plain(to, columns + plain, i - plain), columns[i], n);
            plain = i + n;
        }
        i += n;
    }
    to = add_plain(to, columns + plain, size - plain);
    free(columns);
    return (size_t)(to - out);
}

static bool comes_back(const unsigned char *packed, size_t n, int table) {
    unsigned char *again = take_memory(tables[table].size);
    const unsigned char *end = unpack_table(packed, again, tables[table].size, tables[table].width);
    const bool same =
        end == packed + n && memcmp(again, tables[table].bytes, tables[table].size) == 0;
    free(again);
    return same;
}

int main(void) {
    printf("/* Written by tools/pack-tables. */\n#define PACKED_TABLES(X)");
    for (int i = 0; i < N_TABLES; i++)
        printf(" \\\n    X(%s, %zu, %zu)", tables[i].name, tables[i].size, tables[i].width);
    printf("\n\nstatic const unsigned char packed_tables[] = {");
    for (int i = 0; i < N_TABLES; i++) {
        unsigned char *packed = take_memory(2 * tables[i].size + 2);
        const size_t n = pack(tables[i].bytes, tables[i].size, tables[i].width, packed);
        if (!comes_back(packed, n, i)) {
            fprintf(stderr, "pack-tables: %s does not come back as it was\n", tables[i].name);
            return 1;
        }
        printf("\n    /* %s: %zu bytes of %zu */", tables[i].name, n, tables[i].size);
        for (size_t k = 0; k < n; k++)
            printf("%s%d,", k % LINE == 0 ? "\n    " : "", packed[k]);
        free(packed);
    }
    printf("\n};\n");
    return fflush(stdout) == 0 ? 0 : 1;
}
