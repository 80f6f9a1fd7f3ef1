/* embed: prints the C twins of the kernels, so that WGSL alone declares them.
 *
 *     embed -o OUTDIR kernels/NAME.wgsl... kernels/part/SLOT_NAME.wgsl...
 *
 * writes OUTDIR/kernels_gen.h and OUTDIR/kernels_gen.c: per kernel its text, the binding numbers, a
 * struct of its overrides without initialiser and one of its Params (WGSL 1.0, "Memory Layout",
 * with offsets and sizes asserted); per part its text and bindings; and the lists of both. It reads
 * four line shapes and refuses, with file and line, what looks like one of them and is not:
 *
 *     //! use slot, slot        //! enable f16, subgroups, matrix  (top of the file)
 *     //! with name, name       (the text of kernels/common/NAME.wgsl follows the file's own)
 *     override NAME: TYPE;      (with an initialiser it stays inside WGSL and gets no twin)
 *     struct Params {           (then one field a line, then a line with the brace; a part may have
 *                                one struct of any name, whose twin is called like the part; one
 *                                called SLOT_NAME stays inside WGSL)
 *     @group(0) @binding(N) var<storage, read> NAME: TYPE;    (or read_write, or <uniform>)
 *
 * Comments and indentation are dropped, lines are kept: line numbers in a compiler's messages are
 * those of the kernel file. Runs at build time on our own files: it exits on the first fault. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_SIZE = 48,     /* bytes of a name with its NUL */
    LINE_COLUMNS = 100, /* widest line of source and output */
    MAX_SLOTS = 4,      /* GPU_SLOTS */
    MAX_COMMON = 8,
    SECOND_BINDING = 9, /* GPU_SECOND_BINDING */
    MAX_BINDINGS = 12,  /* GPU_BINDINGS */
    MAX_FIELDS = 32,
    MAX_PARAMS = 256, /* bytes: a parameter block is one slot of the uniform buffer */
    MAX_FILES = 256,
    MAX_FILE_BYTES = 1 << 20,
};

typedef struct {
    char name[NAME_SIZE];
    const char *c_type;     /* "uint32_t" */
    const char *gpu_type;   /* "GPU_CONST_U32" */
    unsigned lanes, offset; /* 1, 2 or 4; bytes */
} field;

typedef struct {
    char name[NAME_SIZE];
    unsigned number;
    const char *access; /* "GPU_ACCESS_READ" */
} binding;

typedef struct {
    const char *path;
    char name[NAME_SIZE]; /* the file's, without .wgsl */
    bool is_part, is_common;
    char common[MAX_COMMON][NAME_SIZE];
    size_t n_common;
    char slot[NAME_SIZE]; /* of a part */
    char *text;           /* lines without comments */
    char slots[MAX_SLOTS][NAME_SIZE], slot_of[MAX_SLOTS][NAME_SIZE];
    size_t n_slots;
    bool f16, subgroups, matrix;
    binding bindings[MAX_BINDINGS];
    size_t n_bindings;
    field consts[MAX_FIELDS], params[MAX_FIELDS];
    size_t n_consts, n_params;
    unsigned params_size;
    bool has_params, binds_params, in_params, past_top;
    unsigned n_entries;
    unsigned line; /* being read */
} source;

static source files[MAX_FILES];
static size_t n_files;

__attribute__((noreturn, format(printf, 2, 3))) static void refuse(const source *s,
                                                                   const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%u: ", s->path, s->line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- scanning one line --------------------------------------------------------------------- */

static bool is_word_char(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static void skip_blanks(const char **p) {
    while (**p == ' ')
        ++*p;
}

/* Takes `want` at *p, blanks before it aside; a word must end there. */
static bool take(const char **p, const char *want) {
    skip_blanks(p);
    const size_t n = strlen(want);
    if (strncmp(*p, want, n) != 0) return false;
    if (is_word_char(want[n - 1]) && is_word_char((*p)[n])) return false;
    *p += n;
    return true;
}

static bool take_word(const source *s, const char **p, char out[NAME_SIZE]) {
    skip_blanks(p);
    size_t n = 0;
    if (isdigit((unsigned char)**p)) return false;
    while (is_word_char((*p)[n]))
        n++;
    if (n >= NAME_SIZE) refuse(s, "a name is longer than %d characters", NAME_SIZE - 1);
    memcpy(out, *p, n);
    out[n] = '\0';
    *p += n;
    return n > 0;
}

static bool take_number(const char **p, unsigned *out) {
    skip_blanks(p);
    if (!isdigit((unsigned char)**p)) return false;
    *out = 0;
    while (isdigit((unsigned char)**p) && *out < 1000)
        *out = *out * 10 + (unsigned)(*(*p)++ - '0');
    return true;
}

static bool has_word(const char *line, const char *word) {
    const size_t n = strlen(word);
    for (const char *p = strstr(line, word); p; p = strstr(p + 1, word)) {
        if ((p == line || !is_word_char(p[-1])) && !is_word_char(p[n])) return true;
    }
    return false;
}

/* The line without its blanks, so that a shape is recognised however it is spaced. */
static void squeeze(char *out, const char *line) {
    for (; *line; line++) {
        if (*line != ' ') *out++ = *line;
    }
    *out = '\0';
}

static const struct {
    const char *wgsl, *shorthand, *c, *gpu;
} scalars[] = {
    { "u32", "u", "uint32_t", "GPU_CONST_U32" },
    { "i32", "i", "int32_t", "GPU_CONST_I32" },
    { "f32", "f", "float", "GPU_CONST_F32" },
    { "bool", "", "bool", "GPU_CONST_BOOL" },
};

/* u32, vec2<u32>, vec2u, ... into f; false if it is none of them. */
static bool take_type(const source *s, const char **p, field *f) {
    char word[NAME_SIZE];
    if (!take_word(s, p, word)) return false;
    f->lanes = 1;
    const char *rest = word;
    if (strncmp(word, "vec2", 4) == 0 || strncmp(word, "vec4", 4) == 0) {
        f->lanes = (unsigned)(word[3] - '0');
        rest = word + 4;
    }
    char inner[NAME_SIZE];
    const bool generic = f->lanes > 1 && *rest == '\0';
    if (generic && !(take(p, "<") && take_word(s, p, inner) && take(p, ">"))) return false;
    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        const char *want = f->lanes > 1 && !generic ? scalars[i].shorthand : scalars[i].wgsl;
        if (*want == '\0' || strcmp(generic ? inner : rest, want) != 0) continue;
        f->c_type = scalars[i].c;
        f->gpu_type = scalars[i].gpu;
        return true;
    }
    return false;
}

/* ---- the four shapes ----------------------------------------------------------------------- */

/* Names become C identifiers: struct fields in lower case, enumerators in upper case. */
static void check_name(const source *s, const char *name) {
    static const char *const reserved[] = {
        "auto",   "bool",    "char",  "double",   "extern",   "float",    "goto",   "inline",
        "int",    "long",    "main",  "register", "restrict", "short",    "signed", "sizeof",
        "static", "typedef", "union", "unsigned", "void",     "volatile",
    };
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (strcmp(name, reserved[i]) == 0) refuse(s, "%s is a word of C: take another name", name);
    }
    if (name[0] == '_') refuse(s, "%s begins with an underscore", name);
}

static void read_directive(source *s, const char *p) {
    if (s->past_top) refuse(s, "//! belongs at the top of the file");
    const bool use = take(&p, "use"), with = !use && take(&p, "with");
    if (!use && !with && !take(&p, "enable")) {
        refuse(s, "expected //! use ..., //! with ... or //! enable ...");
    }
    if (use && s->is_part) refuse(s, "a part uses no parts");
    if (s->is_common) refuse(s, "a common text has no directives");
    do {
        char word[NAME_SIZE];
        if (!take_word(s, &p, word)) refuse(s, "expected a name");
        if (with) {
            if (s->n_common == MAX_COMMON) refuse(s, "more than %d common texts", MAX_COMMON);
            strcpy(s->common[s->n_common++], word);
            continue;
        }
        if (!use) {
            if (strcmp(word, "f16") == 0) {
                s->f16 = true;
            } else if (strcmp(word, "subgroups") == 0) {
                s->subgroups = true;
            } else if (strcmp(word, "matrix") == 0) {
                s->matrix = true;
            } else {
                refuse(s, "enable %s: only f16, subgroups and matrix are known", word);
            }
            continue;
        }
        if (s->n_slots == MAX_SLOTS) refuse(s, "more than %d slots", MAX_SLOTS);
        char part[NAME_SIZE];
        strcpy(part, word);
        if (take(&p, "as") && !take_word(s, &p, word)) refuse(s, "expected a name");
        if (strchr(word, '_')) refuse(s, "slot %s: no underscore in the name of a slot", word);
        for (size_t i = 0; i < s->n_slots; i++) {
            if (strcmp(s->slots[i], word) == 0) refuse(s, "slot %s is there twice", word);
        }
        strcpy(s->slot_of[s->n_slots], part);
        strcpy(s->slots[s->n_slots++], word);
    } while (take(&p, ","));
    skip_blanks(&p);
    if (*p) refuse(s, "unexpected: %s", p);
}

static void read_binding(source *s, const char *p) {
    if (s->is_common) refuse(s, "a common text has no bindings");
    unsigned group, number;
    binding b = { .access = NULL };
    if (!(take(&p, "@group") && take(&p, "(") && take_number(&p, &group) && take(&p, ")") &&
          take(&p, "@binding") && take(&p, "(") && take_number(&p, &number) && take(&p, ")") &&
          take(&p, "var") && take(&p, "<"))) {
        refuse(s, "expected @group(G) @binding(B) var<...> NAME: TYPE; on one line");
    }
    if (take(&p, "uniform")) {
        b.access = "GPU_ACCESS_UNIFORM";
    } else if (take(&p, "storage") && take(&p, ",")) {
        if (take(&p, "read_write"))
            b.access = "GPU_ACCESS_WRITE";
        else if (take(&p, "read"))
            b.access = "GPU_ACCESS_READ";
    }
    if (!b.access || !take(&p, ">")) {
        refuse(s, "expected var<storage, read>, var<storage, read_write> or var<uniform>");
    }
    if (!take_word(s, &p, b.name) || !take(&p, ":")) refuse(s, "expected NAME: TYPE;");
    check_name(s, b.name);
    const char *type = p;
    const char *end = strchr(p, ';');
    if (!end || end[1] != '\0') refuse(s, "expected the declaration to end with ; on its line");
    b.number = number;
    if (group == 1) {
        if (s->is_part) refuse(s, "group 1 belongs to the kernel");
        if (number != 0 || strcmp(b.access, "GPU_ACCESS_UNIFORM") != 0 ||
            !(take(&type, "Params") && take(&type, ";"))) {
            refuse(s, "group 1 holds binding 0, var<uniform> of type Params, alone");
        }
        if (s->binds_params) refuse(s, "Params is bound twice");
        s->binds_params = true;
        return;
    }
    if (group != 0) refuse(s, "group %u: only 0 (data) and 1 (Params) exist", group);
    if (number >= MAX_BINDINGS) refuse(s, "binding %u: at most %d", number, MAX_BINDINGS - 1);
    size_t at = s->n_bindings;
    for (size_t i = 0; i < s->n_bindings; i++) {
        if (s->bindings[i].number == number) refuse(s, "binding %u is there twice", number);
        if (s->bindings[i].number > number && at == s->n_bindings) at = i;
    }
    memmove(s->bindings + at + 1, s->bindings + at, (s->n_bindings - at) * sizeof(b));
    s->bindings[at] = b;
    s->n_bindings++;
}

static void read_override(source *s, const char *p) {
    field f = { .lanes = 1 };
    if (!take(&p, "override") || !take_word(s, &p, f.name)) {
        refuse(s, "expected override NAME: TYPE; at the start of the line");
    }
    if (strchr(p, '=')) return; /* derived inside WGSL */
    if (s->is_common) refuse(s, "a common text has only overrides with an initialiser");
    if (!take(&p, ":") || !take_type(s, &p, &f) || f.lanes != 1 || !take(&p, ";") || *p) {
        refuse(s, "override %s: expected a type of u32, i32, f32, bool and a semicolon", f.name);
    }
    if (s->is_part) refuse(s, "override %s: a part has none without initialiser", f.name);
    for (char *c = f.name; *c; c++) {
        if (islower((unsigned char)*c)) refuse(s, "override %s: upper case, please", f.name);
    }
    if (s->n_consts == MAX_FIELDS) refuse(s, "more than %d overrides", MAX_FIELDS);
    s->consts[s->n_consts++] = f;
}

static void read_params_field(source *s, const char *p) {
    if (strcmp(p, "}") == 0 || strcmp(p, "};") == 0) {
        unsigned align = 4;
        for (size_t i = 0; i < s->n_params; i++) {
            if (s->params[i].lanes * 4 > align) align = s->params[i].lanes * 4;
        }
        s->params_size = (s->params_size + align - 1) / align * align;
        if (s->n_params == 0) refuse(s, "struct Params is empty");
        if (s->params_size > MAX_PARAMS) {
            refuse(s, "struct Params has %u bytes, at most %d", s->params_size, MAX_PARAMS);
        }
        s->in_params = false;
        return;
    }
    if (*p == '\0') return;
    field f = { .lanes = 1 };
    if (!take_word(s, &p, f.name) || !take(&p, ":") || !take_type(s, &p, &f) ||
        strcmp(f.c_type, "bool") == 0) {
        refuse(s, "expected a field NAME: TYPE, of u32, i32, f32 or a vec2 or vec4 of them");
    }
    take(&p, ",");
    if (*p) refuse(s, "one field a line, please: %s", p);
    check_name(s, f.name);
    for (char *c = f.name; *c; c++) {
        if (isupper((unsigned char)*c)) refuse(s, "field %s: lower case, please", f.name);
    }
    if (s->n_params == MAX_FIELDS) refuse(s, "more than %d fields", MAX_FIELDS);
    const unsigned bytes = f.lanes * 4; /* size and alignment of a vec2 and a vec4 alike */
    f.offset = (s->params_size + bytes - 1) / bytes * bytes;
    s->params_size = f.offset + bytes;
    s->params[s->n_params++] = f;
}

/* A struct of a part that is called SLOT_NAME. */
static bool is_inner_struct(const source *s, const char *line) {
    if (!s->is_part || !take(&line, "struct")) return false;
    skip_blanks(&line);
    const size_t n = strlen(s->slot);
    return strncmp(line, s->slot, n) == 0 && line[n] == '_';
}

/* One line without comment, indentation and trailing blanks. */
static void read_line(source *s, const char *line) {
    char tight[LINE_COLUMNS + 1];
    squeeze(tight, line);
    const char *p = line;
    if (s->in_params) {
        read_params_field(s, line);
    } else if (strstr(tight, "@group") || strstr(tight, "@binding") ||
               strstr(tight, "var<storage") || strstr(tight, "var<uniform")) {
        read_binding(s, line);
    } else if (has_word(line, "override") || strstr(tight, "@id(")) {
        read_override(s, line);
    } else if (s->is_part && !is_inner_struct(s, line) && take(&p, "struct")) {
        if (s->has_params || !(p = strchr(p, '{')) || p[1]) {
            refuse(s, "one struct a part, expected struct NAME { alone on its line");
        }
        s->has_params = s->in_params = true;
    } else if (take(&p, "struct") && take(&p, "Params")) {
        if (!take(&p, "{") || *p) refuse(s, "expected struct Params { alone on its line");
        if (s->has_params) refuse(s, "one struct Params a kernel");
        s->has_params = s->in_params = true;
    } else if (strstr(tight, "structParams{")) {
        refuse(s, "expected struct Params { alone on its line");
    } else if (has_word(line, "enable") || has_word(line, "requires")) {
        refuse(s, "write //! enable at the top of the file");
    }
    char entry[NAME_SIZE + 8];
    snprintf(entry, sizeof(entry), "fn%s(", s->name);
    if (strstr(tight, entry)) s->n_entries++;
    if (strstr(tight, "@compute") && s->is_part) refuse(s, "a part has no entry point");
}

/* ---- files --------------------------------------------------------------------------------- */

static void name_source(source *s) {
    const char *base = strrchr(s->path, '/');
    base = base ? base + 1 : s->path;
    const char *end = strstr(base, ".wgsl");
    if (!end || end[5] != '\0' || end - base >= NAME_SIZE) refuse(s, "no NAME.wgsl");
    memcpy(s->name, base, (size_t)(end - base));
    const size_t folder = (size_t)(base - s->path);
    s->is_common = folder >= 7 && strncmp(base - 7, "common/", 7) == 0;
    s->is_part =
        folder >= 5 && strncmp(base - 5, "part/", 5) == 0 && (folder == 5 || base[-6] == '/');
    for (const char *c = s->name; *c; c++) {
        if (!islower((unsigned char)*c) &&
            (c == s->name || (!isdigit((unsigned char)*c) && *c != '_')))
            refuse(s, "file names are lower-case letters, digits and underscores");
    }
    if (s->is_part) {
        const char *line = strchr(s->name, '_');
        if (!line || !line[1]) refuse(s, "a part is called SLOT_NAME.wgsl");
        memcpy(s->slot, s->name, (size_t)(line - s->name));
    }
}

static void read_source(source *s) {
    name_source(s);
    FILE *f = fopen(s->path, "rb");
    char *bytes = calloc(1, MAX_FILE_BYTES + 1);
    s->text = calloc(1, MAX_FILE_BYTES + 2);
    if (!f || !bytes || !s->text) refuse(s, "%s", strerror(errno));
    const size_t size = fread(bytes, 1, MAX_FILE_BYTES + 1, f);
    if (ferror(f) || size > MAX_FILE_BYTES)
        refuse(s, "unreadable, or over %d bytes", MAX_FILE_BYTES);
    fclose(f);
    char *out = s->text;
    for (char *line = bytes, *next; line < bytes + size; line = next) {
        s->line++;
        next = memchr(line, '\n', size - (size_t)(line - bytes));
        if (!next) refuse(s, "the last line has no newline");
        *next++ = '\0';
        if (strlen(line) > LINE_COLUMNS) refuse(s, "wider than %d columns", LINE_COLUMNS);
        while (*line == ' ')
            line++;
        char *comment = strstr(line, "//");
        if (comment && comment[2] == '!') {
            if (comment != line) refuse(s, "//! begins a line");
            read_directive(s, comment + 3);
        }
        if (comment) *comment = '\0';
        char *end = line + strlen(line);
        while (end > line && end[-1] == ' ')
            *--end = '\0';
        for (char *c = line; *c; c++) {
            if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\' || *c == '#' ||
                (c[0] == '/' && c[1] == '*')) {
                refuse(s, "code is printable ASCII without quotes, # and block comments");
            }
        }
        if (*line) s->past_top = true;
        read_line(s, line);
        out += sprintf(out, "%s\n", line);
    }
    free(bytes);
    if (s->in_params) refuse(s, "struct Params is not closed");
    if (!s->is_part && s->has_params != s->binds_params)
        refuse(s, "struct Params without its binding, or no struct");
    if (!s->is_part && !s->is_common && s->n_entries != 1)
        refuse(s, "expected one fn %s(, found %u", s->name, s->n_entries);
}

static void check_disjoint(const source *a, const source *b) {
    for (size_t i = 0; i < a->n_bindings; i++) {
        for (size_t j = 0; j < b->n_bindings; j++) {
            if (a->bindings[i].number != b->bindings[j].number) continue;
            refuse(a, "binding %u (%s) is also %s of %s", a->bindings[i].number,
                   a->bindings[i].name, b->bindings[j].name, b->path);
        }
    }
}

static const source *find_common(const source *s, const char *name) {
    for (size_t i = 0; i < n_files; i++) {
        if (files[i].is_common && strcmp(files[i].name, name) == 0) return &files[i];
    }
    refuse(s, "no common/%s.wgsl", name);
}

/* The next part of a slot after file i; n_files if there is none. Start with SIZE_MAX. */
static size_t next_part(const char *slot, size_t i) {
    for (i++; i < n_files; i++) {
        if (files[i].is_part && strcmp(files[i].slot, slot) == 0) break;
    }
    return i;
}

static void check_slots(const char *a, const char *b) {
    for (size_t i = next_part(a, SIZE_MAX); i < n_files; i = next_part(a, i)) {
        for (size_t j = next_part(b, SIZE_MAX); j < n_files; j = next_part(b, j)) {
            check_disjoint(&files[i], &files[j]);
        }
    }
}

/* What fills a slot a second time has one binding, 0, which moves to one that nobody has. */
static void check_second(const source *kernel, const char *slot) {
    for (size_t i = next_part(slot, SIZE_MAX); i < n_files; i = next_part(slot, i)) {
        if (files[i].n_bindings != 1 || files[i].bindings[0].number != 0)
            refuse(kernel, "%s is used a second time: binding 0 alone, please", files[i].path);
    }
    for (size_t b = 0; b < kernel->n_bindings; b++) {
        if (kernel->bindings[b].number == SECOND_BINDING)
            refuse(kernel, "binding %d belongs to the second %s", SECOND_BINDING, slot);
    }
}

/* Every combination that C may ask for must fit together: the parts of one slot replace each other,
 * those of different slots stand side by side. */
static void check_combinations(const source *kernel) {
    for (size_t a = 0; a < kernel->n_slots; a++) {
        const char *slot = kernel->slot_of[a];
        if (strcmp(slot, kernel->slots[a]) != 0) {
            check_second(kernel, slot);
            continue;
        }
        size_t i = next_part(slot, SIZE_MAX);
        if (i == n_files) refuse(kernel, "slot %s: no part/%s_NAME.wgsl", slot, slot);
        for (; i < n_files; i = next_part(slot, i))
            check_disjoint(kernel, &files[i]);
        for (size_t b = 0; b < a; b++)
            check_slots(slot, kernel->slot_of[b]);
    }
}

/* ---- output -------------------------------------------------------------------------------- */

static void print_cased(FILE *f, const char *name, int (*change)(int)) {
    for (; *name; name++)
        fputc(change((unsigned char)*name), f);
}

static void print_enum(FILE *f, const source *s) {
    if (s->n_bindings == 0) return;
    fprintf(f, "enum {\n");
    for (size_t i = 0; i < s->n_bindings; i++) {
        fprintf(f, "    ");
        print_cased(f, s->name, toupper);
        fputc('_', f);
        print_cased(f, s->bindings[i].name, toupper);
        fprintf(f, " = %u,\n", s->bindings[i].number);
    }
    fprintf(f, "};\n");
}

static void print_structs(FILE *f, const source *s) {
    if (s->n_consts) {
        fprintf(f, "typedef struct {\n");
        for (size_t i = 0; i < s->n_consts; i++) {
            fprintf(f, "    %s ", s->consts[i].c_type);
            print_cased(f, s->consts[i].name, tolower);
            fprintf(f, ";\n");
        }
        fprintf(f, "} %s_consts;\n", s->name);
    }
    if (!s->n_params) return;
    const char *suffix = s->is_part ? "" : "_params"; /* the struct of a part has the part's name */
    fprintf(f, "typedef struct {\n");
    for (size_t i = 0; i < s->n_params; i++) {
        const field *p = &s->params[i];
        if (p->lanes == 1)
            fprintf(f, "    %s %s;\n", p->c_type, p->name);
        else
            fprintf(f, "    _Alignas(%u) %s %s[%u];\n", p->lanes * 4, p->c_type, p->name, p->lanes);
    }
    fprintf(f, "} %s%s;\n", s->name, suffix);
    for (size_t i = 0; i < s->n_params; i++) {
        fprintf(f, "_Static_assert(offsetof(%s%s, %s) == %u,\n               \"offset\");\n",
                s->name, suffix, s->params[i].name, s->params[i].offset);
    }
    fprintf(f, "_Static_assert(sizeof(%s%s) == %u, \"size\");\n", s->name, suffix, s->params_size);
}

static void print_header(FILE *f) {
    fprintf(f, "/* Printed by tools/embed from kernels/: do not edit. */\n"
               "#ifndef KERNELS_GEN_H\n#define KERNELS_GEN_H\n\n#include \"gpu/gpu.h\"\n");
    size_t n_kernels = 0, n_parts = 0;
    for (size_t i = 0; i < n_files; i++) {
        const source *s = &files[i];
        if (s->is_common) continue;
        n_kernels += !s->is_part;
        n_parts += s->is_part;
        fprintf(f, "\n/* %s */\n", s->name);
        print_enum(f, s);
        print_structs(f, s);
        if (s->is_part)
            fprintf(f, "extern const gpu_fragment %s_part;\n", s->name);
        else
            fprintf(f, "extern const gpu_source %s_source;\n", s->name);
    }
    fprintf(f,
            "\n/* All of them, for tests and lint: each list ends with NULL. */\n"
            "enum { N_KERNELS = %zu, N_PARTS = %zu };\n"
            "extern const gpu_source *const all_kernels[N_KERNELS + 1];\n"
            "extern const gpu_fragment *const all_parts[N_PARTS + 1];\n\n#endif\n",
            n_kernels, n_parts);
}

/* WGSL text as string literals; __extension__ because C only promises literals of 4,095 characters.
 */
static void print_literal(FILE *f, const char *text) {
    size_t column = 0;
    for (const char *c = text; *c; c++) {
        if (column == 0) fprintf(f, "\n    \"");
        if (*c == '\n')
            fprintf(f, "\\n");
        else
            fputc(*c, f);
        column++;
        if (*c == '\n' || column > LINE_COLUMNS - 16) {
            fputc('"', f);
            column = 0;
        }
    }
    if (column) fputc('"', f);
}

/* Browsers offer no matrix units: their engine does without the text. */
static void print_text(FILE *f, const source *s) {
    if (s->matrix)
        fprintf(f, "#ifdef __wasm__\nstatic const char %s_text[] = \"\";\n#else\n", s->name);
    fprintf(f, "static const char %s_text[] = __extension__ \"\"", s->name);
    print_literal(f, s->text);
    fprintf(f, ";\n%s", s->matrix ? "#endif\n" : "");
}

static void print_common(FILE *f, const source *s) {
    if (!s->n_common) return;
    fprintf(f, "static const char *const %s_common[] = {\n", s->name);
    for (size_t i = 0; i < s->n_common; i++)
        fprintf(f, "    %s_text,\n", find_common(s, s->common[i])->name);
    fprintf(f, "    NULL,\n};\n");
}

static void print_tables(FILE *f, const source *s) {
    if (s->n_slots) {
        for (int of = 0; of < 2; of++) {
            fprintf(f, "static const char *const %s_slot%s[] = {\n", s->name, of ? "_of" : "s");
            for (size_t i = 0; i < s->n_slots; i++)
                fprintf(f, "    \"%s\",\n", of ? s->slot_of[i] : s->slots[i]);
            fprintf(f, "};\n");
        }
    }
    if (s->n_bindings) {
        fprintf(f, "static const gpu_binding %s_bindings[] = {\n", s->name);
        for (size_t i = 0; i < s->n_bindings; i++) {
            fprintf(f, "    { \"%s\", %u, %s },\n", s->bindings[i].name, s->bindings[i].number,
                    s->bindings[i].access);
        }
        fprintf(f, "};\n");
    }
    if (!s->n_consts) return;
    fprintf(f, "static const gpu_const %s_overrides[] = {\n", s->name);
    for (size_t i = 0; i < s->n_consts; i++) {
        fprintf(f, "    { \"%s\", %s,\n      offsetof(%s_consts, ", s->consts[i].name,
                s->consts[i].gpu_type, s->name);
        print_cased(f, s->consts[i].name, tolower);
        fprintf(f, ") },\n");
    }
    fprintf(f, "};\n");
}

static void print_code(FILE *f) {
    fprintf(f, "/* Printed by tools/embed from kernels/: do not edit. */\n"
               "#include \"kernels_gen.h\"\n");
    for (size_t i = 0; i < n_files; i++) {
        if (!files[i].is_common) continue;
        fprintf(f, "\n");
        print_text(f, &files[i]);
    }
    for (size_t i = 0; i < n_files; i++) {
        const source *s = &files[i];
        if (s->is_common) continue;
        fprintf(f, "\n");
        print_text(f, s);
        print_common(f, s);
        print_tables(f, s);
        if (s->is_part) {
            fprintf(f, "const gpu_fragment %s_part = {\n    .slot = \"%s\",\n    .name = \"%s\",\n",
                    s->name, s->slot, s->name + strlen(s->slot) + 1);
        } else {
            fprintf(f, "const gpu_source %s_source = {\n    .name = \"%s\",\n", s->name, s->name);
        }
        fprintf(f, "    .text = %s_text,\n    .needs_f16 = %s,\n    .needs_subgroups = %s,\n",
                s->name, s->f16 ? "true" : "false", s->subgroups ? "true" : "false");
        if (s->n_common) fprintf(f, "    .common = %s_common,\n", s->name);
        fprintf(f, "    .needs_matrix = %s,\n", s->matrix ? "true" : "false");
        if (s->n_slots)
            fprintf(f, "    .slots = %s_slots,\n    .slot_of = %s_slot_of,\n    .n_slots = %zu,\n",
                    s->name, s->name, s->n_slots);
        if (s->n_bindings)
            fprintf(f, "    .bindings = %s_bindings,\n    .n_bindings = %zu,\n", s->name,
                    s->n_bindings);
        if (s->n_consts)
            fprintf(f,
                    "    .consts = %s_overrides,\n    .n_consts = %zu,\n"
                    "    .consts_size = sizeof(%s_consts),\n",
                    s->name, s->n_consts, s->name);
        if (s->has_params && !s->is_part)
            fprintf(f, "    .params_size = sizeof(%s_params),\n", s->name);
        fprintf(f, "};\n");
    }
    for (int part = 0; part < 2; part++) {
        fprintf(f, part ? "\nconst gpu_fragment *const all_parts[N_PARTS + 1] = {\n"
                        : "\nconst gpu_source *const all_kernels[N_KERNELS + 1] = {\n");
        for (size_t i = 0; i < n_files; i++) {
            if (files[i].is_part == part && !files[i].is_common)
                fprintf(f, "    &%s_%s,\n", files[i].name, part ? "part" : "source");
        }
        fprintf(f, "    NULL,\n};\n");
    }
}

static void write_file(const char *folder, const char *name, void (*print)(FILE *)) {
    char path[4096];
    const int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = n > 0 && (size_t)n < sizeof(path) ? fopen(path, "wb") : NULL;
    if (f) print(f);
    if (!f || ferror(f) || fclose(f) != 0) {
        fprintf(stderr, "embed: %s/%s: cannot be written\n", folder, name);
        if (f) remove(path);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 3 || strcmp(argv[1], "-o") != 0 || argc - 3 > MAX_FILES) {
        fprintf(stderr, "usage: embed -o OUTDIR FILE.wgsl... (at most %d)\n", MAX_FILES);
        return 2;
    }
    for (int i = 3; i < argc; i++) {
        source *s = &files[n_files];
        s->path = argv[i];
        read_source(s);
        for (size_t j = 0; j < n_files; j++) {
            if (strcmp(files[j].name, s->name) == 0)
                refuse(s, "%s has the same name", files[j].path);
        }
        n_files++;
    }
    for (size_t i = 0; i < n_files; i++)
        check_combinations(&files[i]);
    write_file(argv[2], "kernels_gen.h", print_header);
    write_file(argv[2], "kernels_gen.c", print_code);
    for (size_t i = 0; i < n_files; i++)
        free(files[i].text);
    return 0;
}
