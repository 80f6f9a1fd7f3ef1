/* tables: the tables of utf8proc and of PCRE2's Unicode data, which are a third of the wasm if they
 * lie in it as they are: unpacked when it starts, before anything can ask for them. */
#include "tables_gen.h"
#include "web/unpack_internal.h"

/* The names and sizes that the libraries have for them; what they take for constant is, by then. */
#define X(name, size, width) _Alignas(16) unsigned char name[size];
PACKED_TABLES(X)
#undef X

__attribute__((constructor)) static void unpack_all(void) {
    const unsigned char *from = packed_tables;
#define X(name, size, width) from = unpack_table(from, name, size, width);
    PACKED_TABLES(X)
#undef X
    (void)from;
}
