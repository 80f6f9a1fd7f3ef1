/* jinja_statement: the tags of a template, and its whole.
 *
 * What Python would refuse in the code that jinja2 makes of a template is refused here: break
 * outside of a loop, two parameters of one name, an assignment to `loop`. Which of caller, kwargs
 * and varargs a macro takes depends on what its body reads: `uses` and `hidden` collect that while
 * the body is parsed. */
#include "text/jinja_internal.h"

static jnodes parse_template_body(jparser *p, const char *const *ends);

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

static const jnode *parse_target(jparser *p, jtuple_of of, const char *extra) {
    const uint8_t uses = p->uses;
    const jnode *n = jparse_tuple(p, of, extra, false);
    p->uses = uses;
    if (!p->j->failed && !check_target(p, n)) {
        jinja_fail(p->j, DP_E_FORMAT, "something that is no name is assigned to");
    }
    return n;
}

/* A single name that a macro or a parameter gets. */
static jnode *parse_new_name(jparser *p, const char *what) {
    if (p->token.kind != T_NAME) {
        jparse_wrong(p, what);
        return &p->spare;
    }
    if (jparse_at_name(p, "true") || jparse_at_name(p, "false") || jparse_at_name(p, "none") ||
        jparse_at_name(p, "True") || jparse_at_name(p, "False") || jparse_at_name(p, "None")) {
        jinja_fail(p->j, DP_E_FORMAT, "%.*s is assigned to", STR_ARG(p->token.text));
    }
    const uint8_t uses = p->uses;
    jnode *n = jparse_name_node(p);
    p->uses = uses;
    return n;
}

/* ---- statements ---------------------------------------------------------------------------- */

/* The body of a tag, up to a tag whose name is in `ends`, which becomes the current token. */
static jnodes parse_body(jparser *p, const char *const *ends) {
    jnodes body = { 0 };
    jparse_skip(p, T_COLON);
    if (!jparse_expect(p, T_BLOCK_END, "the end of the tag")) return body;
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
    jparse_advance(p);
    p->soft = soft;
    return body;
}

static const jnode *parse_for(jparser *p) {
    jnode *n = jparse_new_node(p, N_FOR, p->token.line);
    const bool soft = p->soft;
    const uint32_t stores = p->stores_loop;
    p->stores_loop = 0;
    jparse_advance(p);
    n->a = parse_target(p, TUPLE_TARGET, "in");
    if (!jparse_skip_name(p, "in")) jparse_wrong(p, "\"in\"");
    n->b = jparse_tuple(p, TUPLE_NO_COND, "recursive", false);
    p->soft = false;
    if (jparse_skip_name(p, "if")) n->c = jparse_expression(p);
    n->flag = jparse_skip_name(p, "recursive");
    p->n_loops++;
    n->list = parse_body(p, (const char *const[]){ "endfor", "else", NULL });
    p->n_loops--;
    if (jparse_skip_name(p, "else")) {
        n->more = parse_body(p, (const char *const[]){ "endfor", NULL });
    }
    jparse_advance(p);
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
    jnode *first = jparse_new_node(p, N_IF, p->token.line), *n = first;
    const bool soft = p->soft;
    p->soft = true;
    jparse_advance(p);
    for (;;) {
        n->a = jparse_tuple(p, TUPLE_NO_COND, NULL, false);
        n->list = parse_body(p, ends);
        if (p->j->failed || !(jparse_at_name(p, "elif") || jparse_at_name(p, "else"))) break;
        jnode *next = jparse_new_node(p, N_IF, p->token.line);
        n->c = next;
        n = next;
        if (jparse_skip_name(p, "elif")) continue;
        jparse_advance(p);
        n->list = parse_body(p, (const char *const[]){ "endif", NULL });
        break;
    }
    jparse_advance(p);
    p->soft = soft;
    return first;
}

/* The filters of a block, around what it captures. */
static const jnode *parse_block_filters(jparser *p, bool inline_first) {
    const bool soft = p->soft;
    p->soft = false;
    jnode *captured = jparse_new_node(p, N_CAPTURED, p->token.line);
    const jnode *n = jparse_filters(p, captured, inline_first);
    p->soft = soft;
    return n;
}

static const jnode *parse_set(jparser *p) {
    jnode *n = jparse_new_node(p, N_SET, p->token.line);
    jparse_advance(p);
    /* What is assigned is read first: {% set caller = caller %} reads the outer one. */
    const uint8_t hidden = p->hidden;
    n->a = parse_target(p, TUPLE_SPACE_TARGET, NULL);
    if (p->token.kind == T_ASSIGN) {
        const uint8_t after = p->hidden;
        p->hidden = hidden;
        jparse_advance(p);
        n->b = jparse_tuple(p, TUPLE_FULL, NULL, false);
        p->hidden |= after;
        return n;
    }
    n->kind = N_CAPTURE;
    n->b = parse_block_filters(p, false);
    n->list = parse_scope(p, "endset");
    return n;
}

static void parse_signature(jparser *p, jnode *n) {
    jparse_expect(p, T_LPAREN, "\"(\"");
    while (!p->j->failed && p->token.kind != T_RPAREN) {
        if (n->list.n > 0) jparse_expect(p, T_COMMA, "\",\" or \")\"");
        jnode *name = parse_new_name(p, "the name of a parameter");
        for (size_t i = 0; !p->j->failed && i < n->list.n; i++) {
            if (n->list.at[i]->symbol == name->symbol) {
                jinja_fail(p->j, DP_E_FORMAT, "two parameters have one name");
            }
        }
        if (jparse_skip(p, T_ASSIGN)) {
            jparse_add_node(p, &n->more, jparse_expression(p));
        } else if (n->more.n > 0) {
            jinja_fail(p->j, DP_E_FORMAT, "a parameter without default behind one with a default");
        }
        jparse_add_node(p, &n->list, name);
    }
    jparse_expect(p, T_RPAREN, "\")\"");
}

/* The body of a macro, which is a function: break does not reach out of it. */
static void parse_macro_body(jparser *p, jnode *n, const char *end) {
    const uint8_t uses = p->uses, hidden = p->hidden;
    const uint32_t n_loops = p->n_loops;
    p->uses = p->hidden = 0;
    p->n_loops = 0;
    jnode *body = jparse_new_node(p, N_BODY, p->token.line);
    body->list = parse_scope(p, end);
    n->a = body;
    n->uses = p->uses;
    p->uses = (uint8_t)(uses | (n->uses & ~(unsigned)hidden));
    p->hidden = hidden;
    p->n_loops = n_loops;
    for (size_t i = 0; i < n->list.n; i++) {
        const uint32_t id = n->list.at[i]->symbol;
        if (id == SYMBOL_CALLER && (n->uses & 1U << SYMBOL_CALLER) && n->list.n - i > n->more.n) {
            jinja_fail(p->j, DP_E_FORMAT, "the parameter caller has no default");
        }
        /* A parameter of that name is an ordinary one. */
        if (id < N_SYMBOLS) n->uses &= (uint8_t) ~(1U << id);
    }
}

static const jnode *parse_macro(jparser *p) {
    jnode *n = jparse_new_node(p, N_MACRO, p->token.line);
    jparse_advance(p);
    const jnode *name = parse_new_name(p, "the name of a macro");
    if (!p->j->failed) store_symbol(p, name);
    n->symbol = name->symbol;
    n->name = name->name;
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static const jnode *parse_call_block(jparser *p) {
    jnode *n = jparse_new_node(p, N_CALL_BLOCK, p->token.line);
    jparse_advance(p);
    if (p->token.kind == T_LPAREN) parse_signature(p, n);
    n->b = jparse_expression(p);
    if (!p->j->failed && n->b->kind != N_CALL) {
        jinja_fail(p->j, DP_E_FORMAT, "{%% call %%} without a call");
    }
    parse_macro_body(p, n, "endcall");
    return n;
}

static const jnode *parse_with(jparser *p) {
    jnode *n = jparse_new_node(p, N_WITH, p->token.line);
    jparse_advance(p);
    while (!p->j->failed && p->token.kind != T_BLOCK_END) {
        if (n->list.n > 0) jparse_expect(p, T_COMMA, "\",\"");
        const uint32_t stores = p->stores_loop;
        jparse_add_node(p, &n->list, parse_target(p, TUPLE_TARGET, NULL));
        p->stores_loop = stores; /* a parameter, which may have any name */
        jparse_expect(p, T_ASSIGN, "\"=\"");
        jparse_add_node(p, &n->more, jparse_expression(p));
    }
    jnode *body = jparse_new_node(p, N_BODY, n->line);
    body->list = parse_scope(p, "endwith");
    n->a = body;
    return n;
}

static const jnode *parse_loop_control(jparser *p, bool is_break) {
    jnode *n = jparse_new_node(p, is_break ? N_BREAK : N_CONTINUE, p->token.line);
    if (p->n_loops == 0) {
        jinja_fail(p->j, DP_E_FORMAT, "%s outside of a loop", is_break ? "break" : "continue");
    }
    jparse_advance(p);
    return n;
}

static const jnode *parse_print(jparser *p) {
    jnode *n = jparse_new_node(p, N_OUTPUT, p->token.line);
    jparse_advance(p);
    while (!p->j->failed && p->token.kind != T_BLOCK_END) {
        if (n->list.n > 0) jparse_expect(p, T_COMMA, "\",\"");
        jparse_add_node(p, &n->list, jparse_expression(p));
    }
    return n;
}

static const jnode *parse_filter_block(jparser *p) {
    jnode *n = jparse_new_node(p, N_FILTER_BLOCK, p->token.line);
    jparse_advance(p);
    n->b = parse_block_filters(p, true);
    n->list = parse_scope(p, "endfilter");
    return n;
}

static const jnode *parse_generation(jparser *p) {
    jnode *n = jparse_new_node(p, N_GENERATION, p->token.line);
    jparse_advance(p);
    parse_macro_body(p, n, "endgeneration");
    return n;
}

static const jnode *parse_unknown_tag(jparser *p) {
    static const char *const left_out[] = { "block",  "extends", "include",
                                            "import", "from",    "autoescape" };
    for (size_t i = 0; i < ARRAY_LEN(left_out); i++) {
        if (jparse_at_name(p, left_out[i])) {
            jinja_fail(p->j, DP_E_UNSUPPORTED, "{%% %s %%} is not supported", left_out[i]);
        }
    }
    if (p->token.kind == T_NAME) {
        jinja_fail(p->j, DP_E_FORMAT, "unknown tag \"%.*s\"", STR_ARG(p->token.text));
    } else {
        jparse_wrong(p, "the name of a tag");
    }
    return &p->spare;
}

static const jnode *parse_tag(jparser *p) {
    if (jparse_at_name(p, "for")) return parse_for(p);
    if (jparse_at_name(p, "if")) return parse_if(p);
    if (jparse_at_name(p, "set")) return parse_set(p);
    if (jparse_at_name(p, "macro")) return parse_macro(p);
    if (jparse_at_name(p, "call")) return parse_call_block(p);
    if (jparse_at_name(p, "filter")) return parse_filter_block(p);
    if (jparse_at_name(p, "with")) return parse_with(p);
    if (jparse_at_name(p, "print")) return parse_print(p);
    if (jparse_at_name(p, "generation")) return parse_generation(p);
    if (jparse_at_name(p, "break")) return parse_loop_control(p, true);
    if (jparse_at_name(p, "continue")) return parse_loop_control(p, false);
    return parse_unknown_tag(p);
}

static bool at_any(const jparser *p, const char *const *names) {
    for (; names != NULL && *names != NULL; names++) {
        if (jparse_at_name(p, *names)) return true;
    }
    return false;
}

static jnodes parse_template_body(jparser *p, const char *const *ends) {
    jnodes body = { 0 };
    if (!jparse_enter(p)) return body;
    jnode *output = NULL; /* data and prints in a row */
    while (!p->j->failed && p->token.kind != T_END) {
        if (p->token.kind == T_BLOCK_BEGIN) {
            jparse_advance(p);
            if (at_any(p, ends)) break;
            output = NULL;
            jparse_add_node(p, &body, parse_tag(p));
            jparse_expect(p, T_BLOCK_END, "the end of the tag");
            continue;
        }
        if (output == NULL) {
            output = jparse_new_node(p, N_OUTPUT, p->token.line);
            jparse_add_node(p, &body, output);
        }
        if (p->token.kind == T_DATA) {
            jnode *data = jparse_const_node(
                p, jinja_text(p->j, p->token.text.data, p->token.text.size, false));
            jparse_add_node(p, &output->list, data);
            jparse_advance(p);
        } else {
            jparse_advance(p); /* {{ */
            jparse_add_node(p, &output->list, jparse_tuple(p, TUPLE_FULL, NULL, false));
            jparse_expect(p, T_VARIABLE_END, "\"}}\"");
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
        const uint32_t id = jparse_symbol(&p, str_of(special[i]));
        assert(j->failed || id == i);
    }
    jinja_lex(&p.lex, j, normalized_source(j, source));
    jparse_advance(&p);
    const jnodes body = parse_template_body(&p, NULL);
    if (p.unknown != NULL && !j->failed) {
        j->line = p.unknown->line;
        jinja_fail(j, DP_E_FORMAT, "there is no %s \"%.*s\"",
                   p.unknown->kind == N_FILTER ? "filter" : "test",
                   STR_ARG(jinja_str(p.unknown->name)));
    }
    return body;
}
