/* jinja_eval: walks the tree of a template.
 *
 * Scopes are a chain, innermost first, found by symbol. What jinja2 makes a scope of its own is one
 * here: every round of a loop, macros, captured blocks, with; not if. An assignment goes to the
 * innermost scope, so that one inside of a loop ends with the round. A macro sees the scopes around
 * the place where it was written, which therefore stay as they are once a macro may look at them;
 * other scopes of a loop are used again for the next round. */
#include "text/jinja_internal.h"

/* How a statement ended. */
typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static flow run_body(jinja *j, const jnodes *body);
static jvalue evaluate(jinja *j, const jnode *n);

static bool enter_depth(jinja *j) {
    if (j->depth >= JINJA_DEPTH_MAX) {
        jinja_fail(j, DP_E_LIMIT, "calls nested deeper than the limit of %d", JINJA_DEPTH_MAX);
    }
    if (j->failed) return false;
    j->depth++;
    return true;
}

/* ---- variables ----------------------------------------------------------------------------- */

static jscope *new_scope(jinja *j, jscope *parent) {
    jscope *scope = jinja_take(j, 1, sizeof(jscope));
    if (scope != NULL) scope->parent = parent;
    return scope;
}

void jinja_set(jinja *j, jscope *scope, uint32_t symbol_id, jvalue v) {
    if (j->failed) return;
    jinja_charge(j, 1 + scope->n / 8);
    for (size_t i = 0; i < scope->n; i++) {
        if (scope->at[i].symbol == symbol_id) {
            scope->at[i].v = v;
            return;
        }
    }
    if (scope->n == scope->capacity) {
        const size_t capacity = scope->capacity == 0 ? 4 : 2 * scope->capacity;
        jbinding *at = jinja_take(j, capacity, sizeof(jbinding));
        if (at == NULL) return;
        if (scope->n > 0) memcpy(at, scope->at, scope->n * sizeof(jbinding));
        scope->at = at;
        scope->capacity = capacity;
    }
    scope->at[scope->n++] = (jbinding){ .symbol = symbol_id, .v = v };
}

static bool find_variable(jinja *j, uint32_t symbol_id, jvalue *v) {
    for (const jscope *scope = j->scope; scope != NULL; scope = scope->parent) {
        jinja_charge(j, scope->n / 8);
        for (size_t i = 0; i < scope->n; i++) {
            if (scope->at[i].symbol == symbol_id) {
                *v = scope->at[i].v;
                return true;
            }
        }
    }
    return false;
}

static jvalue read_variable(jinja *j, const jnode *n) {
    jvalue v;
    if (find_variable(j, n->symbol, &v)) return v;
    return jinja_undefined(j, NULL, NULL, n->name);
}

static void assign_target(jinja *j, jscope *scope, const jnode *target, jvalue v) {
    if (j->failed) return;
    if (target->kind == N_NAME) {
        jinja_set(j, scope, target->symbol, v);
    } else if (target->kind == N_SPACE_NAME) {
        const jvalue space = read_variable(j, target->a);
        if (space.kind != V_SPACE) {
            jinja_wrong(j, "an attribute of something that is no namespace is assigned to");
            return;
        }
        const jvalue name = { .kind = V_TEXT, .text = target->name };
        jinja_space_put(j, space.space, name, v);
    } else { /* a tuple */
        const size_t want = target->list.n;
        jwalk walk = jinja_walk(j, v);
        jvalue element;
        for (size_t i = 0; i < want; i++) {
            if (!jinja_next(j, &walk, &element)) {
                jinja_wrong(j, "%zu values to unpack, expected %zu", i, want);
                return;
            }
            assign_target(j, scope, target->list.at[i], element);
        }
        if (jinja_next(j, &walk, &element)) {
            jinja_wrong(j, "more than the expected %zu values to unpack", want);
        }
    }
}

/* ---- calls --------------------------------------------------------------------------------- */

static jcall evaluate_arguments(jinja *j, const jargs *args, const jvalue *caller) {
    jcall call = { 0 };
    jitems places = { 0 };
    jdict *names = NULL;
    size_t n_names = (args == NULL ? 0 : args->values.n) + (caller != NULL);
    for (size_t i = 0; args != NULL && i < args->at.n && !j->failed; i++) {
        jinja_push(j, &places, evaluate(j, args->at.at[i]));
    }
    if (args != NULL && args->star != NULL) {
        jvalue v;
        const jvalue star = evaluate(j, args->star);
        for (jwalk walk = jinja_walk(j, star); jinja_next(j, &walk, &v);) {
            jinja_push(j, &places, v);
        }
    }
    call.at = places.at;
    call.n = places.n;
    jvalue more = jinja_absent();
    if (args != NULL && args->star_star != NULL) more = evaluate(j, args->star_star);
    if (more.kind == V_DICT) {
        n_names += more.dict->n;
    } else if (more.kind != V_ABSENT) {
        jinja_wrong(j, "** of a %s", jinja_type(more));
    }
    jkeyword *keys = n_names == 0 ? NULL : jinja_take(j, n_names, sizeof(*keys));
    if (keys == NULL) return call;
    call.keys = keys;
    for (size_t i = 0; args != NULL && i < args->values.n && !j->failed; i++) {
        keys[call.n_keys++] = (jkeyword){ args->names[i], evaluate(j, args->values.at[i]) };
    }
    if (caller != NULL)
        keys[call.n_keys++] = (jkeyword){ jinja_text_of(j, "caller").text, *caller };
    if (more.kind == V_DICT) {
        names = jinja_dict(j);
        for (size_t i = 0; i < call.n_keys; i++) {
            jinja_dict_put(j, names, (jvalue){ .kind = V_TEXT, .text = keys[i].name }, keys[i].v);
        }
    }
    for (size_t i = 0; names != NULL && i < more.dict->n && !j->failed; i++) {
        const jvalue key = more.dict->keys[i];
        jvalue known;
        if (key.kind != V_TEXT) {
            jinja_wrong(j, "** with a key that is a %s", jinja_type(key));
        } else if (jinja_dict_get(j, names, key, &known)) {
            jinja_wrong(j, "the argument %.*s is given twice", STR_ARG(jinja_str(key.text)));
        } else {
            keys[call.n_keys++] = (jkeyword){ key.text, more.dict->values[i] };
        }
    }
    return call;
}

enum { PARAMETERS_MAX = 8 };

/* The next name of an entry's parameters; false at the end. */
static bool next_parameter(const char **at, str *name, bool *optional) {
    if (**at == '\0' || **at == '/') return false;
    const size_t n = strcspn(*at, "=,");
    *name = (str){ *at, n };
    *optional = (*at)[n] == '=';
    *at += n + *optional;
    if (**at == ',') (*at)++;
    return true;
}

jvalue jinja_invoke(jinja *j, const jentry *entry, jvalue self, const jcall *call) {
    jvalue args[PARAMETERS_MAX];
    str name;
    bool optional;
    size_t n = 0, n_used = 0;
    if (j->failed || !enter_depth(j)) return jinja_none();
    for (size_t i = 0; i < PARAMETERS_MAX; i++)
        args[i] = jinja_absent();
    const bool by_place = entry->parameters != NULL && str_ends(str_of(entry->parameters), "/");
    for (const char *at = entry->parameters;
         at != NULL && n < PARAMETERS_MAX && next_parameter(&at, &name, &optional); n++) {
        if (n < call->n) args[n] = call->at[n];
        for (size_t i = 0; !by_place && i < call->n_keys; i++) {
            if (!str_equal(jinja_str(call->keys[i].name), name)) continue;
            if (args[n].kind != V_ABSENT) {
                jinja_wrong(j, "%s: two values for '%.*s'", entry->name, STR_ARG(name));
            }
            args[n] = call->keys[i].v;
            n_used++;
        }
        if (args[n].kind == V_ABSENT && !optional) {
            jinja_wrong(j, "%s: the argument '%.*s' is missing", entry->name, STR_ARG(name));
        }
    }
    if (entry->parameters != NULL && call->n > n) {
        jinja_wrong(j, "%s: %zu arguments, at most %zu expected", entry->name, call->n, n);
    } else if (entry->parameters != NULL && n_used < call->n_keys) {
        jinja_wrong(j, "%s: unknown argument by name", entry->name);
    }
    const jvalue v = j->failed ? jinja_none() : entry->fn(j, self, call, args);
    j->depth--;
    return v;
}

/* The keyword of that name; it is marked as used by its bit in `used`. */
static const jkeyword *take_keyword(const jcall *call, str name, bool *used) {
    for (size_t i = 0; i < call->n_keys; i++) {
        if (!used[i] && str_equal(jinja_str(call->keys[i].name), name)) {
            used[i] = true;
            return &call->keys[i];
        }
    }
    return NULL;
}

/* caller, kwargs and varargs as far as the body reads them; what is left over is refused. */
static void bind_specials(jinja *j, const jmacro *m, const jcall *call, bool *used,
                          bool caller_bound) {
    const jnode *n = m->node;
    const size_t n_parameters = n->list.n;
    const str name = m->name != NULL ? jinja_str(m->name) : STR("caller");
    if ((n->uses & 1U << SYMBOL_CALLER) && !caller_bound) {
        const jkeyword *given = take_keyword(call, STR("caller"), used);
        jinja_set(j, j->scope, SYMBOL_CALLER,
                  given != NULL && given->v.kind != V_NONE
                      ? given->v
                      : jinja_undefined(j, "No caller defined", NULL, NULL));
    }
    jdict *rest = (n->uses & 1U << SYMBOL_KWARGS) ? jinja_dict(j) : NULL;
    for (size_t i = 0; i < call->n_keys && !j->failed; i++) {
        const jtext *key = call->keys[i].name;
        if (used[i]) continue;
        if (rest == NULL) {
            jinja_wrong(j, "the macro %.*s takes no argument '%.*s'", STR_ARG(name),
                        STR_ARG(jinja_str(key)));
            return;
        }
        jinja_dict_put(j, rest, (jvalue){ .kind = V_TEXT, .text = key }, call->keys[i].v);
    }
    if (rest != NULL) {
        jinja_set(j, j->scope, SYMBOL_KWARGS, (jvalue){ .kind = V_DICT, .dict = rest });
    }
    if (n->uses & 1U << SYMBOL_VARARGS) {
        jitems items = { 0 };
        for (size_t i = n_parameters; i < call->n; i++)
            jinja_push(j, &items, call->at[i]);
        jinja_set(j, j->scope, SYMBOL_VARARGS, jinja_list(j, &items, V_TUPLE));
    } else if (call->n > n_parameters) {
        jinja_wrong(j, "the macro %.*s takes at most %zu arguments, not %zu", STR_ARG(name),
                    n_parameters, call->n);
    }
}

static void bind_macro(jinja *j, const jmacro *m, const jcall *call) {
    const jnode *n = m->node;
    bool *used = jinja_take(j, call->n_keys + 1, sizeof(bool));
    bool caller_bound = false;
    if (used == NULL) return;
    jvalue *values = jinja_take(j, n->list.n + 1, sizeof(jvalue)); /* zeroed: absent */
    if (values == NULL) return;
    for (size_t i = 0; i < n->list.n; i++) {
        const jnode *parameter = n->list.at[i];
        if (i < call->n) {
            values[i] = call->at[i];
        } else {
            const jkeyword *key = take_keyword(call, jinja_str(parameter->name), used);
            if (key != NULL) values[i] = key->v;
        }
        caller_bound |= parameter->symbol == SYMBOL_CALLER;
    }
    bind_specials(j, m, call, used, caller_bound);
    /* Defaults see the parameters before them. */
    for (size_t i = 0; i < n->list.n && !j->failed; i++) {
        const jnode *parameter = n->list.at[i];
        const size_t without = n->list.n - n->more.n;
        if (values[i].kind == V_ABSENT) {
            values[i] = i >= without ? evaluate(j, n->more.at[i - without])
                                     : jinja_undefined(j, "a parameter of a macro was not given",
                                                       NULL, NULL);
        }
        jinja_set(j, j->scope, parameter->symbol, values[i]);
    }
}

/* Runs something with an output of its own in a scope of its own, and gives its text. */
static jvalue capture_body(jinja *j, const jnodes *body, jscope *parent, flow *end) {
    jout out = { 0 };
    jout *outer_out = j->out;
    jscope *outer = j->scope;
    j->scope = new_scope(j, parent);
    j->out = &out;
    *end = j->scope == NULL ? FLOW_ON : run_body(j, body);
    j->out = outer_out;
    j->scope = outer;
    return jinja_finish(j, &out);
}

static jvalue call_macro(jinja *j, const jmacro *m, const jcall *call) {
    jout out = { 0 };
    jout *outer_out = j->out;
    jscope *outer = j->scope;
    if (!enter_depth(j)) return jinja_none();
    j->scope = new_scope(j, m->scope);
    j->out = &out;
    if (j->scope != NULL) {
        bind_macro(j, m, call);
        if (!j->failed) run_body(j, &m->node->a->list);
    }
    j->out = outer_out;
    j->scope = outer;
    j->depth--;
    return jinja_finish(j, &out);
}

static jvalue recurse_loop(jinja *j, jloop *loop, const jcall *call);

static jvalue call_joiner(jinja *j, jjoiner *joiner) {
    if (joiner->called) return joiner->separator;
    joiner->called = true;
    return jinja_text_of(j, "");
}

jvalue jinja_call(jinja *j, jvalue callee, const jcall *call) {
    if (j->failed) return jinja_none();
    switch ((jkind)callee.kind) {
    case V_UNDEFINED:
        return jinja_use_undefined(j, callee);
    case V_MACRO:
        return call_macro(j, callee.macro, call);
    case V_METHOD:
        return jinja_invoke(j, callee.method->entry, callee.method->self, call);
    case V_GLOBAL:
        return jinja_invoke(j, &callee.global->entry, jinja_none(), call);
    case V_LOOP:
        return recurse_loop(j, callee.loop, call);
    case V_JOINER:
        if (call->n > 0 || call->n_keys > 0) return jinja_wrong(j, "a joiner takes no arguments");
        return call_joiner(j, callee.joiner);
    default:
        return jinja_wrong(j, "a %s is called", jinja_type(callee));
    }
}

/* A macro made at this place: the scopes around it stay. */
static jvalue make_macro(jinja *j, const jnode *n) {
    jmacro *m = jinja_take(j, 1, sizeof(jmacro));
    if (m == NULL) return jinja_none();
    *m = (jmacro){ .node = n, .scope = j->scope, .name = n->kind == N_MACRO ? n->name : NULL };
    for (jscope *scope = j->scope; scope != NULL && !scope->kept; scope = scope->parent) {
        scope->kept = true;
    }
    return (jvalue){ .kind = V_MACRO, .macro = m };
}

/* ---- expressions --------------------------------------------------------------------------- */

static jvalue evaluate_compare(jinja *j, const jnode *n) {
    jvalue left = evaluate(j, n->a);
    for (size_t i = 0; i < n->list.n && !j->failed; i++) {
        const jnode *operand = n->list.at[i];
        const jvalue right = evaluate(j, operand->a);
        bool holds = false;
        if (j->failed) break;
        switch ((jop)operand->op) {
        case OP_EQ:
            holds = jinja_equal(j, left, right);
            break;
        case OP_NE:
            holds = !jinja_equal(j, left, right);
            break;
        case OP_LT:
            holds = jinja_less(j, left, right, "<");
            break;
        case OP_GT:
            holds = jinja_less(j, right, left, ">");
            break;
        case OP_LE:
            holds = jinja_less(j, left, right, "<=") || jinja_equal(j, left, right);
            break;
        case OP_GE:
            holds = jinja_less(j, right, left, ">=") || jinja_equal(j, left, right);
            break;
        default:
            holds = jinja_in(j, left, right) == (operand->op == OP_IN);
        }
        if (!holds) return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static jvalue evaluate_display(jinja *j, const jnode *n) {
    if (n->kind == N_DICT) {
        jdict *d = jinja_dict(j);
        for (size_t i = 0; i < n->list.n && !j->failed; i++) {
            const jvalue key = evaluate(j, n->list.at[i]);
            jinja_dict_put(j, d, key, evaluate(j, n->more.at[i]));
        }
        return (jvalue){ .kind = V_DICT, .dict = d };
    }
    jitems items = { 0 };
    for (size_t i = 0; i < n->list.n && !j->failed; i++) {
        jinja_push(j, &items, evaluate(j, n->list.at[i]));
    }
    return jinja_list(j, &items, n->kind == N_LIST ? V_LIST : V_TUPLE);
}

static jvalue evaluate_item(jinja *j, const jnode *n) {
    const jvalue of = evaluate(j, n->a);
    if (n->b->kind != N_SLICE) {
        const jvalue key = evaluate(j, n->b);
        return jinja_get_item(j, of, key);
    }
    jvalue bounds[3];
    const jnode *const parts[3] = { n->b->a, n->b->b, n->b->c };
    for (size_t i = 0; i < 3; i++) {
        bounds[i] = parts[i] == NULL ? jinja_none() : evaluate(j, parts[i]);
    }
    return jinja_slice(j, of, bounds[0], bounds[1], bounds[2]);
}

/* A filter or a test. */
static jvalue evaluate_applied(jinja *j, const jnode *n) {
    const jvalue of = evaluate(j, n->a);
    const jcall call = evaluate_arguments(j, n->args, NULL);
    if (j->failed) return jinja_none();
    j->line = n->line;
    if (n->entry == NULL) {
        return jinja_wrong(j, "there is no %s \"%.*s\"", n->kind == N_FILTER ? "filter" : "test",
                           STR_ARG(jinja_str(n->name)));
    }
    return jinja_invoke(j, n->entry, of, &call);
}

static jvalue evaluate_call(jinja *j, const jnode *n, const jvalue *caller) {
    const jvalue callee = evaluate(j, n->a);
    const jcall call = evaluate_arguments(j, n->args, caller);
    if (j->failed) return jinja_none();
    j->line = n->line;
    const jvalue v = jinja_call(j, callee, &call);
    if (!j->failed) j->line = n->line;
    return v;
}

static jvalue evaluate_concat(jinja *j, const jnode *n) {
    jout out = { 0 };
    for (size_t i = 0; i < n->list.n && !j->failed; i++) {
        jinja_put_value(j, &out, evaluate(j, n->list.at[i]));
    }
    return jinja_finish(j, &out);
}

/* What has one or two operands and no arguments. */
static jvalue evaluate_operator(jinja *j, const jnode *n) {
    const jvalue a = evaluate(j, n->a);
    if (j->failed) return jinja_none();
    switch ((jnode_kind)n->kind) {
    case N_ATTRIBUTE:
        j->line = n->line;
        return jinja_get_attribute(j, a, n->name);
    case N_NOT:
        return jinja_bool(!jinja_true(a));
    case N_MINUS:
    case N_PLUS:
        return jinja_negate(j, a, n->kind == N_MINUS);
    case N_AND:
        return jinja_true(a) ? evaluate(j, n->b) : a;
    case N_OR:
        return jinja_true(a) ? a : evaluate(j, n->b);
    default: { /* N_BINARY */
        const jvalue b = evaluate(j, n->b);
        if (!j->failed) j->line = n->line;
        return jinja_binary(j, (jop)n->op, a, b);
    }
    }
}

static jvalue evaluate_cond(jinja *j, const jnode *n) {
    if (jinja_true(evaluate(j, n->b))) return evaluate(j, n->a);
    if (n->c != NULL) return evaluate(j, n->c);
    return jinja_undefined(j, "an inline if without else was false", NULL, NULL);
}

static jvalue evaluate_inside(jinja *j, const jnode *n) {
    switch ((jnode_kind)n->kind) {
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
        return evaluate_display(j, n);
    case N_ITEM:
        return evaluate_item(j, n);
    case N_CALL:
        return evaluate_call(j, n, NULL);
    case N_FILTER:
    case N_TEST:
        return evaluate_applied(j, n);
    case N_CONCAT:
        return evaluate_concat(j, n);
    case N_COMPARE:
        return evaluate_compare(j, n);
    case N_COND:
        return evaluate_cond(j, n);
    default:
        return evaluate_operator(j, n);
    }
}

static jvalue evaluate(jinja *j, const jnode *n) {
    jinja_charge(j, 1);
    if (j->failed) return jinja_none();
    if (n->kind == N_CONST) return n->constant;
    if (n->kind == N_NAME) return read_variable(j, n);
    if (n->kind == N_CAPTURED) return j->captured;
    if (!enter_depth(j)) return jinja_none();
    const jvalue v = evaluate_inside(j, n);
    j->depth--;
    return v;
}

/* ---- loops --------------------------------------------------------------------------------- */

/* The next element that the loop's test lets pass. */
static bool pull_element(jinja *j, jloop *loop, jvalue *v) {
    jscope *outer = j->scope;
    bool found = false;
    while (!found && jinja_next(j, &loop->walk, v)) {
        found = true;
        if (loop->node->c == NULL) break;
        j->scope = new_scope(j, loop->scope);
        if (j->scope != NULL) {
            assign_target(j, j->scope, loop->node->a, *v);
            found = jinja_true(evaluate(j, loop->node->c));
        }
        j->scope = outer;
    }
    return found && !j->failed;
}

/* What comes after the current element, without passing it. */
static bool peek_element(jinja *j, jloop *loop) {
    if (loop->after.kind == V_ABSENT && !pull_element(j, loop, &loop->after)) {
        loop->after = jinja_absent();
    }
    return loop->after.kind != V_ABSENT;
}

static int64_t length_of_loop(jinja *j, jloop *loop) {
    size_t n;
    if (loop->length >= 0) return loop->length;
    if (loop->sized && jinja_length(loop->walk.over, &n)) {
        loop->length = (int64_t)n;
        return loop->length;
    }
    /* All that is left is taken now, and walked from a list. */
    jitems rest = { 0 };
    jvalue v;
    while (pull_element(j, loop, &v))
        jinja_push(j, &rest, v);
    loop->walk = jinja_walk(j, jinja_iter(j, &rest));
    loop->length = (int64_t)rest.n + loop->index0 + 1 + (loop->after.kind != V_ABSENT);
    return loop->length;
}

static jvalue loop_cycle(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    if (call->n == 0) return jinja_wrong(j, "cycle without elements");
    return call->at[(size_t)self.loop->index0 % call->n];
}

static jvalue loop_changed(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    jitems items = { 0 };
    for (size_t i = 0; i < call->n; i++)
        jinja_push(j, &items, call->at[i]);
    const jvalue now = jinja_list(j, &items, V_TUPLE);
    if (jinja_equal(j, self.loop->changed, now)) return jinja_bool(false);
    self.loop->changed = now;
    return jinja_bool(true);
}

bool jinja_loop_attribute(jinja *j, jloop *loop, str name, jvalue *found) {
    static const jentry methods[] = { { "cycle", loop_cycle, NULL },
                                      { "changed", loop_changed, NULL } };
    const jentry *entry = jinja_find_entry(methods, ARRAY_LEN(methods), name);
    if (entry != NULL) {
        jmethod *method = jinja_take(j, 1, sizeof(jmethod));
        if (method == NULL) return false;
        *method = (jmethod){ .entry = entry, .self = { .kind = V_LOOP, .loop = loop } };
        *found = (jvalue){ .kind = V_METHOD, .method = method };
    } else if (str_is(name, "first")) {
        *found = jinja_bool(loop->index0 == 0);
    } else if (str_is(name, "last")) {
        *found = jinja_bool(!peek_element(j, loop));
    } else if (str_is(name, "index")) {
        *found = jinja_int(loop->index0 + 1);
    } else if (str_is(name, "index0")) {
        *found = jinja_int(loop->index0);
    } else if (str_is(name, "length")) {
        *found = jinja_int(length_of_loop(j, loop));
    } else if (str_is(name, "revindex")) {
        *found = jinja_int(length_of_loop(j, loop) - loop->index0);
    } else if (str_is(name, "revindex0")) {
        *found = jinja_int(length_of_loop(j, loop) - loop->index0 - 1);
    } else if (str_is(name, "depth")) {
        *found = jinja_int(loop->depth0 + 1);
    } else if (str_is(name, "depth0")) {
        *found = jinja_int(loop->depth0);
    } else if (str_is(name, "previtem")) {
        *found = loop->index0 > 0 ? loop->previous
                                  : jinja_undefined(j, "there is no previous item", NULL, NULL);
    } else if (str_is(name, "nextitem")) {
        *found = peek_element(j, loop) ? loop->after
                                       : jinja_undefined(j, "there is no next item", NULL, NULL);
    } else {
        return false;
    }
    return true;
}

static flow run_loop(jinja *j, const jnode *n, jvalue over, jscope *around, int64_t depth0) {
    jloop *loop = jinja_take(j, 1, sizeof(jloop));
    jscope *outer = j->scope, *scope = NULL;
    bool completed = false; /* a round that ran to its end, which is what else asks for */
    flow end = FLOW_ON;
    if (loop == NULL) return FLOW_ON;
    *loop = (jloop){ .node = n,
                     .scope = around,
                     .index0 = -1,
                     .depth0 = depth0,
                     .length = -1,
                     .sized = n->c == NULL && over.kind != V_ITER };
    loop->walk = jinja_walk(j, over);
    while (!j->failed) {
        jvalue v = loop->after;
        if (v.kind == V_ABSENT && !pull_element(j, loop, &v)) break;
        loop->after = jinja_absent();
        loop->previous = loop->current;
        loop->current = v;
        loop->index0++;
        if (scope == NULL || scope->kept) scope = new_scope(j, around);
        if (scope == NULL) break;
        scope->n = 0;
        jinja_set(j, scope, SYMBOL_LOOP, (jvalue){ .kind = V_LOOP, .loop = loop });
        assign_target(j, scope, n->a, v);
        j->scope = scope;
        const flow round = j->failed ? FLOW_BREAK : run_body(j, &n->list);
        j->scope = outer;
        if (round == FLOW_BREAK) break;
        completed |= round == FLOW_ON;
    }
    if (!completed && !j->failed && n->more.n > 0) {
        j->scope = new_scope(j, around);
        if (j->scope != NULL) end = run_body(j, &n->more);
        j->scope = outer;
    }
    return end;
}

static jvalue recurse_loop(jinja *j, jloop *loop, const jcall *call) {
    if (!loop->node->flag) return jinja_wrong(j, "loop() needs {%% for ... recursive %%}");
    if (call->n != 1 || call->n_keys > 0) return jinja_wrong(j, "loop() takes one argument");
    jout out = { 0 };
    jout *outer = j->out;
    if (!enter_depth(j)) return jinja_none();
    j->out = &out;
    run_loop(j, loop->node, call->at[0], loop->scope, loop->depth0 + 1);
    j->out = outer;
    j->depth--;
    return jinja_finish(j, &out);
}

/* ---- statements ---------------------------------------------------------------------------- */

static flow run_if(jinja *j, const jnode *n) {
    for (; n != NULL; n = n->c) {
        if (n->a != NULL && !jinja_true(evaluate(j, n->a))) continue;
        return j->failed ? FLOW_ON : run_body(j, &n->list);
    }
    return FLOW_ON;
}

/* The text of a block through its filters. */
static jvalue filter_captured(jinja *j, const jnode *filters, jvalue text) {
    const jvalue outer = j->captured;
    j->captured = text;
    const jvalue v = evaluate(j, filters);
    j->captured = outer;
    return v;
}

/* What a filter or call block makes must be a text; only {{ }} makes one of anything. */
static void put_block(jinja *j, jvalue v) {
    if (v.kind != V_TEXT) jinja_wrong(j, "a block makes a %s, not a text", jinja_type(v));
    jinja_put_value(j, j->out, v);
}

static flow run_capture(jinja *j, const jnode *n) {
    flow end;
    const jvalue text = capture_body(j, &n->list, j->scope, &end);
    if (end != FLOW_ON) return end; /* a break leaves the block without its effect */
    const jvalue v = filter_captured(j, n->b, text);
    if (n->kind == N_CAPTURE) {
        assign_target(j, j->scope, n->a, v);
    } else {
        put_block(j, v);
    }
    return FLOW_ON;
}

static void run_call_block(jinja *j, const jnode *n) {
    const jvalue caller = make_macro(j, n);
    if (!enter_depth(j)) return;
    put_block(j, evaluate_call(j, n->b, &caller));
    j->depth--;
}

static flow run_with(jinja *j, const jnode *n) {
    jscope *outer = j->scope, *scope = new_scope(j, outer);
    if (scope == NULL) return FLOW_ON;
    for (size_t i = 0; i < n->list.n && !j->failed; i++) {
        assign_target(j, scope, n->list.at[i], evaluate(j, n->more.at[i]));
    }
    j->scope = scope;
    const flow end = run_body(j, &n->a->list);
    j->scope = outer;
    return end;
}

static flow run_statement(jinja *j, const jnode *n) {
    flow end;
    switch ((jnode_kind)n->kind) {
    case N_FOR:
        return run_loop(j, n, evaluate(j, n->b), j->scope, 0);
    case N_IF:
        return run_if(j, n);
    case N_SET:
        assign_target(j, j->scope, n->a, evaluate(j, n->b));
        return FLOW_ON;
    case N_CAPTURE:
    case N_FILTER_BLOCK:
        return run_capture(j, n);
    case N_MACRO:
        jinja_set(j, j->scope, n->symbol, make_macro(j, n));
        return FLOW_ON;
    case N_CALL_BLOCK:
        run_call_block(j, n);
        return FLOW_ON;
    case N_WITH:
        return run_with(j, n);
    case N_GENERATION:
        jinja_put_value(j, j->out, capture_body(j, &n->a->list, j->scope, &end));
        return FLOW_ON;
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default: /* N_OUTPUT */
        for (size_t i = 0; i < n->list.n && !j->failed; i++) {
            const jvalue v = evaluate(j, n->list.at[i]);
            jinja_put_value(j, j->out, v);
        }
        return FLOW_ON;
    }
}

static flow run_body(jinja *j, const jnodes *body) {
    flow end = FLOW_ON;
    if (!enter_depth(j)) return FLOW_BREAK;
    for (size_t i = 0; i < body->n && end == FLOW_ON && !j->failed; i++) {
        jinja_charge(j, 1);
        if (j->failed) break;
        j->line = body->at[i]->line;
        end = run_statement(j, body->at[i]);
    }
    j->depth--;
    return end;
}

void jinja_run(jinja *j, const jnodes *body) {
    run_body(j, body);
}
