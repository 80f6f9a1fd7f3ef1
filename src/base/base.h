/* base: what every other layer stands on. Needs libc alone (and yyjson inside json.c).
 *
 * Errors, the log, memory, strings, growable buffers, JSON, files and a hash table. Nothing here
 * knows of models or GPUs. Conventions of the whole tree: a call that can fail returns bool or a
 * pointer and takes `dp_error *err` last (NULL is fine); the first message wins; callers may only
 * prefix it. Bytes from outside are checked where they enter; asserts are for our own mistakes. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "doppler.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_LEN(a)      (sizeof(a) / sizeof((a)[0]))
#define CHECK_RESULT      __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Ceilings of everything that grows with what comes from outside, in one place. */
enum {
    JSON_DEPTH_MAX = 64,                 /* nesting of a JSON document */
    JSON_BYTES_MAX = 256 * 1024 * 1024,  /* tokenizer.json of the largest vocabularies is ~40 MB */
    TEXT_BYTES_MAX = 1024 * 1024 * 1024, /* a prompt, a text for perplexity */
    NAME_BYTES_MAX = 65535,              /* a key or a tensor name */
    VOCAB_MAX = 1 << 20,                 /* tokens; the largest published vocabulary has 262,400 */
};

/* ---- integers ------------------------------------------------------------------------------ */

/* True and *out = a op b, or false on overflow. */
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}
static inline uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static inline uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}
/* ceil(a / b); b > 0 and a + b must not overflow. */
static inline uint32_t ceil_div(uint32_t a, uint32_t b) {
    return (a + b - 1) / b;
}
/* The least power of two that is not below n, at most 2^31; power_above(n / 2 + 1) is the largest
 * that is not above n. */
static inline uint32_t power_above(uint32_t n) {
    uint32_t power = 1;
    while (power < n) {
        power *= 2;
    }
    return power;
}
static inline uint64_t align_up(uint64_t n, uint64_t alignment) { /* a power of two */
    return (n + alignment - 1) & ~(alignment - 1);
}

/* ---- errors and log (report.c) ------------------------------------------------------------- */

/* Fills *err unless it holds an earlier failure. Always returns false, so that
 * `return err_set(err, DP_E_FORMAT, ...)` reads well. Newlines become spaces. */
bool err_set(dp_error *err, dp_status status, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts text in front of the message of a failed *err; nothing if err is NULL or DP_OK. Always
 * returns false. */
bool err_prefix(dp_error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Where messages go that are no errors. The zero value is silent. */
typedef struct {
    dp_log_fn *write; /* NULL: dropped */
    void *user;
} log_sink;

void log_line(const log_sink *log, dp_log_level level, const char *format, ...) PRINTF_LIKE(3, 4);

/* ---- memory (arena.c) ---------------------------------------------------------------------- */

/* The only ways to the C heap. NULL and DP_E_MEMORY ("out of memory: N bytes for WHAT") when it is
 * exhausted or n * size overflows; the memory is zeroed. mem_free(NULL) is fine. */
void *mem_new(size_t n, size_t size, const char *what, dp_error *err) CHECK_RESULT;
/* Like realloc for n * size bytes; the old block stays valid on failure; new bytes are not
 * zeroed. */
void *mem_resize(void *old, size_t n, size_t size, const char *what, dp_error *err) CHECK_RESULT;
void mem_free(void *memory);

/* Test hooks: allocation number `n` from now (1 = the next) and all later ones fail, 0 turns it
 * off; the count of allocations since the start. Process-wide. */
void mem_fail_from(uint64_t n);
uint64_t mem_count(void);

/* Bump allocator of one lifetime. Blocks are taken as needed; nothing in it is freed alone. */
typedef struct arena arena;
struct arena {
    struct arena_block *first; /* newest block */
    size_t used;               /* bytes of the newest block in use */
    size_t total;              /* bytes of all blocks */
};

/* An arena is ready when zeroed. arena_new: zeroed memory, 16-byte aligned. */
void *arena_new(arena *a, size_t n, size_t size, const char *what, dp_error *err) CHECK_RESULT;
/* Copies size bytes and a NUL behind them. */
char *arena_copy(arena *a, const void *bytes, size_t size, dp_error *err) CHECK_RESULT;
void arena_free(arena *a); /* everything; ready for use again */

/* ---- text (str.c) -------------------------------------------------------------------------- */

/* Bytes that somebody else owns; not NUL-terminated, any content. */
typedef struct {
    const char *data;
    size_t size;
} str;

#define STR(literal) ((str){ "" literal, sizeof(literal) - 1 })
/* Arguments of "%.*s", cut so that a message keeps room for the rest of its sentence. */
#define STR_ARG(s) (int)((s).size < 120 ? (s).size : 120), ((s).size > 0 ? (s).data : "")

str str_of(const char *s); /* NULL: empty */
bool str_equal(str a, str b);
bool str_is(str a, const char *b);
bool str_starts(str a, const char *prefix);
bool str_ends(str a, const char *suffix);
/* Whole text as a decimal number; false if empty, signed where unsigned is asked, out of range,
 * NaN, infinite or followed by anything. */
bool str_to_u64(str s, uint64_t *out);
bool str_to_i64(str s, int64_t *out);
bool str_to_f64(str s, double *out);

/* Growable bytes with a ceiling. Ready after buf_init; the first failure (ceiling, memory) sticks:
 * later calls do nothing and buf_ok reports it. `data` is always NUL-terminated once non-NULL. */
typedef struct {
    char *data;
    size_t size, capacity, ceiling;
    dp_status failed; /* DP_OK, DP_E_LIMIT or DP_E_MEMORY */
} buf;

void buf_init(buf *b, size_t ceiling);
void buf_free(buf *b);  /* and init again with the same ceiling */
void buf_reset(buf *b); /* empty and unfailed again; keeps the memory */
void buf_add(buf *b, const void *bytes, size_t size);
void buf_add_str(buf *b, str s);
void buf_printf(buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
/* False with DP_E_LIMIT or DP_E_MEMORY after a failure. */
bool buf_ok(const buf *b, const char *what, dp_error *err) CHECK_RESULT;

/* Length of the UTF-8 character that starts at s (RFC 3629: no overlong forms, no surrogates, at
 * most U+10FFFF): 1 to 4, 0 if invalid or s empty. *code may be NULL. */
size_t utf8_next(str s, uint32_t *code);
/* Writes `code` as UTF-8 into out[4], returns its length; `code` must be a scalar value. */
size_t utf8_put(char out[4], uint32_t code);
/* How many bytes at the end of s are the start of a UTF-8 character that is not complete yet
 * (0..3). */
size_t utf8_incomplete_tail(str s);

/* ---- JSON (json.c; RFC 8259 by yyjson behind our limits) ----------------------------------- */

typedef struct json json;             /* a parsed document */
typedef struct json_value json_value; /* a value inside it; NULL is "absent" to all accessors */

/* Parses a whole text. DP_E_FORMAT with line and column for bad syntax, invalid UTF-8, duplicate
 * keys, NaN or infinities; DP_E_LIMIT for nesting over JSON_DEPTH_MAX or size over JSON_BYTES_MAX.
 * `text` may go after the call. `name` prefixes messages. */
json *json_open(str text, const char *name, dp_error *err) CHECK_RESULT;
void json_close(json *doc);
const json_value *json_root(const json *doc);

bool json_is_object(const json_value *v);
bool json_is_array(const json_value *v);
bool json_is_string(const json_value *v);
bool json_is_null(const json_value *v); /* false if absent */
bool json_is_bool(const json_value *v);
bool json_is_number(const json_value *v);
bool json_is_real(const json_value *v); /* a number written with a point or an exponent */
size_t json_count(const json_value *v); /* members or elements; 0 for anything else */
/* NULL if absent or no object / no array; linear: use the iterator in loops. */
const json_value *json_get(const json_value *object, const char *key);
const json_value *json_at(const json_value *array, size_t i);
/* Typed reads: false if absent or of another type or, for integers, not exactly representable. */
bool json_string(const json_value *v, str *out); /* borrowed from the document */
bool json_bool(const json_value *v, bool *out);
bool json_u64(const json_value *v, uint64_t *out);
bool json_i64(const json_value *v, int64_t *out);
bool json_f64(const json_value *v, double *out);

/* for (json_iter it = json_each(v); json_next(&it);) it.key (objects) and it.value */
typedef struct {
    const json_value *value;
    str key;
    const json_value *container, *cursor;
    size_t left;
} json_iter;
json_iter json_each(const json_value *container);
bool json_next(json_iter *it);

/* Appends a JSON string literal with its quotes; invalid UTF-8 becomes U+FFFD. */
void json_add_string(buf *b, str s);
/* Appends the shortest decimal that reads back as `x` (f32 or f64), of whole numbers below 1e15 all
 * digits; null for NaN and infinities. */
void json_add_f32(buf *b, float x);
void json_add_f64(buf *b, double x);

/* Texts written member by member (json_write.c): the state of the object or array being written
 * follows from the last byte of the buffer. */
void json_item(buf *b);                 /* a comma unless first */
void json_key(buf *b, const char *key); /* json_item and "key": */
void json_text(buf *b, const char *key, str value);
void json_count_of(buf *b, const char *key, uint64_t value);
void json_real(buf *b, const char *key, double value);
void json_flag(buf *b, const char *key, bool value);
void json_add_value(buf *b, const json_value *v); /* as it was read, in one line */

/* ---- files (file.c; POSIX) ----------------------------------------------------------------- */

typedef struct file file; /* an open, read-only file */

/* DP_E_FILE with the path and the system's reason; directories and non-regular files are
 * refused. */
file *file_open(const char *path, dp_error *err) CHECK_RESULT;
void file_close(file *f);
uint64_t file_size(const file *f);
const char *file_path(const file *f);
/* Reads exactly n bytes at offset: DP_E_FILE if the range passes the end (with the numbers) or on
 * I/O. */
bool file_read(file *f, uint64_t offset, void *out, size_t n, dp_error *err) CHECK_RESULT;
/* Hints that the range will be read soon: the system fetches what it has not. Never fails. */
void file_read_ahead(const file *f, uint64_t offset, uint64_t n);
/* Whole file, at most `ceiling` bytes, into a buf that the call initialises (DP_E_LIMIT over
 * it). */
bool file_read_all(const char *path, size_t ceiling, buf *out, dp_error *err) CHECK_RESULT;
/* Writes bytes under a temporary name beside path, fsyncs, renames: all or nothing. */
bool file_write_atomic(const char *path, const void *bytes, size_t n, dp_error *err) CHECK_RESULT;
/* Brings the names in a folder to the disk, where the file system can: from then on a rename is
 * safe from a crash. */
void folder_sync(const char *path);
/* The folder that a path is in, with the slash, into out[size]; false if it does not fit. */
bool path_parent(str path, char *out, size_t size);
/* Bytes of physical memory; 0 if the system does not say. */
uint64_t memory_of_host(void);
bool path_is_folder(const char *path);
bool path_is_file(const char *path);
/* Appends the names in a folder that end in `suffix`, each with a NUL behind it, in no order. */
bool folder_list(const char *path, const char *suffix, buf *names, dp_error *err) CHECK_RESULT;
/* The last part of a path, without slashes behind it; a view. */
str path_last(const char *path);
/* "folder/name" into out[size]; DP_E_LIMIT if it does not fit. */
bool path_join(char *out, size_t size, const char *folder, const char *name,
               dp_error *err) CHECK_RESULT;

/* ---- files that are made piece by piece (out_file.c; POSIX) -------------------------------- */

typedef struct out_file out_file;
/* Makes a file of `size` bytes, all of them reserved on the disk at once; one that is there is
 * opened and, if it has another size, given this one. DP_E_FILE with the system's reason, a full
 * disk included, or if somebody else has opened it in this way. */
out_file *out_file_open(const char *path, uint64_t size, dp_error *err) CHECK_RESULT;
/* Reading and writing may be done by several threads at a time. Reads exactly n bytes. */
bool out_file_read(out_file *o, uint64_t offset, void *out, size_t n, dp_error *err) CHECK_RESULT;
bool out_file_write(out_file *o, uint64_t offset, const void *bytes, size_t n,
                  dp_error *err) CHECK_RESULT;
bool out_file_sync(out_file *o, dp_error *err) CHECK_RESULT; /* to the disk */
void out_file_close(out_file *o);                            /* NULL is fine */

bool folder_make(const char *path, dp_error *err) CHECK_RESULT; /* one that is there will do */
bool folders_make(const char *path, dp_error *err) CHECK_RESULT; /* and those above it */
/* Removes a file, or a folder with the files in it; what is not there is no failure. A folder in
 * the folder is. Links are removed, not followed. */
bool path_remove(const char *path, dp_error *err) CHECK_RESULT;
/* Gives `from` the name `to` at once; what had the name before is gone, a folder as well. */
bool path_replace(const char *from, const char *to, dp_error *err) CHECK_RESULT;
/* DP_E_FILE if the folder it would be in is missing or may not be written to. */
bool path_can_be_made(str path, dp_error *err) CHECK_RESULT;
bool path_exists(const char *path); /* as anything */
bool path_is_same(const char *a, const char *b); /* both there, and one and the same */
/* Is `path`, which is there, `folder` or in it, links followed? False if `folder` is not there. */
bool path_is_inside(const char *path, const char *folder);
bool folder_is_empty(const char *path);
/* Of a file or of the files in a folder; 0 if there is none. */
uint64_t path_bytes(const char *path);
/* Appends what changes when a file, or a file in a folder, does: names, sizes, times. */
void path_stamp(const char *path, buf *out);
/* Bytes that may be written where `path` is or would be; UINT64_MAX if the system does
 * not say. */
uint64_t disk_room(const char *path);

/* ---- threads (parallel.c; POSIX) ----------------------------------------------------------- */

/* Runs jobs 0..n-1, each once, on up to n_threads threads (0: one for each processor), the caller's
 * among them; they begin in order. The first that fails keeps further ones from beginning; its
 * error is the call's. `thread` is below n_threads. */
enum { THREADS_MAX = 256 };
typedef bool parallel_job(void *user, uint64_t job, uint32_t thread, dp_error *err);
bool parallel_run(uint32_t n_threads, uint64_t n, parallel_job *job, void *user,
                  dp_error *err) CHECK_RESULT;
uint32_t processors(void); /* that this process may use; at least 1, at most THREADS_MAX */

/* ---- hash table (map.c): bytes to u32, insert only ----------------------------------------- */

typedef struct map map; /* keys are copied */
map *map_new(size_t expected, dp_error *err) CHECK_RESULT;
void map_free(map *m);
bool map_get(const map *m, str key, uint32_t *value);
/* False (and DP_E_MEMORY in err) if memory ran out; *added, may be NULL, false if the key was
 * there, whose value then stays. */
bool map_put(map *m, str key, uint32_t value, bool *added, dp_error *err) CHECK_RESULT;
size_t map_count(const map *m);
/* SipHash-1-3 of the bytes: whoever does not know the key cannot choose texts that collide. */
uint64_t hash_bytes(const uint64_t key[2], const void *bytes, size_t size);
/* A key that differs from process to process and from call to call. */
void hash_key(uint64_t key[2]);

/* ---- clock (clock.c) ----------------------------------------------------------------------- */

double clock_seconds(void); /* since some fixed moment; never goes back */

#endif
