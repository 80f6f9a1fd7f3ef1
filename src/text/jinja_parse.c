/* jinja_parse: tokens to a tree, by recursive descent over the grammar of jinja2.
 *
 * jinja2 compiles a template to Python, so what its compiler refuses is refused here too, before
 * anything runs: filters that do not exist, where they are certain to be reached. */
#include "text/jinja_internal.h"

static const jnode *parse_unary(jparser *p, bool with_filter);

/* ---- tokens and nodes ---------------------------------------------------------------------- */

void jparse_advance(jparser *p) {
    p->token = p->looked ? p->ahead : jinja_lex_next(&p->lex);
    p->looked = false;
    if (!p->j->failed) p->j->line = p->token.line;
}

static const jtoken *look_ahead(jparser *p) {
    if (!p->looked) p->ahead = jinja_lex_next(&p->lex);
    p->looked = true;
    return &p->ahead;
}

bool jparse_at_name(const jparser *p, const char *name) {
    return p->token.kind == T_NAME && str_is(p->token.text, name);
}

bool jparse_skip(jparser *p, jtoken_kind kind) {
    if (p->token.kind != kind) return false;
    jparse_advance(p);
    return true;
}

bool jparse_skip_name(jparser *p, const char *name) {
    if (!jparse_at_name(p, name)) return false;
    jparse_advance(p);
    return true;
}

void jparse_wrong(jparser *p, const char *expected) {
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

bool jparse_expect(jparser *p, jtoken_kind kind, const char *what) {
    if (jparse_skip(p, kind)) return true;
    jparse_wrong(p, what);
    return false;
}

bool jparse_enter(jparser *p) {
    if (p->depth == JINJA_NEST_MAX) {
        jinja_fail(p->j, DP_E_LIMIT, "nested deeper than the limit of %d", JINJA_NEST_MAX);
        return false;
    }
    p->depth++;
    return !p->j->failed;
}

jnode *jparse_new_node(jparser *p, jnode_kind kind, uint32_t line) {
    jnode *n = jinja_take(p->j, 1, sizeof(jnode));
    if (n == NULL) {
        p->spare = (jnode){ 0 };
        n = &p->spare;
    }
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void jparse_add_node(jparser *p, jnodes *list, const jnode *n) {
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

const jtext *jparse_token_text(jparser *p) {
    return jinja_text(p->j, p->token.text.data, p->token.text.size, false).text;
}

uint32_t jparse_symbol(jparser *p, str name) {
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
jnode *jparse_name_node(jparser *p) {
    jnode *n = jparse_new_node(p, N_NAME, p->token.line);
    n->name = jparse_token_text(p);
    n->symbol = jparse_symbol(p, p->token.text);
    if (n->symbol < N_SYMBOLS) p->uses |= (uint8_t)(1U << n->symbol & ~(unsigned)p->hidden);
    jparse_advance(p);
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
    const jtext *name = jparse_token_text(p);
    if (repeated_name(args, name)) {
        jinja_fail(p->j, DP_E_FORMAT, "the argument %.*s is given twice", STR_ARG(jinja_str(name)));
        return;
    }
    jparse_advance(p);
    jparse_advance(p);
    const jnode *value = jparse_expression(p);
    if (args->values.n == *capacity) {
        const size_t more = *capacity == 0 ? 4 : 2 * *capacity;
        const jtext **names = jinja_take(p->j, more, sizeof(*names));
        if (names == NULL) return;
        if (*capacity > 0) memcpy(names, args->names, args->values.n * sizeof(*names));
        args->names = names;
        *capacity = more;
    }
    args->names[args->values.n] = name;
    jparse_add_node(p, &args->values, value);
}

static const jargs *parse_arguments(jparser *p) {
    jargs *args = jinja_take(p->j, 1, sizeof(jargs));
    if (args == NULL) return NULL;
    size_t capacity = 0;
    bool comma = false, ok = jparse_expect(p, T_LPAREN, "\"(\"");
    while (ok && !p->j->failed && p->token.kind != T_RPAREN) {
        if (comma) {
            jparse_expect(p, T_COMMA, "\",\" or \")\"");
            if (p->token.kind == T_RPAREN) break;
        }
        if (jparse_skip(p, T_MUL)) {
            ok = args->star == NULL && args->star_star == NULL;
            args->star = jparse_expression(p);
        } else if (jparse_skip(p, T_POW)) {
            ok = args->star_star == NULL;
            args->star_star = jparse_expression(p);
        } else if (p->token.kind == T_NAME && look_ahead(p)->kind == T_ASSIGN) {
            ok = args->star_star == NULL;
            add_keyword(p, args, &capacity);
        } else {
            ok = args->star == NULL && args->star_star == NULL && args->values.n == 0;
            jparse_add_node(p, &args->at, jparse_expression(p));
        }
        comma = true;
    }
    if (!ok) jinja_fail(p->j, DP_E_FORMAT, "arguments of a call in a wrong order");
    jparse_expect(p, T_RPAREN, "\")\"");
    return args;
}

/* "name" or "a.b" behind a bar or `is`. */
static const jtext *parse_dotted(jparser *p, const char *what) {
    const jtext *name = jparse_token_text(p);
    if (!jparse_expect(p, T_NAME, what)) return name;
    while (jparse_skip(p, T_DOT)) {
        jout out = { 0 };
        jinja_put_text(p->j, &out, name);
        jinja_put_str(p->j, &out, ".");
        jinja_put(p->j, &out, p->token.text.data, p->token.text.size, false);
        if (!jparse_expect(p, T_NAME, what)) break;
        name = jinja_finish(p->j, &out).text;
    }
    return name;
}

const jnode *jparse_filters(jparser *p, const jnode *n, bool inline_first) {
    while (!p->j->failed && (inline_first || jparse_skip(p, T_PIPE))) {
        inline_first = false;
        jnode *filter = jparse_new_node(p, N_FILTER, p->token.line);
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
    jparse_advance(p); /* is */
    jnode *test = jparse_new_node(p, N_TEST, p->token.line);
    const bool negated = jparse_skip_name(p, "not");
    test->name = parse_dotted(p, "the name of a test");
    test->a = n;
    switch (p->token.kind) {
    case T_LPAREN:
        test->args = parse_arguments(p);
        break;
    case T_NAME:
        if (jparse_at_name(p, "else") || jparse_at_name(p, "or") || jparse_at_name(p, "and")) break;
        if (jparse_at_name(p, "is")) {
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
        jparse_add_node(p, &args->at, parse_postfix(p, parse_primary(p, false)));
        test->args = args;
        break;
    }
    default:
        break;
    }
    if (!p->j->failed) check_entry(p, test, "test");
    if (!negated) return test;
    jnode *not_node = jparse_new_node(p, N_NOT, test->line);
    not_node->a = test;
    return not_node;
}

/* ---- expressions --------------------------------------------------------------------------- */

/* What ends a tuple without brackets; `extra`: a name that ends it, or NULL. */
static bool at_tuple_end(const jparser *p, const char *extra) {
    return p->token.kind == T_VARIABLE_END || p->token.kind == T_BLOCK_END ||
           p->token.kind == T_RPAREN || (extra != NULL && jparse_at_name(p, extra));
}

static const jnode *parse_or(jparser *p);

const jnode *jparse_tuple(jparser *p, jtuple_of of, const char *extra, bool parentheses) {
    jnode *tuple = jparse_new_node(p, N_TUPLE, p->token.line);
    const jnode *only = NULL;
    jnodes list = { 0 };
    bool is_tuple = false;
    while (!p->j->failed) {
        if (list.n > 0) jparse_expect(p, T_COMMA, "\",\"");
        if (at_tuple_end(p, extra)) break;
        only = of == TUPLE_FULL      ? jparse_expression(p)
               : of == TUPLE_NO_COND ? parse_or(p)
                                     : parse_primary(p, of == TUPLE_SPACE_TARGET);
        jparse_add_node(p, &list, only);
        if (p->token.kind != T_COMMA) break;
        is_tuple = true;
    }
    if (!is_tuple) {
        if (list.n > 0) return only;
        if (!parentheses && !p->j->failed) jparse_wrong(p, "an expression");
    }
    tuple->list = list;
    return tuple;
}

/* A list or dict; the current token opens it. */
static const jnode *parse_display(jparser *p, bool dict) {
    jnode *n = jparse_new_node(p, dict ? N_DICT : N_LIST, p->token.line);
    const jtoken_kind close = dict ? T_RBRACE : T_RBRACKET;
    jparse_advance(p);
    while (!p->j->failed && p->token.kind != close) {
        if (n->list.n > 0) {
            jparse_expect(p, T_COMMA, dict ? "\",\" or \"}\"" : "\",\" or \"]\"");
            if (p->token.kind == close) break;
        }
        jparse_add_node(p, &n->list, jparse_expression(p));
        if (dict) {
            jparse_expect(p, T_COLON, "\":\"");
            jparse_add_node(p, &n->more, jparse_expression(p));
        }
    }
    jparse_expect(p, close, dict ? "\"}\"" : "\"]\"");
    return n;
}

jnode *jparse_const_node(jparser *p, jvalue v) {
    jnode *n = jparse_new_node(p, N_CONST, p->token.line);
    n->constant = v;
    return n;
}

static const jnode *parse_literal(jparser *p) {
    jnode *n = jparse_const_node(p, p->token.value);
    if (p->token.kind == T_NUMBER) {
        jparse_advance(p);
        return n;
    }
    jparse_advance(p);
    if (p->token.kind != T_STRING) return n;
    jout out = { 0 }; /* strings in a row are one */
    jinja_put_value(p->j, &out, n->constant);
    while (p->token.kind == T_STRING) {
        jinja_put_value(p->j, &out, p->token.value);
        jparse_advance(p);
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
        { "true", V_BOOL, true },   { "True", V_BOOL, true },  { "false", V_BOOL, false },
        { "False", V_BOOL, false }, { "none", V_NONE, false }, { "None", V_NONE, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(constants); i++) {
        if (!jparse_at_name(p, constants[i].name)) continue;
        jnode *n = jparse_const_node(p, constants[i].kind == V_BOOL ? jinja_bool(constants[i].truth)
                                                                    : jinja_none());
        jparse_advance(p);
        return n;
    }
    jnode *n = jparse_name_node(p);
    if (with_space && jparse_skip(p, T_DOT)) {
        jnode *target = jparse_new_node(p, N_SPACE_NAME, n->line);
        target->a = n;
        target->name = jparse_token_text(p);
        jparse_expect(p, T_NAME, "the name of an attribute");
        return target;
    }
    return n;
}

static const jnode *parse_primary(jparser *p, bool with_space) {
    if (!jparse_enter(p)) return &p->spare;
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
        jparse_advance(p);
        n = jparse_tuple(p, TUPLE_FULL, NULL, true);
        jparse_expect(p, T_RPAREN, "\")\"");
        break;
    case T_LBRACKET:
        n = parse_display(p, false);
        break;
    case T_LBRACE:
        n = parse_display(p, true);
        break;
    default:
        jparse_wrong(p, "an expression");
    }
    p->depth--;
    return n;
}

/* One index or slice between brackets. */
static const jnode *parse_subscript(jparser *p) {
    jnode *slice = jparse_new_node(p, N_SLICE, p->token.line);
    const jnode *parts[3] = { NULL, NULL, NULL };
    if (p->token.kind != T_COLON) {
        parts[0] = jparse_expression(p);
        if (p->token.kind != T_COLON) return parts[0];
    }
    for (size_t i = 1; i < 3 && jparse_skip(p, T_COLON); i++) {
        if (p->token.kind != T_COLON && p->token.kind != T_RBRACKET && p->token.kind != T_COMMA) {
            parts[i] = jparse_expression(p);
        }
    }
    slice->a = parts[0];
    slice->b = parts[1];
    slice->c = parts[2];
    return slice;
}

static const jnode *parse_item(jparser *p, const jnode *of) {
    jnode *n = jparse_new_node(p, N_ITEM, p->token.line);
    n->a = of;
    jparse_advance(p);
    jnode *tuple = NULL;
    const jnode *arg = NULL;
    bool slices = false;
    while (!p->j->failed && p->token.kind != T_RBRACKET) {
        if (arg != NULL) jparse_expect(p, T_COMMA, "\",\" or \"]\"");
        const jnode *next = parse_subscript(p);
        slices |= next->kind == N_SLICE;
        if (arg != NULL && tuple == NULL) {
            tuple = jparse_new_node(p, N_TUPLE, n->line);
            jparse_add_node(p, &tuple->list, arg);
        }
        if (tuple != NULL) jparse_add_node(p, &tuple->list, next);
        arg = next;
    }
    jparse_expect(p, T_RBRACKET, "\"]\"");
    if (arg == NULL) arg = jparse_new_node(p, N_TUPLE, n->line);
    if (tuple != NULL && slices) {
        jinja_fail(p->j, DP_E_FORMAT, "a slice among several indices");
    }
    n->b = tuple != NULL ? tuple : arg;
    return n;
}

static const jnode *parse_attribute(jparser *p, const jnode *of) {
    jparse_advance(p);
    jnode *n;
    if (p->token.kind == T_NAME) {
        n = jparse_new_node(p, N_ATTRIBUTE, p->token.line);
        n->name = jparse_token_text(p);
    } else if (p->token.kind == T_NUMBER && p->token.value.kind == V_INT) {
        n = jparse_new_node(p, N_ITEM, p->token.line);
        n->b = jparse_const_node(p, p->token.value);
    } else {
        jparse_wrong(p, "a name or number");
        return of;
    }
    n->a = of;
    jparse_advance(p);
    return n;
}

static const jnode *parse_call(jparser *p, const jnode *callee) {
    jnode *n = jparse_new_node(p, N_CALL, p->token.line);
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
    if (!jparse_enter(p)) return &p->spare;
    const jnode *n;
    if (p->token.kind == T_SUB || p->token.kind == T_ADD) {
        jnode *sign = jparse_new_node(p, p->token.kind == T_SUB ? N_MINUS : N_PLUS, p->token.line);
        jparse_advance(p);
        sign->a = parse_unary(p, false);
        n = sign;
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    while (with_filter && !p->j->failed) {
        if (p->token.kind == T_PIPE) {
            n = jparse_filters(p, n, false);
        } else if (jparse_at_name(p, "is")) {
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
        jnode *n = jparse_new_node(p, level == LEVEL_CONCAT ? N_CONCAT : N_BINARY, p->token.line);
        if (level == LEVEL_CONCAT) { /* one node for all of a row */
            jparse_add_node(p, &n->list, left);
            while (!p->j->failed && jparse_skip(p, T_TILDE)) {
                jparse_add_node(p, &n->list, parse_math(p, level + 1));
            }
        } else {
            jparse_advance(p);
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
        if (jparse_skip(p, signs[i].kind)) return true;
    }
    *op = OP_IN;
    if (jparse_skip_name(p, "in")) return true;
    *op = OP_NOT_IN;
    if (!jparse_at_name(p, "not")) return false;
    const jtoken *next = look_ahead(p);
    if (next->kind != T_NAME || !str_is(next->text, "in")) return false;
    jparse_advance(p);
    jparse_advance(p);
    return true;
}

static const jnode *parse_compare(jparser *p) {
    const jnode *left = parse_math(p, LEVEL_SUM);
    jnode *n = NULL;
    jop op;
    while (!p->j->failed && skip_comparison(p, &op)) {
        if (n == NULL) {
            n = jparse_new_node(p, N_COMPARE, p->token.line);
            n->a = left;
        }
        jnode *operand = jparse_new_node(p, N_COMPARE, p->token.line);
        operand->op = (uint8_t)op;
        operand->a = parse_math(p, LEVEL_SUM);
        jparse_add_node(p, &n->list, operand);
    }
    return n != NULL ? n : left;
}

static const jnode *parse_not(jparser *p) {
    uint32_t n_nots = 0;
    const uint32_t line = p->token.line;
    while (jparse_skip_name(p, "not"))
        n_nots++;
    const jnode *n = parse_compare(p);
    if (n_nots == 0) return n;
    for (uint32_t k = n_nots % 2 == 0 ? 2 : 1; k > 0; k--) { /* not not x is a bool */
        jnode *not_node = jparse_new_node(p, N_NOT, line);
        not_node->a = n;
        n = not_node;
    }
    return n;
}

static const jnode *parse_logic(jparser *p, bool is_or) {
    const jnode *left = is_or ? parse_logic(p, false) : parse_not(p);
    while (!p->j->failed && jparse_skip_name(p, is_or ? "or" : "and")) {
        jnode *n = jparse_new_node(p, is_or ? N_OR : N_AND, p->token.line);
        n->a = left;
        n->b = is_or ? parse_logic(p, false) : parse_not(p);
        left = n;
    }
    return left;
}

static const jnode *parse_or(jparser *p) {
    return parse_logic(p, true);
}

const jnode *jparse_expression(jparser *p) {
    if (!jparse_enter(p)) return &p->spare;
    jnode *unknown = p->unknown;
    const uint32_t line = p->token.line;
    const jnode *n = parse_or(p);
    while (!p->j->failed && jparse_skip_name(p, "if")) {
        jnode *cond = jparse_new_node(p, N_COND, line);
        cond->a = n;
        cond->b = parse_or(p);
        if (jparse_skip_name(p, "else")) cond->c = jparse_expression(p);
        p->unknown = unknown; /* what is in it need not be reached */
        n = cond;
    }
    p->depth--;
    return n;
}
