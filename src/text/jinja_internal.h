/* jinja_internal: what the files of the template interpreter share.
 *
 * jinja_lex.c cuts a template into tokens, jinja_parse.c (expressions) and jinja_statement.c (tags)
 * make a tree of them, jinja_eval.c walks it. Values live in jinja_value.c and jinja_text.c, their
 * operations in jinja_arith.c, jinja_lookup.c (attributes, elements, slices), jinja_string.c and
 * jinja_case.c (the methods of str), jinja_format.c (Python's two ways to format), jinja_filters.c,
 * jinja_tests.c, jinja_json.c and jinja_globals.c. chat.c starts it all. The language is that of
 * jinja2 3.1 in the setting of Hugging Face transformers, and every value behaves as the Python
 * object that it stands for.
 *
 * Two rules hold everywhere. An error is latched in the interpreter: after it every function
 * returns something harmless and every loop ends, so that callers ask `failed` only where they
 * loop. And all memory is the interpreter's arena, counted against a ceiling, as is every step:
 * what takes time in proportion to a size is charged for it. Lists, dicts and texts never change
 * once made (the sandbox refuses Python's mutating methods), so they are shared freely.
 *
 * Every byte of a text knows whether it came from the messages, tools or variables ("marked"). */
#ifndef TEXT_JINJA_INTERNAL_H
#define TEXT_JINJA_INTERNAL_H

#include "text/text_internal.h"

/* Ceilings. What depends on the size of the input is given per byte of template and input. */
enum {
    TEMPLATE_BYTES_MAX = 1 << 20, /* the longest published one has about 25,000 */
    JINJA_NEST_MAX = 100,         /* brackets and statements inside each other */
    JINJA_DEPTH_MAX = 800,        /* evaluations inside each other, macro calls included */
    JINJA_VALUE_DEPTH_MAX = 150,  /* values inside each other where they are walked */
    JINJA_STEPS = 500 * 1000,     /* below 100 ms even of the slowest */
    JINJA_STEPS_PER_BYTE = 16,    /* of the input */
    JINJA_MEMORY = 32 << 20,      /* bytes */
    JINJA_MEMORY_PER_BYTE = 96,   /* of the input */
    JINJA_RANGE_MAX = 100000,     /* elements of range(), as jinja2's sandbox has it */
    JINJA_BYTES_PER_STEP = 32,    /* copied or compared */
};

typedef struct jinja jinja;
typedef struct jnode jnode;
typedef struct jlist jlist;
typedef struct jdict jdict;

/* ---- values -------------------------------------------------------------------------------- */

typedef enum {
    V_ABSENT, /* no value at all: an argument that was not given */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_TEXT,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW, /* keys, values or items of a dict */
    V_RANGE,
    V_ITER,  /* a generator: may be walked once */
    V_SPACE, /* namespace() */
    V_LOOP,
    V_MACRO,
    V_METHOD, /* bound to its object */
    V_GLOBAL, /* a function of jinja_globals.c */
    V_CYCLER,
    V_JOINER,
} jkind;

/* UTF-8. Bytes and marks may be shared with other texts. */
typedef struct {
    const char *data;
    const uint8_t *marks; /* [size], 1: from the input; NULL: all are as `marked` says */
    size_t size, length;  /* bytes, code points */
    bool marked;
} jtext;

/* What an undefined value says when it is used. */
typedef struct {
    const char *hint;  /* the whole sentence, or NULL: */
    const char *owner; /* type of the object that lacks it; NULL: a variable */
    const jtext *name;
} jundefined;

typedef struct {
    int64_t start, stop, step;
    uint64_t n;
} jrange;

typedef struct {
    uint8_t kind;
    bool marked; /* a number from the input */
    union {
        bool b;
        int64_t i;
        double f;
        const jtext *text;
        const jlist *list; /* V_LIST, V_TUPLE */
        const jdict *dict; /* V_DICT, V_VIEW */
        const jrange *range;
        const jundefined *undefined; /* may be NULL */
        struct jiter *iter;
        struct jspace *space;
        struct jloop *loop;
        const struct jmacro *macro;
        const struct jmethod *method;
        const struct jglobal *global;
        struct jcycler *cycler;
        struct jjoiner *joiner;
    };
} jvalue;

struct jlist {
    const jvalue *at;
    size_t n;
    bool group; /* a tuple of groupby, with the attributes grouper and list */
};

/* In order of insertion. While it is built its maker alone holds it. */
struct jdict {
    jvalue *keys, *values;
    size_t n, capacity;
    uint32_t *slots; /* index + 1 by hash, open addressing; NULL while there are few */
    size_t n_slots;  /* a power of two */
    uint8_t view;    /* what a V_VIEW shows */
};
enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

typedef struct jiter {
    const jlist *list;
    size_t next;
    const char *broken; /* type of what it was to walk, if that cannot be walked; or NULL */
} jiter;

typedef struct jspace {
    jdict *dict;
} jspace;

typedef struct jcycler {
    const jlist *list;
    size_t at;
} jcycler;

typedef struct jjoiner {
    jvalue separator;
    bool called; /* gives nothing the first time */
} jjoiner;

/* A growing text. Zero is ready. */
typedef struct {
    char *data;
    uint8_t *marks;
    size_t size, capacity, n_marked;
} jout;

/* A growing list. Zero is ready. */
typedef struct {
    jvalue *at;
    size_t n, capacity;
} jitems;

/* A walk over anything that can be iterated. */
typedef struct {
    jvalue over;
    size_t i;    /* elements passed */
    size_t byte; /* of a text */
} jwalk;

typedef struct {
    const jtext *name;
    jvalue v;
} jkeyword;

/* The arguments of a call. */
typedef struct {
    const jvalue *at;
    size_t n;
    const jkeyword *keys;
    size_t n_keys;
} jcall;

typedef jvalue jfunction(jinja *j, jvalue self, const jcall *call, const jvalue *args);

/* A function with its parameters: names parted by commas, "name=" may be left out, those before
 * "/," are given by place only. NULL: the function reads the call itself. */
typedef struct {
    const char *name;
    jfunction *fn;
    const char *parameters;
} jentry;

typedef struct jmethod {
    const jentry *entry;
    jvalue self;
} jmethod;

typedef struct jglobal {
    jentry entry;
} jglobal;

/* ---- the tree ------------------------------------------------------------------------------ */

typedef enum {
    N_CONST,
    N_NAME,
    N_SPACE_NAME, /* name.attribute as a target */
    N_TUPLE,
    N_LIST,
    N_DICT, /* list: keys, more: values */
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_CAPTURED, /* what a filter block holds */
    N_NOT,
    N_MINUS,
    N_PLUS,
    N_BINARY,
    N_CONCAT,
    N_COMPARE, /* a, then list: operands with their op */
    N_AND,
    N_OR,
    N_COND, /* a if b else c */
    N_OUTPUT,
    N_FOR,        /* a in b if c: list, else more */
    N_IF,         /* a: list, c: the next elif or else */
    N_SET,        /* a = b */
    N_CAPTURE,    /* a = list, through the filters of b */
    N_MACRO,      /* list: parameters, more: defaults of the last ones, a: body */
    N_CALL_BLOCK, /* as N_MACRO, b: the call */
    N_FILTER_BLOCK,
    N_WITH, /* list = more: a */
    N_BODY,
    N_BREAK,
    N_CONTINUE,
    N_GENERATION,
} jnode_kind;

typedef enum {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
} jop;

typedef struct {
    const jnode **at;
    size_t n, capacity;
} jnodes;

/* Arguments of a call, filter or test. */
typedef struct {
    jnodes at, values; /* by place, by name */
    const jtext **names;
    const jnode *star, *star_star;
} jargs;

enum { SYMBOL_LOOP, SYMBOL_CALLER, SYMBOL_KWARGS, SYMBOL_VARARGS, N_SYMBOLS };

struct jnode {
    uint8_t kind, op;
    bool flag;    /* N_FOR: recursive */
    uint8_t uses; /* N_MACRO, N_CALL_BLOCK: 1 << SYMBOL_... that the body reads */
    uint32_t line;
    uint32_t symbol;   /* of names */
    const jtext *name; /* of names, attributes, filters, tests */
    jvalue constant;
    const jnode *a, *b, *c;
    jnodes list, more;
    const jargs *args;   /* may be NULL: none */
    const jentry *entry; /* N_FILTER, N_TEST; NULL: there is no such one */
};

/* ---- the interpreter ----------------------------------------------------------------------- */

typedef struct {
    uint32_t symbol;
    jvalue v;
} jbinding;

typedef struct jscope {
    struct jscope *parent;
    jbinding *at;
    size_t n, capacity;
    bool kept; /* a macro may still look into it */
} jscope;

typedef struct jmacro {
    const jnode *node;
    jscope *scope;     /* where it was written */
    const jtext *name; /* NULL: the body of a call block */
} jmacro;

typedef struct jloop {
    jwalk walk;
    bool sized; /* the iterable has a length, and no test drops elements */
    const jnode *node;
    jscope *scope;                            /* around the loop */
    int64_t index0, depth0, length;           /* length -1: not known yet */
    jvalue previous, current, after, changed; /* V_ABSENT: none */
} jloop;

struct jinja {
    arena memory;
    dp_error *err;
    const char *name;
    map *symbols; /* name -> symbol */
    bool failed;
    uint32_t line; /* of what is being parsed or evaluated */
    uint32_t depth, value_depth;
    uint64_t steps, steps_max;
    size_t memory_max;
    uint64_t hash_key[2];
    int64_t now;
    jscope *scope;
    jout *out;
    jvalue captured; /* of the innermost filter block */
};

/* ---- jinja_value.c, jinja_text.c ------------------------------------------------------------ */

/* Latches an error, "NAME: line N: ...". */
void jinja_fail(jinja *j, dp_status status, const char *format, ...) PRINTF_LIKE(3, 4);
/* The common case, DP_E_FORMAT: a template that does what its values do not allow. */
jvalue jinja_wrong(jinja *j, const char *format, ...) PRINTF_LIKE(2, 3);
/* Zeroed memory of the arena; NULL and latched when there is none left. */
void *jinja_take(jinja *j, size_t n, size_t size);
void jinja_charge(jinja *j, uint64_t steps);
void jinja_charge_bytes(jinja *j, uint64_t bytes);
/* For functions that walk nested values: false, latched, if they are too deep. */
bool jinja_enter_value(jinja *j);

static inline jvalue jinja_absent(void) {
    return (jvalue){ .kind = V_ABSENT };
}
static inline jvalue jinja_none(void) {
    return (jvalue){ .kind = V_NONE };
}
static inline jvalue jinja_bool(bool b) {
    return (jvalue){ .kind = V_BOOL, .b = b };
}
static inline jvalue jinja_int(int64_t i) {
    return (jvalue){ .kind = V_INT, .i = i };
}
static inline jvalue jinja_float(double f) {
    return (jvalue){ .kind = V_FLOAT, .f = f };
}
static inline bool jinja_is_integer(jvalue v) { /* True and False are 1 and 0 */
    return v.kind == V_INT || v.kind == V_BOOL;
}
static inline int64_t jinja_integer(jvalue v) {
    return v.kind == V_BOOL ? v.b : v.i;
}
static inline str jinja_str(const jtext *t) {
    return (str){ t->data, t->size };
}
bool jinja_is_number(jvalue v);
double jinja_real(jvalue v); /* of a number */

jvalue jinja_undefined(jinja *j, const char *hint, const char *owner, const jtext *name);
/* Latches what an undefined value, or one that cannot do something, says. */
jvalue jinja_use_undefined(jinja *j, jvalue v);
const char *jinja_type(jvalue v); /* Python's name of the type */

/* Texts. The bytes must be valid UTF-8; they are not copied. */
jvalue jinja_text(jinja *j, const char *data, size_t size, bool marked);
jvalue jinja_text_of(jinja *j, const char *s);                       /* a C string that stays */
jvalue jinja_part(jinja *j, const jtext *t, size_t from, size_t to); /* bytes */
size_t jinja_byte_of(jinja *j, const jtext *t, size_t point); /* byte where a code point starts */

void jinja_put(jinja *j, jout *out, const char *data, size_t size, bool marked);
void jinja_put_str(jinja *j, jout *out, const char *s);
void jinja_put_code(jinja *j, jout *out, uint32_t code, bool marked);
void jinja_put_text(jinja *j, jout *out, const jtext *t);
void jinja_put_part(jinja *j, jout *out, const jtext *t, size_t from, size_t to);
void jinja_put_int(jinja *j, jout *out, int64_t i, bool marked);
void jinja_put_float(jinja *j, jout *out, double f, bool marked); /* as repr() */
void jinja_put_value(jinja *j, jout *out, jvalue v);              /* as str() */
void jinja_put_repr(jinja *j, jout *out, jvalue v);
jvalue jinja_finish(jinja *j, jout *out);
const jtext *jinja_string(jinja *j, jvalue v); /* str(v); never NULL */
bool jinja_marked_at(const jtext *t, size_t byte);
/* printf's conversions e, f and g of a double, with a point whatever the locale says; the length,
 * which is below `size`. */
size_t jinja_print_real(char *out, size_t size, double f, int precision, char conversion,
                        bool alternate);

/* Lists and dicts. */
void jinja_push(jinja *j, jitems *items, jvalue v);
jvalue jinja_list(jinja *j, const jitems *items, jkind kind); /* V_LIST, V_TUPLE */
jvalue jinja_iter(jinja *j, const jitems *items);
/* A generator over something that cannot be walked, which fails when it is walked. */
jvalue jinja_broken_iter(jinja *j, jvalue over);
jdict *jinja_dict(jinja *j); /* never NULL */
void jinja_dict_put(jinja *j, jdict *d, jvalue key, jvalue v);
bool jinja_dict_get(jinja *j, const jdict *d, jvalue key, jvalue *v);
bool jinja_dict_find(jinja *j, const jdict *d, str key, jvalue *v);
bool jinja_hashable(jinja *j, jvalue v);

bool jinja_true(jvalue v);
bool jinja_equal(jinja *j, jvalue a, jvalue b);
bool jinja_less(jinja *j, jvalue a, jvalue b, const char *op); /* a < b; `op` for the message */
bool jinja_in(jinja *j, jvalue v, jvalue holder);
/* Sorts `values` by `keys`, both [n], and stays stable, as sorted() does. */
void jinja_sort(jinja *j, jvalue *keys, jvalue *values, size_t n, bool reverse);
/* len(v); false if it has none. */
bool jinja_length(jvalue v, size_t *n);
bool jinja_can_walk(jvalue v);
jwalk jinja_walk(jinja *j, jvalue over); /* latches if v cannot be walked */
bool jinja_next(jinja *j, jwalk *walk, jvalue *v);
const jlist *jinja_to_list(jinja *j, jvalue v); /* never NULL */
jvalue jinja_range_at(const jrange *r, size_t i);

/* ---- jinja_arith.c ------------------------------------------------------------------------- */

jvalue jinja_binary(jinja *j, jop op, jvalue a, jvalue b);
jvalue jinja_negate(jinja *j, jvalue v, bool minus);
jvalue jinja_round(jinja *j, jvalue v, int64_t digits);
/* int(text, base) and float(text); false if it is no number. Beyond 64 bits is latched. */
bool jinja_parse_int(jinja *j, const jtext *t, int base, int64_t *out);
bool jinja_parse_float(const jtext *t, double *out);
/* Truncates; false for NaN and infinities. Beyond 64 bits is latched. */
bool jinja_float_to_int(jinja *j, double f, int64_t *out);

/* ---- jinja_string.c, jinja_case.c, jinja_format.c ------------------------------------------ */

const jentry *jinja_find_entry(const jentry *table, size_t n, str name);
const jentry *jinja_text_method(str name);
const jentry *jinja_case_method(str name); /* those of jinja_case.c */
/* The character that starts at byte i, and how many bytes it has. */
uint32_t jinja_code_at(const jtext *t, size_t i, size_t *n);
bool jinja_is_space(uint32_t code); /* str.isspace */
bool jinja_is_printable(uint32_t code);
bool jinja_is_alnum(uint32_t code);
jvalue jinja_strip(jinja *j, const jtext *t, jvalue chars, bool left, bool right);
jvalue jinja_replace(jinja *j, const jtext *t, const jtext *old, const jtext *with, int64_t count);
jvalue jinja_split_lines(jinja *j, const jtext *t, bool keep_ends);
jvalue jinja_join(jinja *j, const jtext *separator, const jlist *list, bool only_texts);
/* Byte of the first, or last, occurrence in bytes [from, to); SIZE_MAX if there is none. */
size_t jinja_find(jinja *j, const jtext *t, str what, size_t from, size_t to, bool last);
/* Pads on the left, on both sides or on the right. What is left over in the middle goes to the
 * right in format fields, by a rule of its own in str.center. */
typedef enum { PAD_LEFT, PAD_CENTER, PAD_FIELD, PAD_RIGHT } jpad;
jvalue jinja_pad(jinja *j, const jtext *t, int64_t width, const jtext *fill, jpad side);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_FOLD, CASE_CAPITALIZE, CASE_SWAP } jcase;
jvalue jinja_case(jinja *j, const jtext *t, jcase how);
bool jinja_has_case(jinja *j, const jtext *t, bool upper); /* isupper, islower */

jvalue jinja_percent(jinja *j, const jtext *format, jvalue args);          /* format % args */
jvalue jinja_str_format(jinja *j, const jtext *format, const jcall *call); /* format.format() */

/* ---- jinja_filters.c, jinja_tests.c, jinja_json.c, jinja_globals.c -------------------------- */

const jentry *jinja_filter(str name);
const jentry *jinja_test(str name);
bool jinja_is_left_out(str name); /* a filter of jinja2 that is not here */
jvalue jinja_tojson(jinja *j, jvalue self, const jcall *call, const jvalue *args);
/* The functions that every template sees. */
extern const jglobal jinja_globals[];
extern const size_t n_jinja_globals;
/* Sets an attribute of a namespace. */
void jinja_space_put(jinja *j, jspace *space, jvalue name, jvalue v);

/* ---- jinja_lookup.c ------------------------------------------------------------------------ */

/* v.name as Python's getattr() has it; false if there is no such attribute. */
bool jinja_find_attribute(jinja *j, jvalue v, const jtext *name, jvalue *found);
/* v.name and v[key] as jinja2 has them: the other is tried if the one is not there. */
jvalue jinja_get_attribute(jinja *j, jvalue v, const jtext *name);
jvalue jinja_get_item(jinja *j, jvalue v, jvalue key);
jvalue jinja_slice(jinja *j, jvalue v, jvalue start, jvalue stop, jvalue every);

/* ---- jinja_lex.c, jinja_parse.c ------------------------------------------------------------ */

typedef enum {
    T_END,
    T_DATA,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_NUMBER,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
} jtoken_kind;

typedef struct {
    jtoken_kind kind;
    uint32_t line;
    str text;     /* of names, data, operators: as written */
    jvalue value; /* of strings and numbers */
} jtoken;

typedef struct {
    jinja *j;
    str source; /* newlines are \n */
    size_t pos;
    uint32_t line;
    enum { LEX_ROOT, LEX_COMMENT, LEX_RAW, LEX_BLOCK, LEX_VARIABLE } mode;
    bool begun;         /* the token that begins the tag was given out */
    bool line_starting; /* the last thing read ended a line */
    char open[2 * JINJA_NEST_MAX];
    size_t n_open;
} jlexer;

void jinja_lex(jlexer *l, jinja *j, str source);
jtoken jinja_lex_next(jlexer *l); /* T_END after an error too */

/* ---- jinja_parse.c, jinja_statement.c ------------------------------------------------------ */

typedef struct {
    jinja *j;
    jlexer lex;
    jtoken token, ahead; /* the current one, and one that was looked at */
    bool looked;
    bool soft; /* an if may skip this place: unknown filters are found when they run */
    uint32_t depth;
    uint32_t n_loops;     /* loops around this place, up to the nearest macro */
    uint32_t stores_loop; /* line of the last assignment to the name loop; 0: none */
    uint8_t uses, hidden; /* 1 << SYMBOL_...: read before assigned; assigned */
    jnode *unknown;       /* first filter or test that does not exist and is in no soft place */
    jnode spare;          /* what is handed out when memory ran out */
} jparser;

/* Tokens: `expect` refuses another one, naming what was expected; `skip` says if it was there. */
void jparse_advance(jparser *p);
bool jparse_skip(jparser *p, jtoken_kind kind);
bool jparse_expect(jparser *p, jtoken_kind kind, const char *what);
void jparse_wrong(jparser *p, const char *expected);
bool jparse_at_name(const jparser *p, const char *name);
bool jparse_skip_name(jparser *p, const char *name);
/* Counts nesting; after false the caller returns at once. */
bool jparse_enter(jparser *p);

/* Nodes; never NULL. */
jnode *jparse_new_node(jparser *p, jnode_kind kind, uint32_t line);
jnode *jparse_const_node(jparser *p, jvalue v);
jnode *jparse_name_node(jparser *p); /* of the current token, which it passes */
void jparse_add_node(jparser *p, jnodes *list, const jnode *n);
const jtext *jparse_token_text(jparser *p);
uint32_t jparse_symbol(jparser *p, str name);

const jnode *jparse_expression(jparser *p);
/* Expressions with commas between them, or one without. `extra`: a name that ends them, or NULL. */
typedef enum { TUPLE_FULL, TUPLE_NO_COND, TUPLE_TARGET, TUPLE_SPACE_TARGET } jtuple_of;
const jnode *jparse_tuple(jparser *p, jtuple_of of, const char *extra, bool parentheses);
/* Filters behind `n`, each after a bar; the first without one if `inline_first`. */
const jnode *jparse_filters(jparser *p, const jnode *n, bool inline_first);

/* The statements of a template. */
jnodes jinja_parse(jinja *j, str source);

/* ---- jinja_eval.c -------------------------------------------------------------------------- */

void jinja_run(jinja *j, const jnodes *body);
void jinja_set(jinja *j, jscope *scope, uint32_t symbol, jvalue v);
jvalue jinja_call(jinja *j, jvalue callee, const jcall *call);
/* What loop.NAME is; false if there is no such attribute. */
bool jinja_loop_attribute(jinja *j, jloop *loop, str name, jvalue *found);
/* Binds a call to an entry's parameters and calls it. `self` is what a filter or test is for. */
jvalue jinja_invoke(jinja *j, const jentry *entry, jvalue self, const jcall *call);

#endif
