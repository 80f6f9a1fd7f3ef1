/* jinja_parse: tokens to a tree, by recursive descent over the grammar of jinja2.
 *
 * jinja2 compiles a template to Python, so what its compiler and Python's refuse is refused here
 * too, before anything runs: unknown filters where they are certain to be reached, break outside of
 * a loop, assignments to `loop`. Which of caller, kwargs and varargs a macro takes depends on what
 * its body reads; `uses` collects that while the body is parsed. */
#include "text/jinja_internal.h"

typedef struct {
    jinja *j;
    jlexer lex;
    jtoken token, ahead; /* the current one, and one that was looked at */
    bool looked;
    uint32_t depth;
    uint32_t n_loops;      /* loops around this place, up to the nearest macro */
    uint32_t stores_loop;  /* line of the last assignment to the name loop; 0: none */
    bool soft;             /* an if may skip this place: unknown filters are found when they run */
    uint8_t uses, hidden;  /* 1 << SYMBOL_...: read before assigned; assigned */
    uint32_t first_symbol; /* of names that are not special */
    jnode *unknown;        /* first filter or test that does not exist and is not in a soft place */
    jnode spare;           /* what is handed out when memory ran out */
} jparser;

static const jnode *parse_expression(jparser *p);
static const jnode *parse_unary(jparser *p, bool with_filter);
static jnodes parse_template_body(jparser *p, const char *const *ends);

/* ---- tokens and nodes ---------------------------------------------------------------------- */

static void advance_token(jparser *p) {
    p->token = p->looked ? p->ahead : jinja_lex_next(&p->lex);
    p->looked = false;
    if (!p->j->failed) p->j->line = p->token.line;
}

static const jtoken *look_ahead(jparser *p) {
    if (!p->looked) p->ahead = jinja_lex_next(&p->lex);
    p->looked = true;
    return &p->ahead;
}

static bool at_name(const jparser *p, const char *name) {
    return p->token.kind == T_NAME && str_is(p->token.text, name);
}

static bool skip_token(jparser *p, jtoken_kind kind) {
    if (p->token.kind != kind) return false;
    advance_token(p);
    return true;
}

static bool skip_name(jparser *p, const char *name) {
    if (!at_name(p, name)) return false;
    advance_token(p);
    return true;
}

static void wrong_token(jparser *p, const char *expected) {
    p->j->line = p->token.line;
    switch (p->token.kind) {
    case T_END:
        jinja_fail(p->j, DP_E_FORMAT, "the template ends where %s is expected", expected);
        break;
    case T_STRING:
    case T_NUMBER:
        jinja_fail(p->j, DP_E_FORMAT, "a %s where %s is expected",
                   p->token.kind == T_STRING ? "string" : "number", expected);
        break;
    default:
        jinja_fail(p->j, DP_E_FORMAT, "\"%.*s\" where %s is expected", STR_ARG(p->token.text),
                   expected);
    }
}

static bool expect_token(jparser *p, jtoken_kind kind, const char *what) {
    if (skip_token(p, kind)) return true;
    wrong_token(p, what);
    return false;
}

/* Counts nesting; after false the caller returns p->spare or the like. */
static bool enter_nesting(jparser *p) {
    if (p->depth == JINJA_NEST_MAX) {
        jinja_fail(p->j, DP_E_LIMIT, "nested deeper than the limit of %d", JINJA_NEST_MAX);
        return false;
    }
    p->depth++;
    return !p->j->failed;
}

static jnode *new_node(jparser *p, jnode_kind kind, uint32_t line) {
    jnode *n = jinja_take(p->j, 1, sizeof(jnode));
    if (n == NULL) {
        p->spare = (jnode){ 0 };
        n = &p->spare;
    }
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

static void add_node(jparser *p, jnodes *list, const jnode *n) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 4 : 2 * list->capacity;
        const jnode **at = jinja_take(p->j, capacity, sizeof(*at));
        if (at == NULL) return;
        if (list->n > 0) memcpy(at, list->at, list->n * sizeof(*at));
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->n++] = n;
}

static const jtext *token_text(jparser *p) {
    return jinja_text(p->j, p->token.text.data, p->token.text.size, false).text;
}

static uint32_t symbol_of(jparser *p, str name) {
    uint32_t id = (uint32_t)map_count(p->j->symbols);
    bool added;
    uint32_t known;
    if (map_get(p->j->symbols, name, &known)) return known;
    dp_error err = { 0 };
    if (!map_put(p->j->symbols, name, id, &added, &err)) {
        jinja_fail(p->j, err.status, "%s", err.message);
    }
    return id;
}

/* A name that is read. */
static jnode *name_node(jparser *p) {
    jnode *n = new_node(p, N_NAME, p->token.line);
    n->name = token_text(p);
    n->symbol = symbol_of(p, p->token.text);
    if (n->symbol < N_SYMBOLS) p->uses |= (uint8_t)(1U << n->symbol & ~(unsigned)p->hidden);
    advance_token(p);
    return n;
}

/* ---- filters, tests, calls ----------------------------------------------------------------- */

static void check_entry(jparser *p, jnode *n, const char *what) {
    const str name = jinja_str(n->name);
    n->entry = n->kind == N_FILTER ? jinja_filter(name) : jinja_test(name);
    if (n->entry != NULL) return;
    if (n->kind == N_FILTER && jinja_is_left_out(name)) {
        jinja_fail(p->j, DP_E_UNSUPPORTED, "the %s %.*s is not supported", what, STR_ARG(name));
    } else if (!p->soft && p->unknown == NULL) {
        p->unknown = n;
    }
}

static bool repeated_name(const jargs *args, const jtext *name) {
    for (size_t i = 0; i < args->values.n; i++) {
        if (str_equal(jinja_str(args->names[i]), jinja_str(name))) return true;
    }
    return false;
}

static void add_keyword(jparser *p, jargs *args, size_t *capacity) {
    const jtext *name = token_text(p);
    if (repeated_name(args, name)) {
        jinja_fail(p->j, DP_E_FORMAT, "the argument %.*s is given twice",
                   STR_ARG(jinja_str(name)));
        return;
    }
    advance_token(p);
    advance_token(p);
    const jnode *value = parse_expression(p);
    if (args->values.n == *capacity) {
        const size_t more = *capacity == 0 ? 4 : 2 * *capacity;
        const jtext **names = jinja_take(p->j, more, sizeof(*names));
        if (names == NULL) return;
        if (*capacity > 0) memcpy(names, args->names, args->values.n * sizeof(*names));
        args->names = names;
        *capacity = more;
    }
    args->names[args->values.n] = name;
    add_node(p, &args->values, value);
}

static const jargs *parse_arguments(jparser *p) {
    jargs *args = jinja_take(p->j, 1, sizeof(jargs));
    if (args == NULL) return NULL;
    size_t capacity = 0;
    bool comma = false, ok = expect_token(p, T_LPAREN, "\"(\"");
    while (ok && !p->j->failed && p->token.kind != T_RPAREN) {
        if (comma) {
            expect_token(p, T_COMMA, "\",\" or \")\"");
            if (p->token.kind == T_RPAREN) break;
        }
        if (skip_token(p, T_MUL)) {
            ok = args->star == NULL && args->star_star == NULL;
            args->star = parse_expression(p);
        } else if (skip_token(p, T_POW)) {
            ok = args->star_star == NULL;
            args->star_star = parse_expression(p);
        } else if (p->token.kind == T_NAME && look_ahead(p)->kind == T_ASSIGN) {
            ok = args->star_star == NULL;
            add_keyword(p, args, &capacity);
        } else {
            ok = args->star == NULL && args->star_star == NULL && args->values.n == 0;
            add_node(p, &args->at, parse_expression(p));
        }
        comma = true;
    }
    if (!ok) jinja_fail(p->j, DP_E_FORMAT, "arguments of a call in a wrong order");
    expect_token(p, T_RPAREN, "\")\"");
    return args;
}

/* "name" or "a.b" behind a bar or `is`. */
static const jtext *parse_dotted(jparser *p, const char *what) {
    const jtext *name = token_text(p);
    if (!expect_token(p, T_NAME, what)) return name;
    while (skip_token(p, T_DOT)) {
        jout out = { 0 };
        jinja_put_text(p->j, &out, name);
        jinja_put_str(p->j, &out, ".");
        jinja_put(p->j, &out, p->token.text.data, p->token.text.size, false);
        if (!expect_token(p, T_NAME, what)) break;
        name = jinja_finish(p->j, &out).text;
    }
    return name;
}

/* Filters behind `n`, each after a bar; the first without one if `inline_first`. */
static const jnode *parse_filters(jparser *p, const jnode *n, bool inline_first) {
    while (!p->j->failed && (inline_first || skip_token(p, T_PIPE))) {
        inline_first = false;
        jnode *filter = new_node(p, N_FILTER, p->token.line);
        filter->name = parse_dotted(p, "the name of a filter");
        if (p->token.kind == T_LPAREN) filter->args = parse_arguments(p);
        filter->a = n;
        if (!p->j->failed) check_entry(p, filter, "filter");
        n = filter;
    }
    return n;
}

static const jnode *parse_postfix(jparser *p, const jnode *n);
static const jnode *parse_primary(jparser *p, bool with_space);

static const jnode *parse_test(jparser *p, const jnode *n) {
    advance_token(p); /* is */
    jnode *test = new_node(p, N_TEST, p->token.line);
    const bool negated = skip_name(p, "not");
    test->name = parse_dotted(p, "the name of a test");
    test->a = n;
    switch (p->token.kind) {
    case T_LPAREN:
        test->args = parse_arguments(p);
        break;
    case T_NAME:
        if (at_name(p, "else") || at_name(p, "or") || at_name(p, "and")) break;
        if (at_name(p, "is")) {
            jinja_fail(p->j, DP_E_FORMAT, "tests cannot be chained with is");
            break;
        }
        /* fall through */
    case T_STRING:
    case T_NUMBER:
    case T_LBRACKET:
    case T_LBRACE: {
        jargs *args = jinja_take(p->j, 1, sizeof(jargs));
        if (args == NULL) return n;
        add_node(p, &args->at, parse_postfix(p, parse_primary(p, false)));
        test->args = args;
        break;
    }
    default:
        break;
    }
    if (!p->j->failed) check_entry(p, test, "test");
    if (!negated) return test;
    jnode *not_node = new_node(p, N_NOT, test->line);
    not_node->a = test;
    return not_node;
}

/* ---- expressions --------------------------------------------------------------------------- */

/* What ends a tuple without brackets; `extra`: a name that ends it, or NULL. */
static bool at_tuple_end(const jparser *p, const char *extra) {
    return p->token.kind == T_VARIABLE_END || p->token.kind == T_BLOCK_END ||
           p->token.kind == T_RPAREN || (extra != NULL && at_name(p, extra));
}

typedef enum { TUPLE_FULL, TUPLE_NO_COND, TUPLE_TARGET, TUPLE_SPACE_TARGET } tuple_of;

static const jnode *parse_or(jparser *p);

static const jnode *parse_tuple(jparser *p, tuple_of of, const char *extra, bool parentheses) {
    jnode *tuple = new_node(p, N_TUPLE, p->token.line);
    const jnode *only = NULL;
    jnodes list = { 0 };
    bool is_tuple = false;
    while (!p->j->failed) {
        if (list.n > 0) expect_token(p, T_COMMA, "\",\"");
        if (at_tuple_end(p, extra)) break;
        only = of == TUPLE_FULL      ? parse_expression(p)
               : of == TUPLE_NO_COND ? parse_or(p)
                                     : parse_primary(p, of == TUPLE_SPACE_TARGET);
        add_node(p, &list, only);
        if (p->token.kind != T_COMMA) break;
        is_tuple = true;
    }
    if (!is_tuple) {
        if (list.n > 0) return only;
        if (!parentheses && !p->j->failed) wrong_token(p, "an expression");
    }
    tuple->list = list;
    return tuple;
}

/* A list or dict; the current token opens it. */
static const jnode *parse_display(jparser *p, bool dict) {
    jnode *n = new_node(p, dict ? N_DICT : N_LIST, p->token.line);
    const jtoken_kind close = dict ? T_RBRACE : T_RBRACKET;
    advance_token(p);
    while (!p->j->failed && p->token.kind != close) {
        if (n->list.n > 0) {
            expect_token(p, T_COMMA, dict ? "\",\" or \"}\"" : "\",\" or \"]\"");
            if (p->token.kind == close) break;
        }
        add_node(p, &n->list, parse_expression(p));
        if (dict) {
            expect_token(p, T_COLON, "\":\"");
            add_node(p, &n->more, parse_expression(p));
        }
    }
    expect_token(p, close, dict ? "\"}\"" : "\"]\"");
    return n;
}

static jnode *const_node(jparser *p, jvalue v) {
    jnode *n = new_node(p, N_CONST, p->token.line);
    n->constant = v;
    return n;
}

static const jnode *parse_literal(jparser *p) {
    jnode *n = const_node(p, p->token.value);
    if (p->token.kind == T_NUMBER) {
        advance_token(p);
        return n;
    }
    advance_token(p);
    if (p->token.kind != T_STRING) return n;
    jout out = { 0 }; /* strings in a row are one */
    jinja_put_value(p->j, &out, n->constant);
    while (p->token.kind == T_STRING) {
        jinja_put_value(p->j, &out, p->token.value);
        advance_token(p);
    }
    n->constant = jinja_finish(p->j, &out);
    return n;
}

static const jnode *parse_name(jparser *p, bool with_space) {
    static const struct {
        const char *name;
        jkind kind;
        bool truth;
    } constants[] = {
        { "true", V_BOOL, true },    { "True", V_BOOL, true },  { "false", V_BOOL, false },
        { "False", V_BOOL, false },  { "none", V_NONE, false }, { "None", V_NONE, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(constants); i++) {
        if (!at_name(p, constants[i].name)) continue;
        jnode *n = const_node(p, constants[i].kind == V_BOOL ? jinja_bool(constants[i].truth)
                                                             : jinja_none());
        advance_token(p);
        return n;
    }
    jnode *n = name_node(p);
    if (with_space && skip_token(p, T_DOT)) {
        jnode *target = new_node(p, N_SPACE_NAME, n->line);
        target->a = n;
        target->name = token_text(p);
        expect_token(p, T_NAME, "the name of an attribute");
        return target;
    }
    return n;
}

static const jnode *parse_primary(jparser *p, bool with_space) {
    if (!enter_nesting(p)) return &p->spare;
    const jnode *n = &p->spare;
    switch (p->token.kind) {
    case T_NAME:
        n = parse_name(p, with_space);
        break;
    case T_STRING:
    case T_NUMBER:
        n = parse_literal(p);
        break;
    case T_LPAREN:
        advance_token(p);
        n = parse_tuple(p, TUPLE_FULL, NULL, true);
        expect_token(p, T_RPAREN, "\")\"");
        break;
    case T_LBRACKET:
        n = parse_display(p, false);
        break;
    case T_LBRACE:
        n = parse_display(p, true);
        break;
    default:
        wrong_token(p, "an expression");
    }
    p->depth--;
    return n;
}

/* One index or slice between brackets. */
static const jnode *parse_subscript(jparser *p) {
    jnode *slice = new_node(p, N_SLICE, p->token.line);
    const jnode *parts[3] = { NULL, NULL, NULL };
    if (p->token.kind != T_COLON) {
        parts[0] = parse_expression(p);
        if (p->token.kind != T_COLON) return parts[0];
    }
    for (size_t i = 1; i < 3 && skip_token(p, T_COLON); i++) {
        if (p->token.kind != T_COLON && p->token.kind != T_RBRACKET && p->token.kind != T_COMMA) {
            parts[i] = parse_expression(p);
        }
    }
    slice->a = parts[0];
    slice->b = parts[1];
    slice->c = parts[2];
    return slice;
}

static const jnode *parse_item(jparser *p, const jnode *of) {
    jnode *n = new_node(p, N_ITEM, p->token.line);
    n->a = of;
    advance_token(p);
    jnode *tuple = NULL;
    const jnode *arg = NULL;
    bool slices = false;
    while (!p->j->failed && p->token.kind != T_RBRACKET) {
        if (arg != NULL) expect_token(p, T_COMMA, "\",\" or \"]\"");
        const jnode *next = parse_subscript(p);
        slices |= next->kind == N_SLICE;
        if (arg != NULL && tuple == NULL) {
            tuple = new_node(p, N_TUPLE, n->line);
            add_node(p, &tuple->list, arg);
        }
        if (tuple != NULL) add_node(p, &tuple->list, next);
        arg = next;
    }
    expect_token(p, T_RBRACKET, "\"]\"");
    if (arg == NULL) arg = new_node(p, N_TUPLE, n->line);
    if (tuple != NULL && slices) {
        jinja_fail(p->j, DP_E_FORMAT, "a slice among several indices");
    }
    n->b = tuple != NULL ? tuple : arg;
    return n;
}

static const jnode *parse_attribute(jparser *p, const jnode *of) {
    advance_token(p);
    jnode *n;
    if (p->token.kind == T_NAME) {
        n = new_node(p, N_ATTRIBUTE, p->token.line);
        n->name = token_text(p);
    } else if (p->token.kind == T_NUMBER && p->token.value.kind == V_INT) {
        n = new_node(p, N_ITEM, p->token.line);
        n->b = const_node(p, p->token.value);
    } else {
        wrong_token(p, "a name or number");
        return of;
    }
    n->a = of;
    advance_token(p);
    return n;
}

static const jnode *parse_call(jparser *p, const jnode *callee) {
    jnode *n = new_node(p, N_CALL, p->token.line);
    n->args = parse_arguments(p);
    n->a = callee;
    return n;
}

static const jnode *parse_postfix(jparser *p, const jnode *n) {
    while (!p->j->failed) {
        if (p->token.kind == T_DOT) {
            n = parse_attribute(p, n);
        } else if (p->token.kind == T_LBRACKET) {
            n = parse_item(p, n);
        } else if (p->token.kind == T_LPAREN) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

static const jnode *parse_unary(jparser *p, bool with_filter) {
    if (!enter_nesting(p)) return &p->spare;
    const jnode *n;
    if (p->token.kind == T_SUB || p->token.kind == T_ADD) {
        jnode *sign = new_node(p, p->token.kind == T_SUB ? N_MINUS : N_PLUS, p->token.line);
        advance_token(p);
        sign->a = parse_unary(p, false);
        n = sign;
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    while (with_filter && !p->j->failed) {
        if (p->token.kind == T_PIPE) {
            n = parse_filters(p, n, false);
        } else if (at_name(p, "is")) {
            n = parse_test(p, n);
        } else if (p->token.kind == T_LPAREN) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    p->depth--;
    return n;
}

/* Binary operators from loosest to tightest: "+ -", "~", "* / // %", "**", all to the left. */
enum { LEVEL_SUM, LEVEL_CONCAT, LEVEL_PRODUCT, LEVEL_POWER, LEVEL_UNARY };

static int level_of(jtoken_kind kind, jop *op) {
    switch (kind) {
    case T_ADD:
        *op = OP_ADD;
        return LEVEL_SUM;
    case T_SUB:
        *op = OP_SUB;
        return LEVEL_SUM;
    case T_TILDE:
        return LEVEL_CONCAT;
    case T_MUL:
        *op = OP_MUL;
        return LEVEL_PRODUCT;
    case T_DIV:
        *op = OP_DIV;
        return LEVEL_PRODUCT;
    case T_FLOORDIV:
        *op = OP_FLOORDIV;
        return LEVEL_PRODUCT;
    case T_MOD:
        *op = OP_MOD;
        return LEVEL_PRODUCT;
    case T_POW:
        *op = OP_POW;
        return LEVEL_POWER;
    default:
        return -1;
    }
}

static const jnode *parse_math(jparser *p, int level) {
    if (level == LEVEL_UNARY) return parse_unary(p, true);
    const jnode *left = parse_math(p, level + 1);
    jop op = OP_ADD;
    while (!p->j->failed && level_of(p->token.kind, &op) == level) {
        jnode *n = new_node(p, level == LEVEL_CONCAT ? N_CONCAT : N_BINARY, p->token.line);
        if (level == LEVEL_CONCAT) { /* one node for all of a row */
            add_node(p, &n->list, left);
            while (!p->j->failed && skip_token(p, T_TILDE)) {
                add_node(p, &n->list, parse_math(p, level + 1));
            }
        } else {
            advance_token(p);
            n->op = (uint8_t)op;
            n->a = left;
            n->b = parse_math(p, level + 1);
        }
        left = n;
    }
    return left;
}

static bool skip_comparison(jparser *p, jop *op) {
    static const struct {
        jtoken_kind kind;
        jop op;
    } signs[] = { { T_EQ, OP_EQ }, { T_NE, OP_NE }, { T_LT, OP_LT },
                  { T_LE, OP_LE }, { T_GT, OP_GT }, { T_GE, OP_GE } };
    for (size_t i = 0; i < ARRAY_LEN(signs); i++) {
        *op = signs[i].op;
        if (skip_token(p, signs[i].kind)) return true;
    }
    *op = OP_IN;
    if (skip_name(p, "in")) return true;
    *op = OP_NOT_IN;
    if (!at_name(p, "not")) return false;
    const jtoken *next = look_ahead(p);
    if (next->kind != T_NAME || !str_is(next->text, "in")) return false;
    advance_token(p);
    advance_token(p);
    return true;
}

static const jnode *parse_compare(jparser *p) {
    const jnode *left = parse_math(p, LEVEL_SUM);
    jnode *n = NULL;
    jop op;
    while (!p->j->failed && skip_comparison(p, &op)) {
        if (n == NULL) {
            n = new_node(p, N_COMPARE, p->token.line);
            n->a = left;
        }
        jnode *operand = new_node(p, N_COMPARE, p->token.line);
        operand->op = (uint8_t)op;
        operand->a = parse_math(p, LEVEL_SUM);
        add_node(p, &n->list, operand);
    }
    return n != NULL ? n : left;
}

static const jnode *parse_not(jparser *p) {
    uint32_t n_nots = 0;
    const uint32_t line = p->token.line;
    while (skip_name(p, "not")) n_nots++;
    const jnode *n = parse_compare(p);
    if (n_nots == 0) return n;
    for (uint32_t k = n_nots % 2 == 0 ? 2 : 1; k > 0; k--) { /* not not x is a bool */
        jnode *not_node = new_node(p, N_NOT, line);
        not_node->a = n;
        n = not_node;
    }
    return n;
}

static const jnode *parse_logic(jparser *p, bool is_or) {
    const jnode *left = is_or ? parse_logic(p, false) : parse_not(p);
    while (!p->j->failed && skip_name(p, is_or ? "or" : "and")) {
        jnode *n = new_node(p, is_or ? N_OR : N_AND, p->token.line);
        n->a = left;
        n->b = is_or ? parse_logic(p, false) : parse_not(p);
        left = n;
    }
    return left;
}

static const jnode *parse_or(jparser *p) {
    return parse_logic(p, true);
}

static const jnode *parse_expression(jparser *p) {
    if (!enter_nesting(p)) return &p->spare;
    jnode *unknown = p->unknown;
    const uint32_t line = p->token.line;
    const jnode *n = parse_or(p);
    while (!p->j->failed && skip_name(p, "if")) {
        jnode *cond = new_node(p, N_COND, line);
        cond->a = n;
        cond->b = parse_or(p);
        if (skip_name(p, "else")) cond->c = parse_expression(p);
        p->unknown = unknown; /* what is in it need not be reached */
        n = cond;
    }
    p->depth--;
    return n;
}

/* ---- assignment targets -------------------------------------------------------------------- */

static void store_symbol(jparser *p, const jnode *n) {
    if (n->symbol == SYMBOL_LOOP) p->stores_loop = n->line;
    if (n->symbol < N_SYMBOLS) p->hidden |= (uint8_t)(1U << n->symbol);
}

/* Notes the names of a target; false if it cannot be assigned to. */
static bool check_target(jparser *p, const jnode *n) {
    if (n->kind == N_NAME) {
        store_symbol(p, n);
        return true;
    }
    if (n->kind != N_TUPLE) return n->kind == N_SPACE_NAME;
    for (size_t i = 0; i < n->list.n; i++) {
        if (!check_target(p, n->list.at[i])) return false;
    }
    return true;
}

static const jnode *parse_target(jparser *p, tuple_of of, const char *extra) {
    const uint8_t uses = p->uses;
    const jnode *n = parse_tuple(p, of, extra, false);
    p->uses = uses;
    if (!p->j->failed && !check_target(p, n)) {
        jinja_fail(p->j, DP_E_FORMAT, "something that is no name is assigned to");
    }
    return n;
}

/* A single name that a macro or a parameter gets. */
static jnode *parse_new_name(jparser *p, const char *what) {
    if (p->token.kind != T_NAME) {
        wrong_token(p, what);
        return &p->spare;
    }
    if (at_name(p, "true") || at_name(p, "false") || at_name(p, "none") || at_name(p, "True") ||
        at_name(p, "False") || at_name(p, "None")) {
        jinja_fail(p->j, DP_E_FORMAT, "%.*s is assigned to", STR_ARG(p->token.text));
    }
    const uint8_t uses = p->uses;
    jnode *n = name_node(p);
    p->uses = uses;
    return n;
}

/* ---- statements ---------------------------------------------------------------------------- */

/* The body of a tag, up to a tag whose name is in `ends`, which becomes the current token. */
static jnodes parse_body(jparser *p, const char *const *ends) {
    jnodes body = { 0 };
    skip_token(p, T_COLON);
    if (!expect_token(p, T_BLOCK_END, "the end of the tag")) return body;
    body = parse_template_body(p, ends);
    if (p->token.kind == T_END && !p->j->failed) {
        jinja_fail(p->j, DP_E_FORMAT, "the template ends without {%% %s %%}", ends[0]);
    }
    return body;
}

/* As parse_body for a body that is a scope of its own, and passes the end's name. */
static jnodes parse_scope(jparser *p, const char *end) {
    const bool soft = p->soft;
    p->soft = false;
    const jnodes body = parse_body(p, (const char *const[]){ end, NULL });
    advance_token(p);
    p->soft = soft;
    return body;
}

static const jnode *parse_for(jparser *p) {
    jnode *n = new_node(p, N_FOR, p->token.line);
    const bool soft = p->soft;
    const uint32_t stores = p->stores_loop;
    p->stores_loop = 0;
    advance_token(p);
    n->a = parse_target(p, TUPLE_TARGET, "in");
    if (!skip_name(p, "in")) wrong_token(p, "\"in\"");
    n->b = parse_tuple(p, TUPLE_NO_COND, "recursive", false);
    p->soft = false;
    if (skip_name(p, "if")) n->c = parse_expression(p);
    n->flag = skip_name(p, "recursive");
    p->n_loops++;
    n->list = parse_body(p, (const char *const[]){ "endfor", "else", NULL });
    p->n_loops--;
    if (skip_name(p, "else")) {
        n->more = parse_body(p, (const char *const[]){ "endfor", NULL });
    }
    advance_token(p);
    p->soft = soft;
    if (p->stores_loop != 0) {
        p->j->line = p->stores_loop;
        jinja_fail(p->j, DP_E_FORMAT, "the name loop is assigned to inside of a loop");
    }
    if (p->stores_loop == 0) p->stores_loop = stores;
    return n;
}

static const jnode *parse_if(jparser *p) {
    static const char *const ends[] = { "endif", "elif", "else", NULL };
    jnode *first = new_node(p, N_IF, p->token.line), *n = first;
    const bool soft = p->soft;
    p->soft = true;
    advance_token(p);
    for (;;) {
        n->a = parse_tuple(p, TUPLE_NO_COND, NULL, false);
        n->list = parse_body(p, ends);
        if (p->j->failed || !(at_name(p, "elif") || at_name(p, "else"))) break;
        jnode *next = new_node(p, N_IF, p->token.line);
        n->c = next;
        n = next;
        if (skip_name(p, "elif")) continue;
        advance_token(p);
        n->list = parse_body(p, (const char *const[]){ "endif", NULL });
        break;
    }
    advance_token(p);
    p->soft = soft;
    return first;
}

/* The filters of a block, around what it captures. */
static const jnode *parse_block_filters(jparser *p, bool inline_first) {
    const bool soft = p->soft;
    p->soft = false;
    jnode *captured = new_node(p, N_CAPTURED, p->token.line);
    const jnode *n = parse_filters(p, captured, inline_first);
    p->soft = soft;
    return n;
}

static const jnode *parse_set(jparser *p) {
    jnode *n = new_node(p, N_SET, p->token.line);
    advance_token(p);
    /* What is assigned is read first: {% set caller = caller %} reads the outer one. */
    const uint8_t hidden = p->hidden;
    n->a = parse_target(p, TUPLE_SPACE_TARGET, NULL);
    if (p->token.kind == T_ASSIGN) {
        const uint8_t after = p->hidden;
        p->hidden = hidden;
        advance_token(p);
        n->b = parse_tuple(p, TUPLE_FULL, NULL, false);
        p->hidden |= after;
        return n;
    }
    n->kind = N_CAPTURE;
    n->b = parse_block_filters(p, false);
    n->list = parse_scope(p, "endset");
    return n;
}

static void parse_signature(jparser *p, jnode *n) {
    expect_token(p, T_LPAREN, "\"(\"");
    while (!p->j->failed && p->token.kind != T_RPAREN) {
        if (n->list.n > 0) expect_token(p, T_COMMA, "\",\" or \")\"");
        jnode *name = parse_new_name(p, "the name of a parameter");
        for (size_t i = 0; !p->j->failed && i < n->list.n; i++) {
            if (n->list.at[i]->symbol == name->symbol) {
                jinja_fail(p->j, DP_E_FORMAT, "two parameters have one name");
            }
        }
        if (skip_token(p, T_ASSIGN)) {
            add_node(p, &n->more, parse_expression(p));
        } else if (n->more.n > 0) {
            jinja_fail(p->j, DP_E_FORMAT, "a parameter without default behind one with a default");
        }
        add_node(p, &n->list, name);
    }
    expect_token(p, T_RPAREN, "\")\"");
}

/* The body of a macro, which is a function: break does not reach out of it. */
static void parse_macro_body(jparser *p, jnode *n, const char *end) {
    const uint8_t uses = p->uses, hidden = p->hidden;
    const uint32_t n_loops = p->n_loops;
    p->uses = p->hidden = 0;
    p->n_loops = 0;
    jnode *body = new_node(p, N_BODY, p->token.line);
    body->list = parse_scope(p, end);
    n->a = body;
    n->uses = p->uses;
    p->uses = (uint8_t)(uses | (n->uses & ~(unsigned)hidden));
    p->hidden = hidden;
    p->n_loops = n_loops;
    for (size_t i = 0; i < n->list.n; i++) {
        const uint32_t id = n->list.at[i]->symbol;
        if (id == SYMBOL_CALLER && (n->uses & 1U << SYMBOL_CALLER) &&
            n->list.n - i > n->more.n) {
            jinja_fail(p->j, DP_E_FORMAT, "the parameter caller has no default");
        }
        /* A parameter of that name is an ordinary one. */
        if (id < N_SYMBOLS) n->uses &= (uint8_t)~(1U << id);
    }
}

static const jnode *parse_macro(jparser *p) {
    jnode *n = new_node(p, N_MACRO, p->token.line);
    advance_token(p);
    const jnode *name = parse_new_name(p, "the name of a macro");
    if (!p->j->failed) store_symbol(p, name);
    n->symbol = name->symbol;
    n->name = name->name;
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static const jnode *parse_call_block(jparser *p) {
    jnode *n = new_node(p, N_CALL_BLOCK, p->token.line);
    advance_token(p);
    if (p->token.kind == T_LPAREN) parse_signature(p, n);
    n->b = parse_expression(p);
    if (!p->j->failed && n->b->kind != N_CALL) {
        jinja_fail(p->j, DP_E_FORMAT, "{%% call %%} without a call");
    }
    parse_macro_body(p, n, "endcall");
    return n;
}

static const jnode *parse_with(jparser *p) {
    jnode *n = new_node(p, N_WITH, p->token.line);
    advance_token(p);
    while (!p->j->failed && p->token.kind != T_BLOCK_END) {
        if (n->list.n > 0) expect_token(p, T_COMMA, "\",\"");
        const uint32_t stores = p->stores_loop;
        add_node(p, &n->list, parse_target(p, TUPLE_TARGET, NULL));
        p->stores_loop = stores; /* a parameter, which may have any name */
        expect_token(p, T_ASSIGN, "\"=\"");
        add_node(p, &n->more, parse_expression(p));
    }
    jnode *body = new_node(p, N_BODY, n->line);
    body->list = parse_scope(p, "endwith");
    n->a = body;
    return n;
}

static const jnode *parse_loop_control(jparser *p, bool is_break) {
    jnode *n = new_node(p, is_break ? N_BREAK : N_CONTINUE, p->token.line);
    if (p->n_loops == 0) {
        jinja_fail(p->j, DP_E_FORMAT, "%s outside of a loop", is_break ? "break" : "continue");
    }
    advance_token(p);
    return n;
}

static const jnode *parse_print(jparser *p) {
    jnode *n = new_node(p, N_OUTPUT, p->token.line);
    advance_token(p);
    while (!p->j->failed && p->token.kind != T_BLOCK_END) {
        if (n->list.n > 0) expect_token(p, T_COMMA, "\",\"");
        add_node(p, &n->list, parse_expression(p));
    }
    return n;
}

static const jnode *parse_filter_block(jparser *p) {
    jnode *n = new_node(p, N_FILTER_BLOCK, p->token.line);
    advance_token(p);
    n->b = parse_block_filters(p, true);
    n->list = parse_scope(p, "endfilter");
    return n;
}

static const jnode *parse_generation(jparser *p) {
    jnode *n = new_node(p, N_GENERATION, p->token.line);
    advance_token(p);
    parse_macro_body(p, n, "endgeneration");
    return n;
}

static const jnode *parse_unknown_tag(jparser *p) {
    static const char *const left_out[] = { "block", "extends", "include", "import",
                                            "from",  "autoescape" };
    for (size_t i = 0; i < ARRAY_LEN(left_out); i++) {
        if (at_name(p, left_out[i])) {
            jinja_fail(p->j, DP_E_UNSUPPORTED, "{%% %s %%} is not supported", left_out[i]);
        }
    }
    if (p->token.kind == T_NAME) {
        jinja_fail(p->j, DP_E_FORMAT, "unknown tag \"%.*s\"", STR_ARG(p->token.text));
    } else {
        wrong_token(p, "the name of a tag");
    }
    return &p->spare;
}

static const jnode *parse_tag(jparser *p) {
    if (at_name(p, "for")) return parse_for(p);
    if (at_name(p, "if")) return parse_if(p);
    if (at_name(p, "set")) return parse_set(p);
    if (at_name(p, "macro")) return parse_macro(p);
    if (at_name(p, "call")) return parse_call_block(p);
    if (at_name(p, "filter")) return parse_filter_block(p);
    if (at_name(p, "with")) return parse_with(p);
    if (at_name(p, "print")) return parse_print(p);
    if (at_name(p, "generation")) return parse_generation(p);
    if (at_name(p, "break")) return parse_loop_control(p, true);
    if (at_name(p, "continue")) return parse_loop_control(p, false);
    return parse_unknown_tag(p);
}

static bool at_any(const jparser *p, const char *const *names) {
    for (; names != NULL && *names != NULL; names++) {
        if (at_name(p, *names)) return true;
    }
    return false;
}

static jnodes parse_template_body(jparser *p, const char *const *ends) {
    jnodes body = { 0 };
    if (!enter_nesting(p)) return body;
    jnode *output = NULL; /* data and prints in a row */
    while (!p->j->failed && p->token.kind != T_END) {
        if (p->token.kind == T_BLOCK_BEGIN) {
            advance_token(p);
            if (at_any(p, ends)) break;
            output = NULL;
            add_node(p, &body, parse_tag(p));
            expect_token(p, T_BLOCK_END, "the end of the tag");
            continue;
        }
        if (output == NULL) {
            output = new_node(p, N_OUTPUT, p->token.line);
            add_node(p, &body, output);
        }
        if (p->token.kind == T_DATA) {
            jnode *data = const_node(
                p, jinja_text(p->j, p->token.text.data, p->token.text.size, false));
            add_node(p, &output->list, data);
            advance_token(p);
        } else {
            advance_token(p); /* {{ */
            add_node(p, &output->list, parse_tuple(p, TUPLE_FULL, NULL, false));
            expect_token(p, T_VARIABLE_END, "\"}}\"");
        }
    }
    p->depth--;
    return body;
}

/* Newlines of every kind become \n, and the last one goes. */
static str normalized_source(jinja *j, str source) {
    char *text = jinja_take(j, source.size + 1, 1);
    if (text == NULL) return STR("");
    size_t n = 0;
    for (size_t i = 0; i < source.size; i++) {
        const char c = source.data[i];
        if (c == '\r' && i + 1 < source.size && source.data[i + 1] == '\n') continue;
        text[n++] = c == '\r' ? '\n' : c;
    }
    if (n > 0 && text[n - 1] == '\n') n--;
    return (str){ text, n };
}

jnodes jinja_parse(jinja *j, str source) {
    static const char *const special[] = { "loop", "caller", "kwargs", "varargs" };
    jparser p = { .j = j };
    for (uint32_t i = 0; i < N_SYMBOLS; i++) {
        const uint32_t id = symbol_of(&p, str_of(special[i]));
        assert(j->failed || id == i);
    }
    jinja_lex(&p.lex, j, normalized_source(j, source));
    advance_token(&p);
    const jnodes body = parse_template_body(&p, NULL);
    if (p.unknown != NULL && !j->failed) {
        j->line = p.unknown->line;
        jinja_fail(j, DP_E_FORMAT, "there is no %s \"%.*s\"",
                   p.unknown->kind == N_FILTER ? "filter" : "test",
                   STR_ARG(jinja_str(p.unknown->name)));
    }
    return body;
}
